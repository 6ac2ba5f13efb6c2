//! From what the metrics ask for to what the target gets: first held back, then cut.

use jiff::Timestamp;

use super::condition::{HpaCondition, HpaReason};
use super::history::{HpaHistory, before};
use super::spec::{Amount, Behavior, Direction, HpaSettings, HpaSpec, SelectPolicy};

/// The count that was let through, and the two conditions that say why.
pub(super) struct Normalized {
    pub(super) replicas: i64,
    pub(super) able_to_scale: HpaCondition,
    pub(super) scaling_limited: HpaCondition,
}

/// A count together with the rule that bounds it.
struct Cut {
    replicas: i64,
    reason: HpaReason,
}

impl HpaHistory {
    /// Holds back and cuts the count that the metrics ask for, and remembers it.
    pub(super) fn normalize(
        &mut self,
        spec: &HpaSpec,
        settings: &HpaSettings,
        current: i64,
        wished: i64,
        now: Timestamp,
    ) -> Normalized {
        let (stable, held, cut) = match &spec.behavior {
            None => {
                let stable = self.stabilize(settings, wished, now);
                let cut = cut_without_behavior(spec, current, stable);
                (stable, HpaReason::ScaleDownStabilized, cut)
            }
            Some(behavior) => {
                let stable = self.stabilize_with(behavior, settings, current, wished, now);
                let held = if wished >= current {
                    HpaReason::ScaleUpStabilized
                } else {
                    HpaReason::ScaleDownStabilized
                };
                let cut = self.cut(spec, behavior, settings, current, stable, now);
                (stable, held, cut)
            }
        };
        let reason = if stable == wished {
            HpaReason::ReadyForNewScale
        } else {
            held
        };
        Normalized {
            replicas: cut.replicas,
            able_to_scale: HpaCondition::new(true, reason, message(reason)),
            scaling_limited: HpaCondition::new(cut.replicas != stable, cut.reason, message(cut.reason)),
        }
    }

    /// Without a behavior: the highest recommendation of the controller's look-back.
    fn stabilize(&mut self, settings: &HpaSettings, wished: i64, now: Timestamp) -> i64 {
        let cutoff = before(now, settings.downscale_stabilization);
        let recent = self.recommendations.iter().filter(|old| old.at >= cutoff);
        let highest = recent
            .map(|recent| recent.replicas)
            .max()
            .map_or(wished, |most| most.max(wished));
        self.recommend(wished, now, |at| at < cutoff);
        highest
    }

    /// With a behavior: the current count, moved no further than into what all recommendations of both look-backs
    /// agree on.
    fn stabilize_with(
        &mut self,
        behavior: &Behavior,
        settings: &HpaSettings,
        current: i64,
        wished: i64,
        now: Timestamp,
    ) -> i64 {
        let up_cutoff = before(now, behavior.scale_up.up().stabilization);
        let down_cutoff = before(now, behavior.scale_down.down(settings).stabilization);
        let since = |cutoff: Timestamp| {
            let recent = self.recommendations.iter().filter(move |old| old.at > cutoff);
            recent.map(|recent| recent.replicas)
        };
        let at_least = since(up_cutoff).min().map_or(wished, |least| least.min(wished));
        let at_most = since(down_cutoff).max().map_or(wished, |most| most.max(wished));
        self.recommend(wished, now, |at| at < up_cutoff && at < down_cutoff);
        current.max(at_least).min(at_most)
    }

    fn cut(
        &self,
        spec: &HpaSpec,
        behavior: &Behavior,
        settings: &HpaSettings,
        current: i64,
        stable: i64,
        now: Timestamp,
    ) -> Cut {
        if stable > current {
            let limit = self.highest(&behavior.scale_up.up(), current, now).max(current);
            let bound = upper(i64::from(spec.max), limit);
            if stable > bound.replicas {
                return bound;
            }
        } else if stable < current {
            let rules = behavior.scale_down.down(settings);
            let limit = self.lowest(&rules, current, now).min(current);
            let min = i64::from(spec.min);
            let bound = if min < limit {
                Cut {
                    replicas: limit,
                    reason: HpaReason::ScaleDownLimit,
                }
            } else {
                Cut {
                    replicas: min,
                    reason: HpaReason::TooFewReplicas,
                }
            };
            if stable < bound.replicas {
                return bound;
            }
        }
        within(stable)
    }

    /// How far up the policies let the target go now.
    fn highest(&self, rules: &Direction<'_>, current: i64, now: Timestamp) -> i64 {
        let proposals = rules.policies.iter().map(|policy| {
            let start = self.replicas_before(policy.period, current, now);
            match policy.amount {
                Amount::Pods(pods) => start + i64::from(pods),
                // Up, so that one percent of a few replicas is not nothing for ever.
                Amount::Percent(percent) => whole((start as f64 * (1.0 + f64::from(percent) / 100.0)).ceil()),
            }
        });
        match rules.select {
            SelectPolicy::Disabled => current,
            SelectPolicy::Max => proposals.max().unwrap_or(current),
            SelectPolicy::Min => proposals.min().unwrap_or(current),
        }
    }

    /// How far down the policies let the target go now.
    fn lowest(&self, rules: &Direction<'_>, current: i64, now: Timestamp) -> i64 {
        let proposals = rules.policies.iter().map(|policy| {
            let start = self.replicas_before(policy.period, current, now);
            match policy.amount {
                Amount::Pods(pods) => start - i64::from(pods),
                Amount::Percent(percent) => whole(start as f64 * (1.0 - f64::from(percent) / 100.0)),
            }
        });
        match rules.select {
            SelectPolicy::Disabled => current,
            SelectPolicy::Max => proposals.min().unwrap_or(current),
            SelectPolicy::Min => proposals.max().unwrap_or(current),
        }
    }
}

/// The bounds of before behaviors: from the minimum to the maximum, and at most to the larger of 4 and twice the
/// current count at once.
fn cut_without_behavior(spec: &HpaSpec, current: i64, stable: i64) -> Cut {
    const ALWAYS_ALLOWED: i64 = 4;
    const FACTOR: i64 = 2;
    let min = i64::from(spec.min);
    let bound = upper(i64::from(spec.max), (current * FACTOR).max(ALWAYS_ALLOWED));
    if stable < min {
        Cut {
            replicas: min,
            reason: HpaReason::TooFewReplicas,
        }
    } else if stable > bound.replicas {
        bound
    } else {
        within(stable)
    }
}

fn upper(max: i64, limit: i64) -> Cut {
    if max > limit {
        Cut {
            replicas: limit,
            reason: HpaReason::ScaleUpLimit,
        }
    } else {
        Cut {
            replicas: max,
            reason: HpaReason::TooManyReplicas,
        }
    }
}

fn within(replicas: i64) -> Cut {
    Cut {
        replicas,
        reason: HpaReason::DesiredWithinRange,
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "truncation and saturation are what is asked for"
)]
fn whole(replicas: f64) -> i64 {
    replicas as i64
}

fn message(reason: HpaReason) -> &'static str {
    match reason {
        HpaReason::ScaleUpStabilized => {
            "recent recommendations were lower than current one, applying the lowest recent recommendation"
        }
        HpaReason::ScaleDownStabilized => {
            "recent recommendations were higher than current one, applying the highest recent recommendation"
        }
        HpaReason::TooFewReplicas => "the desired replica count is less than the minimum replica count",
        HpaReason::TooManyReplicas => "the desired replica count is more than the maximum replica count",
        HpaReason::ScaleUpLimit => {
            "the desired replica count is increasing faster than the maximum scale rate"
        }
        HpaReason::ScaleDownLimit => {
            "the desired replica count is decreasing faster than the maximum scale rate"
        }
        HpaReason::DesiredWithinRange => "the desired count is within the acceptable range",
        _ => "recommended size matches current size",
    }
}
