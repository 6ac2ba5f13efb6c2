//! ConfigMaps that routes answer with. Only labelled ones are read: whoever may write a route must not read any ConfigMap
//! of its namespace by it.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use dormouse_kubernetes::slim::lean;
use dormouse_kubernetes::{Change, Watch};
use dormouse_proxy::Proxy;
use k8s_openapi::api::core::v1 as full;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::{ByteString, NamespaceResourceScope};
use kube::Resource;
use serde::Deserialize;

/// The label that a ConfigMap needs, as the add-on has it.
pub(crate) const SELECTOR: &str = "http.keda.sh/response-body=true";

/// A ConfigMap.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ConfigMap {
    /// Its name and namespace.
    #[serde(default, deserialize_with = "lean")]
    pub(crate) metadata: ObjectMeta,
    /// Texts.
    #[serde(default)]
    pub(crate) data: BTreeMap<String, String>,
    /// Anything else.
    #[serde(default)]
    pub(crate) binary_data: BTreeMap<String, ByteString>,
}

impl Resource for ConfigMap {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        full::ConfigMap::kind(&())
    }

    fn group((): &()) -> Cow<'_, str> {
        full::ConfigMap::group(&())
    }

    fn version((): &()) -> Cow<'_, str> {
        full::ConfigMap::version(&())
    }

    fn plural((): &()) -> Cow<'_, str> {
        full::ConfigMap::plural(&())
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

/// Has the data plane know what is in them.
pub(crate) fn follow(watch: Watch<ConfigMap>, proxy: Arc<Proxy>) -> Watch<ConfigMap> {
    watch.labels(SELECTOR).on_change(move |key, change| {
        let values = match change {
            Change::Applied(map) => Some(values(map)),
            Change::Deleted(_) => None,
        };
        proxy.set_page(&key.namespace, &key.name, values);
    })
}

fn values(map: &ConfigMap) -> BTreeMap<String, Bytes> {
    let texts = map
        .data
        .iter()
        .map(|(key, text)| (key.clone(), Bytes::from(text.clone())));
    let rest = map
        .binary_data
        .iter()
        .map(|(key, bytes)| (key.clone(), Bytes::from(bytes.0.clone())));
    texts.chain(rest).collect()
}
