//! Why things happened: the last decisions of an object, kept in a bounded ring.

use std::collections::VecDeque;

use jiff::Timestamp;

use crate::decision::{Decision, Observation};
use crate::reading::ReadingSet;

/// A decision with all that led to it. Replaying `decide` on it gives the same decision.
#[derive(Clone, Debug, PartialEq)]
pub struct DecisionRecord {
    /// When it was made.
    pub at: Timestamp,
    /// The target as it was.
    pub observation: Observation,
    /// What the triggers said.
    pub readings: ReadingSet,
    /// What came of it.
    pub decision: Decision,
}

/// The newest records of one object; the oldest leaves when a new one comes to a full ring.
#[derive(Clone, Debug)]
pub struct RecordRing {
    records: VecDeque<DecisionRecord>,
    capacity: usize,
}

impl RecordRing {
    /// A ring of at most `capacity` records (at least one).
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self {
            records: VecDeque::new(),
            capacity: capacity.max(1),
        }
    }

    /// Adds a record. One that repeats the newest in all but time and readings replaces it, so that a long quiet spell
    /// does not push out the last change.
    pub fn push(&mut self, record: DecisionRecord) {
        let repeats = self.records.back().is_some_and(|newest| {
            newest.decision.action == record.decision.action
                && newest.decision.reason == record.decision.reason
                && newest.observation.replicas == record.observation.replicas
        });
        if repeats {
            self.records.pop_back();
        } else if self.records.len() == self.capacity {
            self.records.pop_front();
        }
        self.records.push_back(record);
    }

    /// The newest record.
    #[must_use]
    pub fn newest(&self) -> Option<&DecisionRecord> {
        self.records.back()
    }

    /// All records, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &DecisionRecord> {
        self.records.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decision::{Action, Activity, Reason, TriggerHealth};
    use std::time::Duration;

    fn record(second: i64, reason: Reason, replicas: u32) -> DecisionRecord {
        let at = Timestamp::from_second(second).unwrap();
        DecisionRecord {
            at,
            observation: Observation {
                replicas,
                created: at,
                last_active: None,
            },
            readings: ReadingSet::default(),
            decision: Decision {
                action: Action::Stay,
                activity: Activity::Inactive,
                health: TriggerHealth::Good,
                reason,
                active_metrics: Vec::new(),
                fallen_back: Vec::new(),
                last_active: None,
                recheck_after: Duration::from_secs(1),
            },
        }
    }

    #[test]
    fn a_quiet_spell_does_not_push_out_the_last_change() {
        let mut ring = RecordRing::new(3);
        ring.push(record(1, Reason::Woken, 0));
        for second in 2..100 {
            ring.push(record(second, Reason::HeldByAutoscaler, 1));
        }
        let reasons: Vec<_> = ring
            .iter()
            .map(|r| (r.at.as_second(), r.decision.reason))
            .collect();
        assert_eq!(reasons, [(1, Reason::Woken), (99, Reason::HeldByAutoscaler)]);
    }

    #[test]
    fn the_ring_is_bounded() {
        let mut ring = RecordRing::new(3);
        for replicas in 0..10 {
            ring.push(record(i64::from(replicas), Reason::Resting, replicas));
        }
        assert_eq!(ring.iter().count(), 3);
        assert_eq!(ring.newest().unwrap().observation.replicas, 9);
    }
}
