//! ConfigMaps that routes answer with. Only labelled ones are read: whoever may write a route must not read any ConfigMap
//! of its namespace by it.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use dormouse_kubernetes::slim::or_default;
use dormouse_kubernetes::{Change, Watch};
use dormouse_proxy::Proxy;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1 as full;
use serde::Deserialize;

/// The label that a ConfigMap needs, as the add-on has it.
pub(crate) const SELECTOR: &str = "http.keda.sh/response-body=true";

/// A ConfigMap.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ConfigMap {
    /// Texts.
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) data: BTreeMap<String, String>,
    /// Anything else.
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) binary_data: BTreeMap<String, ByteString>,
}

/// Has the data plane know what is in them.
pub(crate) fn follow(
    watch: Watch<full::ConfigMap, ConfigMap>,
    proxy: Arc<Proxy>,
) -> Watch<full::ConfigMap, ConfigMap> {
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn texts_and_bytes_are_taken_as_they_are() {
        let map = json!({
            "metadata": {"name": "pages"}, "data": {"sorry.html": "<p>Sorry</p>"}, "binaryData": {"dot.gif": "R0lGODlhAQ=="},
        });
        let values = values(&serde_json::from_value(map).unwrap());
        let values: Vec<_> = values.iter().map(|(key, value)| (&**key, &**value)).collect();
        assert_eq!(
            values,
            [("dot.gif", &b"GIF89a\x01"[..]), ("sorry.html", b"<p>Sorry</p>")]
        );
        let empty = json!({"metadata": {"name": "pages"}, "data": null});
        assert!(super::values(&serde_json::from_value(empty).unwrap()).is_empty());
    }
}
