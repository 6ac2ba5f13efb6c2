//! What became of requests, for a page of metrics.
//!
//! ```text
//! data threads ── each its own Tally (what was counted since it was last emptied) ──┐
//!                                                   snapshot() empties them ────────┴─> Totals ──> RequestStats
//! ```
//!
//! A thread's tally has a lock that only the snapshot ever competes for, and that for no longer than it takes to put an empty
//! map in the place of a full one. Labels are bounded: known methods, known statuses, routes that there are.

mod histogram;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dormouse_core::routes::RouteKey;
use http::{Method, StatusCode};

use crate::route::RouteNumber;

pub use histogram::Histogram;

/// Of whole requests: the add-on's bounds.
const REQUEST_BOUNDS: &[Duration] = &[
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(25),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_millis(2500),
    Duration::from_secs(5),
    Duration::from_secs(10),
];

/// Of waits for an endpoint: from one that was just there to the longest hold.
const HOLD_BOUNDS: &[Duration] = &[
    Duration::from_millis(10),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_millis(750),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(5),
    Duration::from_secs(10),
    Duration::from_secs(30),
    Duration::from_secs(60),
    Duration::from_secs(300),
    Duration::from_secs(900),
];

/// From an endpoint that can serve to the first byte of its first answer.
const FIRST_BYTE_BOUNDS: &[Duration] = &[
    Duration::from_micros(500),
    Duration::from_millis(1),
    Duration::from_millis(2),
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(25),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(5),
];

/// How a request's wait for an endpoint ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HoldEnd {
    /// An endpoint took it.
    Endpoint,
    /// The route's fallback took it.
    Fallback,
    /// It had waited for as long as it may.
    Timeout,
    /// Its client left.
    Left,
    /// Its route went, or this process stopped.
    Turned,
}

impl HoldEnd {
    /// Its name as a label.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Endpoint => "endpoint",
            Self::Fallback => "fallback",
            Self::Timeout => "timeout",
            Self::Left => "client_left",
            Self::Turned => "turned_away",
        }
    }
}

/// What became of requests since the process began.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RequestStats {
    /// How long requests took, to the end of their response.
    pub requests: Vec<Requests>,
    /// How long they waited for an endpoint, of those that did.
    pub holds: Vec<Holds>,
    /// From the moment that an endpoint which requests waited for was found serving to its first answer.
    pub first_bytes: Vec<FirstBytes>,
}

/// Requests that are the same to metrics.
#[derive(Clone, Debug, PartialEq)]
pub struct Requests {
    /// `None` for requests of no route.
    pub route: Option<RouteKey>,
    /// The method; `_OTHER` for one that is not known.
    pub method: &'static str,
    /// The status; 499 where the client left before it had one.
    pub status: Status,
    /// How long they took.
    pub took: Histogram,
}

/// A status as a label: one that is registered, or the class of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Status(u16);

/// Waits of a route's requests that ended in the same way.
#[derive(Clone, Debug, PartialEq)]
pub struct Holds {
    /// The route.
    pub route: RouteKey,
    /// How they ended.
    pub end: HoldEnd,
    /// How long they were.
    pub took: Histogram,
}

/// First answers of a route's endpoints.
#[derive(Clone, Debug, PartialEq)]
pub struct FirstBytes {
    /// The route.
    pub route: RouteKey,
    /// How long they took.
    pub took: Histogram,
}

impl Status {
    /// The label of a status that a client got.
    pub(crate) fn of(status: StatusCode) -> Self {
        let known = status.canonical_reason().is_some() || status.as_u16() == 499;
        Self(if known {
            status.as_u16()
        } else {
            status.as_u16() / 100
        })
    }
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            class @ 0..100 => write!(f, "{class}xx"),
            status => write!(f, "{status}"),
        }
    }
}

const METHODS: [&str; 10] = [
    "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "_OTHER",
];

/// A method as a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct MethodLabel(u8);

impl MethodLabel {
    pub(crate) fn of(method: &Method) -> Self {
        Self(match *method {
            Method::GET => 0,
            Method::HEAD => 1,
            Method::POST => 2,
            Method::PUT => 3,
            Method::DELETE => 4,
            Method::CONNECT => 5,
            Method::OPTIONS => 6,
            Method::TRACE => 7,
            Method::PATCH => 8,
            _ => 9,
        })
    }

    fn name(self) -> &'static str {
        METHODS.get(usize::from(self.0)).copied().unwrap_or("_OTHER")
    }
}

#[derive(Debug, Default)]
struct Counts {
    requests: HashMap<(Option<RouteNumber>, MethodLabel, Status), Histogram>,
    holds: HashMap<(RouteNumber, HoldEnd), Histogram>,
    first_bytes: HashMap<RouteNumber, Histogram>,
}

/// What one data thread counted and nobody has taken yet. On cache lines of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Tally {
    counts: Mutex<Counts>,
}

impl Tally {
    /// Counts a request that is done.
    pub(crate) fn request(
        &self,
        route: Option<RouteNumber>,
        method: MethodLabel,
        status: Status,
        took: Duration,
    ) {
        let mut counts = self.lock();
        let series = counts.requests.entry((route, method, status));
        series
            .or_insert_with(|| Histogram::new(REQUEST_BOUNDS))
            .observe(took);
    }

    /// Counts a wait for an endpoint.
    pub(crate) fn hold(&self, route: RouteNumber, end: HoldEnd, took: Duration) {
        let mut counts = self.lock();
        let series = counts.holds.entry((route, end));
        series
            .or_insert_with(|| Histogram::new(HOLD_BOUNDS))
            .observe(took);
    }

    /// Counts the first answer of an endpoint.
    pub(crate) fn first_byte(&self, route: RouteNumber, took: Duration) {
        let mut counts = self.lock();
        let series = counts.first_bytes.entry(route);
        series
            .or_insert_with(|| Histogram::new(FIRST_BYTE_BOUNDS))
            .observe(took);
    }

    fn take(&self) -> Counts {
        std::mem::take(&mut *self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What all threads have counted so far.
#[derive(Debug, Default)]
pub(crate) struct Totals {
    counts: Mutex<Counts>,
}

impl Totals {
    /// Empties the tallies and says what there is by now of `routes`; what other routes had is forgotten.
    pub(crate) fn snapshot(
        &self,
        tallies: &[Arc<Tally>],
        routes: &HashMap<RouteNumber, RouteKey>,
    ) -> RequestStats {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        for tally in tallies {
            counts.add(tally.take());
        }
        counts.retain(routes);
        let name = |number: RouteNumber| routes.get(&number).cloned();
        let requests = counts
            .requests
            .iter()
            .map(|(&(route, method, status), took)| Requests {
                route: route.and_then(name),
                method: method.name(),
                status,
                took: took.clone(),
            });
        let holds = counts.holds.iter().filter_map(|(&(route, end), took)| {
            Some(Holds {
                route: name(route)?,
                end,
                took: took.clone(),
            })
        });
        let first_bytes = counts.first_bytes.iter().filter_map(|(&route, took)| {
            Some(FirstBytes {
                route: name(route)?,
                took: took.clone(),
            })
        });
        RequestStats {
            requests: requests.collect(),
            holds: holds.collect(),
            first_bytes: first_bytes.collect(),
        }
    }
}

impl Counts {
    fn add(&mut self, more: Self) {
        fn add<K: Eq + std::hash::Hash>(to: &mut HashMap<K, Histogram>, more: HashMap<K, Histogram>) {
            for (key, histogram) in more {
                match to.get_mut(&key) {
                    Some(known) => known.add(&histogram),
                    None => {
                        to.insert(key, histogram);
                    }
                }
            }
        }
        add(&mut self.requests, more.requests);
        add(&mut self.holds, more.holds);
        add(&mut self.first_bytes, more.first_bytes);
    }

    fn retain(&mut self, routes: &HashMap<RouteNumber, RouteKey>) {
        self.requests
            .retain(|(route, ..), _| route.is_none_or(|route| routes.contains_key(&route)));
        self.holds.retain(|(route, _), _| routes.contains_key(route));
        self.first_bytes.retain(|route, _| routes.contains_key(route));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_bounded() {
        for (status, label) in [(200, "200"), (499, "499"), (299, "2xx"), (999, "9xx")] {
            assert_eq!(
                Status::of(StatusCode::from_u16(status).unwrap()).to_string(),
                label
            );
        }
        for (method, label) in [("PATCH", "PATCH"), ("get", "_OTHER"), ("BREW", "_OTHER")] {
            let method = Method::from_bytes(method.as_bytes()).unwrap();
            assert_eq!(MethodLabel::of(&method).name(), label);
        }
    }

    #[test]
    fn totals_grow_over_all_threads_and_routes_that_go_take_theirs_along() {
        let tallies = [Arc::new(Tally::default()), Arc::default()];
        let totals = Totals::default();
        let (web, gone) = (RouteNumber::next(), RouteNumber::next());
        let routes = HashMap::from([(web, RouteKey::new("shop", "web"))]);
        let get = MethodLabel::of(&Method::GET);
        let ok = Status::of(StatusCode::OK);
        for tally in &tallies {
            tally.request(Some(web), get, ok, Duration::from_millis(1));
            tally.request(Some(gone), get, ok, Duration::from_millis(1));
        }
        tallies[0].hold(web, HoldEnd::Timeout, Duration::from_secs(1));
        totals.snapshot(&tallies, &routes);
        tallies[1].request(Some(web), get, ok, Duration::from_secs(60));
        tallies[1].request(None, get, ok, Duration::ZERO);
        let mut stats = totals.snapshot(&tallies, &routes);
        stats.requests.sort_by_key(|requests| requests.took.count());
        let seen: Vec<_> = stats
            .requests
            .iter()
            .map(|requests| {
                (
                    requests.route.as_ref().map(ToString::to_string),
                    requests.took.count(),
                )
            })
            .collect();
        assert_eq!(seen, [(None, 1), (Some("shop/web".to_owned()), 3)]);
        assert_eq!(stats.holds.len(), 1);
    }
}
