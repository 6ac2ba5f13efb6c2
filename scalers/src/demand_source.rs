//! Where the demand for HTTP routes is known: in the process that interceptors report to.

use dormouse_core::demand::{Demand, RateWindow, RouteKey};
use futures::future::BoxFuture;
use tokio::sync::watch;

use crate::error::ReadError;
use crate::pushed::Hold;

/// Knows the demand of routes. Everything is answered from memory, but [`hold`](Self::hold).
pub trait DemandSource: Send + Sync {
    /// Whether a `scalerAddress` is that of the interceptors' own scaler, which this process stands in for.
    fn is_ours(&self, address: &str) -> bool;
    /// What an InterceptorRoute asks for; `None` where there is none of that name.
    fn scaling(&self, route: &RouteKey) -> Option<RouteScaling>;
    /// The demand of a route.
    fn demand(&self, route: &RouteKey) -> Demand;
    /// Changes whenever demand for the route appears, or more of it waits while nothing serves it.
    fn news(&self, route: &RouteKey) -> watch::Receiver<u64>;
    /// Has every interceptor hold what comes for the route, if none has anything under way.
    ///
    /// # Errors
    /// Something is under way, or not every interceptor could say.
    fn hold<'a>(&'a self, route: &'a RouteKey) -> BoxFuture<'a, Result<Box<dyn Hold>, ReadError>>;
}

/// `spec.scalingMetric` of an InterceptorRoute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouteScaling {
    /// Requests held at once that one replica is meant to carry.
    pub concurrency: Option<u32>,
    /// The rate that one replica is meant to carry.
    pub rate: Option<RateScaling>,
}

/// `spec.scalingMetric.requestRate` of an InterceptorRoute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateScaling {
    /// Requests per second that one replica is meant to carry.
    pub target: u32,
    /// How the rate is averaged.
    pub window: RateWindow,
}
