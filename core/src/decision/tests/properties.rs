//! What holds for every policy, every observation and everything that sources can say.

use proptest::prelude::*;

use super::*;

fn any_said() -> impl Strategy<Value = Said> {
    prop_oneof![
        Just(Said::Active),
        Just(Said::Idle),
        (1u32..12).prop_map(Said::Failed)
    ]
}

fn any_pause() -> impl Strategy<Value = Pause> {
    prop_oneof![
        4 => Just(Pause::No),
        1 => proptest::option::of(0u32..9).prop_map(|replicas| Pause::Full { replicas }),
        1 => Just(Pause::Directions { scale_in: true, scale_out: false }),
        1 => Just(Pause::Directions { scale_in: false, scale_out: true }),
    ]
}

fn any_fallback() -> impl Strategy<Value = Option<Fallback>> {
    let behavior = prop_oneof![
        Just(FallbackBehavior::Static),
        Just(FallbackBehavior::CurrentReplicas),
        Just(FallbackBehavior::CurrentReplicasIfHigher),
        Just(FallbackBehavior::CurrentReplicasIfLower),
    ];
    proptest::option::of(
        (0u32..6, 0u32..12, behavior).prop_map(|(failure_threshold, replicas, behavior)| Fallback {
            failure_threshold,
            replicas,
            behavior,
        }),
    )
}

prop_compose! {
    fn any_case()(
        said in proptest::collection::vec(any_said(), 1..4),
        bounds in (proptest::option::of(0u32..8), 8u32..20, proptest::option::of(0u32..7)),
        pause in any_pause(),
        fallback in any_fallback(),
        force in proptest::bool::weighted(0.1),
        cooldown in 0u64..600,
        replicas in 0u32..25,
        last_active in proptest::option::of(NOW - 900..NOW + 5),
        sizes: bool,
    ) -> (ScalePolicy, Observation, Vec<Said>) {
        let (min, max, idle) = bounds;
        let idle = idle.filter(|idle| min.is_some_and(|min| *idle < min.max(1)));
        let mut policy = policy(min, max, idle, said.len());
        policy.pause = pause;
        policy.fallback = fallback;
        policy.force_activation = force;
        policy.cooldown_period = Duration::from_secs(cooldown);
        policy.triggers.iter_mut().for_each(|trigger| trigger.sizes = sizes);
        (policy, observed(replicas, last_active), said)
    }
}

proptest! {
    #[test]
    fn replicas_that_are_set_lie_within_bounds_or_at_rest((policy, seen, said) in any_case()) {
        if let Some(to) = decide(&policy, &seen, &readings(&said), at(NOW)).action.target() {
            let range = policy.replicas;
            prop_assert!(to == range.resting() || (range.min()..=range.max()).contains(&to));
            prop_assert_ne!(to, seen.replicas);
        }
    }

    #[test]
    fn a_full_pause_leaves_replicas_alone((mut policy, seen, said) in any_case()) {
        policy.pause = Pause::Full { replicas: None };
        prop_assert_eq!(decide(&policy, &seen, &readings(&said), at(NOW)).action, Action::Stay);
    }

    #[test]
    fn a_failed_reading_without_fallback_never_lowers((mut policy, seen, mut said) in any_case(), failures in 1u32..99) {
        policy.fallback = None;
        said.push(Said::Failed(failures));
        let decision = decide(&policy, &seen, &readings(&said), at(NOW));
        prop_assert!(decision.action.target().is_none_or(|to| to > seen.replicas));
    }

    #[test]
    fn rest_comes_only_after_the_cooldown((policy, seen, said) in any_case()) {
        let decision = decide(&policy, &seen, &readings(&said), at(NOW));
        if matches!(decision.action, Action::Deactivate { .. })
            && let Some(last_active) = seen.last_active
        {
            prop_assert!(at(NOW) > last_active + policy.cooldown_period);
            prop_assert!(said.iter().all(|said| *said != Said::Active));
        }
    }

    #[test]
    fn more_activity_never_gives_fewer_replicas((policy, seen, said) in any_case(), which in 0usize..4) {
        let desired = |said: &[Said]| {
            let decision = decide(&policy, &seen, &readings(said), at(NOW));
            decision.action.target().unwrap_or(seen.replicas)
        };
        let mut busier = said.clone();
        let index = which % busier.len();
        busier[index] = Said::Active;
        if busier.iter().zip(&said).all(|(busier, said)| busier == said || *said == Said::Idle) && desired(&said) <= policy.replicas.max() {
            // The lift of a resting target to its minimum is the HPA's business once something is active.
            prop_assert!(desired(&busier) >= desired(&said) || seen.replicas < policy.replicas.min());
        }
    }

    #[test]
    fn what_waits_unserved_is_never_met_with_fewer_replicas(
        (policy, seen, said) in any_case(),
        value in 0.0f64..400.0,
    ) {
        let mut readings = readings(&said);
        let mut waits = Reading::new(value, true, at(NOW)).unwrap();
        waits.waiting = true;
        readings.0[0].outcome = Ok(waits);
        let decision = decide(&policy, &seen, &readings, at(NOW));
        prop_assert!(decision.action.target().is_none_or(|to| to > seen.replicas && to <= policy.replicas.max()));
    }

    #[test]
    fn deciding_twice_is_deciding_once((policy, seen, said) in any_case()) {
        let first = decide(&policy, &seen, &readings(&said), at(NOW));
        prop_assert_eq!(&first, &decide(&policy, &seen, &readings(&said), at(NOW)));
        let after = Observation {
            replicas: first.action.target().unwrap_or(seen.replicas),
            last_active: first.last_active,
            ..seen
        };
        prop_assert_eq!(decide(&policy, &after, &readings(&said), at(NOW)).action, Action::Stay);
    }

    #[test]
    fn the_next_look_is_neither_at_once_nor_after_the_deadline_that_matters((policy, seen, said) in any_case()) {
        let decision = decide(&policy, &seen, &readings(&said), at(NOW));
        prop_assert!(decision.recheck_after > Duration::ZERO);
        prop_assert!(decision.recheck_after <= policy.polling_interval);
        if let Activity::CoolingDown { until } = decision.activity {
            let rest = Duration::try_from(until.duration_since(at(NOW))).unwrap();
            prop_assert!(decision.recheck_after <= rest + Duration::from_millis(1));
        }
    }
}
