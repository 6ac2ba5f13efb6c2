use super::*;

fn rated(window: f64, granularity: f64) -> Clock {
    let mut clock = Clock::new();
    clock.list(&[A]);
    clock.book.follow(
        web(),
        Some(RateWindow::new(seconds(window), seconds(granularity))),
        clock.now,
    );
    clock.apply(report(A, 1, 0, 0, 0));
    clock
}

fn rate(clock: &Clock) -> f64 {
    clock.totals().rate.unwrap()
}

/// A report stands for the tenth of a second before it: that much is uncertain at either end.
fn nearly(value: f64, expected: f64) {
    assert!(
        (value - expected).abs() <= expected * 0.05,
        "{value} is not {expected}"
    );
}

/// Ten reports a second for so long, of requests that are over at once.
fn load(clock: &mut Clock, per_second: u64, lasting: u64) {
    for _ in 0..lasting * 10 {
        clock.pass(0.1);
        clock.sequence += 1;
        clock.started += per_second / 10;
        clock.apply(report(A, clock.sequence, 0, 0, clock.started));
    }
}

#[test]
fn a_steady_load_is_per_second_whatever_the_granularity() {
    for (window, granularity) in [(60.0, 1.0), (60.0, 10.0), (5.0, 5.0), (4.0, 0.1), (3600.0, 1.0)] {
        let mut clock = rated(window, granularity);
        load(&mut clock, 50, 150);
        nearly(rate(&clock), 50.0);
    }
}

#[test]
fn before_a_window_has_passed_the_average_is_over_the_time_since_the_edge() {
    let mut clock = rated(60.0, 1.0);
    load(&mut clock, 100, 5);
    nearly(rate(&clock), 100.0);
}

#[test]
fn a_second_burst_is_an_edge_once_a_window_has_passed_or_its_target_slept() {
    for slept in [false, true] {
        let mut clock = rated(60.0, 1.0);
        load(&mut clock, 100, 5);
        let first = clock.totals().edge;
        clock.pass(if slept { 20.0 } else { 61.0 });
        if slept {
            clock.book.slept(&web());
            assert_eq!(clock.totals().edge, None);
        }
        load(&mut clock, 200, 5);
        assert!(clock.totals().edge > first);
        nearly(rate(&clock), 200.0);
    }
}

#[test]
fn within_a_window_the_pauses_count() {
    let mut clock = rated(60.0, 1.0);
    load(&mut clock, 100, 5);
    clock.pass(5.0);
    load(&mut clock, 100, 5);
    nearly(rate(&clock), 1000.0 / 15.0);
}

#[test]
fn it_falls_to_nothing_after_a_window() {
    let mut clock = rated(10.0, 1.0);
    load(&mut clock, 100, 30);
    clock.pass(5.0);
    let halfway = rate(&clock);
    assert!((40.0..60.0).contains(&halfway), "{halfway}");
    clock.pass(6.1);
    assert!(rate(&clock).abs() < f64::EPSILON);
}

#[test]
fn it_is_never_below_what_is_held() {
    let mut clock = rated(60.0, 1.0);
    clock.apply(report(A, 2, 300, 200, 500));
    nearly(rate(&clock), 500.0);
    clock.pass(50.0);
    clock.book.heartbeat(A, 1, 2, clock.now);
    nearly(rate(&clock), 500.0);
}

#[test]
fn a_reporter_first_heard_in_the_middle_of_its_session_brings_no_past() {
    let mut clock = rated(60.0, 1.0);
    clock.list(&[A, B]);
    clock.apply(report(B, 4000, 0, 0, 1_000_000));
    assert!(rate(&clock).abs() < f64::EPSILON);
    clock.pass(1.0);
    clock.apply(report(B, 4001, 0, 0, 1_000_010));
    nearly(rate(&clock), 10.0);
}

#[test]
fn the_first_request_of_a_new_route_counts() {
    let mut clock = rated(60.0, 1.0);
    let empty = DemandReport {
        routes: BTreeMap::new(),
        ..report(B, 1, 0, 0, 0)
    };
    clock.apply(empty.clone());
    assert_eq!(clock.apply(report(B, 2, 0, 0, 3)), [web()]);
    nearly(rate(&clock), 3.0);
    // Left out, its counter stays as it was.
    clock.apply(DemandReport { sequence: 3, ..empty });
    clock.apply(report(B, 4, 0, 0, 5));
    nearly(rate(&clock), 5.0);
}

#[test]
fn another_window_begins_anew_and_the_same_one_goes_on() {
    let mut clock = rated(60.0, 1.0);
    load(&mut clock, 100, 5);
    let over = RateWindow::new(seconds(60.0), seconds(1.0));
    clock.book.follow(web(), Some(over), clock.now);
    nearly(rate(&clock), 100.0);
    clock.book.follow(web(), None, clock.now);
    assert_eq!(clock.totals().rate, None);
}

#[test]
fn no_window_costs_much_or_divides_by_nothing() {
    for (window, granularity) in [
        (Duration::ZERO, Duration::ZERO),
        (Duration::MAX, Duration::ZERO),
        (Duration::ZERO, Duration::MAX),
        (seconds(3600.0), seconds(0.001)),
    ] {
        let mut clock = rated(60.0, 1.0);
        clock
            .book
            .follow(web(), Some(RateWindow::new(window, granularity)), clock.now);
        clock.apply(report(A, 2, 0, 0, 10));
        let rate = rate(&clock);
        assert!(
            rate.is_finite() && rate > 0.0,
            "{window:?} {granularity:?}: {rate}"
        );
    }
}
