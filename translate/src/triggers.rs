//! The triggers of a ScaledObject: which are read, how their metric is held against its target, and what is wrong with them.

use std::collections::HashSet;

use dormouse_api::{ScaledObject, Trigger};
use dormouse_core::TargetKind;
use dormouse_scalers::resource_of;

use crate::Refusal;

/// One trigger, checked but with nothing looked up yet.
#[derive(Clone, Copy, Debug)]
pub struct TriggerPlan<'a> {
    /// Position in `spec.triggers`.
    pub index: usize,
    /// How its metric is held against its target.
    pub target_kind: TargetKind,
    /// The trigger as written.
    pub trigger: &'a Trigger,
}

/// Checks the triggers, and gives back those that are read; `cpu` and `memory` are the [HPA's](mod@crate::resources).
///
/// # Errors
/// No triggers, a name used twice, `useCachedMetrics`, a `metricType` or a fallback where it makes no sense, nothing that
/// could wake an object that may sleep.
pub fn triggers(object: &ScaledObject) -> Result<Vec<TriggerPlan<'_>>, Refusal> {
    let triggers = &object.spec.triggers;
    if triggers.is_empty() {
        return Err(Refusal::new("no triggers defined in the ScaledObject/ScaledJob"));
    }
    let mut names = HashSet::new();
    let mut plans = Vec::with_capacity(triggers.len());
    for (index, trigger) in triggers.iter().enumerate() {
        if trigger.use_cached_metrics && matches!(trigger.type_.as_str(), "cpu" | "memory" | "cron") {
            return Err(Refusal::new(format!(
                "property \"useCachedMetrics\" is not supported for {:?} scaler",
                trigger.type_
            )));
        }
        if let Some(name) = given_name(trigger)
            && !names.insert(name)
        {
            return Err(Refusal::new(format!(
                "triggerName {name:?} is defined multiple times in the ScaledObject/ScaledJob, but it must be unique"
            )));
        }
        if resource_of(&trigger.type_).is_some() {
            continue;
        }
        plans.push(TriggerPlan {
            index,
            target_kind: target_kind(index, trigger)?,
            trigger,
        });
    }
    if plans.is_empty() {
        only_measured(object)?;
    }
    Ok(plans)
}

/// What cannot be asked of an object that nothing is read for.
fn only_measured(object: &ScaledObject) -> Result<(), Refusal> {
    if object.spec.min_replica_count.unwrap_or_default() == 0 {
        return Err(Refusal::new(
            "scaledobject has only cpu/memory triggers AND minReplica is 0 (scale to zero doesn't work in this case)",
        ));
    }
    if object.spec.fallback.is_some() {
        return Err(Refusal::new(
            "at least one trigger (that is not cpu or memory) has to have the `AverageValue` type for the fallback to be \
             enabled",
        ));
    }
    Ok(())
}

/// The user's name of a trigger; an empty one is none.
pub(crate) fn given_name(trigger: &Trigger) -> Option<&str> {
    trigger.name.as_deref().filter(|name| !name.is_empty())
}

fn target_kind(index: usize, trigger: &Trigger) -> Result<TargetKind, Refusal> {
    match trigger.metric_type.as_deref().unwrap_or_default() {
        "" | "AverageValue" => Ok(TargetKind::AverageValue),
        "Value" => Ok(TargetKind::Value),
        "Utilization" => Err(Refusal::new(
            "'Utilization' metric type is unsupported for external metrics, allowed values are 'Value' or 'AverageValue'",
        )),
        other => Err(Refusal::new(format!(
            "spec.triggers[{index}].metricType is {other:?}: 'Value' or 'AverageValue' is accepted"
        ))),
    }
}

/// The trigger types, each once, in the order of the manifest: `status.triggersTypes`.
#[must_use]
pub fn distinct_types(object: &ScaledObject) -> String {
    distinct(object.spec.triggers.iter().map(|trigger| trigger.type_.as_str()))
}

/// The names of the authentications, each once: `status.authenticationsTypes`.
#[must_use]
pub fn distinct_authentications(object: &ScaledObject) -> String {
    let references = object
        .spec
        .triggers
        .iter()
        .filter_map(|trigger| trigger.authentication_ref.as_ref());
    distinct(references.map(|reference| reference.name.as_str()))
}

fn distinct<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let mut seen = HashSet::new();
    names
        .filter(|name| !name.is_empty() && seen.insert(*name))
        .collect::<Vec<_>>()
        .join(",")
}

#[cfg(test)]
mod tests {
    use dormouse_api::ScaledObjectSpec;

    use super::*;

    fn object(triggers: Vec<Trigger>) -> ScaledObject {
        ScaledObject::new(
            "orders",
            ScaledObjectSpec {
                triggers,
                ..Default::default()
            },
        )
    }

    fn trigger(type_: &str, name: Option<&str>) -> Trigger {
        Trigger {
            type_: type_.into(),
            name: name.map(Into::into),
            ..Default::default()
        }
    }

    fn refusal(triggers: Vec<Trigger>) -> String {
        super::triggers(&object(triggers)).unwrap_err().message
    }

    #[test]
    fn refusals_use_the_sentences_users_search_for() {
        assert_eq!(
            refusal(vec![trigger("cron", Some("a")), trigger("cron", Some("a"))]),
            "triggerName \"a\" is defined multiple times in the ScaledObject/ScaledJob, but it must be unique"
        );
        let cached = Trigger {
            use_cached_metrics: true,
            ..trigger("cron", None)
        };
        assert_eq!(
            refusal(vec![cached]),
            "property \"useCachedMetrics\" is not supported for \"cron\" scaler"
        );
        let utilization = Trigger {
            metric_type: Some("Utilization".into()),
            ..trigger("cron", None)
        };
        assert!(refusal(vec![utilization]).starts_with("'Utilization' metric type is unsupported"));
        assert!(refusal(Vec::new()).starts_with("no triggers defined"));
        let odd = Trigger {
            metric_type: Some("Median".into()),
            ..trigger("cron", None)
        };
        assert!(
            refusal(vec![trigger("cron", None), odd]).contains("spec.triggers[1].metricType is \"Median\"")
        );
    }

    #[test]
    fn what_the_hpa_measures_is_not_read() {
        let measured = Trigger {
            metric_type: Some("Utilization".into()),
            ..trigger("cpu", None)
        };
        let mut both = object(vec![measured.clone(), trigger("cron", None)]);
        let plans = super::triggers(&both).unwrap();
        assert_eq!(plans.iter().map(|plan| plan.index).collect::<Vec<_>>(), [1]);

        both.spec.triggers.pop();
        let sleepless = "scaledobject has only cpu/memory triggers AND minReplica is 0 (scale to zero doesn't work in this case)";
        for min in [None, Some(0)] {
            both.spec.min_replica_count = min;
            assert_eq!(super::triggers(&both).unwrap_err().message, sleepless);
        }
        both.spec.min_replica_count = Some(1);
        assert!(super::triggers(&both).unwrap().is_empty());
        both.spec.fallback = Some(dormouse_api::Fallback {
            failure_threshold: 1,
            replicas: 1,
            behavior: None,
        });
        assert_eq!(
            super::triggers(&both).unwrap_err().message,
            "at least one trigger (that is not cpu or memory) has to have the `AverageValue` type for the fallback to be \
             enabled"
        );
    }

    #[test]
    fn types_are_listed_once_in_order() {
        let object = object(vec![
            trigger("metrics-api", None),
            trigger("cron", None),
            trigger("metrics-api", None),
        ]);
        assert_eq!(distinct_types(&object), "metrics-api,cron");
    }
}
