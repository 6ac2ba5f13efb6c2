//! What the routes have to do, for whoever reports it.

use std::collections::BTreeSet;
use std::sync::Arc;

use dormouse_core::endpoints::PodKey;
use dormouse_core::routes::RouteKey;

use crate::route::Route;
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

impl RouteLoad {
    fn of(route: &Route) -> Self {
        let load = route.load();
        // A request that goes from one counter to the other meanwhile is in one of these: it is counted anew before it is
        // counted no longer. One that was in none would not be looked for again.
        let (before, in_flight, after) = (load.pending(), load.in_flight(), load.pending());
        Self {
            route: route.state().key().clone(),
            pending: before.max(after).max(u32::from(load.has_placeholder())),
            in_flight,
            started: load.started(),
        }
    }

    /// Whether there is something to do.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.pending > 0 || self.in_flight > 0
    }
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
        routes.iter().map(|route| RouteLoad::of(route)).collect()
    }

    /// What `those` routes have to do at this moment, and all that had something to do since the last call, in the order of
    /// their keys; routes that have gone are left out. For one caller.
    #[must_use]
    pub fn changes(&self, those: impl IntoIterator<Item = RouteKey>) -> Vec<RouteLoad> {
        let mut keys: BTreeSet<RouteKey> = those.into_iter().collect();
        keys.extend(self.shared.busy.take());
        let routes = self.shared.routes_of(keys);
        routes.iter().map(|route| RouteLoad::of(route)).collect()
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
