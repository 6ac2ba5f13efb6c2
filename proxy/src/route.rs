//! A route as the request path uses it.

use std::num::NonZeroU64;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dormouse_core::routes::settings::{RouteSettings, StaticResponse};
use dormouse_core::routes::{HeaderSet, RouteKey, RouteTable};
use http::HeaderMap;
use tokio::time::Instant;

use crate::config::Config;
use crate::gate::Gate;
use crate::load::Load;
use crate::upstream::Upstream;

/// All routes; each look-up gives what a request needs of its route.
pub(crate) type Table = RouteTable<Arc<Route>>;

/// Requests that a pod gets before it has answered one, where its route scales by no concurrency: KEDA's default target.
const DEFAULT_PACE: u32 = 100;

/// A request's headers, as routes look at them.
pub(crate) struct Headers<'r>(pub(crate) &'r HeaderMap);

impl HeaderSet for Headers<'_> {
    fn has(&self, name: &str, value: Option<&str>) -> bool {
        let mut values = self.0.get_all(name).iter();
        values.any(|present| value.is_none_or(|wanted| present.as_bytes() == wanted.as_bytes()))
    }
}

/// One version of a route's settings, with what they lead to.
#[derive(Debug)]
pub(crate) struct Route {
    settings: Arc<RouteSettings>,
    state: Arc<RouteState>,
    target: Arc<Upstream>,
    fallback: Option<Arc<Upstream>>,
    waits: Waits,
    /// Of its settings, which a request need not look at where it has none.
    has_static_routes: bool,
}

/// How long requests of a route may take, with the process's own settings filled in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Waits {
    /// For an endpoint.
    pub(crate) readiness: Duration,
    /// Whether somebody said so: otherwise a request that an endpoint failed does not wait for as long as that.
    pub(crate) readiness_is_set: bool,
    /// In all.
    pub(crate) request: Option<Duration>,
    /// For the head of the response.
    pub(crate) response_header: Option<Duration>,
}

impl Route {
    pub(crate) fn new(
        settings: Arc<RouteSettings>,
        state: Arc<RouteState>,
        target: Arc<Upstream>,
        fallback: Option<Arc<Upstream>>,
        config: &Config,
    ) -> Self {
        let inherited = &config.timeouts;
        let readiness = settings.readiness(inherited.readiness);
        Self {
            target,
            fallback,
            waits: Waits {
                readiness: readiness.unwrap_or(inherited.max_hold).min(inherited.max_hold),
                readiness_is_set: readiness.is_some(),
                request: settings.timeouts.request.or(inherited.request),
                response_header: settings.timeouts.response_header.or(inherited.response_header),
            },
            has_static_routes: !settings.static_routes.is_empty(),
            settings,
            state,
        }
    }

    pub(crate) fn settings(&self) -> &RouteSettings {
        &self.settings
    }

    pub(crate) fn state(&self) -> &Arc<RouteState> {
        &self.state
    }

    pub(crate) fn load(&self) -> &Load {
        &self.state.load
    }

    pub(crate) fn target(&self) -> &Arc<Upstream> {
        &self.target
    }

    pub(crate) fn fallback(&self) -> Option<&Arc<Upstream>> {
        self.fallback.as_ref()
    }

    /// Whether it may answer some requests by itself, whatever its endpoints do.
    pub(crate) fn has_static_routes(&self) -> bool {
        self.has_static_routes
    }

    pub(crate) fn waits(&self) -> Waits {
        self.waits
    }

    /// Its target's name within the cluster.
    pub(crate) fn target_name(&self) -> String {
        let target = &self.settings.target;
        format!("{}.{}", target.service, target.namespace)
    }

    /// Requests that may wait at once.
    pub(crate) fn pending_bound(&self, config: &Config) -> u32 {
        self.settings
            .cold_start
            .pending_bound(config.bounds.pending_per_route)
    }

    /// Whether it has an endpoint that gets requests.
    pub(crate) fn is_available(&self) -> bool {
        !self.target.view().usable().is_empty()
    }

    /// What a request gets instead of waiting.
    pub(crate) fn placeholder(&self) -> Option<&StaticResponse> {
        self.settings.cold_start.answer_at_once()
    }

    /// Requests that a pod gets before it has answered one.
    pub(crate) fn pace(&self) -> u32 {
        self.settings.scaling.concurrency.map_or(DEFAULT_PACE, u32::from)
    }
}

/// Stands for a route where its name would be too long; never used again in this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct RouteNumber(NonZeroU64);

impl RouteNumber {
    pub(crate) fn next() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self(NonZeroU64::new(NEXT.fetch_add(1, Ordering::Relaxed)).unwrap_or(NonZeroU64::MAX))
    }
}

/// What stays of a route while its settings change.
#[derive(Debug)]
pub(crate) struct RouteState {
    key: RouteKey,
    number: RouteNumber,
    load: Load,
    gate: Gate,
    /// Whether it is among those of [`Busy`](crate::busy::Busy) that were noted.
    marked: AtomicBool,
    on_hold: AtomicBool,
    /// What keeps the target from starting, and until when that counts.
    obstacle: Mutex<Option<(Arc<str>, Instant)>>,
    /// Counts the holds that there have been: the end of an older one must not end a newer.
    hold_number: AtomicU64,
}

impl RouteState {
    pub(crate) fn new(key: RouteKey) -> Self {
        Self {
            key,
            number: RouteNumber::next(),
            load: Load::default(),
            gate: Gate::default(),
            marked: AtomicBool::new(false),
            on_hold: AtomicBool::new(false),
            obstacle: Mutex::default(),
            hold_number: AtomicU64::new(0),
        }
    }

    pub(crate) fn key(&self) -> &RouteKey {
        &self.key
    }

    pub(crate) fn number(&self) -> RouteNumber {
        self.number
    }

    pub(crate) fn load(&self) -> &Load {
        &self.load
    }

    pub(crate) fn gate(&self) -> &Gate {
        &self.gate
    }

    /// Whether it is marked as noted. Sequentially consistent with the counters, as is [`Self::unmark`].
    pub(crate) fn is_marked(&self) -> bool {
        self.marked.load(Ordering::SeqCst)
    }

    /// Marks it as noted; says whether it was not.
    pub(crate) fn mark(&self) -> bool {
        !self.marked.swap(true, Ordering::SeqCst)
    }

    /// Takes the mark away.
    pub(crate) fn unmark(&self) {
        self.marked.store(false, Ordering::SeqCst);
    }

    /// Says what keeps the target from starting, or that nothing does; it counts for so long.
    pub(crate) fn set_obstacle(&self, what: Option<&str>, counts: Duration) {
        let obstacle = what.map(|what| (what.into(), Instant::now() + counts));
        *self.obstacle.lock().unwrap_or_else(PoisonError::into_inner) = obstacle;
    }

    /// What keeps the target from starting, as far as is known.
    pub(crate) fn obstacle(&self) -> Option<Arc<str>> {
        let obstacle = self.obstacle.lock().unwrap_or_else(PoisonError::into_inner);
        let (what, until) = obstacle.as_ref()?;
        (*until > Instant::now()).then(|| Arc::clone(what))
    }

    /// Hands out what the gate can hand out now.
    pub(crate) fn pump(self: &Arc<Self>) {
        self.gate.pump(self);
    }

    /// Whether requests pass the gate without a stop: none waits before them, and the route is not on hold.
    pub(crate) fn is_open(&self) -> bool {
        self.load.pending() == 0 && !self.is_on_hold()
    }

    /// Whether new requests have to wait although there are endpoints.
    pub(crate) fn is_on_hold(&self) -> bool {
        // Sequentially consistent with the in-flight counter: a request is either counted before a hold asks for the
        // number, or sees the hold.
        self.on_hold.load(Ordering::SeqCst)
    }

    /// Lets new requests wait from here on. Gives the number of this hold.
    pub(crate) fn hold(&self) -> u64 {
        let number = self.hold_number.fetch_add(1, Ordering::SeqCst) + 1;
        self.on_hold.store(true, Ordering::SeqCst);
        number
    }

    /// Ends the hold in force, if it is this one, or whichever it is.
    pub(crate) fn release(self: &Arc<Self>, number: Option<u64>) {
        if number.is_none_or(|number| number == self.hold_number.load(Ordering::SeqCst)) {
            self.on_hold.store(false, Ordering::SeqCst);
            self.pump();
        }
    }
}
