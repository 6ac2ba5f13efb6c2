//! The ledger of all reports.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::rate::{Counts, RateWindow};
use super::{Demand, DemandReport, RouteDemand, RouteKey, Totals, Unknown};

/// After so long without a word of an interceptor, what it holds is unknown.
pub const SILENCE: Duration = Duration::from_secs(3);

/// After so long, a goodbye is not the last word of a pod that stays: its container was started again.
pub const GOODBYE: Duration = Duration::from_secs(10);

/// Routes that one report may have, and whose counters are remembered of one reporter.
pub const MOST_ROUTES: usize = 20_000;

/// What all interceptors said last, and which of them exist. Time is monotonic and comes in with every call.
///
/// Demand is kept for every route that is reported; rates, edges and wakes only for those that are
/// [followed](Self::follow).
#[derive(Debug, Default)]
pub struct DemandBook {
    reporters: HashMap<Arc<str>, Reporter>,
    /// Pods of interceptors; `None` before they were first listed.
    listed: Option<BTreeMap<Arc<str>, PodStage>>,
    followed: HashMap<RouteKey, Followed>,
}

/// How far the pod of an interceptor is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PodStage {
    /// It is to run on.
    Staying,
    /// It is being terminated.
    Leaving,
}

/// What one interceptor said last.
#[derive(Debug)]
struct Reporter {
    session: u64,
    sequence: u64,
    heard: Instant,
    goodbye: bool,
    demand: BTreeMap<RouteKey, RouteDemand>,
    /// The counters of this session, those of routes without demand too.
    started: BTreeMap<RouteKey, u64>,
    /// The session was heard from its first report on: a route without a counter has not had a request.
    whole: bool,
}

/// What is remembered of a route over time.
#[derive(Debug, Default)]
struct Followed {
    counts: Option<Counts>,
    edge: Option<Instant>,
    last_demand: Option<Instant>,
}

impl DemandBook {
    /// An empty book: everything is unknown.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes in a report, unless a newer one of its reporter is known; the newest one again is a heartbeat. Gives back the
    /// followed routes that have to be looked at now: demand appeared, or more waits while nothing is served.
    pub fn apply(&mut self, report: DemandReport, now: Instant) -> Vec<RouteKey> {
        if self.heartbeat(&report.reporter, report.session, report.sequence, now) {
            return Vec::new();
        }
        let before = self.reporters.get(&report.reporter);
        if before.is_some_and(|before| !before.gives_way_to(&report, now)) {
            return Vec::new();
        }
        let same_session = before.filter(|before| before.session == report.session);
        let started: BTreeMap<&RouteKey, u64> = report
            .routes
            .iter()
            .map(|(route, demand)| (route, requests_since(same_session, &report, route, *demand)))
            .collect();
        // Sums before and after, of the routes that either snapshot has.
        let mut affected: BTreeMap<RouteKey, Change> = BTreeMap::new();
        let old = before.into_iter().flat_map(|before| before.demand.keys());
        for route in old.chain(report.routes.keys()) {
            if self.followed.contains_key(route) && !affected.contains_key(route) {
                let change = Change {
                    before: self.sum(route, now),
                    requests: started.get(route).copied().unwrap_or(0),
                };
                affected.insert(route.clone(), change);
            }
        }
        self.take_in(report, now);
        let mut look_at = Vec::new();
        for (route, Change { before, requests }) in affected {
            let after = self.sum(&route, now);
            let appeared = before.held() == 0 && (after.held() > 0 || requests > 0);
            if appeared || (after.is_waiting() && after.pending > before.pending) {
                look_at.push(route.clone());
            }
            if before.held() > 0 || after.held() > 0 || requests > 0 {
                self.note(&route, requests, before.held() == 0, now);
            }
        }
        look_at
    }

    /// Takes in that all is as in the report of that number. Says whether that report is the newest known.
    pub fn heartbeat(&mut self, reporter: &str, session: u64, sequence: u64, now: Instant) -> bool {
        match self.reporters.get_mut(reporter) {
            Some(known) if (known.session, known.sequence) == (session, sequence) => {
                known.heard = known.heard.max(now);
                true
            }
            _ => false,
        }
    }

    /// Takes in which interceptors exist: the uids of all pods whose container may hold requests, those that are being
    /// terminated too. What is not among them any more is gone for good, and holds nothing.
    pub fn listed(&mut self, pods: BTreeMap<Arc<str>, PodStage>, now: Instant) {
        let was_listed = |uid: &Arc<str>| {
            let listed = self.listed.as_ref();
            listed.is_some_and(|listed| listed.contains_key(uid))
        };
        let gone: Vec<Arc<str>> = self
            .reporters
            .iter()
            .filter(|(uid, known)| !pods.contains_key(*uid) && (was_listed(uid) || known.is_silent(now)))
            .map(|(uid, _)| uid.clone())
            .collect();
        for uid in gone {
            if let Some(known) = self.reporters.remove(&uid) {
                self.remember_last_demand(&known);
            }
        }
        self.listed = Some(pods);
    }

    /// Remembers over time what comes for a route: its edges, when it last had demand, and its rate, if it has a window. Doing
    /// it again with the same window changes nothing.
    pub fn follow(&mut self, route: RouteKey, window: Option<RateWindow>, now: Instant) {
        let held = self.sum(&route, now).held() > 0;
        let followed = self.followed.entry(route).or_insert_with(|| Followed {
            edge: held.then_some(now),
            last_demand: held.then_some(now),
            counts: None,
        });
        if followed.counts.as_ref().map(Counts::over) != window {
            followed.counts = window.map(|window| Counts::new(window, now));
        }
    }

    /// Forgets what [`follow`](Self::follow) remembered.
    pub fn unfollow(&mut self, route: &RouteKey) {
        self.followed.remove(route);
    }

    /// The target of a route was put to sleep: its next request is an edge, and its rate begins anew with it.
    pub fn slept(&mut self, route: &RouteKey) {
        if let Some(followed) = self.followed.get_mut(route) {
            followed.edge = None;
            if let Some(counts) = &mut followed.counts {
                counts.clear();
            }
        }
    }

    /// The demand of a route. Unknown, not 0, while an interceptor that exists is unheard.
    #[must_use]
    pub fn totals(&self, route: &RouteKey, now: Instant) -> Demand {
        let mut totals = self.sum(route, now);
        let held = totals.held();
        if let Some(followed) = self.followed.get(route) {
            totals.edge = followed.edge;
            totals.quiet_for = followed
                .last_demand
                .map(|last| now.saturating_duration_since(last));
            #[expect(clippy::cast_precision_loss, reason = "far fewer requests are held")]
            let rate = |counts: &Counts| counts.rate(now, followed.edge).max(held as f64);
            totals.rate = followed.counts.as_ref().map(rate);
        }
        if held > 0 {
            totals.quiet_for = Some(Duration::ZERO);
        }
        match self.missing(now) {
            None => Demand::Known(totals),
            Some(why) => Demand::Unknown {
                why,
                at_least: totals,
            },
        }
    }

    /// The followed routes whose requests wait while none is served, as far as is known.
    #[must_use]
    pub fn waiting(&self, now: Instant) -> BTreeSet<RouteKey> {
        let heard = self.reporters.values().filter(|known| !known.is_silent(now));
        let pending = heard
            .flat_map(|known| &known.demand)
            .filter(|(route, demand)| demand.pending > 0 && self.followed.contains_key(*route));
        let mut waiting: BTreeSet<RouteKey> = pending.map(|(route, _)| route.clone()).collect();
        waiting.retain(|route| self.sum(route, now).is_waiting());
        waiting
    }

    /// Those that hold requests or may: heard lately, and without a goodbye.
    #[must_use]
    pub fn reporters(&self, now: Instant) -> Vec<Arc<str>> {
        let heard = self.reporters.iter();
        heard
            .filter(|(_, known)| !known.goodbye && !known.is_silent(now))
            .map(|(uid, _)| uid.clone())
            .collect()
    }

    /// The first interceptor that exists and is unheard.
    fn missing(&self, now: Instant) -> Option<Unknown> {
        let Some(listed) = &self.listed else {
            return Some(Unknown::NotListed);
        };
        listed.iter().find_map(|(uid, stage)| {
            let reporter = uid.clone();
            match self.reporters.get(uid) {
                None => Some(Unknown::Unheard { reporter }),
                Some(known) if known.goodbye => {
                    let heard = now.saturating_duration_since(known.heard);
                    (*stage == PodStage::Staying && heard >= GOODBYE).then_some(Unknown::Unheard { reporter })
                }
                Some(known) => known.is_silent(now).then_some(Unknown::Silent { reporter }),
            }
        })
    }

    /// What those hold for a route that were heard lately.
    fn sum(&self, route: &RouteKey, now: Instant) -> Totals {
        let heard = self.reporters.values().filter(|known| !known.is_silent(now));
        let mut totals = Totals::default();
        for demand in heard.filter_map(|known| known.demand.get(route)) {
            totals.pending += u64::from(demand.pending);
            totals.in_flight += u64::from(demand.in_flight);
        }
        totals
    }

    fn take_in(&mut self, report: DemandReport, now: Instant) {
        let before = self.reporters.remove(&report.reporter);
        let (mut started, mut whole) = match before {
            Some(before) if before.session == report.session => (before.started, before.whole),
            before => {
                if let Some(before) = before {
                    self.remember_last_demand(&before);
                }
                (BTreeMap::new(), report.sequence == 1)
            }
        };
        started.extend(
            report
                .routes
                .iter()
                .map(|(route, demand)| (route.clone(), demand.started)),
        );
        if started.len() > MOST_ROUTES {
            started.retain(|route, _| report.routes.contains_key(route));
            whole = false;
        }
        let reporter = Reporter {
            session: report.session,
            sequence: report.sequence,
            heard: now,
            goodbye: report.goodbye,
            // A process that has gone holds nothing, whatever it said beside that.
            demand: if report.goodbye {
                BTreeMap::new()
            } else {
                report.routes
            },
            started,
            whole,
        };
        self.reporters.insert(report.reporter, reporter);
    }

    /// Notes demand at `now`. Where there was none before, and for a whole window, this is an edge.
    fn note(&mut self, route: &RouteKey, requests: u64, appeared: bool, now: Instant) {
        let Some(followed) = self.followed.get_mut(route) else {
            return;
        };
        let window = followed
            .counts
            .as_ref()
            .map_or(Duration::ZERO, |counts| counts.over().window());
        let quiet = followed
            .last_demand
            .is_none_or(|last| now.saturating_duration_since(last) >= window);
        if followed.edge.is_none() || (appeared && quiet) {
            followed.edge = Some(now);
            if let Some(counts) = &mut followed.counts {
                counts.clear();
            }
        }
        followed.last_demand = Some(now);
        if let Some(counts) = &mut followed.counts {
            counts.add(now, requests);
        }
    }

    /// Whoever is gone had demand up to when it was last heard.
    fn remember_last_demand(&mut self, gone: &Reporter) {
        for (route, demand) in &gone.demand {
            if demand.held() > 0
                && let Some(followed) = self.followed.get_mut(route)
            {
                followed.last_demand = followed.last_demand.max(Some(gone.heard));
            }
        }
    }
}

/// What a report does to a route.
struct Change {
    before: Totals,
    /// Requests that came since the report before.
    requests: u64,
}

impl Reporter {
    fn is_silent(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.heard) >= SILENCE
    }

    /// Whether a report is newer than this. Another session is also taken once this one is silent: the clock that numbers
    /// sessions may have gone back between them.
    fn gives_way_to(&self, report: &DemandReport, now: Instant) -> bool {
        (report.session, report.sequence) > (self.session, self.sequence)
            || (report.session != self.session && self.is_silent(now))
    }
}

/// Requests of a route since the report before this one, as far as its counter tells.
fn requests_since(
    before: Option<&Reporter>,
    report: &DemandReport,
    route: &RouteKey,
    demand: RouteDemand,
) -> u64 {
    match before {
        None if report.sequence == 1 => demand.started,
        // Heard of in the middle of its session: what came before may be long ago.
        None => 0,
        Some(before) => match before.started.get(route) {
            Some(counted) => demand.started.saturating_sub(*counted),
            None if before.whole => demand.started,
            // It is in the report because something came.
            None => demand.started.min(1),
        },
    }
}
