//! What an HPA remembers from one evaluation to the next.

use std::time::Duration;

use jiff::Timestamp;

use super::Rescale;
use super::condition::{HpaCondition, HpaConditions, HpaReason};
use super::spec::{Behavior, HpaSettings, HpaSpec};

/// The memory of one HPA. A controller that starts anew begins with an empty one, as the real one does.
///
/// It is bounded: whatever is too old for every rule is overwritten by what comes next.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HpaHistory {
    pub(super) recommendations: Vec<Recommendation>,
    pub(super) ups: Vec<Change>,
    pub(super) downs: Vec<Change>,
    pub(super) conditions: HpaConditions,
}

/// What the metrics asked for, before it was held back or cut.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Recommendation {
    pub(super) at: Timestamp,
    pub(super) replicas: i64,
}

/// By how much the replicas were changed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Change {
    at: Timestamp,
    replicas: i64,
}

impl HpaHistory {
    /// The memory of an HPA that another controller left with these conditions.
    #[must_use]
    pub fn with_conditions(conditions: HpaConditions) -> Self {
        Self {
            conditions,
            ..Self::default()
        }
    }

    /// The conditions after the last evaluation and what came of its rescale.
    #[must_use]
    pub fn conditions(&self) -> &HpaConditions {
        &self.conditions
    }

    /// Remembers that a rescale was carried out, for the conditions and for the policies of later evaluations. Not to be
    /// called before the write succeeded: a change that never happened must not hold back the next.
    pub fn rescaled(&mut self, spec: &HpaSpec, settings: &HpaSettings, rescale: &Rescale, now: Timestamp) {
        let Rescale { from, to, .. } = *rescale;
        self.conditions.able_to_scale = Some(HpaCondition::new(
            true,
            HpaReason::SucceededRescale,
            format!("the HPA controller was able to update the target scale to {to}"),
        ));
        if settings.scale_to_zero {
            self.conditions.scaled_to_zero = Some(if to == 0 {
                let text = "the HPA controller scaled the workload to zero";
                HpaCondition::new(true, HpaReason::ScaledToZero, text)
            } else {
                let text = "the HPA controller did not scale the workload to zero";
                HpaCondition::new(false, HpaReason::NotScaledToZero, text)
            });
        }
        let Some(Behavior { scale_up, scale_down }) = &spec.behavior else {
            return;
        };
        let (changes, period) = if to > from {
            (&mut self.ups, scale_up.up().longest_period())
        } else {
            (&mut self.downs, scale_down.down(settings).longest_period())
        };
        let cutoff = before(now, period);
        let change = Change {
            at: now,
            replicas: i64::from(to.abs_diff(from)),
        };
        replace_old(changes, change, |old| old.at < cutoff);
    }

    /// Remembers that a rescale could not be carried out. `status.desiredReplicas` stays as it was.
    pub fn rescale_failed(&mut self, error: &str) {
        self.conditions.able_to_scale = Some(HpaCondition::new(
            false,
            HpaReason::FailedUpdateScale,
            format!("the HPA controller was unable to update the target scale: {error}"),
        ));
    }

    /// The first look at a target counts as a recommendation, so that a new controller does not scale down at once. An
    /// evaluation sees to this by itself; a caller whose metrics take long to read may do it when the scale is read.
    pub fn begin(&mut self, replicas: u32, now: Timestamp) {
        if self.recommendations.is_empty() {
            self.recommendations.push(Recommendation {
                at: now,
                replicas: replicas.into(),
            });
        }
    }

    /// Remembers a recommendation in the place of one that is too old, if there is one.
    pub(super) fn recommend(&mut self, replicas: i64, now: Timestamp, is_old: impl Fn(Timestamp) -> bool) {
        replace_old(
            &mut self.recommendations,
            Recommendation { at: now, replicas },
            |old| is_old(old.at),
        );
    }

    /// The replicas at the start of a policy's period, reckoned back from the current ones.
    pub(super) fn replicas_before(&self, period: Duration, current: i64, now: Timestamp) -> i64 {
        let cutoff = before(now, period);
        let within = |changes: &[Change]| -> i64 {
            let recent = changes.iter().filter(|change| change.at > cutoff);
            recent.map(|change| change.replicas).sum()
        };
        current - within(&self.ups) + within(&self.downs)
    }
}

fn replace_old<T>(items: &mut Vec<T>, item: T, is_old: impl Fn(&T) -> bool) {
    match items.iter().rposition(is_old) {
        Some(index) => items[index] = item,
        None => items.push(item),
    }
}

/// `now` minus `duration`, or the beginning of time.
pub(super) fn before(now: Timestamp, duration: Duration) -> Timestamp {
    now.checked_sub(duration).unwrap_or(Timestamp::MIN)
}
