//! The demand for HTTP routes, as interceptors report it to this process.
//!
//! ```text
//! sessions of interceptors ── report, heartbeat ──┐
//! watch of their pods ─────── listed ─────────────┼─> DemandHub ── news(route) ──> loop of the object: looks at once
//! watch of InterceptorRoutes ─ set_route ─────────┘        └────── demand(route) ──> decisions, metrics API
//! ```

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dormouse_core::demand::{Demand, DemandBook, DemandReport, PodStage, RouteKey};
use dormouse_scalers::error::ReadErrorKind;
use dormouse_scalers::{DemandSource, Hold, OwnAddresses, ReadError, RouteScaling};
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::watch;
use tokio::time::Instant;

/// Reaches interceptors.
pub trait Interceptors: Send + Sync {
    /// Has each of these reporters hold what comes for a route, and succeeds if all of them say that nothing is pending or
    /// in flight. Otherwise what was held goes on. The caller sets the deadline by dropping the future, which calls off.
    ///
    /// # Errors
    /// Something is under way, or one of them cannot be asked.
    fn hold<'a>(
        &'a self,
        route: &'a RouteKey,
        reporters: Vec<Arc<str>>,
    ) -> BoxFuture<'a, Result<Box<dyn Hold>, ReadError>>;
}

/// A cheap handle to the demand of all routes.
#[derive(Clone)]
pub struct DemandHub {
    shared: Arc<Shared>,
}

struct Shared {
    // Never held over an await.
    state: Mutex<State>,
    interceptors: Arc<dyn Interceptors>,
    addresses: OwnAddresses,
}

#[derive(Default)]
struct State {
    book: DemandBook,
    routes: HashMap<RouteKey, Route>,
}

struct Route {
    /// What its InterceptorRoute asks for; `None` while there is none and a trigger still listens.
    scaling: Option<RouteScaling>,
    news: watch::Sender<u64>,
}

impl Route {
    fn new(scaling: Option<RouteScaling>) -> Self {
        Self {
            scaling,
            news: watch::Sender::new(0),
        }
    }
}

impl DemandHub {
    /// A hub that knows nothing yet, and stands in for the scaler at `addresses`.
    #[must_use]
    pub fn new(addresses: OwnAddresses, interceptors: Arc<dyn Interceptors>) -> Self {
        Self {
            shared: Arc::new(Shared {
                state: Mutex::default(),
                interceptors,
                addresses,
            }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in a report, and wakes the objects that have to look at once.
    pub fn apply(&self, report: DemandReport) {
        let mut state = self.lock();
        let look_at = state.book.apply(report, now());
        for route in look_at {
            if let Some(route) = state.routes.get(&route) {
                route.news.send_modify(|count| *count = count.wrapping_add(1));
            }
        }
    }

    /// Takes in that nothing has changed since the report of that number. Says whether that report is known here.
    pub fn heartbeat(&self, reporter: &str, session: u64, sequence: u64) -> bool {
        self.lock().book.heartbeat(reporter, session, sequence, now())
    }

    /// Takes in which interceptors exist: see [`DemandBook::listed`].
    pub fn listed(&self, pods: BTreeMap<Arc<str>, PodStage>) {
        self.lock().book.listed(pods, now());
    }

    /// Takes in what an InterceptorRoute asks for. Says whether that is news: the objects that use it must then be applied
    /// again.
    pub fn set_route(&self, key: RouteKey, scaling: RouteScaling) -> bool {
        let mut state = self.lock();
        let window = scaling.rate.map(|rate| rate.window);
        state.book.follow(key.clone(), window, now());
        let route = state.routes.entry(key).or_insert_with(|| Route::new(None));
        route.scaling.replace(scaling) != Some(scaling)
    }

    /// Whether there is any InterceptorRoute in a namespace.
    #[must_use]
    pub fn has_routes_in(&self, namespace: &str) -> bool {
        let state = self.lock();
        let mut routes = state.routes.iter();
        routes.any(|(key, route)| &*key.namespace == namespace && route.scaling.is_some())
    }

    /// The routes whose requests wait while none is served, as far as is known.
    #[must_use]
    pub fn waiting(&self) -> BTreeSet<RouteKey> {
        self.lock().book.waiting(now())
    }

    /// Takes in that an InterceptorRoute is gone. Says whether it was there.
    pub fn remove_route(&self, key: &RouteKey) -> bool {
        let mut state = self.lock();
        state.book.unfollow(key);
        let gone = state.routes.get_mut(key).and_then(|route| route.scaling.take());
        // Those that are gone stay for as long as a trigger listens to them.
        state
            .routes
            .retain(|_, route| route.scaling.is_some() || !route.news.is_closed());
        gone.is_some()
    }
}

/// Monotonic, and paused with the runtime's clock.
fn now() -> std::time::Instant {
    Instant::now().into_std()
}

impl DemandSource for DemandHub {
    fn is_ours(&self, address: &str) -> bool {
        self.shared.addresses.contains(address)
    }

    fn scaling(&self, route: &RouteKey) -> Option<RouteScaling> {
        self.lock().routes.get(route)?.scaling
    }

    fn demand(&self, route: &RouteKey) -> Demand {
        self.lock().book.totals(route, now())
    }

    fn news(&self, route: &RouteKey) -> watch::Receiver<u64> {
        let mut state = self.lock();
        let route = state
            .routes
            .entry(route.clone())
            .or_insert_with(|| Route::new(None));
        route.news.subscribe()
    }

    fn hold<'a>(&'a self, route: &'a RouteKey) -> BoxFuture<'a, Result<Box<dyn Hold>, ReadError>> {
        async move {
            let (demand, reporters) = {
                let state = self.lock();
                (state.book.totals(route, now()), state.book.reporters(now()))
            };
            match demand {
                Demand::Known(totals) if totals.held() == 0 => {}
                Demand::Known(totals) => return Err(busy(route, totals.held())),
                Demand::Unknown { why, .. } => {
                    let what = format!("the demand for InterceptorRoute {route} is unknown: {why}");
                    return Err(ReadError::new(ReadErrorKind::Unreachable, what));
                }
            }
            let held = self.shared.interceptors.hold(route, reporters).await?;
            Ok(Box::new(RouteHold {
                held,
                hub: self.clone(),
                route: route.clone(),
            }) as Box<dyn Hold>)
        }
        .boxed()
    }
}

/// The error of a sleep that is called off for what is under way.
#[must_use]
pub fn busy(route: &RouteKey, held: u64) -> ReadError {
    ReadError::new(
        ReadErrorKind::Busy,
        format!("InterceptorRoute {route} has {held} requests under way"),
    )
}

struct RouteHold {
    held: Box<dyn Hold>,
    hub: DemandHub,
    route: RouteKey,
}

impl Hold for RouteHold {
    fn slept(self: Box<Self>) {
        self.hub.lock().book.slept(&self.route);
        self.held.slept();
    }
}
