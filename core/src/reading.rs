//! What triggers said. A failure is a value of its own and can never be taken for a 0.

use jiff::Timestamp;

/// One observed metric value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reading {
    /// The metric's value, in its own unit; finite and never negative (see [`Reading::new`]).
    value: f64,
    /// Whether the trigger asks for at least one replica.
    pub active: bool,
    /// When the source answered.
    pub at: Timestamp,
    /// Whether what the value counts waits for replicas that do not serve yet.
    pub waiting: bool,
    /// The newest moment of demand that the source knows of, where it tells: between two readings there may have been some.
    pub last_demand: Option<Timestamp>,
}

impl Reading {
    /// A reading of `value`. Negative, infinite and not-a-number values are what KEDA serves as 0; an infinite or
    /// undefined value says nothing about demand, so `None` is returned for those and the caller must report a failure.
    #[must_use]
    pub fn new(value: f64, active: bool, at: Timestamp) -> Option<Self> {
        value.is_finite().then(|| Self {
            value: value.max(0.0),
            active,
            at,
            waiting: false,
            last_demand: None,
        })
    }

    /// The observed value: finite, at least 0.
    #[must_use]
    pub fn value(&self) -> f64 {
        self.value
    }
}

/// Why a trigger could not be read, in words for people. Never contains a secret or a remote answer's body.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ReadFailure {
    /// Bounded name for labels and records, such as `timeout` or `denied`.
    pub category: &'static str,
    /// One sentence.
    pub message: String,
}

/// One trigger's part in a decision.
#[derive(Clone, Debug, PartialEq)]
pub struct TriggerReading {
    /// The metric name, as in [`TriggerPolicy::metric_name`](crate::TriggerPolicy::metric_name).
    pub metric_name: String,
    /// What the polling tick saw.
    pub outcome: Result<Reading, ReadFailure>,
    /// Failures in a row, this one included.
    pub failures: u32,
}

/// What all triggers of an object said on one polling tick, in the order of the policy.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ReadingSet(pub Vec<TriggerReading>);

impl ReadingSet {
    /// The readings, in the order of the policy's triggers.
    pub fn iter(&self) -> impl Iterator<Item = &TriggerReading> {
        self.0.iter()
    }
}
