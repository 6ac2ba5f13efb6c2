//! Where the demand for HTTP routes is known: in the process that interceptors report to.

use std::num::NonZeroU32;

use dormouse_core::demand::{Demand, RateWindow, RouteKey};
use dormouse_core::routes::settings::ScalingMetric;
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

impl From<ScalingMetric> for RouteScaling {
    fn from(metric: ScalingMetric) -> Self {
        Self {
            concurrency: metric.concurrency.map(NonZeroU32::get),
            rate: metric.request_rate.map(|rate| RateScaling {
                target: rate.target().get(),
                window: RateWindow::new(rate.window(), rate.granularity()),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use dormouse_core::routes::settings::RequestRate;

    use super::*;

    #[test]
    fn a_scaling_metric_is_taken_over_with_its_window() {
        let target = NonZeroU32::new(7);
        let (minute, second) = (Duration::from_secs(60), Duration::from_secs(1));
        let rate = RequestRate::try_new(NonZeroU32::MIN, minute, second).unwrap();
        let both = ScalingMetric {
            concurrency: target,
            request_rate: Some(rate),
        };
        let scaling = RouteScaling::from(both);
        assert_eq!(scaling.concurrency, Some(7));
        let expected = RateScaling {
            target: 1,
            window: RateWindow::new(minute, second),
        };
        assert_eq!(scaling.rate, Some(expected));
        let neither = RouteScaling {
            concurrency: None,
            rate: None,
        };
        assert_eq!(RouteScaling::from(ScalingMetric::default()), neither);
    }
}
