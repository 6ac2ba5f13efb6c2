//! What a reconcile may touch.

use std::sync::Arc;
use std::time::Duration;

use dormouse_api::{ClusterTriggerAuthentication, ScaledObject, TriggerAuthentication};
use dormouse_engine::{Engine, Leadership};
use dormouse_kubernetes::discovery::Discovery;
use dormouse_kubernetes::{Calls, Watched};
use dormouse_translate::parameters::ResolverSettings;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use kube::Client;

use crate::changes::{Generations, Seen};
use crate::events::Events;
use crate::metrics::OperatorMetrics;
use crate::neighbours::Neighbours;
use crate::references::References;
use crate::routes::RouteStores;
use crate::status_book::StatusBook;

/// Everything the operator's parts share.
pub struct Context {
    /// Client of the API server.
    pub client: Client,
    /// Its bounded calls.
    pub calls: Calls,
    /// Kinds and their resources.
    pub discovery: Discovery,
    /// The running objects.
    pub engine: Engine,
    /// Who may write.
    pub leadership: Arc<dyn Leadership>,
    /// Statuses.
    pub status: StatusBook,
    /// Events.
    pub events: Events,
    /// Prometheus metrics.
    pub metrics: Arc<OperatorMetrics>,
    /// What the watches show.
    pub stores: Stores,
    /// What the objects refer to.
    pub references: References,
    /// How references are resolved.
    pub resolver: ResolverSettings,
    /// Has an object looked at again after some time, such as one that is judged by what has changed.
    pub look_again: LookAgain,
    /// Which generation of each authentication was looked at.
    pub authentications: Generations,
}

/// What the watches show.
#[derive(Clone)]
pub struct Stores {
    /// ScaledObjects.
    pub scaled_objects: Watched<ScaledObject>,
    /// HPAs of the watched namespaces.
    pub hpas: Watched<HorizontalPodAutoscaler>,
    /// InterceptorRoutes and what they name, where interceptors report to this process.
    pub routes: Option<RouteStores>,
    /// TriggerAuthentications.
    pub trigger_authentications: Watched<TriggerAuthentication>,
    /// ClusterTriggerAuthentications.
    pub cluster_trigger_authentications: Watched<ClusterTriggerAuthentication>,
    /// How each ScaledObject was when it was last looked at.
    pub seen_objects: Seen,
    /// How each HPA was when its object was last looked at for it.
    pub seen_hpas: Seen,
    /// Which of them have to do with which target.
    pub neighbours: Neighbours,
}

/// Version of this operator, as labels and metrics show it.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The key of an object in the watches' stores.
#[must_use]
pub fn watch_key(key: &dormouse_engine::ObjectKey) -> dormouse_kubernetes::ObjectKey {
    dormouse_kubernetes::ObjectKey::new(key.namespace.as_str(), key.name.as_str())
}

/// Has the object of this key looked at again after this time.
pub type LookAgain = Arc<dyn Fn(dormouse_engine::ObjectKey, Duration) + Send + Sync>;

/// The key of an object in the engine.
#[must_use]
pub fn engine_key(key: &dormouse_kubernetes::ObjectKey) -> dormouse_engine::ObjectKey {
    dormouse_engine::ObjectKey::new(&*key.namespace, &*key.name)
}
