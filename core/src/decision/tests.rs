use super::*;
use crate::policy::{Fallback, FallbackBehavior, MetricTarget, Pause, TargetKind, TriggerPolicy};
use crate::reading::{ReadFailure, Reading};
use crate::replicas::ReplicaRange;
use crate::resource::{PodResource, ResourceMetric, ResourceTarget};

mod demand;
mod properties;

const NOW: i64 = 1_000_000;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn policy(min: Option<u32>, max: u32, idle: Option<u32>, triggers: usize) -> ScalePolicy {
    ScalePolicy {
        replicas: ReplicaRange::try_new(min, max, idle).unwrap(),
        polling_interval: Duration::from_secs(30),
        cooldown_period: Duration::from_secs(300),
        initial_cooldown_period: Duration::ZERO,
        fallback: None,
        pause: Pause::No,
        force_activation: false,
        triggers: (0..triggers)
            .map(|index| TriggerPolicy {
                index,
                name: None,
                trigger_type: "metrics-api".into(),
                metric_name: format!("s{index}-m"),
                target: MetricTarget {
                    kind: TargetKind::AverageValue,
                    value: 5.0,
                },
                use_cached_metrics: false,
                sizes: false,
            })
            .collect(),
        resources: Vec::new(),
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Said {
    Active,
    Idle,
    Failed(u32),
}

fn readings(said: &[Said]) -> ReadingSet {
    let outcome = |said: Said| match said {
        Said::Active => Ok(Reading::new(7.0, true, at(NOW)).unwrap()),
        Said::Idle => Ok(Reading::new(0.0, false, at(NOW)).unwrap()),
        Said::Failed(_) => Err(ReadFailure {
            category: "timeout",
            message: "no answer".into(),
        }),
    };
    ReadingSet(
        said.iter()
            .enumerate()
            .map(|(index, &said)| TriggerReading {
                metric_name: format!("s{index}-m"),
                outcome: outcome(said),
                failures: if let Said::Failed(n) = said { n } else { 0 },
            })
            .collect(),
    )
}

fn observed(replicas: u32, last_active: Option<i64>) -> Observation {
    Observation {
        replicas,
        created: at(NOW - 10_000),
        last_active: last_active.map(at),
    }
}

/// Name, minimum, idle count, current replicas, last activity, what the triggers said, fallback; then what follows.
type Row<'a> = (
    &'a str,
    Option<u32>,
    Option<u32>,
    u32,
    Option<i64>,
    &'a [Said],
    Option<Fallback>,
    Action,
    Reason,
    TriggerHealth,
);

/// The rows of KEDA's request-scale table, one by one: bounds, current replicas, what the triggers said, what follows.
#[test]
fn the_table() {
    use Said::{Active, Failed, Idle};
    let fallback = |replicas| {
        Some(Fallback {
            failure_threshold: 3,
            replicas,
            behavior: FallbackBehavior::Static,
        })
    };
    let long_ago = Some(NOW - 5_000);
    let just_now = Some(NOW - 10);
    let rest = Action::Deactivate { to: 0 };
    let wake = |to| Action::Activate { to };
    let stay = Action::Stay;
    let rows: &[Row<'_>] = &[
        (
            "active 1: from zero",
            None,
            None,
            0,
            None,
            &[Active],
            None,
            wake(1),
            Reason::Woken,
            TriggerHealth::Good,
        ),
        (
            "active 1: from zero to min",
            Some(4),
            None,
            0,
            None,
            &[Active],
            None,
            wake(4),
            Reason::Woken,
            TriggerHealth::Good,
        ),
        (
            "active 1: from idle",
            Some(4),
            Some(1),
            1,
            None,
            &[Active],
            None,
            wake(4),
            Reason::Woken,
            TriggerHealth::Good,
        ),
        (
            "active 1: with a failing one beside",
            None,
            None,
            0,
            None,
            &[Failed(1), Active],
            None,
            wake(1),
            Reason::Woken,
            TriggerHealth::Partial,
        ),
        (
            "active 2: partial",
            None,
            None,
            3,
            None,
            &[Failed(1), Active],
            None,
            stay,
            Reason::HeldByAutoscaler,
            TriggerHealth::Partial,
        ),
        (
            "active 3: the HPA has it",
            None,
            None,
            3,
            None,
            &[Active],
            None,
            stay,
            Reason::HeldByAutoscaler,
            TriggerHealth::Good,
        ),
        (
            "active 3: below min without idle is the HPA's too",
            Some(4),
            None,
            2,
            None,
            &[Active],
            None,
            stay,
            Reason::HeldByAutoscaler,
            TriggerHealth::Good,
        ),
        (
            "inactive 1: failing, fallback not reached",
            None,
            None,
            3,
            long_ago,
            &[Failed(3)],
            fallback(6),
            stay,
            Reason::ReadingMissing,
            TriggerHealth::Good,
        ),
        (
            "inactive 1: fallback reached counts as active",
            None,
            None,
            0,
            long_ago,
            &[Failed(4)],
            fallback(6),
            wake(1),
            Reason::Woken,
            TriggerHealth::Good,
        ),
        (
            "inactive 2: failing, no fallback",
            None,
            None,
            3,
            long_ago,
            &[Failed(99)],
            None,
            stay,
            Reason::ReadingMissing,
            TriggerHealth::Unknown,
        ),
        (
            "inactive 2: one failing is enough",
            None,
            None,
            3,
            long_ago,
            &[Idle, Failed(1)],
            None,
            stay,
            Reason::ReadingMissing,
            TriggerHealth::Unknown,
        ),
        (
            "inactive 3: to zero",
            None,
            None,
            3,
            long_ago,
            &[Idle, Idle],
            None,
            rest,
            Reason::Rested,
            TriggerHealth::Good,
        ),
        (
            "inactive 3: to idle",
            Some(4),
            Some(1),
            5,
            long_ago,
            &[Idle],
            None,
            Action::Deactivate { to: 1 },
            Reason::Rested,
            TriggerHealth::Good,
        ),
        (
            "inactive 3: cooling down",
            None,
            None,
            3,
            just_now,
            &[Idle],
            None,
            stay,
            Reason::CoolingDown,
            TriggerHealth::Good,
        ),
        (
            "inactive 3: fallback of 0, not reached (ours)",
            None,
            None,
            3,
            long_ago,
            &[Failed(3)],
            fallback(0),
            stay,
            Reason::ReadingMissing,
            TriggerHealth::Unknown,
        ),
        (
            "inactive 3: fallback of 0, reached",
            None,
            None,
            3,
            long_ago,
            &[Failed(4)],
            fallback(0),
            rest,
            Reason::Rested,
            TriggerHealth::Good,
        ),
        (
            "inactive 3: fallback of 0, reached, cooling down (ours)",
            None,
            None,
            3,
            just_now,
            &[Failed(4)],
            fallback(0),
            stay,
            Reason::CoolingDown,
            TriggerHealth::Good,
        ),
        (
            "inactive 4: below min",
            Some(4),
            None,
            2,
            long_ago,
            &[Idle],
            None,
            Action::RaiseToMinimum { to: 4 },
            Reason::BelowMinimum,
            TriggerHealth::Good,
        ),
        (
            "inactive 5: at min",
            Some(4),
            None,
            4,
            long_ago,
            &[Idle],
            None,
            stay,
            Reason::Resting,
            TriggerHealth::Good,
        ),
        (
            "inactive 5: at zero",
            None,
            None,
            0,
            long_ago,
            &[Idle],
            None,
            stay,
            Reason::Resting,
            TriggerHealth::Good,
        ),
        (
            "inactive 5: at idle",
            Some(4),
            Some(1),
            1,
            long_ago,
            &[Idle],
            None,
            stay,
            Reason::Resting,
            TriggerHealth::Good,
        ),
    ];
    for (name, min, idle, current, last_active, said, fallback, action, reason, health) in rows {
        let mut policy = policy(*min, 10, *idle, said.len());
        policy.fallback = *fallback;
        let decision = decide(
            &policy,
            &observed(*current, *last_active),
            &readings(said),
            at(NOW),
        );
        assert_eq!(
            (decision.action, decision.reason, decision.health),
            (*action, *reason, *health),
            "{name}"
        );
    }
}

#[test]
fn forcing_wakes_and_names_no_trigger() {
    let mut policy = policy(None, 100, None, 1);
    policy.force_activation = true;
    let decision = decide(&policy, &observed(0, None), &readings(&[Said::Idle]), at(NOW));
    assert_eq!(
        (decision.action, decision.activity),
        (Action::Activate { to: 1 }, Activity::Forced)
    );
    assert!(decision.active_metrics.is_empty());
}

#[test]
fn forcing_holds_beside_triggers_that_fail_and_yields_to_a_pause() {
    let mut policy = policy(Some(2), 100, None, 2);
    policy.force_activation = true;
    let failing = readings(&[Said::Idle, Said::Failed(9)]);
    let asleep = decide(&policy, &observed(0, None), &failing, at(NOW));
    assert_eq!(
        (asleep.action, asleep.activity, asleep.health),
        (
            Action::Activate { to: 2 },
            Activity::Forced,
            TriggerHealth::Partial
        )
    );
    // Nothing is active, and the cooldown is long over: what is forced still stays.
    let awake = decide(
        &policy,
        &observed(5, Some(0)),
        &readings(&[Said::Idle, Said::Idle]),
        at(NOW),
    );
    assert_eq!((awake.action, awake.health), (Action::Stay, TriggerHealth::Good));
    assert_eq!(
        awake.last_active,
        Some(at(NOW)),
        "the cooldown begins when the annotation goes"
    );
    for (pause, reason) in [
        (Pause::Full { replicas: None }, Reason::Paused),
        (
            Pause::Directions {
                scale_in: false,
                scale_out: true,
            },
            Reason::WakeBlockedByPause,
        ),
    ] {
        policy.pause = pause;
        let decision = decide(&policy, &observed(0, None), &failing, at(NOW));
        assert_eq!((decision.action, decision.reason), (Action::Stay, reason));
    }
}

#[test]
fn resource_triggers_alone_never_sleep() {
    let mut policy = policy(None, 100, None, 0);
    policy.resources = vec![ResourceMetric {
        resource: PodResource::Cpu,
        container: None,
        target: ResourceTarget::Utilization(60),
    }];
    let decision = decide(&policy, &observed(2, Some(0)), &ReadingSet::default(), at(NOW));
    assert_eq!(
        (decision.action, decision.activity),
        (Action::Stay, Activity::Active)
    );
}

#[test]
fn cooldown_ends_strictly_after_its_last_instant() {
    let policy = policy(None, 100, None, 1);
    let last_active = NOW - 300;
    let at_the_end = decide(
        &policy,
        &observed(1, Some(last_active)),
        &readings(&[Said::Idle]),
        at(NOW),
    );
    assert_eq!(at_the_end.activity, Activity::CoolingDown { until: at(NOW) });
    assert_eq!(at_the_end.action, Action::Stay);
    let a_moment_later = at(NOW) + Duration::from_millis(1);
    let after = decide(
        &policy,
        &observed(1, Some(last_active)),
        &readings(&[Said::Idle]),
        a_moment_later,
    );
    assert_eq!(after.action, Action::Deactivate { to: 0 });
}

#[test]
fn the_initial_cooldown_counts_from_creation_until_the_first_activity() {
    let mut policy = policy(None, 100, None, 1);
    policy.initial_cooldown_period = Duration::from_secs(20_000);
    let young = decide(&policy, &observed(1, None), &readings(&[Said::Idle]), at(NOW));
    assert_eq!(young.reason, Reason::CoolingDown);
    let was_active = decide(
        &policy,
        &observed(1, Some(NOW - 301)),
        &readings(&[Said::Idle]),
        at(NOW),
    );
    assert_eq!(was_active.reason, Reason::Rested);
}

#[test]
fn directional_pauses_stop_their_direction_only() {
    let mut policy = policy(None, 100, None, 1);
    policy.pause = Pause::Directions {
        scale_in: true,
        scale_out: false,
    };
    assert_eq!(
        decide(&policy, &observed(0, None), &readings(&[Said::Active]), at(NOW)).reason,
        Reason::Woken
    );
    assert_eq!(
        decide(&policy, &observed(3, Some(0)), &readings(&[Said::Idle]), at(NOW)).reason,
        Reason::RestBlockedByPause
    );
    policy.pause = Pause::Directions {
        scale_in: false,
        scale_out: true,
    };
    assert_eq!(
        decide(&policy, &observed(0, None), &readings(&[Said::Active]), at(NOW)).reason,
        Reason::WakeBlockedByPause
    );
    assert_eq!(
        decide(&policy, &observed(3, Some(0)), &readings(&[Said::Idle]), at(NOW)).reason,
        Reason::Rested
    );
}
