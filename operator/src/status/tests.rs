use std::time::Duration;

use dormouse_core::{Action, FallbackBehavior, Observation, ReadFailure, Reading, Reason, TriggerReading};
use serde_json::json;

use super::*;

fn at(millis: i64) -> Timestamp {
    Timestamp::from_millisecond(millis).unwrap()
}

fn record(active: bool, last_active: Option<Timestamp>) -> DecisionRecord {
    DecisionRecord {
        at: at(10_500),
        observation: Observation {
            replicas: 1,
            created: at(0),
            last_active,
        },
        readings: ReadingSet(vec![TriggerReading {
            metric_name: "s0-a".into(),
            outcome: Ok(Reading::new(1.0, active, at(10_500)).unwrap()),
            failures: 0,
        }]),
        decision: Decision {
            action: Action::Stay,
            activity: if active {
                Activity::Active
            } else {
                Activity::CoolingDown { until: at(99_000) }
            },
            health: TriggerHealth::Good,
            reason: Reason::HeldByAutoscaler,
            active_metrics: if active { vec!["s0-a".into()] } else { Vec::new() },
            fallen_back: Vec::new(),
            last_active,
            recheck_after: Duration::from_secs(1),
        },
    }
}

fn fresh() -> ScaledObjectStatus {
    let mut status = ScaledObjectStatus {
        external_metric_names: vec!["s0-a".into()],
        ..Default::default()
    };
    set_checked(&mut status, Pause::No);
    status
}

#[test]
fn the_last_moment_of_activity_is_written_on_the_edges_only_and_never_shortens_a_cooldown() {
    let mut status = fresh();
    set_decided(&mut status, &record(true, Some(at(10_500))), None);
    let woken = status.last_active_time.clone().unwrap().0;
    assert_eq!(woken, at(11_000), "rounded up");
    set_decided(&mut status, &record(true, Some(at(20_500))), None);
    assert_eq!(
        status.last_active_time.clone().unwrap().0,
        woken,
        "unchanged while it stays active"
    );
    set_decided(&mut status, &record(false, Some(at(30_200))), None);
    assert_eq!(status.last_active_time.unwrap().0, at(31_000));
}

#[test]
fn a_steady_object_changes_nothing() {
    let mut status = fresh();
    set_decided(&mut status, &record(true, Some(at(10_500))), None);
    let before = status.clone();
    set_decided(&mut status, &record(true, Some(at(40_500))), None);
    assert_eq!(status, before);
}

#[test]
fn a_tick_does_not_paint_over_a_failed_check() {
    let mut status = fresh();
    set_check_failed(&mut status, "no such target");
    set_decided(&mut status, &record(true, Some(at(10_500))), None);
    assert_eq!(
        find(&status, conditions::READY).unwrap().message.as_deref(),
        Some("no such target")
    );
    assert_eq!(
        find(&status, conditions::ACTIVE).unwrap().status,
        ConditionStatus::Unknown
    );
    set_checked(&mut status, Pause::No);
    assert!(holds(&status, conditions::READY));
}

#[test]
fn failures_are_written_on_flips_and_at_the_threshold() {
    let fallback = Some(Fallback {
        failure_threshold: 3,
        replicas: 2,
        behavior: FallbackBehavior::Static,
    });
    let mut status = fresh();
    let mut written = Vec::new();
    for failures in [0, 1, 2, 3, 4, 5, 6, 0] {
        let mut record = record(false, None);
        if failures > 0 {
            record.readings.0[0].outcome = Err(ReadFailure {
                category: "timeout",
                message: "x".into(),
            });
        }
        record.readings.0[0].failures = failures;
        set_decided(&mut status, &record, fallback);
        written.push(status.health["s0-a"].number_of_failures.unwrap());
    }
    assert_eq!(written, [0, 1, 1, 1, 4, 4, 4, 0]);
    set_decided(&mut status, &record(false, None), None);
    assert!(status.health.is_empty(), "no fallback, no health");
}

#[test]
fn pausing_and_unpausing() {
    let mut status = fresh();
    assert_eq!(
        find(&status, conditions::PAUSED).unwrap(),
        &Condition::bare(conditions::PAUSED, ConditionStatus::False)
    );
    set_checked(&mut status, Pause::Full { replicas: Some(3) });
    assert_eq!(status.paused_replica_count, Some(3));
    assert_eq!(
        find(&status, conditions::READY).unwrap().message.as_deref(),
        Some("ScaledObject is paused")
    );
    assert!(holds(&status, conditions::PAUSED));
    set_checked(&mut status, Pause::No);
    assert_eq!(status.paused_replica_count, None);
    assert_eq!(
        find(&status, conditions::PAUSED).unwrap().reason.as_deref(),
        Some(reason::SCALED_OBJECT_UNPAUSED)
    );
}

#[test]
fn hpa_active_mirrors_the_controller() {
    let mut status = fresh();
    set_hpa_active(&mut status, None);
    assert!(find(&status, conditions::HPA_ACTIVE).is_none());
    for (given, expected) in [
        (
            ("True", "ValidMetricFound", "m"),
            (ConditionStatus::True, "HPAActive"),
        ),
        (
            ("False", "ScalingDisabled", "m"),
            (ConditionStatus::True, "ScalingDisabled"),
        ),
        (
            ("False", "FailedGetExternalMetric", "m"),
            (ConditionStatus::False, "FailedGetExternalMetric"),
        ),
        (
            ("False", "", "m"),
            (ConditionStatus::False, "HPAMetricsUnavailable"),
        ),
    ] {
        set_hpa_active(&mut status, Some(given));
        let condition = find(&status, conditions::HPA_ACTIVE).unwrap();
        assert_eq!((condition.status, condition.reason.as_deref().unwrap()), expected);
    }
}

#[test]
fn a_merge_patch_names_what_changed_and_nulls_what_is_gone() {
    let before = json!({"a": 1, "b": {"x": 1, "y": 2}, "c": [1], "d": true});
    let after = json!({"a": 1, "b": {"x": 1, "y": 3}, "c": [1, 2]});
    assert_eq!(
        merge_patch(&before, &after),
        Some(json!({"b": {"y": 3}, "c": [1, 2], "d": null}))
    );
    assert_eq!(merge_patch(&before, &before), None);
}

#[test]
fn a_check_does_not_hide_that_a_trigger_fails() {
    let mut status = fresh();
    let mut failed = record(false, None);
    failed.decision.health = TriggerHealth::Unknown;
    set_decided(&mut status, &failed, None);
    assert!(!holds(&status, conditions::READY));
    set_checked(&mut status, Pause::No);
    assert!(!holds(&status, conditions::READY), "nothing was read since");
    set_decided(&mut status, &record(false, None), None);
    assert!(holds(&status, conditions::READY));

    set_decided(&mut status, &failed, None);
    set_checked(&mut status, Pause::Full { replicas: None });
    assert!(holds(&status, conditions::READY), "a paused object reads nothing");
}

#[test]
fn what_is_not_known_yet_does_not_make_a_steady_object_flap() {
    let mut status = fresh();
    set_decided(&mut status, &record(true, Some(at(10_500))), None);
    let before = status.clone();
    // The tick ended while its only trigger had not answered; the read before was fine.
    let mut unknown = record(false, Some(at(10_500)));
    unknown.decision.activity = Activity::Inactive;
    unknown.decision.health = TriggerHealth::Unknown;
    unknown.readings.0[0].outcome = Err(ReadFailure {
        category: "pending",
        message: "not read yet".into(),
    });
    set_decided(&mut status, &unknown, None);
    assert_eq!(status, before);
    // Once it has failed, it is told.
    unknown.readings.0[0].failures = 1;
    set_decided(&mut status, &unknown, None);
    assert_eq!(
        find(&status, conditions::READY).unwrap().reason.as_deref(),
        Some(reason::TRIGGER_ERROR)
    );
    assert!(!holds(&status, conditions::ACTIVE));
}

#[test]
fn a_quarantine_is_said_until_a_tick_comes_through() {
    let mut status = fresh();
    set_quarantined(&mut status, "broke off");
    set_checked(&mut status, Pause::No);
    let ready = find(&status, conditions::READY).unwrap();
    assert_eq!(
        (ready.status, ready.message.as_deref()),
        (ConditionStatus::False, Some("broke off"))
    );
    set_decided(&mut status, &record(true, Some(at(10_500))), None);
    assert!(holds(&status, conditions::READY));
}
