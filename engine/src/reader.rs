//! One read of one source, cut off by its deadline and walled off from everything else.

use std::sync::Arc;
use std::time::Duration;

use dormouse_core::{ReadFailure, Reading};
use dormouse_scalers::Trigger;
use tokio::time::{Instant, timeout};
use tokio_util::task::AbortOnDropHandle;

use crate::engine::Clock;

/// What a read gave, and how long it took.
#[derive(Clone, Debug)]
pub(crate) struct ReadResult {
    pub(crate) outcome: Result<Reading, ReadFailure>,
    pub(crate) took: Duration,
}

/// Reads once. The read runs in a task of its own, so that a panic in a parser ends that task and no other, and the task
/// dies with the deadline or with the caller.
pub(crate) async fn read(scaler: Arc<dyn Trigger>, now: &Clock) -> ReadResult {
    let deadline = scaler.deadline();
    let started = Instant::now();
    let task = AbortOnDropHandle::new(tokio::spawn(scaler.read()));
    let outcome = match timeout(deadline, task).await {
        Ok(Ok(Ok(observed))) => {
            Reading::new(observed.value, observed.active, now()).ok_or_else(|| ReadFailure {
                category: "bad-answer",
                message: "the source answered with a value that is not a finite number".into(),
            })
        }
        Ok(Ok(Err(error))) => Err(ReadFailure {
            category: error.kind.name(),
            message: error.message,
        }),
        Ok(Err(_panicked)) => Err(ReadFailure {
            category: "internal",
            message: "the scaler failed while reading the answer".into(),
        }),
        Err(_elapsed) => Err(ReadFailure {
            category: "timeout",
            message: format!("no answer within {} s", deadline.as_secs_f64()),
        }),
    };
    ReadResult {
        outcome,
        took: started.elapsed(),
    }
}
