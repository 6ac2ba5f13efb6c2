//! Looks up what a ScaledObject refers to: authentications from the watches' stores, everything else from what is kept of
//! [`crate::references`].

use std::collections::BTreeMap;
use std::sync::Arc;

use dormouse_api::{ClusterTriggerAuthentication, TriggerAuthentication, TriggerAuthenticationSpec};
use dormouse_kubernetes::{ObjectKey, Reference, Watched};
use dormouse_scalers::Sensitive;
use dormouse_translate::{Objects, ObjectsError};
use futures::FutureExt;
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::PodSpec;

use crate::references::{Content, Lookup};

/// Answers for one ScaledObject.
pub struct ClusterObjects<'a> {
    /// TriggerAuthentications of the watched namespaces.
    pub trigger_authentications: &'a Watched<TriggerAuthentication>,
    /// ClusterTriggerAuthentications.
    pub cluster_trigger_authentications: &'a Watched<ClusterTriggerAuthentication>,
    /// Everything else.
    pub lookup: Lookup<'a>,
    /// The scale target.
    pub target: Reference,
}

impl ClusterObjects<'_> {
    async fn content<T>(
        &self,
        reference: Reference,
        part: impl FnOnce(&Content) -> Option<T>,
    ) -> Result<Option<T>, ObjectsError> {
        let what = reference.to_string();
        let content = self.lookup.get(reference).await.map_err(|error| ObjectsError {
            what,
            message: error.to_string(),
        })?;
        Ok(content.and_then(|content| part(&content)))
    }
}

impl Objects for ClusterObjects<'_> {
    fn trigger_authentication<'a>(
        &'a self,
        namespace: &'a str,
        name: &'a str,
    ) -> BoxFuture<'a, Result<Option<Arc<TriggerAuthenticationSpec>>, ObjectsError>> {
        let found = self.trigger_authentications.get(&ObjectKey::new(namespace, name));
        async move { Ok(found.map(|object| Arc::new(object.spec.clone()))) }.boxed()
    }

    fn cluster_trigger_authentication<'a>(
        &'a self,
        name: &'a str,
    ) -> BoxFuture<'a, Result<Option<Arc<TriggerAuthenticationSpec>>, ObjectsError>> {
        let found = self
            .cluster_trigger_authentications
            .get(&ObjectKey::new("", name));
        async move { Ok(found.map(|object| Arc::new(object.spec.0.clone()))) }.boxed()
    }

    fn cluster_trigger_authentication_annotations<'a>(
        &'a self,
        name: &'a str,
    ) -> BoxFuture<'a, Result<Option<BTreeMap<String, String>>, ObjectsError>> {
        let found = self
            .cluster_trigger_authentications
            .get(&ObjectKey::new("", name));
        async move { Ok(found.map(|object| object.metadata.annotations.clone().unwrap_or_default())) }.boxed()
    }

    fn secret<'a>(
        &'a self,
        namespace: &'a str,
        name: &'a str,
    ) -> BoxFuture<'a, Result<Option<BTreeMap<String, Sensitive>>, ObjectsError>> {
        let values = |content: &Content| match content {
            Content::Secret(values) => Some(values.clone()),
            _ => None,
        };
        self.content(self.lookup.secret(namespace, name), values).boxed()
    }

    fn config_map<'a>(
        &'a self,
        namespace: &'a str,
        name: &'a str,
    ) -> BoxFuture<'a, Result<Option<BTreeMap<String, String>>, ObjectsError>> {
        let values = |content: &Content| match content {
            Content::ConfigMap(values) => Some(values.clone()),
            _ => None,
        };
        self.content(self.lookup.config_map(namespace, name), values)
            .boxed()
    }

    fn service_account_annotations<'a>(
        &'a self,
        namespace: &'a str,
        name: &'a str,
    ) -> BoxFuture<'a, Result<Option<BTreeMap<String, String>>, ObjectsError>> {
        let annotations = |content: &Content| match content {
            Content::Annotations(annotations) => Some(annotations.clone()),
            _ => None,
        };
        self.content(self.lookup.service_account(namespace, name), annotations)
            .boxed()
    }

    fn pod_spec(&self) -> BoxFuture<'_, Result<Option<PodSpec>, ObjectsError>> {
        let template = |content: &Content| match content {
            Content::Template(pod) => pod.as_deref().cloned(),
            _ => None,
        };
        self.content(self.target.clone(), template).boxed()
    }
}
