//! The demand of one route over all interceptors.

use std::sync::Arc;
use std::time::{Duration, Instant};

/// The demand of a route, as far as it is known.
#[derive(Clone, Debug, PartialEq)]
pub enum Demand {
    /// Every interceptor that exists has been heard.
    Known(Totals),
    /// At least one has not: nothing may go down on this.
    Unknown {
        /// Who is missing.
        why: Unknown,
        /// What those hold that were heard. It may wake, and never put to sleep.
        at_least: Totals,
    },
}

/// Sums over interceptors.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Totals {
    /// Requests that wait for an endpoint.
    pub pending: u64,
    /// Requests that an endpoint has.
    pub in_flight: u64,
    /// Requests per second, and never less than [`held`](Self::held); `None` for a route whose rate nobody follows.
    pub rate: Option<f64>,
    /// When the demand began, after a spell without any that was at least one rate window long.
    pub edge: Option<Instant>,
    /// How long there has been none: zero while requests are held, `None` where no request was ever heard of.
    pub quiet_for: Option<Duration>,
}

impl Totals {
    /// Requests that are held, waiting or being served: the route's concurrency.
    #[must_use]
    pub fn held(&self) -> u64 {
        self.pending + self.in_flight
    }

    /// Whether requests wait and none is being served: no endpoint has answered yet.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        self.pending > 0 && self.in_flight == 0
    }
}

/// Why demand is unknown.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unknown {
    /// Which interceptors exist has not been found out yet.
    #[error("the interceptors have not been listed yet")]
    NotListed,
    /// One exists and has not reported to this process.
    #[error("the interceptor pod {reporter} has not reported yet")]
    Unheard {
        /// The uid of its pod.
        reporter: Arc<str>,
    },
    /// One exists and no longer reports.
    // Without for how long: what differs each time is taken for news by those who log it.
    #[error("the interceptor pod {reporter} is silent")]
    Silent {
        /// The uid of its pod.
        reporter: Arc<str>,
    },
}
