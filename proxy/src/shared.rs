//! What the data threads and the control side have in common.

use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::hash::{Hash, Hasher};
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use arc_swap::ArcSwap;
use dormouse_core::endpoints::{Endpoint, PodKey};
use dormouse_core::routes::settings::{RouteSettings, ServicePort};
use dormouse_core::routes::{BuildOptions, Candidate, Conflict, RouteKey};
use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};

use crate::answers::Pages;
use crate::busy::Busy;
use crate::config::Config;
use crate::peer::{Location, Peer};
use crate::probe::Plan;
use crate::route::{Route, RouteNumber, RouteState, Table};
use crate::stats::{RequestStats, Tally, Totals};
use crate::upstream::Upstream;

/// Snapshots and counters that requests use, and the registry that they do not.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) table: ArcSwap<Table>,
    pub(crate) pages: ArcSwap<Pages>,
    /// Requests of all routes that wait for an endpoint.
    pub(crate) pending: AtomicU32,
    /// What each data thread has counted, and what all have.
    pub(crate) tallies: Box<[Arc<Tally>]>,
    totals: Totals,
    /// Which routes have something to do.
    pub(crate) busy: Busy,
    /// Notified when a route's first request begins to wait.
    pub(crate) edges: Notify,
    /// Notified when requests wait for pods that may be probed.
    pub(crate) wants: Notify,
    /// Changes whenever an endpoint may have become one that gets no more requests.
    pub(crate) retirements: watch::Sender<()>,
    /// Where probes run: not on the threads that carry requests.
    pub(crate) control: Handle,
    /// Locked when routes or slices change, never on a request's way.
    registry: Mutex<Registry>,
}

#[derive(Debug, Default)]
struct Registry {
    routes: BTreeMap<RouteKey, Arc<Route>>,
    /// Routes that went while requests of theirs were under way: those count again if the route comes back.
    departed: HashMap<RouteKey, Weak<RouteState>>,
    upstreams: HashMap<ServicePort, Arc<Upstream>>,
    peers: HashSet<ByLocation>,
    /// At how many entries those of peers that are gone are cleared away.
    sweep_peers_at: usize,
    plans: HashMap<PodKey, Arc<Plan>>,
}

/// A peer, found by where it is.
#[derive(Debug)]
struct ByLocation(Arc<Peer>);

impl ByLocation {
    /// Whether it is more than remembered: nobody gets to a peer but from here or from who has it.
    fn is_in_use(&self) -> bool {
        Arc::strong_count(&self.0) > 1
    }
}

impl Borrow<Location> for ByLocation {
    fn borrow(&self) -> &Location {
        self.0.location()
    }
}

impl PartialEq for ByLocation {
    fn eq(&self, other: &Self) -> bool {
        self.0.location() == other.0.location()
    }
}

impl Eq for ByLocation {}

impl Hash for ByLocation {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.location().hash(state);
    }
}

impl Shared {
    pub(crate) fn new(config: Config, control: Handle) -> Self {
        Self {
            tallies: (0..config.threads.get()).map(|_| Arc::default()).collect(),
            totals: Totals::default(),
            config,
            table: ArcSwap::default(),
            pages: ArcSwap::default(),
            pending: AtomicU32::new(0),
            busy: Busy::default(),
            edges: Notify::new(),
            wants: Notify::new(),
            retirements: watch::Sender::new(()),
            control,
            registry: Mutex::default(),
        }
    }

    /// Replaces the routes. Those that stay keep their counters and the requests that wait at them; those that wait at a
    /// route that goes are told.
    pub(crate) fn set_routes(
        &self,
        candidates: Vec<Candidate<Arc<RouteSettings>>>,
        options: BuildOptions,
    ) -> Vec<Conflict> {
        let mut registry = self.lock();
        let mut before = std::mem::take(&mut registry.routes);
        let mut routes = Vec::with_capacity(candidates.len());
        for candidate in candidates {
            let old = before.remove(&candidate.key);
            let route = registry.route(&candidate.value, old.as_ref(), &self.config);
            if old.is_none() && route.load().started() > 0 {
                // It is back, and has more to tell than who looked at it meanwhile could know.
                self.busy.note(route.state());
            }
            registry.routes.insert(candidate.key.clone(), Arc::clone(&route));
            routes.push(Candidate {
                key: candidate.key,
                uid: candidate.uid,
                created: candidate.created,
                rules: candidate.rules,
                value: route,
            });
        }
        let (table, conflicts) = Table::build(routes, options);
        self.table.store(Arc::new(table));
        let routes: Vec<Arc<Route>> = registry.routes.values().cloned().collect();
        let unused = registry.take_unused_upstreams();
        registry.departed.retain(|_, state| state.strong_count() > 0);
        for (key, gone) in &before {
            registry
                .departed
                .insert(key.clone(), Arc::downgrade(gone.state()));
        }
        for gone in before.values() {
            gone.target().remove_route(gone.state());
            // Under the lock: its state may be another route's by the next time.
            gone.state().gate().close();
        }
        drop(registry);
        for upstream in unused {
            upstream.forget();
        }
        for route in routes {
            route.state().pump();
            // Those that wait may have come for another target.
            route.target().probe();
        }
        conflicts
    }

    /// The Service port of this name, made if need be.
    pub(crate) fn upstream(&self, target: &ServicePort) -> Arc<Upstream> {
        self.lock().upstream(target)
    }

    /// The route of this name.
    pub(crate) fn route(&self, key: &RouteKey) -> Option<Arc<Route>> {
        self.lock().routes.get(key).cloned()
    }

    /// The state of the route of this name, also where that has gone and requests of it are still under way.
    pub(crate) fn state(&self, key: &RouteKey) -> Option<Arc<RouteState>> {
        let registry = self.lock();
        let live = registry.routes.get(key).map(|route| Arc::clone(route.state()));
        live.or_else(|| registry.departed.get(key).and_then(Weak::upgrade))
    }

    /// The pods that requests wait for and a probe could find serving, each once.
    pub(crate) fn pods_to_probe(&self) -> BTreeSet<PodKey> {
        let waited_for = self.upstreams_waited_for();
        waited_for
            .iter()
            .flat_map(|upstream| upstream.pods_to_probe())
            .collect()
    }

    fn upstreams_waited_for(&self) -> Vec<Arc<Upstream>> {
        let mut upstreams: Vec<Arc<Upstream>> = self
            .routes_of(self.busy.waiting())
            .iter()
            .map(|route| Arc::clone(route.target()))
            .collect();
        upstreams.sort_by_key(Arc::as_ptr);
        upstreams.dedup_by(|one, other| Arc::ptr_eq(one, other));
        upstreams
    }

    /// Those of these routes that there are.
    pub(crate) fn routes_of(&self, keys: impl IntoIterator<Item = RouteKey>) -> Vec<Arc<Route>> {
        let registry = self.lock();
        let routes = keys
            .into_iter()
            .filter_map(|key| registry.routes.get(&key).cloned());
        routes.collect()
    }

    /// All routes.
    pub(crate) fn routes(&self) -> Vec<Arc<Route>> {
        self.lock().routes.values().cloned().collect()
    }

    /// What became of requests so far.
    pub(crate) fn stats(&self) -> RequestStats {
        let routes: HashMap<RouteNumber, RouteKey> = self
            .lock()
            .routes
            .values()
            .map(|route| (route.state().number(), route.state().key().clone()))
            .collect();
        self.totals.snapshot(&self.tallies, &routes)
    }

    /// The peer at an endpoint: the same for all Service ports that list it.
    pub(crate) fn peer(&self, endpoint: &Endpoint) -> Arc<Peer> {
        let mut registry = self.lock();
        let location = Location {
            address: endpoint.address,
            pod: endpoint.pod.clone(),
        };
        if let Some(ByLocation(peer)) = registry.peers.get(&location).filter(|peer| peer.is_in_use()) {
            return Arc::clone(peer);
        }
        if registry.peers.len() >= registry.sweep_peers_at {
            registry.peers.retain(ByLocation::is_in_use);
            registry.sweep_peers_at = 2 * registry.peers.len() + 64;
        }
        let peer = Arc::new(Peer::new(location));
        registry.peers.replace(ByLocation(Arc::clone(&peer)));
        peer
    }

    /// How a pod may be probed, if it may.
    pub(crate) fn plan(&self, pod: &PodKey) -> Option<Arc<Plan>> {
        self.lock().plans.get(pod).cloned()
    }

    /// Says how a pod may be probed, or that it may not.
    pub(crate) fn set_plan(&self, pod: &PodKey, plan: Option<Plan>) {
        let mut registry = self.lock();
        match plan {
            // Who probes by the old one goes on.
            Some(plan) if registry.plans.get(pod).is_some_and(|old| old.says_as(&plan)) => {}
            Some(plan) => {
                registry.plans.insert(pod.clone(), Arc::new(plan));
            }
            None => {
                registry.plans.remove(pod);
            }
        }
        drop(registry);
        for upstream in self.upstreams_waited_for() {
            upstream.probe();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Registry> {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Registry {
    /// The route of these settings, with the state of the one before.
    fn route(
        &mut self,
        settings: &Arc<RouteSettings>,
        old: Option<&Arc<Route>>,
        config: &Config,
    ) -> Arc<Route> {
        if let Some(old) = old.filter(|old| old.settings() == settings.as_ref()) {
            return Arc::clone(old);
        }
        let departed = self
            .departed
            .remove(&settings.key)
            .and_then(|state| state.upgrade());
        let state = old
            .map(|old| Arc::clone(old.state()))
            .or(departed)
            .unwrap_or_else(|| Arc::new(RouteState::new(settings.key.clone())));
        let target = self.upstream(&settings.target);
        let fallback = settings
            .cold_start
            .fallback
            .as_ref()
            .map(|fallback| self.upstream(fallback));
        if let Some(old) = old.filter(|old| !Arc::ptr_eq(old.target(), &target)) {
            old.target().remove_route(&state);
        }
        target.add_route(&state);
        let route = Arc::new(Route::new(Arc::clone(settings), state, target, fallback, config));
        route
            .state()
            .gate()
            .open(Arc::clone(route.target()), route.pace());
        route
    }

    fn upstream(&mut self, target: &ServicePort) -> Arc<Upstream> {
        if let Some(upstream) = self.upstreams.get(target) {
            return Arc::clone(upstream);
        }
        let upstream = Arc::new(Upstream::new());
        self.upstreams.insert(target.clone(), Arc::clone(&upstream));
        upstream
    }

    /// Takes out the Service ports that no route speaks of. Whoever wants one again is told of it again.
    fn take_unused_upstreams(&mut self) -> Vec<Arc<Upstream>> {
        let routes = self.routes.values();
        let used: HashSet<*const Upstream> = routes
            .flat_map(|route| [Some(route.target()), route.fallback()])
            .flatten()
            .map(Arc::as_ptr)
            .collect();
        let unused = |_: &ServicePort, upstream: &mut Arc<Upstream>| !used.contains(&Arc::as_ptr(upstream));
        self.upstreams
            .extract_if(unused)
            .map(|(_, upstream)| upstream)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::num::NonZeroU16;

    use dormouse_core::endpoints::{Conditions, EndpointSet};
    use dormouse_core::routes::settings::{ColdStart, Port, ScalingMetric, Timeouts};

    use super::*;
    use crate::upstream::Protocol;

    fn candidate(service: &str) -> Candidate<Arc<RouteSettings>> {
        let key = RouteKey::new("shop", "web");
        let settings = RouteSettings {
            key: key.clone(),
            target: ServicePort {
                namespace: "shop".into(),
                service: service.into(),
                port: Port::Number(NonZeroU16::MIN),
            },
            timeouts: Timeouts::default(),
            cold_start: ColdStart::default(),
            static_routes: Vec::new(),
            scaling: ScalingMetric {
                concurrency: None,
                request_rate: None,
            },
        };
        Candidate {
            key,
            uid: String::new(),
            created: 0,
            rules: Vec::new(),
            value: Arc::new(settings),
        }
    }

    #[tokio::test]
    async fn a_service_port_is_forgotten_with_its_last_route() {
        let config = Config::new(SocketAddr::from(([127, 0, 0, 1], 0)));
        let shared = Arc::new(Shared::new(config, Handle::current()));
        let endpoint = Endpoint::new(SocketAddr::from(([10, 0, 0, 1], 80)), None, Conditions::default());
        let peer = shared.peer(&endpoint);
        for service in ["one", "other"] {
            let route = candidate(service);
            let upstream = shared.upstream(&route.value.target);
            upstream.set(
                &route.value.target,
                Some(&EndpointSet::new([endpoint.clone()], false)),
                Protocol::Http1,
                &shared,
            );
            shared.set_routes(vec![route], BuildOptions::default());
            assert_eq!(shared.lock().upstreams.len(), 1);
            assert_eq!((peer.users().len(), peer.is_retired()), (1, false));
        }
        shared.set_routes(Vec::new(), BuildOptions::default());
        assert_eq!(shared.lock().upstreams.len(), 0);
        assert!(peer.is_retired(), "its connections are of no use");
    }
}
