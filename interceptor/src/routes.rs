//! From the InterceptorRoutes of the cluster to the data plane's table, rebuilt whole whenever one of them changes.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use dormouse_api::InterceptorRoute;
use dormouse_core::routes::settings::ServicePort;
use dormouse_core::routes::{BuildOptions, Candidate, RouteSettings};
use dormouse_kubernetes::{ObjectKey, Watched};
use dormouse_proxy::Proxy;
use dormouse_translate::route;
use tokio::sync::Notify;
use tracing::{info, warn};

use crate::backends::Backends;

/// Keeps the table of routes current.
pub(crate) struct Routes {
    pub(crate) watched: Watched<InterceptorRoute>,
    pub(crate) changed: Arc<Notify>,
    pub(crate) proxy: Arc<Proxy>,
    pub(crate) backends: Backends,
    pub(crate) options: BuildOptions,
}

impl Routes {
    /// Rebuilds the table after each change, for as long as it runs. Changes that come meanwhile make one more rebuild.
    pub(crate) async fn follow(self) {
        let mut told = BTreeMap::new();
        self.watched.synced().await;
        loop {
            self.rebuild(&mut told);
            self.changed.notified().await;
        }
    }

    /// Builds the table once; `told` is what was last said about each route that is refused.
    fn rebuild(&self, told: &mut BTreeMap<ObjectKey, String>) {
        let mut candidates = Vec::new();
        let mut refused = BTreeMap::new();
        for object in self.watched.list() {
            match route(&object) {
                Ok(candidate) => candidates.push(candidate),
                // One bad route takes nothing from the others. The operator tells its owner; this is for the log.
                Err(refusal) => {
                    refused.insert(ObjectKey::of(&*object), refusal.to_string());
                }
            }
        }
        for (key, refusal) in &refused {
            if told.get(key) != Some(refusal) {
                warn!(route = %key, error = %refusal, "route is not in order and gets no requests");
            }
        }
        *told = refused;
        self.backends.want(wanted(&candidates));
        let count = candidates.len();
        let conflicts = self.proxy.set_routes(candidates, self.options);
        info!(
            routes = count,
            conflicts = conflicts.len(),
            refused = told.len(),
            "routes changed"
        );
    }
}

/// Every Service port that one of these may send requests to.
fn wanted(candidates: &[Candidate<Arc<RouteSettings>>]) -> HashSet<ServicePort> {
    let of = |candidate: &Candidate<Arc<RouteSettings>>| {
        let settings = &candidate.value;
        let fallback = settings.cold_start.fallback.clone();
        [Some(settings.target.clone()), fallback].into_iter().flatten()
    };
    candidates.iter().flat_map(of).collect()
}
