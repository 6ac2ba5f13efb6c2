//! Any value that a source may give, from the reading to the decision and to what the HPA is told.

#![allow(
    clippy::unwrap_used,
    reason = "all of it is test code, which clippy sees in test functions only"
)]

use std::time::Duration;

use dormouse_core::{
    Fallback, FallbackBehavior, MetricTarget, Observation, Pause, Quantity, ReadFailure, Reading, ReadingSet,
    ReplicaRange, ScalePolicy, TargetKind, TriggerPolicy, TriggerReading, decide,
};
use jiff::Timestamp;
use proptest::prelude::*;

fn now() -> Timestamp {
    Timestamp::from_second(1_000_000).unwrap()
}

/// What a source says: a value, or nothing at all.
fn any_value() -> impl Strategy<Value = Option<f64>> {
    let odd = proptest::sample::select(vec![
        f64::NAN,
        f64::INFINITY,
        f64::NEG_INFINITY,
        -0.0,
        -1.0,
        9_223_372_036_854_775_808.0,
        -9_223_372_036_854_775_808.0,
        9_223_372_036_854_775.807,
        1e300,
        f64::MAX,
        f64::MIN_POSITIVE,
    ]);
    prop_oneof![
        2 => odd.prop_map(Some),
        2 => proptest::num::f64::ANY.prop_map(Some),
        2 => (0.0f64..1000.0).prop_map(Some),
        1 => Just(None),
    ]
}

fn failure() -> ReadFailure {
    ReadFailure {
        category: "bad-answer",
        message: "no number".into(),
    }
}

fn readings(said: &[Option<f64>], activation: f64) -> ReadingSet {
    let reading = |(index, said): (usize, &Option<f64>)| {
        let outcome = said
            .and_then(|value| Reading::new(value, value > activation, now()))
            .ok_or_else(failure);
        TriggerReading {
            metric_name: format!("s{index}-m"),
            failures: u32::from(outcome.is_err()) * 9,
            outcome,
        }
    };
    ReadingSet(said.iter().enumerate().map(reading).collect())
}

fn policy(
    bounds: (Option<u32>, u32),
    triggers: usize,
    target: f64,
    fallback: Option<Fallback>,
) -> ScalePolicy {
    let trigger = |index| TriggerPolicy {
        index,
        name: None,
        trigger_type: "metrics-api".into(),
        metric_name: format!("s{index}-m"),
        target: MetricTarget {
            kind: TargetKind::AverageValue,
            value: target,
        },
        use_cached_metrics: false,
        sizes: false,
    };
    ScalePolicy {
        replicas: ReplicaRange::try_new(bounds.0, bounds.1, None).unwrap(),
        polling_interval: Duration::from_secs(30),
        cooldown_period: Duration::ZERO,
        initial_cooldown_period: Duration::ZERO,
        fallback,
        pause: Pause::No,
        force_activation: false,
        triggers: (0..triggers).map(trigger).collect(),
        resources: Vec::new(),
    }
}

proptest! {
    #[test]
    fn replicas_stay_within_bounds_and_a_missing_value_lowers_nothing(
        said in proptest::collection::vec(any_value(), 1..4),
        bounds in (proptest::option::of(0u32..8), 8u32..20),
        activation in proptest::num::f64::ANY,
        target in prop_oneof![Just(0.001), Just(1e300), 0.1f64..100.0],
        current in 0u32..25,
    ) {
        let policy = policy(bounds, said.len(), target, None);
        let seen = Observation { replicas: current, created: Timestamp::UNIX_EPOCH, last_active: None };
        let readings = readings(&said, activation);
        let decision = decide(&policy, &seen, &readings, now());
        let range = policy.replicas;
        if let Some(to) = decision.action.target() {
            prop_assert!(to == 0 || (range.min()..=range.max()).contains(&to));
            let unknown = said.iter().any(|said| !said.is_some_and(f64::is_finite));
            prop_assert!(!unknown || to > current, "lowered without knowledge");
        }
    }

    #[test]
    fn what_the_hpa_is_told_is_a_number_it_can_read_and_never_below_zero(said in any_value()) {
        let reading = said.and_then(|value| Reading::new(value, true, now()));
        prop_assert_eq!(reading.is_some(), said.is_some_and(f64::is_finite), "no failure is a 0");
        if let Some(reading) = reading {
            prop_assert!(reading.value() >= 0.0 && reading.value().is_finite());
            let told = Quantity::from_f64_milli(reading.value());
            prop_assert!(told >= Quantity::from_milli(0) && told <= Quantity::from_milli(i64::MAX));
            prop_assert_eq!(Quantity::parse(&told.to_string()).unwrap(), told);
        }
    }

    #[test]
    fn a_fallback_makes_the_hpa_ask_for_its_replicas(
        replicas in 0u32..100,
        current in 0u32..100,
        ready in 0u32..100,
        target in prop_oneof![0.001f64..1000.0, Just(1e300), Just(f64::MAX)],
        average in any::<bool>(),
    ) {
        let fallback = Fallback { failure_threshold: 3, replicas, behavior: FallbackBehavior::CurrentReplicasIfHigher };
        let kind = if average { TargetKind::AverageValue } else { TargetKind::Value };
        match fallback.metric_value(MetricTarget { kind, value: target }, current, ready) {
            None => prop_assert!(!average && ready == 0),
            Some(value) => {
                prop_assert!(value >= 0.0);
                let told = Quantity::from_f64_milli(value);
                prop_assert!(told >= Quantity::from_milli(0));
                if target <= 1000.0 && average {
                    let asked = (told.as_f64() / target).ceil();
                    prop_assert!((asked - f64::from(replicas.max(current))).abs() <= 1.0);
                }
            }
        }
    }

    #[test]
    fn forcing_wakes_whatever_the_triggers_say_and_lowers_nothing(
        said in proptest::collection::vec(any_value(), 0..4),
        bounds in (proptest::option::of(0u32..8), 8u32..20),
        current in 0u32..25,
    ) {
        let mut policy = policy(bounds, said.len(), 5.0, None);
        policy.force_activation = true;
        let seen = Observation { replicas: current, created: Timestamp::UNIX_EPOCH, last_active: None };
        let decision = decide(&policy, &seen, &readings(&said, 0.0), now());
        prop_assert!(decision.activity.is_active());
        prop_assert_eq!(decision.last_active, Some(now()));
        let expected = (current == 0).then(|| policy.replicas.min().max(1));
        prop_assert_eq!(decision.action.target(), expected);
    }
}
