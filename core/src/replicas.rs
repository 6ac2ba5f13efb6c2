//! How many replicas a target may have.

/// The bounds of a ScaledObject, checked once so that no later code can hold nonsense.
///
/// Replica counts are `u32` here: the wire's `int32` admits negative numbers, which mean nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplicaRange {
    min: u32,
    max: u32,
    idle: Option<u32>,
}

/// Why the bounds contradict each other. The sentences are KEDA's, which other tools look for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplicaRangeError {
    /// The minimum lies above the maximum.
    #[error("MinReplicaCount={min} must be less than MaxReplicaCount={max}")]
    MinAboveMax {
        /// The minimum as KEDA counts it: never below 1 once it is set.
        min: u32,
        /// The maximum in force.
        max: u32,
    },
    /// Idle mode needs room between idle and minimum.
    #[error("IdleReplicaCount={idle} must be less than MinReplicaCount={min}")]
    IdleNotBelowMin {
        /// The idle count asked for.
        idle: u32,
        /// The minimum as KEDA counts it.
        min: u32,
    },
}

impl ReplicaRange {
    /// Checks the three counts of a ScaledObject as KEDA does: for these checks alone, an explicit minimum of 0 counts as
    /// 1, so `idleReplicaCount: 0` is valid beside `minReplicaCount: 0` but not beside an unset minimum.
    ///
    /// # Errors
    /// Minimum above maximum, or idle not below minimum.
    pub fn try_new(min: Option<u32>, max: u32, idle: Option<u32>) -> Result<Self, ReplicaRangeError> {
        let checked_min = min.map_or(0, |min| min.max(1));
        if checked_min > max {
            return Err(ReplicaRangeError::MinAboveMax {
                min: checked_min,
                max,
            });
        }
        if let Some(idle) = idle
            && idle >= checked_min
        {
            return Err(ReplicaRangeError::IdleNotBelowMin {
                idle,
                min: checked_min,
            });
        }
        Ok(Self {
            min: min.unwrap_or(0),
            max,
            idle,
        })
    }

    /// The lowest count while active, and the resting count where no idle count is set.
    #[must_use]
    pub fn min(&self) -> u32 {
        self.min
    }

    /// The highest count.
    #[must_use]
    pub fn max(&self) -> u32 {
        self.max
    }

    /// The resting count of idle mode.
    #[must_use]
    pub fn idle(&self) -> Option<u32> {
        self.idle
    }

    /// What the HPA gets as `minReplicas`: it cannot count from 0.
    #[must_use]
    pub fn hpa_min(&self) -> u32 {
        self.min.max(1)
    }

    /// Where a target goes when nothing is active: idle, if set, else the minimum.
    #[must_use]
    pub fn resting(&self) -> u32 {
        self.idle.unwrap_or(self.min)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_explicit_zero_minimum_leaves_room_for_idle_zero_but_an_unset_one_does_not() {
        assert!(ReplicaRange::try_new(Some(0), 100, Some(0)).is_ok());
        assert_eq!(
            ReplicaRange::try_new(None, 100, Some(0)),
            Err(ReplicaRangeError::IdleNotBelowMin { idle: 0, min: 0 })
        );
    }

    #[test]
    fn refusals_use_the_sentences_users_search_for() {
        let idle = ReplicaRange::try_new(Some(2), 100, Some(2)).unwrap_err();
        assert_eq!(
            idle.to_string(),
            "IdleReplicaCount=2 must be less than MinReplicaCount=2"
        );
        let min = ReplicaRange::try_new(Some(5), 3, None).unwrap_err();
        assert_eq!(
            min.to_string(),
            "MinReplicaCount=5 must be less than MaxReplicaCount=3"
        );
    }

    #[test]
    fn without_minimum_and_idle_count_a_target_rests_at_zero_and_its_hpa_begins_at_one() {
        let range = ReplicaRange::try_new(None, 100, None).unwrap();
        assert_eq!(
            (range.min(), range.max(), range.hpa_min(), range.resting()),
            (0, 100, 1, 0)
        );
    }
}
