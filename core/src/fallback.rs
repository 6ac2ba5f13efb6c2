//! What is assumed when a trigger cannot be read.

use crate::policy::{Fallback, FallbackBehavior, MetricTarget, TargetKind};

impl Fallback {
    /// Whether the fallback holds after this many failures in a row: strictly more than the threshold.
    #[must_use]
    pub fn holds(&self, failures: u32) -> bool {
        failures > self.failure_threshold
    }

    /// The replicas to assume while `current` run.
    #[must_use]
    pub fn replicas_at(&self, current: u32) -> u32 {
        match self.behavior {
            FallbackBehavior::Static => self.replicas,
            FallbackBehavior::CurrentReplicas => current,
            FallbackBehavior::CurrentReplicasIfHigher => self.replicas.max(current),
            FallbackBehavior::CurrentReplicasIfLower => self.replicas.min(current),
        }
    }

    /// The metric value that makes the HPA ask for [`replicas_at`](Self::replicas_at): target x replicas, and for a
    /// `Value` target that divided by the pods that are ready, since the HPA multiplies by them.
    ///
    /// `None` for a `Value` target without ready pods: there is nothing to divide by, and the read is an error.
    #[must_use]
    pub fn metric_value(&self, target: MetricTarget, current: u32, ready_pods: u32) -> Option<f64> {
        let whole = target.value * f64::from(self.replicas_at(current));
        match target.kind {
            TargetKind::AverageValue => Some(whole),
            TargetKind::Value if ready_pods == 0 => None,
            TargetKind::Value => Some(whole / f64::from(ready_pods)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fallback(behavior: FallbackBehavior) -> Fallback {
        Fallback {
            failure_threshold: 3,
            replicas: 6,
            behavior,
        }
    }

    #[test]
    fn holds_strictly_above_the_threshold() {
        let fallback = fallback(FallbackBehavior::Static);
        assert!(!fallback.holds(3));
        assert!(fallback.holds(4));
    }

    #[test]
    fn behaviors() {
        for (behavior, at_4, at_9) in [
            (FallbackBehavior::Static, 6, 6),
            (FallbackBehavior::CurrentReplicas, 4, 9),
            (FallbackBehavior::CurrentReplicasIfHigher, 6, 9),
            (FallbackBehavior::CurrentReplicasIfLower, 4, 6),
        ] {
            assert_eq!(fallback(behavior).replicas_at(4), at_4, "{behavior:?}");
            assert_eq!(fallback(behavior).replicas_at(9), at_9, "{behavior:?}");
        }
    }

    #[test]
    fn a_value_target_is_divided_by_the_ready_pods() {
        let value = MetricTarget {
            kind: TargetKind::Value,
            value: 10.0,
        };
        let average = MetricTarget {
            kind: TargetKind::AverageValue,
            value: 10.0,
        };
        let fallback = fallback(FallbackBehavior::Static);
        assert_eq!(fallback.metric_value(average, 2, 0), Some(60.0));
        assert_eq!(fallback.metric_value(value, 2, 4), Some(15.0));
        assert_eq!(fallback.metric_value(value, 2, 0), None);
    }
}
