//! What must be looked up to resolve a ScaledObject's references.

use std::collections::BTreeMap;
use std::sync::Arc;

use dormouse_api::TriggerAuthenticationSpec;
use dormouse_scalers::Sensitive;
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::PodSpec;

/// The objects a ScaledObject may refer to. `Ok(None)` means that there is none of that name, or none that may be read; an
/// error means that nobody knows, and nothing may be changed because of it.
pub trait Objects: Send + Sync {
    /// A TriggerAuthentication.
    fn trigger_authentication<'a>(
        &'a self,
        namespace: &'a str,
        name: &'a str,
    ) -> BoxFuture<'a, Result<Option<Arc<TriggerAuthenticationSpec>>, ObjectsError>>;

    /// A ClusterTriggerAuthentication.
    fn cluster_trigger_authentication<'a>(
        &'a self,
        name: &'a str,
    ) -> BoxFuture<'a, Result<Option<Arc<TriggerAuthenticationSpec>>, ObjectsError>>;

    /// The annotations of a ClusterTriggerAuthentication.
    fn cluster_trigger_authentication_annotations<'a>(
        &'a self,
        name: &'a str,
    ) -> BoxFuture<'a, Result<Option<BTreeMap<String, String>>, ObjectsError>>;

    /// The values of a Secret; those that are not UTF-8 are left out.
    fn secret<'a>(
        &'a self,
        namespace: &'a str,
        name: &'a str,
    ) -> BoxFuture<'a, Result<Option<BTreeMap<String, Sensitive>>, ObjectsError>>;

    /// The values of a ConfigMap.
    fn config_map<'a>(
        &'a self,
        namespace: &'a str,
        name: &'a str,
    ) -> BoxFuture<'a, Result<Option<BTreeMap<String, String>>, ObjectsError>>;

    /// The annotations of a ServiceAccount.
    fn service_account_annotations<'a>(
        &'a self,
        namespace: &'a str,
        name: &'a str,
    ) -> BoxFuture<'a, Result<Option<BTreeMap<String, String>>, ObjectsError>>;

    /// The pod template of the scale target, where it has one.
    fn pod_spec(&self) -> BoxFuture<'_, Result<Option<PodSpec>, ObjectsError>>;
}

/// A look-up failed: not "there is none", but "nobody knows".
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unable to read {what}: {message}")]
pub struct ObjectsError {
    /// What was looked for, such as `Secret shop/queue-keys`.
    pub what: String,
    /// Why it failed.
    pub message: String,
}
