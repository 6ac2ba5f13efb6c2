//! What one metric asks for.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::condition::HpaReason;
use super::observation::{HpaObservation, HpaReading, Scale};
use super::pods;
use super::spec::{ExternalTarget, HpaMetric, HpaSettings, Tolerances};
use crate::Quantity;

/// The value of a metric as an HPA's `status.currentMetrics` has it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum HpaMetricValue {
    /// Of a target `Value`.
    Value(Quantity),
    /// Of a target `AverageValue`.
    AverageValue(Quantity),
    /// Of a target `Utilization`.
    Utilization {
        /// Percent of what the pods request.
        percent: i64,
        /// What a pod uses on average.
        average: Quantity,
    },
}

/// The count of replicas that a metric asks for.
#[derive(Clone, Debug)]
pub(super) struct Proposal {
    pub(super) replicas: i64,
    pub(super) value: HpaMetricValue,
}

/// What the rules know of the moment and its surroundings.
pub(super) struct Context<'a> {
    pub(super) settings: &'a HpaSettings,
    pub(super) tolerances: Tolerances,
    pub(super) observation: &'a HpaObservation,
    pub(super) scale: Scale,
    pub(super) now: Timestamp,
}

impl HpaMetric {
    /// The metric as conditions and Events call it.
    pub(super) fn title(&self) -> String {
        match self {
            Self::External {
                name, match_labels, ..
            } => {
                format!("external metric {name}({})", selector(match_labels.as_ref()))
            }
            Self::Resource {
                resource,
                container,
                target,
            } => pods::title(resource, container.as_deref(), target),
        }
    }

    pub(super) fn failure(&self) -> HpaReason {
        match self {
            Self::External { .. } => HpaReason::FailedGetExternalMetric,
            Self::Resource { container: None, .. } => HpaReason::FailedGetResourceMetric,
            Self::Resource { .. } => HpaReason::FailedGetContainerResourceMetric,
        }
    }

    /// The count that the reading asks for, or why there is none.
    pub(super) fn propose(
        &self,
        reading: Option<&Result<HpaReading, String>>,
        context: &Context<'_>,
    ) -> Result<Proposal, String> {
        let proposal = self.propose_from(reading, context);
        proposal.map_err(|error| match self {
            Self::External { .. } => error,
            Self::Resource { resource, target, .. } => pods::failure(resource, target) + &error,
        })
    }

    fn propose_from(
        &self,
        reading: Option<&Result<HpaReading, String>>,
        context: &Context<'_>,
    ) -> Result<Proposal, String> {
        let reading = match reading {
            Some(Ok(reading)) => reading,
            Some(Err(error)) => return Err(error.clone()),
            None => return Err("it was not read".into()),
        };
        match (self, reading) {
            (Self::External { target, .. }, HpaReading::Series(series)) => external(*target, series, context),
            (
                Self::Resource {
                    resource,
                    container,
                    target,
                },
                HpaReading::Pods(used),
            ) => pods::propose(resource, container.as_deref(), *target, used, context),
            (Self::External { .. }, HpaReading::Pods(_)) => {
                Err("the reading has pods where an external metric has series".into())
            }
            (Self::Resource { .. }, HpaReading::Series(_)) => {
                Err("the reading has series where a resource metric has pods".into())
            }
        }
    }
}

fn external(target: ExternalTarget, series: &[Quantity], context: &Context<'_>) -> Result<Proposal, String> {
    let values = series.iter().map(Quantity::milli_rounded_up);
    match target {
        ExternalTarget::AverageValue(target) => {
            let target = target.milli_rounded_up();
            Ok(match non_negative_sum(values) {
                Some(usage) => per_replica(usage, target, context),
                None => Proposal {
                    replicas: i64::MAX,
                    value: HpaMetricValue::AverageValue(Quantity::from_milli(i64::MAX)),
                },
            })
        }
        ExternalTarget::Value(target) => in_all(
            values.fold(0, i64::saturating_add),
            target.milli_rounded_up(),
            context,
        ),
    }
}

/// The sum; `None` where it leaves 64 bits, or where a value is negative, which the controller takes for a number too
/// large to be written down.
fn non_negative_sum(mut values: impl Iterator<Item = i64>) -> Option<i64> {
    values.try_fold(0_i64, |sum, value| sum.checked_add(value).filter(|_| value >= 0))
}

/// `AverageValue`: the replicas that bring the share of each down to the target.
fn per_replica(usage: i64, target: i64, context: &Context<'_>) -> Proposal {
    let (usage, target) = (usage as f64, target as f64);
    let running = f64::from(context.scale.running);
    let replicas = if context.tolerances.cover(usage / (target * running)) {
        context.scale.running.into()
    } else {
        whole(usage / target)
    };
    Proposal {
        replicas,
        value: HpaMetricValue::AverageValue(Quantity::from_milli(whole(usage / running))),
    }
}

/// `Value`: the ready pods times the ratio of the whole value to the target.
fn in_all(usage: i64, target: i64, context: &Context<'_>) -> Result<Proposal, String> {
    let ratio = usage as f64 / target as f64;
    let wanted = context.scale.wanted;
    let replicas = if wanted == 0 {
        whole(ratio)
    } else if context.tolerances.cover(ratio) {
        wanted.into()
    } else {
        let pods = &context.observation.pods;
        if pods.is_empty() {
            return Err(
                "unable to calculate ready pods: no pods returned by selector while calculating replica count"
                    .into(),
            );
        }
        let ready = pods.iter().filter(|pod| pod.is_running_and_ready()).count();
        whole(ratio * ready as f64)
    };
    Ok(Proposal {
        replicas,
        value: HpaMetricValue::Value(Quantity::from_milli(usage)),
    })
}

/// The whole number at or above, ending at the bounds of 64 bits: what is too much to be counted must not come out as
/// little.
#[expect(
    clippy::cast_possible_truncation,
    reason = "truncation and saturation are what is asked for"
)]
pub(super) fn whole(replicas: f64) -> i64 {
    replicas.ceil() as i64
}

/// A label selector as the controller prints it.
fn selector(labels: Option<&BTreeMap<String, String>>) -> String {
    let Some(labels) = labels else {
        return "nil".into();
    };
    let pairs: String = labels
        .iter()
        .map(|(key, value)| format!("{key}: {value},"))
        .collect();
    format!(
        "&LabelSelector{{MatchLabels:map[string]string{{{pairs}}},MatchExpressions:[]LabelSelectorRequirement{{}},}}"
    )
}
