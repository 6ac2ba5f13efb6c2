//! The arithmetic of a HorizontalPodAutoscaler (`autoscaling/v2`), for running and simulating without one.
//!
//! ```text
//! HpaSpec, HpaSettings ─┐            ┌─ per metric: a count, or why not        (proposal, pods)
//! HpaObservation       ─┼─ evaluate ─┤  the largest wins, within the tolerance
//! HpaHistory, now      ─┘            ├─ held back by recent recommendations     (limits)
//!                                    └─ cut by policies and bounds
//!                                          └─> HpaEvaluation, and the history for the next time
//! ```
//!
//! The rules are those of the controller in kube-controller-manager, down to their floating-point numbers where these
//! decide; `tests/tests/hpa_agrees.rs` replays what the real one saw, evaluation by evaluation. In short:
//!
//! * A target at 0 is left alone, unless the HPA itself put it there. Outside the bounds the nearest bound is taken, and
//!   no metric is looked at.
//! * Metrics that fail never lower the count: with one that fails, the others can only raise it.
//! * Without a behavior, the highest recommendation of the look-back holds, and a step goes at most to the larger of 4
//!   and the double.
//! * With a behavior, the count moves no further than all recommendations in each direction's look-back agree on, and
//!   no faster than the direction's policies allow.
//!
//! * An external metric with a target `AverageValue` and a negative value, or a sum beyond 64 bits of thousandths, asks
//!   for as much as can be asked for. With a target `Value`, negative values count as they are.
//!
//! It differs in one point: a single value beyond 2^63 thousandths wraps around in the real controller, and is as large
//! as can be here.
//!
//! A step is evaluated, then carried out, then recorded:
//!
//! ```
//! use dormouse_core::hpa::{
//!     ExternalTarget, HpaHistory, HpaMetric, HpaObservation, HpaReading, HpaSettings, HpaSpec, Scale, evaluate,
//! };
//! use dormouse_core::Quantity;
//! use jiff::Timestamp;
//!
//! let metric = HpaMetric::External {
//!     name: "queue".into(),
//!     match_labels: None,
//!     target: ExternalTarget::AverageValue(Quantity::from_milli(5_000)),
//! };
//! let spec = HpaSpec { min: 1, max: 10, metrics: vec![metric], behavior: None };
//! let observation = HpaObservation {
//!     scale: Ok(Scale { wanted: 2, running: 2, has_selector: true }),
//!     readings: vec![Ok(HpaReading::Series(vec![Quantity::from_milli(20_000)]))],
//!     pods: Vec::new(),
//! };
//! let (settings, now) = (HpaSettings::default(), Timestamp::UNIX_EPOCH);
//! let mut history = HpaHistory::default();
//! let evaluation = evaluate(&spec, &settings, &observation, &mut history, now);
//! let rescale = evaluation.rescale.ok_or("20 at 5 each take 4 replicas")?;
//! assert_eq!((rescale.from, rescale.to), (2, 4));
//! // Write it to the target, and if that succeeds:
//! history.rescaled(&spec, &settings, &rescale, now);
//! # Ok::<(), &str>(())
//! ```

mod condition;
mod history;
mod limits;
mod observation;
mod pods;
mod proposal;
mod spec;

use jiff::Timestamp;

pub use self::condition::{HpaCondition, HpaConditions, HpaReason};
pub use self::history::HpaHistory;
pub use self::observation::{HpaObservation, HpaReading, Pod, PodPhase, PodReadiness, PodUsage, Scale};
pub use self::proposal::HpaMetricValue;
pub use self::spec::{
    Amount, Behavior, ExternalTarget, HpaMetric, HpaSettings, HpaSpec, Policy, ResourceTarget, Rules,
    SelectPolicy,
};

use self::proposal::Context;
use self::spec::Tolerances;

/// What an evaluation comes to.
#[derive(Clone, Debug, PartialEq)]
pub struct HpaEvaluation {
    /// The replicas that the target should have; `None` where nothing could be computed and all stays as it is,
    /// `status.desiredReplicas` too.
    pub desired: Option<u32>,
    /// What is to be written to the target, if anything.
    pub rescale: Option<Rescale>,
    /// The value of each metric, in the order of the spec; `None` for those that failed. Empty where the metrics were
    /// not looked at.
    pub values: Vec<Option<HpaMetricValue>>,
}

/// A change of the target's replicas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rescale {
    /// The replicas that were wanted before.
    pub from: u32,
    /// The replicas wanted now.
    pub to: u32,
    /// Why, as the Event `SuccessfulRescale` has it.
    pub reason: String,
}

/// Evaluates an autoscaler once, as the HPA controller does at each of its syncs, and remembers what the next
/// evaluation needs. Where it asks for a rescale, [`HpaHistory::rescaled`] or [`HpaHistory::rescale_failed`] is to
/// follow; after that, [`HpaHistory::conditions`] are those of the status.
#[must_use]
pub fn evaluate(
    spec: &HpaSpec,
    settings: &HpaSettings,
    observation: &HpaObservation,
    history: &mut HpaHistory,
    now: Timestamp,
) -> HpaEvaluation {
    let step = Step {
        spec,
        settings,
        observation,
        now,
    };
    let outcome = match &observation.scale {
        Ok(scale) => step.with_scale(*scale, history),
        Err(error) => {
            let text = format!("the HPA controller was unable to get the target's current scale: {error}");
            history.conditions.able_to_scale =
                Some(HpaCondition::new(false, HpaReason::FailedGetScale, text));
            Outcome::default()
        }
    };
    HpaEvaluation {
        desired: outcome.desired,
        rescale: outcome.rescale,
        values: outcome.values,
    }
}

#[derive(Default)]
struct Outcome {
    desired: Option<u32>,
    rescale: Option<Rescale>,
    values: Vec<Option<HpaMetricValue>>,
}

struct Step<'a> {
    spec: &'a HpaSpec,
    settings: &'a HpaSettings,
    observation: &'a HpaObservation,
    now: Timestamp,
}

/// The largest count that a metric asks for, and that metric.
struct Wish {
    replicas: i64,
    metric: String,
}

impl Step<'_> {
    fn with_scale(&self, scale: Scale, history: &mut HpaHistory) -> Outcome {
        history.conditions.able_to_scale = Some(HpaCondition::new(
            true,
            HpaReason::SucceededGetScale,
            "the HPA controller was able to get the target's current scale",
        ));
        history.begin(scale.wanted, self.now);
        let current = scale.wanted;
        if current == 0 && !self.put_to_zero(history) {
            history.conditions.scaling_active = Some(HpaCondition::new(
                false,
                HpaReason::ScalingDisabled,
                "scaling is disabled since the replica count of the target is zero",
            ));
            return Outcome {
                desired: Some(0),
                ..Outcome::default()
            };
        }
        if current > self.spec.max {
            let reason = "Current number of replicas above Spec.MaxReplicas";
            return rescale(current, self.spec.max, reason.into(), Vec::new());
        }
        if current < self.spec.min {
            let reason = "Current number of replicas below Spec.MinReplicas";
            return rescale(current, self.spec.min, reason.into(), Vec::new());
        }

        let (wish, values) = self.wish(scale, history);
        let Some(wish) = wish else {
            return Outcome {
                values,
                ..Outcome::default()
            };
        };
        let wished = wish.replicas.max(0);
        let reason = if wished > current.into() {
            format!("{} above target", wish.metric)
        } else if wished < current.into() {
            "All metrics below target".into()
        } else {
            String::new()
        };
        let normalized = history.normalize(self.spec, self.settings, current.into(), wished, self.now);
        history.conditions.able_to_scale = Some(normalized.able_to_scale);
        history.conditions.scaling_limited = Some(normalized.scaling_limited);
        let to = u32::try_from(normalized.replicas.max(0)).unwrap_or(u32::MAX);
        if to == current {
            return Outcome {
                desired: Some(current),
                values,
                ..Outcome::default()
            };
        }
        rescale(current, to, reason, values)
    }

    fn put_to_zero(&self, history: &HpaHistory) -> bool {
        let condition = &history.conditions.scaled_to_zero;
        self.settings.scale_to_zero && condition.as_ref().is_some_and(|condition| condition.status)
    }

    /// What the metrics ask for together; `None` where that is not known well enough.
    fn wish(&self, scale: Scale, history: &mut HpaHistory) -> (Option<Wish>, Vec<Option<HpaMetricValue>>) {
        if !scale.has_selector {
            history.conditions.scaling_active = Some(HpaCondition::new(
                false,
                HpaReason::InvalidSelector,
                "the HPA target's scale is missing a selector",
            ));
            return (None, Vec::new());
        }
        let context = Context {
            settings: self.settings,
            tolerances: Tolerances::of(self.spec, self.settings),
            observation: self.observation,
            scale,
            now: self.now,
        };
        let mut values = Vec::with_capacity(self.spec.metrics.len());
        let mut wish: Option<Wish> = None;
        let mut failed: Option<HpaCondition> = None;
        for (index, metric) in self.spec.metrics.iter().enumerate() {
            match metric.propose(self.observation.readings.get(index), &context) {
                Ok(proposal) => {
                    values.push(Some(proposal.value));
                    let best = wish.as_ref().map_or(0, |wish| wish.replicas);
                    if best == 0 || proposal.replicas > best {
                        wish = Some(Wish {
                            replicas: proposal.replicas,
                            metric: metric.title(),
                        });
                    }
                }
                Err(error) => {
                    values.push(None);
                    failed.get_or_insert_with(|| {
                        let text = format!("the HPA was unable to compute the replica count: {error}");
                        HpaCondition::new(false, metric.failure(), text)
                    });
                }
            }
        }
        let lowers = wish
            .as_ref()
            .is_none_or(|wish| wish.replicas < scale.wanted.into());
        if let (Some(failed), true) = (failed, lowers) {
            history.conditions.scaling_active = Some(failed);
            return (None, values);
        }
        let found = wish.as_ref().map(|wish| {
            let text = format!(
                "the HPA was able to successfully calculate a replica count from {}",
                wish.metric
            );
            HpaCondition::new(true, HpaReason::ValidMetricFound, text)
        });
        if let Some(found) = found {
            history.conditions.scaling_active = Some(found);
        }
        (wish, values)
    }
}

fn rescale(from: u32, to: u32, reason: String, values: Vec<Option<HpaMetricValue>>) -> Outcome {
    Outcome {
        desired: Some(to),
        rescale: Some(Rescale { from, to, reason }),
        values,
    }
}

#[cfg(test)]
mod tests;
