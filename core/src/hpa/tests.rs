use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

use super::*;
use crate::Quantity;

mod pods;

fn quantity(text: &str) -> Quantity {
    text.parse().unwrap()
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_000_000 + seconds).unwrap()
}

fn queue(target: ExternalTarget) -> HpaMetric {
    HpaMetric::External {
        name: "queue".into(),
        match_labels: None,
        target,
    }
}

fn cpu(percent: u32) -> HpaMetric {
    HpaMetric::Resource {
        resource: "cpu".into(),
        container: None,
        target: ResourceTarget::Utilization(percent),
    }
}

/// From 1 to 20 replicas at 1 of the queue each.
fn spec() -> HpaSpec {
    HpaSpec {
        min: 1,
        max: 20,
        metrics: vec![queue(ExternalTarget::AverageValue(quantity("1")))],
        behavior: None,
    }
}

fn with_behavior(scale_up: Rules, scale_down: Rules) -> HpaSpec {
    HpaSpec {
        behavior: Some(Behavior { scale_up, scale_down }),
        ..spec()
    }
}

fn policies(policies: &[(Amount, u64)]) -> Rules {
    let policy = |(amount, seconds): &(Amount, u64)| Policy {
        amount: *amount,
        period: Duration::from_secs(*seconds),
    };
    Rules {
        policies: Some(policies.iter().map(policy).collect()),
        ..Rules::default()
    }
}

fn at_once(rules: Rules) -> Rules {
    Rules {
        stabilization: Some(Duration::ZERO),
        ..rules
    }
}

fn scale(replicas: u32) -> Result<Scale, String> {
    Ok(Scale {
        wanted: replicas,
        running: replicas,
        has_selector: true,
    })
}

fn series(value: &str) -> Result<HpaReading, String> {
    Ok(HpaReading::Series(vec![quantity(value)]))
}

/// An HPA whose target takes every count at once.
struct Played {
    spec: HpaSpec,
    settings: HpaSettings,
    history: HpaHistory,
    replicas: u32,
}

impl Played {
    fn from(replicas: u32, spec: HpaSpec) -> Self {
        Self {
            spec,
            settings: HpaSettings::default(),
            history: HpaHistory::default(),
            replicas,
        }
    }

    fn see(&mut self, readings: Vec<Result<HpaReading, String>>, pods: Vec<Pod>, now: i64) -> HpaEvaluation {
        let observation = HpaObservation {
            scale: scale(self.replicas),
            readings,
            pods,
        };
        let evaluation = evaluate(
            &self.spec,
            &self.settings,
            &observation,
            &mut self.history,
            at(now),
        );
        if let Some(rescale) = &evaluation.rescale {
            self.history
                .rescaled(&self.spec, &self.settings, rescale, at(now));
            self.replicas = rescale.to;
        }
        evaluation
    }

    /// The replicas after the queue had this length.
    fn queue(&mut self, value: &str, now: i64) -> u32 {
        self.see(vec![series(value)], Vec::new(), now);
        self.replicas
    }
}

fn reasons(history: &HpaHistory) -> [Option<(bool, &'static str)>; 3] {
    let conditions = history.conditions();
    [
        &conditions.able_to_scale,
        &conditions.scaling_active,
        &conditions.scaling_limited,
    ]
    .map(|condition| condition.as_ref().map(|c| (c.status, c.reason.as_str())))
}

#[test]
fn an_average_is_rounded_up_outside_the_tolerance_and_left_alone_inside() {
    // (replicas, value, target, expected): both edges belong to the tolerance.
    let cases = [
        (10, "11", "1", 10),
        (10, "11001m", "1", 12),
        (10, "9", "1", 10),
        (10, "8999m", "1", 9),
        (2, "3", "1", 3),
        (3, "1500m", "333m", 5),
        (2, "3500", "1Ki", 4),
        (4, "0", "1", 1),
        (4, "-7", "1", 8),
        (12, "5G", "1", 20),
    ];
    for (replicas, value, target, expected) in cases {
        let mut spec = with_behavior(Rules::default(), at_once(Rules::default()));
        spec.metrics = vec![queue(ExternalTarget::AverageValue(quantity(target)))];
        let mut played = Played::from(replicas, spec);
        assert_eq!(
            played.queue(value, 0),
            expected,
            "{replicas} replicas, {value} at {target}"
        );
    }
}

#[test]
fn each_direction_has_a_tolerance_of_its_own() {
    let tolerant = |fraction: &str| Rules {
        tolerance: Some(quantity(fraction)),
        ..at_once(Rules::default())
    };
    let play = |up: &str, down: &str, value: &str| {
        Played::from(10, with_behavior(tolerant(up), tolerant(down))).queue(value, 0)
    };
    assert_eq!(play("0", "100m", "10001m"), 11);
    assert_eq!(play("0", "100m", "9"), 10);
    assert_eq!(play("500m", "0", "15"), 10);
    assert_eq!(play("500m", "0", "15001m"), 16);
    assert_eq!(play("500m", "0", "9"), 9);
}

#[test]
fn the_running_replicas_are_measured_and_the_wanted_ones_are_moved() {
    let mut history = HpaHistory::default();
    let observation = HpaObservation {
        scale: Ok(Scale {
            wanted: 4,
            running: 2,
            has_selector: true,
        }),
        readings: vec![series("2100m")],
        pods: Vec::new(),
    };
    let spec = with_behavior(Rules::default(), at_once(Rules::default()));
    let evaluation = evaluate(&spec, &HpaSettings::default(), &observation, &mut history, at(0));
    assert_eq!(
        evaluation.rescale.map(|rescale| (rescale.from, rescale.to)),
        Some((4, 2))
    );
    assert_eq!(
        evaluation.values,
        [Some(HpaMetricValue::AverageValue(quantity("1050m")))]
    );
}

#[test]
fn without_a_behavior_a_step_up_at_most_doubles_but_always_reaches_four() {
    let mut played = Played::from(1, spec());
    let counts: Vec<_> = (0..5).map(|i| played.queue("100", i * 15)).collect();
    assert_eq!(counts, [4, 8, 16, 20, 20]);
}

#[test]
fn without_a_behavior_the_highest_recommendation_of_five_minutes_holds() {
    let mut played = Played::from(9, spec());
    assert_eq!(played.queue("9", 0), 9);
    assert_eq!(played.queue("6", 15), 9);
    assert_eq!(played.queue("2", 30), 9);
    assert_eq!(
        reasons(&played.history),
        [
            Some((true, "ScaleDownStabilized")),
            Some((true, "ValidMetricFound")),
            Some((false, "DesiredWithinRange")),
        ]
    );
    assert_eq!(
        played.queue("2", 300),
        9,
        "the very end of the look-back still counts"
    );
    assert_eq!(played.queue("2", 301), 6);
    assert_eq!(played.queue("2", 316), 2);
}

#[test]
fn a_metric_that_fails_never_lowers_the_count_and_lets_others_raise_it() {
    let two = HpaSpec {
        metrics: vec![
            queue(ExternalTarget::AverageValue(quantity("1"))),
            queue(ExternalTarget::AverageValue(quantity("2"))),
        ],
        ..with_behavior(Rules::default(), at_once(Rules::default()))
    };
    let failure = || Err("gone".to_owned());
    // (readings, replicas from 4, reason of ScalingActive)
    let cases = [
        (vec![failure(), failure()], 4, "FailedGetExternalMetric"),
        (vec![failure(), series("2")], 4, "FailedGetExternalMetric"),
        (vec![series("0"), failure()], 4, "FailedGetExternalMetric"),
        (vec![series("4"), failure()], 4, "ValidMetricFound"),
        (vec![series("6"), failure()], 6, "ValidMetricFound"),
        (vec![series("1"), series("10")], 5, "ValidMetricFound"),
        (vec![series("2"), series("2")], 2, "ValidMetricFound"),
        (vec![series("1")], 4, "FailedGetExternalMetric"),
    ];
    for (readings, expected, reason) in cases {
        let mut played = Played::from(4, two.clone());
        played.see(readings.clone(), Vec::new(), 0);
        assert_eq!(played.replicas, expected, "{readings:?}");
        assert_eq!(
            reasons(&played.history)[1].map(|(_, reason)| reason),
            Some(reason),
            "{readings:?}"
        );
    }
}

#[test]
fn a_failure_says_what_failed_and_touches_nothing_else() {
    let mut played = Played::from(4, spec());
    played.queue("4", 0);
    let evaluation = played.see(vec![Err("the source is away".into())], Vec::new(), 15);
    assert_eq!((evaluation.desired, &evaluation.rescale), (None, &None));
    assert_eq!(evaluation.values, [None]);
    assert_eq!(
        played.history.conditions.scaling_active.unwrap().message,
        "the HPA was unable to compute the replica count: the source is away"
    );
    assert_eq!(
        played.history.conditions.scaling_limited.unwrap().reason,
        HpaReason::DesiredWithinRange
    );
}

#[test]
fn outside_the_bounds_no_metric_is_looked_at() {
    let none = || vec![Err("not read".to_owned())];
    let mut above = Played::from(30, spec());
    let evaluation = above.see(none(), Vec::new(), 0);
    assert_eq!(
        evaluation.rescale,
        Some(Rescale {
            from: 30,
            to: 20,
            reason: "Current number of replicas above Spec.MaxReplicas".into()
        })
    );
    let mut below = Played::from(1, HpaSpec { min: 3, ..spec() });
    below.see(none(), Vec::new(), 0);
    assert_eq!(below.replicas, 3);

    let mut asleep = Played::from(0, spec());
    let evaluation = asleep.see(vec![series("9")], Vec::new(), 0);
    assert_eq!((evaluation.desired, asleep.replicas), (Some(0), 0));
    assert_eq!(reasons(&asleep.history)[1], Some((false, "ScalingDisabled")));
}

#[test]
fn a_minimum_of_zero_sleeps_and_wakes_by_the_metrics() {
    let mut played = Played::from(
        1,
        HpaSpec {
            min: 0,
            ..with_behavior(Rules::default(), at_once(Rules::default()))
        },
    );
    played.settings.scale_to_zero = true;
    assert_eq!(played.queue("0", 0), 0);
    assert_eq!(played.queue("0", 15), 0);
    assert_eq!(played.queue("3", 30), 3);
    played.replicas = 0;
    assert_eq!(
        played.queue("3", 45),
        0,
        "this time it was somebody else who put it to sleep"
    );
}

#[test]
fn a_target_that_cannot_be_read_or_has_no_selector_stays() {
    let settings = HpaSettings::default();
    let mut history = HpaHistory::default();
    let mut observation = HpaObservation {
        scale: Err("no such thing".into()),
        readings: vec![series("9")],
        pods: Vec::new(),
    };
    let evaluation = evaluate(&spec(), &settings, &observation, &mut history, at(0));
    assert_eq!(reasons(&history), [Some((false, "FailedGetScale")), None, None]);
    assert_eq!(evaluation.rescale, None);

    observation.scale = Ok(Scale {
        wanted: 2,
        running: 2,
        has_selector: false,
    });
    let evaluation = evaluate(&spec(), &settings, &observation, &mut history, at(1));
    assert_eq!(
        reasons(&history),
        [
            Some((true, "SucceededGetScale")),
            Some((false, "InvalidSelector")),
            None
        ]
    );
    assert_eq!(evaluation.rescale, None);
}

#[test]
fn policies_bound_what_changes_within_their_period() {
    use Amount::{Percent, Pods};
    let select = |select, rules| Rules { select, ..rules };
    let both = || policies(&[(Pods(1), 60), (Percent(50), 60)]);
    // (rules up, start, counts at 0, 30, 61 and 122 s with demand for 20)
    let up = [
        (Rules::default(), 1, [5, 10, 20, 20]),
        (policies(&[(Pods(2), 60)]), 1, [3, 3, 5, 7]),
        (policies(&[(Percent(50), 60)]), 5, [8, 8, 12, 18]),
        (policies(&[(Percent(1), 60)]), 1, [2, 2, 3, 4]),
        (both(), 8, [12, 12, 18, 20]),
        (select(SelectPolicy::Min, both()), 8, [9, 9, 10, 11]),
        (select(SelectPolicy::Disabled, both()), 8, [8, 8, 8, 8]),
    ];
    for (rules, start, expected) in up {
        let mut played = Played::from(start, with_behavior(rules.clone(), Rules::default()));
        let counts = [0, 30, 61, 122].map(|now| played.queue("20", now));
        assert_eq!(counts, expected, "{rules:?}");
    }
    // The same with demand for 1.
    let down = [
        (Rules::default(), 20, [1, 1, 1, 1]),
        (policies(&[(Pods(2), 60)]), 9, [7, 7, 5, 3]),
        (policies(&[(Percent(50), 60)]), 19, [9, 9, 4, 2]),
        (policies(&[(Percent(10), 60)]), 4, [3, 3, 2, 1]),
        (both(), 9, [4, 4, 2, 1]),
        (select(SelectPolicy::Min, both()), 9, [8, 8, 7, 6]),
        (select(SelectPolicy::Disabled, both()), 9, [9, 9, 9, 9]),
    ];
    for (rules, start, expected) in down {
        let mut played = Played::from(start, with_behavior(Rules::default(), at_once(rules.clone())));
        let counts = [0, 30, 61, 122].map(|now| played.queue("1", now));
        assert_eq!(counts, expected, "{rules:?}");
    }
}

#[test]
fn what_was_added_within_a_period_may_be_taken_back_in_it() {
    let rules = || policies(&[(Amount::Pods(2), 60)]);
    let mut played = Played::from(6, with_behavior(rules(), at_once(rules())));
    assert_eq!(played.queue("20", 0), 8);
    assert_eq!(played.queue("1", 15), 4, "two below what the period began with");
    assert_eq!(played.queue("20", 30), 8);
}

#[test]
fn a_change_that_did_not_happen_counts_for_no_policy() {
    let spec = with_behavior(policies(&[(Amount::Pods(2), 60)]), Rules::default());
    let observation = HpaObservation {
        scale: scale(4),
        readings: vec![series("20")],
        pods: Vec::new(),
    };
    let mut history = HpaHistory::default();
    for now in [0, 15] {
        let evaluation = evaluate(
            &spec,
            &HpaSettings::default(),
            &observation,
            &mut history,
            at(now),
        );
        assert_eq!(evaluation.desired, Some(6), "at {now} s");
        history.rescale_failed("somebody was faster");
        let able = history.conditions().able_to_scale.clone().unwrap();
        assert_eq!((able.status, able.reason), (false, HpaReason::FailedUpdateScale));
        assert!(
            able.message
                .ends_with("unable to update the target scale: somebody was faster")
        );
    }
}

#[test]
fn look_backs_hold_both_directions_to_what_they_agree_on() {
    let window = |seconds| Rules {
        stabilization: Some(Duration::from_secs(seconds)),
        ..Rules::default()
    };
    let mut played = Played::from(4, with_behavior(window(60), window(120)));
    assert_eq!(played.queue("4", 0), 4);
    assert_eq!(played.queue("8", 15), 4);
    assert_eq!(reasons(&played.history)[0], Some((true, "ScaleUpStabilized")));
    assert_eq!(played.queue("6", 59), 4);
    assert_eq!(
        played.queue("7", 60),
        6,
        "a recommendation of exactly a minute is forgotten"
    );
    played.queue("2", 75);
    assert_eq!(
        (played.replicas, reasons(&played.history)[0]),
        (6, Some((true, "ScaleDownStabilized")))
    );
    assert_eq!(played.queue("2", 134), 6);
    assert_eq!(played.queue("2", 179), 6, "there were 7 at 60 s");
    assert_eq!(played.queue("2", 180), 2);
}

#[test]
fn the_memory_does_not_grow_beyond_its_windows() {
    let mut played = Played::from(4, with_behavior(Rules::default(), Rules::default()));
    for step in 0..10_000 {
        played.queue(if step % 2 == 0 { "3" } else { "18" }, step * 15);
    }
    // 300 s at 15 s, both ends, and one that is overwritten.
    assert!(
        played.history.recommendations.len() <= 22,
        "{}",
        played.history.recommendations.len()
    );
    assert!(played.history.ups.len() <= 3 && played.history.downs.len() <= 3);
}
