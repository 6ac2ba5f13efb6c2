//! The latest reading of each trigger: written by the object's loop, read by the metrics API without any lock on the
//! loop's way.

use std::time::Duration;

use dormouse_core::{ReadFailure, Reading};
use jiff::Timestamp;
use tokio::sync::{Mutex, watch};
use tokio::time::{Instant, timeout};

use crate::source::Answer;

/// How long a reader waits for the very first reading of a trigger.
const FIRST_READING_WAIT: Duration = Duration::from_secs(2);

/// The latest reading of one trigger.
#[derive(Clone, Debug)]
pub(crate) struct Latest {
    pub(crate) outcome: Result<Reading, ReadFailure>,
    /// Failures in a row, up to and with this one.
    pub(crate) failures: u32,
    pub(crate) taken: Instant,
    read: u64,
}

/// Where one trigger's readings are kept.
#[derive(Debug)]
pub(crate) struct Slot {
    latest: watch::Sender<Option<Latest>>,
    /// Held by whoever reads the source on behalf of a metrics request, so that many requests make one read.
    pub(crate) reading: Mutex<()>,
}

impl Slot {
    pub(crate) fn new() -> Self {
        Self {
            latest: watch::Sender::new(None),
            reading: Mutex::new(()),
        }
    }

    /// Takes in what a read gave and says how many failures in a row that makes. A read counts once, however often it is
    /// taken in.
    pub(crate) fn publish(&self, answer: &Answer, outcome: &Result<Reading, ReadFailure>) -> u32 {
        let mut failures = 0;
        self.latest.send_if_modified(|latest| {
            let (before, known) = latest
                .as_ref()
                .map_or((0, false), |latest| (latest.failures, latest.read == answer.id));
            if known {
                failures = before;
                return false;
            }
            failures = if outcome.is_ok() {
                0
            } else {
                before.saturating_add(1)
            };
            *latest = Some(Latest {
                outcome: outcome.clone(),
                failures,
                taken: answer.taken,
                read: answer.id,
            });
            true
        });
        failures
    }

    pub(crate) fn latest(&self) -> Option<Latest> {
        self.latest.borrow().clone()
    }

    /// The latest reading; before the first one, waits for it a little.
    pub(crate) async fn wait_for_first(&self) -> Option<Latest> {
        if let Some(latest) = self.latest() {
            return Some(latest);
        }
        let mut changes = self.latest.subscribe();
        let first = timeout(FIRST_READING_WAIT, changes.wait_for(Option::is_some)).await;
        first.ok()?.ok().and_then(|latest| latest.clone())
    }
}

/// A metric as it is served.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Served {
    /// The value.
    pub value: f64,
    /// When it was read; for a fallback, now.
    pub at: Timestamp,
    /// Whether it stands in for a reading that failed.
    pub fallback: bool,
}

/// Why a metric is not served.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MetricError {
    /// No such object, or none that could be built.
    #[error("ScaledObject {0:?} is not known")]
    UnknownObject(String),
    /// The object has no such metric.
    #[error("there is no metric {0:?}")]
    UnknownMetric(String),
    /// The last read failed, and no fallback holds yet.
    #[error("metric {metric:?} cannot be read: {failure}")]
    Failing {
        /// The metric.
        metric: String,
        /// What went wrong.
        failure: ReadFailure,
    },
    /// There is a reading, but it is older than it may be.
    #[error("the last reading of metric {metric:?} is {age:?} old, and only {limit:?} are accepted")]
    TooOld {
        /// The metric.
        metric: String,
        /// Its age.
        age: Duration,
        /// The age up to which it would have been served.
        limit: Duration,
    },
    /// There is no reading yet.
    #[error("metric {0:?} has not been read yet")]
    NotYet(String),
    /// Requests wait for a target that was woken for them just now: it is scaled by them, and not by an autoscaler that may
    /// have seen the target before.
    #[error("metric {0:?} is not served while the target is being woken")]
    Settling(String),
    /// The fallback of a `Value` target has no ready pods to be divided by.
    #[error("metric {0:?} cannot be read, and its fallback has no ready pods to be divided by")]
    FallbackImpossible(String),
}
