mod properties;
mod rates;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::*;

/// Names of interceptor pods.
const A: &str = "pod-a";
const B: &str = "pod-b";

fn web() -> RouteKey {
    RouteKey::new("shop", "web")
}

fn seconds(count: f64) -> Duration {
    Duration::from_secs_f64(count)
}

/// A report of one route.
fn report(reporter: &str, sequence: u64, pending: u32, in_flight: u32, started: u64) -> DemandReport {
    let demand = RouteDemand {
        pending,
        in_flight,
        started,
    };
    DemandReport {
        reporter: reporter.into(),
        session: 1,
        sequence,
        routes: BTreeMap::from([(web(), demand)]),
        goodbye: false,
    }
}

fn goodbye(reporter: &str, sequence: u64) -> DemandReport {
    DemandReport {
        routes: BTreeMap::new(),
        goodbye: true,
        ..report(reporter, sequence, 0, 0, 0)
    }
}

/// A book on a clock that only the test moves.
struct Clock {
    book: DemandBook,
    now: Instant,
    /// Of the newest report of `A`, where a test counts them.
    sequence: u64,
    started: u64,
}

impl Clock {
    /// Both interceptors exist, and the route is followed without a rate.
    fn new() -> Self {
        let mut clock = Self {
            book: DemandBook::new(),
            now: Instant::now(),
            sequence: 1,
            started: 0,
        };
        clock.list(&[A, B]);
        clock.book.follow(web(), None, clock.now);
        clock
    }

    fn list(&mut self, pods: &[&str]) {
        self.list_at(pods, PodStage::Staying);
    }

    fn list_at(&mut self, pods: &[&str], stage: PodStage) {
        let pods = pods.iter().map(|pod| (Arc::from(*pod), stage)).collect();
        self.book.listed(pods, self.now);
    }

    fn pass(&mut self, by: f64) {
        self.now += seconds(by);
    }

    fn apply(&mut self, report: DemandReport) -> Vec<RouteKey> {
        self.book.apply(report, self.now)
    }

    /// Pending and in flight, where both are known.
    fn known(&self) -> Option<(u64, u64)> {
        match self.book.totals(&web(), self.now) {
            Demand::Known(totals) => Some((totals.pending, totals.in_flight)),
            Demand::Unknown { .. } => None,
        }
    }

    fn totals(&self) -> Totals {
        match self.book.totals(&web(), self.now) {
            Demand::Known(totals) | Demand::Unknown { at_least: totals, .. } => totals,
        }
    }

    fn missing(&self) -> Option<String> {
        match self.book.totals(&web(), self.now) {
            Demand::Known(_) => None,
            Demand::Unknown { why, .. } => Some(why.to_string()),
        }
    }
}

#[test]
fn nothing_is_known_before_the_interceptors_are_listed_and_each_of_them_has_reported() {
    let mut clock = Clock::new();
    clock.book = DemandBook::new();
    clock.apply(report(A, 1, 0, 0, 0));
    assert_eq!(
        clock.missing().as_deref(),
        Some("the interceptors have not been listed yet")
    );
    clock.list(&[A, B]);
    assert_eq!(
        clock.missing().as_deref(),
        Some("the interceptor pod pod-b has not reported yet")
    );
    clock.apply(report(B, 1, 2, 0, 2));
    assert_eq!(clock.known(), Some((2, 0)));
}

#[test]
fn without_interceptors_there_is_no_demand() {
    let mut clock = Clock::new();
    clock.list(&[]);
    assert_eq!(clock.known(), Some((0, 0)));
}

#[test]
fn reports_add_up_over_interceptors() {
    let mut clock = Clock::new();
    clock.apply(report(A, 1, 3, 1, 4));
    clock.apply(report(B, 1, 2, 5, 7));
    assert_eq!(clock.known(), Some((5, 6)));
    assert_eq!(clock.totals().held(), 11);
    clock.apply(report(A, 2, 0, 0, 4));
    assert_eq!(clock.known(), Some((2, 5)));
}

#[test]
fn silence_is_unknown_and_not_zero_and_what_others_hold_is_still_certain() {
    let mut clock = Clock::new();
    clock.apply(report(A, 1, 0, 4, 4));
    clock.apply(report(B, 1, 1, 0, 1));
    clock.pass(2.0);
    assert!(clock.book.heartbeat(B, 1, 1, clock.now));
    clock.pass(0.999);
    assert_eq!(clock.known(), Some((1, 4)), "just short of 3 s");
    clock.pass(0.001);
    let silent = Some("the interceptor pod pod-a is silent".to_owned());
    assert_eq!(clock.missing(), silent);
    clock.pass(0.5);
    assert_eq!(clock.missing(), silent, "the same is said of the same");
    assert_eq!(clock.totals().held(), 1);
    assert!(clock.book.heartbeat(A, 1, 1, clock.now));
    assert_eq!(clock.known(), Some((1, 4)), "heard again");
}

#[test]
fn the_newest_report_again_is_a_heartbeat_and_an_older_one_is_not() {
    let mut clock = Clock::new();
    clock.list(&[A]);
    clock.apply(report(A, 1, 0, 0, 0));
    clock.apply(report(A, 2, 0, 1, 1));
    clock.pass(2.0);
    clock.apply(report(A, 2, 0, 1, 1));
    clock.pass(2.0);
    assert_eq!(clock.known(), Some((0, 1)));
    clock.apply(report(A, 1, 0, 0, 0));
    clock.pass(1.0);
    assert_eq!(clock.known(), None);
}

#[test]
fn a_heartbeat_of_a_report_that_is_not_known_says_nothing() {
    let mut clock = Clock::new();
    clock.list(&[A]);
    clock.apply(report(A, 1, 0, 0, 0));
    clock.pass(2.0);
    assert!(!clock.book.heartbeat(A, 1, 2, clock.now), "report 2 was lost");
    assert!(!clock.book.heartbeat(A, 2, 1, clock.now), "another process");
    assert!(!clock.book.heartbeat(B, 1, 1, clock.now), "never heard");
    clock.pass(1.0);
    assert_eq!(clock.known(), None);
}

#[test]
fn a_pod_that_is_gone_and_one_that_said_goodbye_count_nothing() {
    let mut clock = Clock::new();
    clock.apply(report(A, 1, 0, 4, 4));
    clock.apply(report(B, 1, 0, 2, 2));
    clock.apply(goodbye(A, 2));
    assert_eq!(clock.known(), Some((0, 2)));
    clock.list_at(&[A], PodStage::Leaving);
    assert_eq!(clock.known(), Some((0, 0)));
    clock.pass(60.0);
    assert_eq!(
        clock.known(),
        Some((0, 0)),
        "its pod may stay for as long as it likes"
    );
    clock.apply(report(A, 1, 9, 9, 9));
    assert_eq!(
        clock.known(),
        Some((0, 0)),
        "a late message of the session that is over"
    );
}

#[test]
fn a_goodbye_of_a_pod_that_stays_is_not_its_last_word() {
    let mut clock = Clock::new();
    clock.list(&[A]);
    clock.apply(report(A, 1, 0, 4, 4));
    clock.apply(goodbye(A, 2));
    clock.pass(9.999);
    assert_eq!(clock.known(), Some((0, 0)), "it may be on its way out");
    clock.pass(0.001);
    assert_eq!(
        clock.missing().as_deref(),
        Some("the interceptor pod pod-a has not reported yet"),
        "its container was started again"
    );
    let restarted = DemandReport {
        session: 2,
        ..report(A, 1, 1, 0, 1)
    };
    clock.apply(restarted);
    assert_eq!(clock.known(), Some((1, 0)));
}

#[test]
fn an_interceptor_that_is_not_listed_yet_counts_while_it_is_heard() {
    let mut clock = Clock::new();
    clock.list(&[]);
    clock.apply(report(A, 1, 1, 0, 1));
    assert_eq!(clock.known(), Some((1, 0)));
    clock.list(&[]);
    assert_eq!(clock.known(), Some((1, 0)), "a list may be behind");
    clock.list(&[A]);
    assert_eq!(clock.known(), Some((1, 0)));
    clock.list(&[]);
    assert_eq!(
        clock.known(),
        Some((0, 0)),
        "but one that is no longer listed is gone"
    );
}

#[test]
fn a_restarted_process_replaces_what_its_predecessor_said() {
    let mut clock = Clock::new();
    clock.list(&[A]);
    clock.apply(report(A, 70, 5, 5, 900));
    let reborn = DemandReport {
        session: 2,
        ..report(A, 1, 1, 0, 1)
    };
    clock.apply(reborn.clone());
    assert_eq!(clock.known(), Some((1, 0)));
    clock.apply(report(A, 71, 5, 5, 901));
    assert_eq!(clock.known(), Some((1, 0)), "a late message of the old one");
    // The third process has a clock that went back.
    let backwards = DemandReport { session: 0, ..reborn };
    clock.apply(backwards.clone());
    assert_eq!(clock.known(), Some((1, 0)));
    clock.pass(3.0);
    clock.apply(DemandReport {
        sequence: 2,
        ..backwards
    });
    assert_eq!(
        clock.known(),
        Some((1, 0)),
        "taken once the one before it is silent"
    );
}

#[test]
fn only_what_appears_or_piles_up_unserved_is_looked_at_now() {
    let mut clock = Clock::new();
    assert_eq!(clock.apply(report(A, 1, 0, 0, 0)), []);
    assert_eq!(clock.apply(report(A, 2, 1, 0, 1)), [web()], "the edge");
    assert_eq!(clock.apply(report(A, 2, 1, 0, 1)), [], "doubled");
    assert_eq!(clock.apply(report(B, 1, 1, 0, 1)), [web()], "more waits");
    assert_eq!(clock.apply(report(A, 3, 0, 1, 1)), [], "it is being served");
    assert_eq!(
        clock.apply(report(A, 4, 7, 1, 8)),
        [],
        "and more than before is no edge"
    );
    assert_eq!(clock.apply(report(A, 5, 0, 0, 8)), []);
    assert_eq!(clock.apply(report(B, 2, 0, 0, 1)), []);
    assert_eq!(
        clock.apply(report(A, 6, 0, 0, 9)),
        [web()],
        "it came and went between two reports"
    );
}

#[test]
fn what_a_silent_interceptor_held_hides_no_edge() {
    let mut clock = Clock::new();
    clock.apply(report(A, 1, 0, 5, 5));
    clock.pass(3.0);
    assert_eq!(clock.apply(report(B, 1, 1, 0, 1)), [web()]);
}

#[test]
fn a_route_that_nobody_follows_is_counted_and_wakes_nobody() {
    let mut clock = Clock::new();
    clock.list(&[A]);
    clock.book.unfollow(&web());
    assert_eq!(clock.apply(report(A, 1, 2, 0, 2)), []);
    assert_eq!(clock.known(), Some((2, 0)));
    clock.book.follow(web(), None, clock.now);
    assert_eq!(
        clock.totals().edge,
        Some(clock.now),
        "held when it was first asked for"
    );
}

#[test]
fn the_quiet_begins_when_the_last_request_ended() {
    let mut clock = Clock::new();
    clock.list(&[A]);
    clock.apply(report(A, 1, 0, 0, 0));
    assert_eq!(clock.totals().quiet_for, None, "never");
    clock.pass(10.0);
    clock.apply(report(A, 2, 0, 1, 1));
    clock.pass(2.0);
    clock.book.heartbeat(A, 1, 2, clock.now);
    clock.pass(2.0);
    assert_eq!(clock.totals().quiet_for, Some(Duration::ZERO));
    clock.apply(DemandReport {
        routes: BTreeMap::new(),
        ..report(A, 3, 0, 0, 0)
    });
    clock.pass(5.0);
    assert_eq!(clock.totals().quiet_for, Some(seconds(5.0)));
    clock.apply(report(A, 4, 0, 1, 2));
    clock.pass(1.0);
    clock.list(&[]);
    clock.pass(1.0);
    assert_eq!(clock.totals().quiet_for, Some(seconds(2.0)), "last heard 2 s ago");
}

#[test]
fn those_wait_whose_requests_nobody_serves_as_far_as_is_known() {
    let mut clock = Clock::new();
    let waits = |clock: &Clock| !clock.book.waiting(clock.now).is_empty();
    clock.apply(report(A, 1, 0, 0, 0));
    assert!(!waits(&clock));
    clock.apply(report(A, 2, 3, 0, 3));
    assert_eq!(
        clock.book.waiting(clock.now),
        [web()].into(),
        "whatever B may hold"
    );
    clock.apply(report(B, 1, 0, 1, 1));
    assert!(!waits(&clock), "an endpoint answers");
    clock.apply(report(B, 2, 0, 0, 1));
    assert!(waits(&clock));
    clock.pass(SILENCE.as_secs_f64());
    assert!(!waits(&clock), "nobody says so any more");
    clock.apply(report(A, 3, 3, 0, 3));
    assert!(waits(&clock));
    clock.book.unfollow(&web());
    assert!(!waits(&clock), "a route that is gone");
}
