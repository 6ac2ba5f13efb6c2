//! What the routes have to do, for whoever reports it.

use std::collections::BTreeSet;
use std::sync::Arc;

use dormouse_core::endpoints::PodKey;
use dormouse_core::routes::RouteKey;

use crate::shared::Shared;

/// What one route has to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteLoad {
    /// The route.
    pub route: RouteKey,
    /// Requests that wait for an endpoint. A client that got a placeholder counts as one for a while.
    pub pending: u32,
    /// Requests that were sent to an endpoint, until their response's body has ended.
    pub in_flight: u32,
    /// Requests that came since the proxy started. Never falls.
    pub started: u64,
}

/// Shows what all routes have to do; a cheap handle.
#[derive(Clone, Debug)]
pub struct Demand {
    shared: Arc<Shared>,
}

impl Demand {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Every route with what it has to do at this moment, in the order of their keys.
    #[must_use]
    pub fn snapshot(&self) -> Vec<RouteLoad> {
        let routes = self.shared.routes();
        let loads = routes.iter().map(|route| {
            let load = route.load();
            RouteLoad {
                route: route.state().key().clone(),
                pending: load.pending().max(u32::from(load.has_placeholder())),
                in_flight: load.in_flight(),
                started: load.started(),
            }
        });
        loads.collect()
    }

    /// Resolves after a route's first request began to wait, also when that was before the call. For one caller at a time.
    pub async fn edge(&self) {
        self.shared.edges.notified().await;
    }

    /// The pods that requests wait for, and that a probe could find serving before their slices say so: those whose specs
    /// are wanted ([`Proxy::set_probe`](crate::Proxy::set_probe)).
    #[must_use]
    pub fn pods_wanted(&self) -> BTreeSet<PodKey> {
        self.shared.pods_to_probe()
    }

    /// Resolves after there may be more pods that are wanted, also when that was before the call. For one caller at a time.
    pub async fn more_pods_wanted(&self) {
        self.shared.wants.notified().await;
    }
}
