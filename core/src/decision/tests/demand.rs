//! Triggers that count what is held: they size the activation, and raise it while nothing serves.

use super::*;

/// What is held, whether it waits unserved, and when there last was some.
fn held(value: f64, waiting: bool, last_demand: Option<i64>) -> ReadingSet {
    let mut reading = Reading::new(value, value > 0.0, at(NOW)).unwrap();
    reading.waiting = waiting;
    reading.last_demand = last_demand.map(at);
    ReadingSet(vec![TriggerReading {
        metric_name: "s0-m".into(),
        outcome: Ok(reading),
        failures: 0,
    }])
}

/// The target of each replica is 5.
fn sizing(min: Option<u32>, max: u32, idle: Option<u32>) -> ScalePolicy {
    let mut policy = policy(min, max, idle, 1);
    policy.triggers[0].sizes = true;
    policy
}

fn action(policy: &ScalePolicy, replicas: u32, readings: &ReadingSet) -> Action {
    decide(policy, &observed(replicas, None), readings, at(NOW)).action
}

#[test]
fn an_activation_goes_straight_to_what_is_held_within_the_bounds() {
    for (min, value, to) in [
        (None, 1.0, 1),
        (None, 5.0, 1),
        (None, 6.0, 2),
        (None, 37.0, 8),
        (None, 500.0, 20),
        (Some(3), 1.0, 3),
        (Some(3), 37.0, 8),
    ] {
        let policy = sizing(min, 20, None);
        assert_eq!(
            action(&policy, 0, &held(value, true, None)),
            Action::Activate { to },
            "{min:?} {value}"
        );
    }
    // An idle target is woken so, too.
    assert_eq!(
        action(&sizing(Some(3), 20, Some(1)), 1, &held(37.0, true, None)),
        Action::Activate { to: 8 }
    );
}

#[test]
fn other_triggers_wake_to_the_minimum() {
    let mut policy = sizing(None, 20, None);
    policy.triggers[0].sizes = false;
    assert_eq!(
        action(&policy, 0, &held(37.0, true, None)),
        Action::Activate { to: 1 }
    );
}

#[test]
fn while_nothing_serves_it_is_raised_and_never_lowered() {
    let policy = sizing(None, 20, None);
    for (replicas, value, waiting, expected) in [
        (2, 37.0, true, Action::RaiseToDemand { to: 8 }),
        (2, 37.0, false, Action::Stay),
        (8, 37.0, true, Action::Stay),
        (9, 1.0, true, Action::Stay),
        (25, 500.0, true, Action::Stay),
    ] {
        assert_eq!(
            action(&policy, replicas, &held(value, waiting, None)),
            expected,
            "{replicas} {value} {waiting}"
        );
    }
}

#[test]
fn neither_goes_past_a_pause_of_scaling_out() {
    let mut policy = sizing(None, 20, None);
    policy.pause = Pause::Directions {
        scale_in: false,
        scale_out: true,
    };
    for replicas in [0, 2] {
        let decision = decide(
            &policy,
            &observed(replicas, None),
            &held(37.0, true, None),
            at(NOW),
        );
        assert_eq!(
            (decision.action, decision.reason),
            (Action::Stay, Reason::WakeBlockedByPause)
        );
    }
}

#[test]
fn a_target_of_nothing_asks_for_nothing() {
    let mut policy = sizing(None, 20, None);
    policy.triggers[0].target.value = 0.0;
    assert_eq!(
        action(&policy, 0, &held(37.0, true, None)),
        Action::Activate { to: 1 }
    );
}

#[test]
fn the_cooldown_runs_from_the_last_demand_and_not_from_the_last_tick_that_saw_some() {
    let policy = sizing(None, 20, None);
    let seen = observed(2, Some(NOW - 1000));
    let rested = decide(&policy, &seen, &held(0.0, false, Some(NOW - 301)), at(NOW));
    assert_eq!(rested.reason, Reason::Rested);
    let cooling = decide(&policy, &seen, &held(0.0, false, Some(NOW - 100)), at(NOW));
    assert_eq!(cooling.reason, Reason::CoolingDown);
    assert_eq!(cooling.last_active, Some(at(NOW - 100)));
    // What the loop remembers may be newer: that of a take-over.
    let remembered = decide(
        &policy,
        &observed(2, Some(NOW - 10)),
        &held(0.0, false, Some(NOW - 301)),
        at(NOW),
    );
    assert_eq!(remembered.reason, Reason::CoolingDown);
}
