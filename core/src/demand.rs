//! What interceptors hold, route by route, and what follows from their reports.
//!
//! ```text
//! interceptor ── DemandReport (whole snapshot, numbered) ──┐
//! interceptor ── heartbeat (it still is so) ───────────────┼─> DemandBook ── totals(route, now) ──> Demand
//! pods that exist ── listed() ─────────────────────────────┘        └── routes to look at now
//! ```
//!
//! A report that is lost, doubled or late does no harm: the newest one is the whole truth about its reporter. Silence is
//! not a 0 but [`Unknown`], for as long as the reporter's pod exists.

mod book;
mod rate;
mod totals;

use std::collections::BTreeMap;
use std::sync::Arc;

pub use crate::routes::RouteKey;
pub use book::{DemandBook, GOODBYE, MOST_ROUTES, PodStage, SILENCE};
pub use rate::RateWindow;
pub use totals::{Demand, Totals, Unknown};

/// What one interceptor holds for one route.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RouteDemand {
    /// Requests that wait for an endpoint.
    pub pending: u32,
    /// Requests that were sent to an endpoint and are not done: their response's body has not ended.
    pub in_flight: u32,
    /// Requests that came since the interceptor's process began. Never falls within a session.
    pub started: u64,
}

impl RouteDemand {
    /// Requests that are held, waiting or being served.
    #[must_use]
    pub fn held(&self) -> u64 {
        u64::from(self.pending) + u64::from(self.in_flight)
    }
}

/// Everything one interceptor holds at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DemandReport {
    /// Who reports: the uid of its pod.
    pub reporter: Arc<str>,
    /// Which process of that pod: a later one has a higher number.
    pub session: u64,
    /// Number of the report within its session, from 1 on.
    pub sequence: u64,
    /// The routes with demand, now or since the report before. One that is left out has none, and its counter stays as it
    /// was.
    pub routes: BTreeMap<RouteKey, RouteDemand>,
    /// The last report of the session: nothing is held any more, and nothing will be.
    pub goodbye: bool,
}

#[cfg(test)]
mod tests;
