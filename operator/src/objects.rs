//! Looks up what a ScaledObject refers to: authentications from the watches' stores, everything else from the API server,
//! read when it is needed and not kept.

use std::collections::BTreeMap;
use std::sync::Arc;

use dormouse_api::{ClusterTriggerAuthentication, TriggerAuthentication, TriggerAuthenticationSpec};
use dormouse_kubernetes::{CallError, Calls, ObjectKey, Priority, Watched};
use dormouse_scalers::Sensitive;
use dormouse_translate::parameters::pod_spec_of;
use dormouse_translate::{Objects, ObjectsError};
use futures::FutureExt;
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::{ConfigMap, PodSpec, Secret, ServiceAccount};
use kube::{Api, Client};

use crate::target::ScaleTarget;

/// Answers for one ScaledObject.
pub struct ClusterObjects<'a> {
    /// Client and its calls.
    pub client: &'a Client,
    /// Bounded calls.
    pub calls: &'a Calls,
    /// TriggerAuthentications of the watched namespaces.
    pub trigger_authentications: &'a Watched<TriggerAuthentication>,
    /// ClusterTriggerAuthentications.
    pub cluster_trigger_authentications: &'a Watched<ClusterTriggerAuthentication>,
    /// The scale target.
    pub target: &'a ScaleTarget,
}

/// Not there, and not to be read, are both "none": the operator's rights are part of what the user set up. Everything else
/// means that nobody knows.
fn found<T>(
    what: impl FnOnce() -> String,
    answer: Result<Option<T>, CallError>,
) -> Result<Option<T>, ObjectsError> {
    match answer {
        Ok(found) => Ok(found),
        Err(CallError::Forbidden { .. } | CallError::NotFound { .. }) => Ok(None),
        Err(error) => Err(ObjectsError {
            what: what(),
            message: error.to_string(),
        }),
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
        async move {
            let api: Api<Secret> = Api::namespaced(self.client.clone(), namespace);
            let answer = self
                .calls
                .unary(Priority::Normal, "read a Secret", api.get_opt(name))
                .await;
            let secret = found(|| format!("Secret {namespace}/{name}"), answer)?;
            Ok(secret.map(|secret| {
                let values = secret.data.unwrap_or_default().into_iter();
                values
                    .filter_map(|(key, value)| Some((key, Sensitive::new(String::from_utf8(value.0).ok()?))))
                    .collect()
            }))
        }
        .boxed()
    }

    fn config_map<'a>(
        &'a self,
        namespace: &'a str,
        name: &'a str,
    ) -> BoxFuture<'a, Result<Option<BTreeMap<String, String>>, ObjectsError>> {
        async move {
            let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), namespace);
            let answer = self
                .calls
                .unary(Priority::Normal, "read a ConfigMap", api.get_opt(name))
                .await;
            Ok(found(|| format!("ConfigMap {namespace}/{name}"), answer)?
                .map(|map| map.data.unwrap_or_default()))
        }
        .boxed()
    }

    fn service_account_annotations<'a>(
        &'a self,
        namespace: &'a str,
        name: &'a str,
    ) -> BoxFuture<'a, Result<Option<BTreeMap<String, String>>, ObjectsError>> {
        async move {
            let api: Api<ServiceAccount> = Api::namespaced(self.client.clone(), namespace);
            let answer = self
                .calls
                .unary(Priority::Normal, "read a ServiceAccount", api.get_opt(name))
                .await;
            let account = found(|| format!("ServiceAccount {namespace}/{name}"), answer)?;
            Ok(account.map(|account| account.metadata.annotations.unwrap_or_default()))
        }
        .boxed()
    }

    fn pod_spec(&self) -> BoxFuture<'_, Result<Option<PodSpec>, ObjectsError>> {
        async {
            let object = found(|| "the scale target".to_owned(), self.target.object().await)?;
            Ok(object
                .and_then(|object| pod_spec_of(&serde_json::json!({ "spec": object.data.get("spec")? }))))
        }
        .boxed()
    }
}
