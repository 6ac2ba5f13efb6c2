//! An object as it stands at this moment, for people who want to know why it does what it does.

use std::time::Duration;

use dormouse_core::{DecisionRecord, MetricTarget, Pause, ReadFailure, Reading};
use jiff::Timestamp;
use tokio::time::Instant;

use crate::object::Object;

/// One object.
#[derive(Clone, Debug, PartialEq)]
pub struct ObjectView {
    /// The pause its loop obeys.
    pub pause: Pause,
    /// How often activity is decided.
    pub polling_interval: Duration,
    /// How long until its next polling tick, zero for one under way; `None` where no loop runs in this process.
    pub next_tick: Option<Duration>,
    /// When a trigger was last active.
    pub last_active: Option<Timestamp>,
    /// The newest decision, with the replicas it saw and the readings it was made on.
    pub decision: Option<DecisionRecord>,
    /// Its triggers, in the order of the manifest.
    pub triggers: Vec<TriggerView>,
}

/// One trigger.
#[derive(Clone, Debug, PartialEq)]
pub struct TriggerView {
    /// Position in `spec.triggers`.
    pub index: usize,
    /// The user's name for it.
    pub name: Option<String>,
    /// Its type.
    pub trigger_type: String,
    /// Name of its metric.
    pub metric_name: String,
    /// What one replica is meant to carry.
    pub target: MetricTarget,
    /// The newest read; `None` before the first.
    pub latest: Option<LatestRead>,
}

/// The newest read of a trigger.
#[derive(Clone, Debug, PartialEq)]
pub struct LatestRead {
    /// What came back.
    pub outcome: Result<Reading, ReadFailure>,
    /// Failures in a row, up to and with this one.
    pub failures: u32,
    /// How long ago it came back.
    pub age: Duration,
}

impl Object {
    pub(crate) fn view(&self) -> ObjectView {
        let triggers = self.triggers.iter().map(|trigger| {
            let policy = &trigger.connected.policy;
            TriggerView {
                index: policy.index,
                name: policy.name.clone(),
                trigger_type: policy.trigger_type.clone(),
                metric_name: policy.metric_name.clone(),
                target: policy.target,
                latest: trigger.slot.latest().map(|latest| LatestRead {
                    outcome: latest.outcome,
                    failures: latest.failures,
                    age: latest.taken.elapsed(),
                }),
            }
        });
        let now = Instant::now();
        ObjectView {
            pause: self.policy.pause,
            polling_interval: self.policy.polling_interval,
            next_tick: self
                .memory
                .next_tick()
                .map(|due| due.saturating_duration_since(now)),
            last_active: self.memory.last_active(),
            decision: self.memory.newest_record(),
            triggers: triggers.collect(),
        }
    }
}
