//! A ScaledObject's bounds, periods, fallback and annotations as a policy.

use std::collections::BTreeMap;

use dormouse_api::{ScaledObject, labels};
use dormouse_core::{Fallback, FallbackBehavior, ReplicaRange, ScalePolicy};

use crate::{Refusal, annotations};

/// Turns a ScaledObject into a policy, without its triggers: those get their metric names from their scalers.
///
/// # Errors
/// The first contradiction, in the words of KEDA's webhook where it has any.
pub fn policy(object: &ScaledObject) -> Result<ScalePolicy, Refusal> {
    let spec = &object.spec;
    names_fit(object)?;
    let none = BTreeMap::new();
    let notes = object.metadata.annotations.as_ref().unwrap_or(&none);
    let count = |field: &str, value: Option<i32>| -> Result<Option<u32>, Refusal> {
        let bad = |value: i32| {
            Refusal::new(format!(
                "spec.{field} is {value}: a whole number of at least 0 is accepted"
            ))
        };
        value
            .map(|value| u32::try_from(value).map_err(|_| bad(value)))
            .transpose()
    };
    let min = count("minReplicaCount", spec.min_replica_count)?;
    let max = count("maxReplicaCount", Some(spec.max_replica_count()))?.unwrap_or_default();
    let idle = count("idleReplicaCount", spec.idle_replica_count)?;
    let replicas = ReplicaRange::try_new(min, max, idle).map_err(|error| Refusal::new(error.to_string()))?;
    if spec.polling_interval().is_zero() {
        return Err(Refusal::new(
            "spec.pollingInterval is 0: a whole number of seconds of at least 1 is accepted",
        ));
    }
    if let Some(modifiers) = spec
        .advanced
        .as_ref()
        .and_then(|advanced| advanced.scaling_modifiers.as_ref())
        && *modifiers != Default::default()
    {
        return Err(Refusal::new(
            "spec.advanced.scalingModifiers is not supported yet: leave it out or empty",
        ));
    }
    Ok(ScalePolicy {
        replicas,
        polling_interval: spec.polling_interval(),
        cooldown_period: spec.cooldown_period(),
        initial_cooldown_period: spec.initial_cooldown_period(),
        fallback: spec.fallback.as_ref().map(fallback).transpose()?,
        pause: annotations::pause(notes)?,
        force_activation: annotations::is_truthy(notes, labels::FORCE_ACTIVATION),
        triggers: Vec::new(),
        resources: Vec::new(),
    })
}

/// Both names become values of labels.
fn names_fit(object: &ScaledObject) -> Result<(), Refusal> {
    const LONGEST: usize = 63;
    let name = object.metadata.name.as_deref().unwrap_or_default();
    let hpa_name = object.spec.hpa_name(name);
    for (what, name) in [
        ("the name of a ScaledObject", name),
        ("the name of its HPA", &hpa_name),
    ] {
        if name.len() > LONGEST {
            return Err(Refusal::new(format!(
                "{what} must have at most {LONGEST} characters, and {name:?} has {}",
                name.len()
            )));
        }
    }
    Ok(())
}

fn fallback(fallback: &dormouse_api::Fallback) -> Result<Fallback, Refusal> {
    let at_least_zero = |field: &str, value: i32| {
        u32::try_from(value).map_err(|_| {
            Refusal::new(format!(
                "spec.fallback.{field} is {value}: a whole number of at least 0 is accepted"
            ))
        })
    };
    let behavior = match fallback.behavior() {
        "static" => FallbackBehavior::Static,
        "currentReplicas" => FallbackBehavior::CurrentReplicas,
        "currentReplicasIfHigher" => FallbackBehavior::CurrentReplicasIfHigher,
        "currentReplicasIfLower" => FallbackBehavior::CurrentReplicasIfLower,
        "scalingModifiers" => {
            return Err(Refusal::new(
                "scalingModifiers fallback behavior requires scalingModifiers.formula to be defined",
            ));
        }
        other => {
            return Err(Refusal::new(format!(
                "spec.fallback.behavior is {other:?}: static, currentReplicas, currentReplicasIfHigher or \
                 currentReplicasIfLower is accepted"
            )));
        }
    };
    Ok(Fallback {
        failure_threshold: at_least_zero("failureThreshold", fallback.failure_threshold)?,
        replicas: at_least_zero("replicas", fallback.replicas)?,
        behavior,
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use dormouse_api::ScaledObjectSpec;

    use super::*;

    fn with(change: impl FnOnce(&mut ScaledObjectSpec)) -> Result<ScalePolicy, Refusal> {
        let mut object = ScaledObject::new("orders", ScaledObjectSpec::default());
        change(&mut object.spec);
        policy(&object)
    }

    #[test]
    fn defaults_are_kedas() {
        let policy = with(|_| {}).unwrap();
        assert_eq!(policy.polling_interval, Duration::from_secs(30));
        assert_eq!(policy.cooldown_period, Duration::from_secs(300));
        assert_eq!(
            (
                policy.replicas.min(),
                policy.replicas.max(),
                policy.replicas.idle()
            ),
            (0, 100, None)
        );
    }

    #[test]
    fn refusals_name_the_field() {
        for (refused, expected) in [
            (
                with(|spec| spec.min_replica_count = Some(-1)),
                "spec.minReplicaCount is -1",
            ),
            (
                with(|spec| spec.polling_interval = Some(0)),
                "spec.pollingInterval is 0",
            ),
            (
                with(|spec| (spec.min_replica_count, spec.idle_replica_count) = (Some(2), Some(2))),
                "IdleReplicaCount=2 must be less than MinReplicaCount=2",
            ),
            (
                with(|spec| {
                    spec.fallback = Some(dormouse_api::Fallback {
                        failure_threshold: 1,
                        replicas: 1,
                        behavior: Some("sometimes".into()),
                    });
                }),
                "spec.fallback.behavior is \"sometimes\"",
            ),
        ] {
            let message = refused.unwrap_err().message;
            assert!(message.contains(expected), "{message}");
        }
    }
}
