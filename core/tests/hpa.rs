//! What holds for every autoscaler, whatever it sees.

use std::time::Duration;

use dormouse_core::Quantity;
use dormouse_core::hpa::{
    Amount, Behavior, ExternalTarget, HpaHistory, HpaMetric, HpaObservation, HpaReading, HpaSettings,
    HpaSpec, Policy, Rules, Scale, SelectPolicy, evaluate,
};
use jiff::Timestamp;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

fn rules() -> impl Strategy<Value = Rules> {
    let amount = prop_oneof![
        (1..50_u32).prop_map(Amount::Pods),
        (1..300_u32).prop_map(Amount::Percent)
    ];
    let policy = (amount, 1..1800_u64).prop_map(|(amount, period)| Policy {
        amount,
        period: Duration::from_secs(period),
    });
    let select = prop_oneof![
        Just(SelectPolicy::Max),
        Just(SelectPolicy::Min),
        Just(SelectPolicy::Disabled)
    ];
    let window = option::of((0..3600_u64).prop_map(Duration::from_secs));
    let tolerance = option::of((0..2000_i64).prop_map(Quantity::from_milli));
    (window, select, option::of(vec(policy, 1..4)), tolerance).prop_map(
        |(stabilization, select, policies, tolerance)| Rules {
            stabilization,
            select,
            policies,
            tolerance,
        },
    )
}

fn behavior() -> impl Strategy<Value = Option<Behavior>> {
    option::of((rules(), rules()).prop_map(|(scale_up, scale_down)| Behavior { scale_up, scale_down }))
}

fn spec() -> impl Strategy<Value = HpaSpec> {
    let target = (1..10_000_000_i64).prop_map(|milli| HpaMetric::External {
        name: "queue".into(),
        match_labels: None,
        target: ExternalTarget::AverageValue(Quantity::from_milli(milli)),
    });
    (1..50_u32, 0..200_u32, vec(target, 1..4), behavior()).prop_map(|(min, more, metrics, behavior)| {
        HpaSpec {
            min,
            max: min + more,
            metrics,
            behavior,
        }
    })
}

/// Values of all sizes, negative ones too; `None` fails.
fn values() -> impl Strategy<Value = Vec<Option<i64>>> {
    let value = prop_oneof![0..100_000_i64, any::<i64>()];
    vec(option::weighted(0.8, value), 3)
}

/// An HPA whose target takes every count at once.
struct Played {
    spec: HpaSpec,
    history: HpaHistory,
    replicas: u32,
    now: Timestamp,
}

impl Played {
    fn from(replicas: u32, spec: HpaSpec) -> Self {
        Self {
            spec,
            history: HpaHistory::default(),
            replicas,
            now: Timestamp::UNIX_EPOCH,
        }
    }

    fn see(&mut self, values: &[Option<i64>], seconds: u64) {
        self.now = self
            .now
            .checked_add(Duration::from_secs(seconds))
            .expect("a time of this test");
        let readings = values.iter().map(|value| {
            let value = value.ok_or("it failed")?;
            Ok(HpaReading::Series(vec![Quantity::from_milli(value)]))
        });
        let observation = HpaObservation {
            scale: Ok(Scale {
                wanted: self.replicas,
                running: self.replicas,
                has_selector: true,
            }),
            readings: readings.collect(),
            pods: Vec::new(),
        };
        let settings = HpaSettings::default();
        let evaluation = evaluate(&self.spec, &settings, &observation, &mut self.history, self.now);
        if let Some(rescale) = &evaluation.rescale {
            assert_ne!(rescale.from, rescale.to, "a rescale that changes nothing");
            assert_eq!(evaluation.desired, Some(rescale.to));
            self.history.rescaled(&self.spec, &settings, rescale, self.now);
            self.replicas = rescale.to;
        }
    }
}

proptest! {
    #[test]
    fn the_count_stays_within_the_bounds(
        spec in spec(),
        start in 1..400_u32,
        steps in vec((values(), 1..400_u64), 1..30),
    ) {
        let mut played = Played::from(start, spec);
        for (values, seconds) in steps {
            played.see(&values, seconds);
            prop_assert!((played.spec.min..=played.spec.max).contains(&played.replicas), "{}", played.replicas);
        }
    }

    #[test]
    fn nothing_goes_down_while_a_metric_fails(
        spec in spec(),
        steps in vec((values(), 1..400_u64), 1..30),
    ) {
        let mut played = Played::from(spec.max, spec);
        for (values, seconds) in steps {
            let before = played.replicas;
            played.see(&values, seconds);
            let failed = values[..played.spec.metrics.len()].contains(&None);
            if failed {
                prop_assert!(played.replicas >= before, "{} instead of {before}", played.replicas);
            }
        }
    }

    #[test]
    fn within_the_tolerance_nothing_moves(
        behavior in behavior(),
        replicas in 1..1000_u32,
        target in 1..1_000_000_i64,
        offset in -99..=99_i64,
    ) {
        let spec = HpaSpec {
            min: 1,
            max: 1000,
            metrics: vec![HpaMetric::External {
                name: "queue".into(),
                match_labels: None,
                target: ExternalTarget::AverageValue(Quantity::from_milli(target)),
            }],
            behavior: behavior.map(|behavior| Behavior {
                scale_up: Rules { tolerance: None, ..behavior.scale_up },
                scale_down: Rules { tolerance: None, ..behavior.scale_down },
            }),
        };
        let mut played = Played::from(replicas, spec);
        let usage = target * i64::from(replicas) * (1000 + offset) / 1000;
        // A small usage is rounded out of the tolerance.
        prop_assume!((usage as f64 / (target * i64::from(replicas)) as f64 - 1.0).abs() < 0.1);
        played.see(&[Some(usage)], 15);
        prop_assert_eq!(played.replicas, replicas);
    }

    #[test]
    fn a_direction_that_is_disabled_is_not_taken(
        up in rules(),
        down in rules(),
        value in 0..100_000_i64,
        start in 1..60_u32,
        is_up in any::<bool>(),
    ) {
        let (scale_up, scale_down) = if is_up {
            (Rules { select: SelectPolicy::Disabled, ..up }, down)
        } else {
            (up, Rules { select: SelectPolicy::Disabled, ..down })
        };
        let spec = HpaSpec {
            min: 1,
            max: 60,
            metrics: vec![HpaMetric::External {
                name: "queue".into(),
                match_labels: None,
                target: ExternalTarget::AverageValue(Quantity::from_milli(1000)),
            }],
            behavior: Some(Behavior { scale_up, scale_down }),
        };
        let mut played = Played::from(start, spec);
        for _ in 0..5 {
            played.see(&[Some(value)], 1000);
            let is_kept = if is_up { played.replicas <= start } else { played.replicas >= start };
            prop_assert!(is_kept, "{start} became {}", played.replicas);
        }
    }
}
