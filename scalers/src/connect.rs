//! What a scaler is built from.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;

use crate::clients::{Clients, HostList};
use crate::demand_source::DemandSource;
use crate::error::ReadError;
use crate::sensitive::Sensitive;

/// One trigger with everything it refers to resolved.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TriggerParams {
    /// `type` of the trigger.
    pub trigger_type: String,
    /// `metadata` of the trigger.
    pub metadata: BTreeMap<String, String>,
    /// Environment of the target's container, as far as `<parameter>FromEnv` keys of the metadata name it.
    pub env: BTreeMap<String, Sensitive>,
    /// What its authentication gave.
    pub auth: AuthParams,
}

/// What a (Cluster)TriggerAuthentication resolved to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuthParams {
    /// Parameters by name. Missing secrets and keys are simply not here.
    pub params: BTreeMap<String, Sensitive>,
    /// The identity to assume, if the authentication names one.
    pub pod_identity: Option<PodIdentity>,
    /// The hosts that may see these parameters; `None` for all. Others are refused when the scaler is built.
    pub allowed_hosts: Option<HostList>,
}

/// `podIdentity` of an authentication.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodIdentity {
    /// `provider`, such as `aws`.
    pub provider: String,
    /// `roleArn`.
    pub role_arn: Option<String>,
    /// `externalID`.
    pub external_id: Option<String>,
}

/// What the process around a scaler gives it.
pub struct Connect {
    /// Namespace of the ScaledObject.
    pub namespace: String,
    /// Deadline of a read whose trigger sets none of its own (`KEDA_HTTP_DEFAULT_TIMEOUT`).
    pub default_deadline: Duration,
    /// Clients shared by all triggers that talk to the same server as the same identity.
    pub clients: Arc<Clients>,
    /// Addresses behind a Service, for `aggregateFromKubeServiceEndpoints`; `None` where there is no cluster.
    pub endpoints: Option<Arc<dyn ServiceEndpoints>>,
    /// Counts pods, for `kubernetes-workload`; `None` where there is no cluster.
    pub pods: Option<Arc<dyn CountPods>>,
    /// The demand for HTTP routes, for `external-push`; `None` where no interceptor reports.
    pub demand: Option<Arc<dyn DemandSource>>,
    /// The trigger's own parameters.
    pub params: TriggerParams,
}

impl Connect {
    /// Whether the trigger's credentials may go to `host`; every scaler asks for each host that its parameters name.
    ///
    /// # Errors
    /// One sentence that says who may see them.
    pub fn check_host(&self, host: &str) -> Result<(), String> {
        match &self.params.auth.allowed_hosts {
            Some(allowed) if !allowed.contains(host) => Err(format!(
                "host {host:?} may not see the credentials of this trigger's authentication: its annotation dormouse.dev/allowed-hosts does not list it"
            )),
            _ => Ok(()),
        }
    }
}

/// Finds the ready addresses behind a Service.
pub trait ServiceEndpoints: Send + Sync {
    /// Ready addresses of `service`, without duplicates, each with the port numbers its slice names.
    fn ready<'a>(
        &'a self,
        namespace: &'a str,
        service: &'a str,
    ) -> BoxFuture<'a, Result<Vec<ReadyEndpoint>, ReadError>>;
}

/// Counts the pods of a namespace.
pub trait CountPods: Send + Sync {
    /// How many pods of `namespace` match the label selector and have not ended (their phase is neither `Succeeded` nor
    /// `Failed`), or on how many nodes such pods are.
    fn count<'a>(
        &'a self,
        namespace: &'a str,
        selector: &'a str,
        counted: CountedBy,
    ) -> BoxFuture<'a, Result<u32, ReadError>>;
}

/// What [`CountPods::count`] counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CountedBy {
    /// Pods.
    Pod,
    /// Nodes with at least one such pod.
    Node,
}

/// A ready address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadyEndpoint {
    /// IP address.
    pub address: String,
    /// Ports of its slice.
    pub ports: Vec<u16>,
}
