//! One read of one source, cut off by its deadline and walled off from everything else.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use dormouse_core::ReadFailure;
use dormouse_scalers::traffic::Traffic;
use dormouse_scalers::{Observed, ReadError, Trigger};
use tokio::task::JoinError;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

/// How long a read that was cut off may take to let go. A future lets go at once; only code that blocks does not.
const LETTING_GO: Duration = Duration::from_millis(50);

/// Why there is no value. What the engine itself found is put into words per trigger: see [`Fault::told_of`].
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    Failed(ReadError),
    Panicked,
    TimedOut(Duration),
    /// An earlier read was cut off this long after it began, and its code still holds on.
    Stuck(Duration),
    NotFinite,
}

impl Fault {
    /// The fault as a failure of this trigger. A scaler's own errors name their source already.
    pub(crate) fn told_of(&self, trigger_type: &str, metric: &str) -> ReadFailure {
        let (category, what): (_, &dyn fmt::Display) = match self {
            Self::Failed(error) => {
                return ReadFailure {
                    category: error.kind.name(),
                    message: error.message.clone(),
                };
            }
            Self::Panicked => ("internal", &"the scaler failed while reading the answer"),
            Self::TimedOut(deadline) => (
                "timeout",
                &format_args!("no answer within {} s", deadline.as_secs_f64()),
            ),
            Self::Stuck(since) => (
                "timeout",
                &format_args!(
                    "the read that began {} s ago has not come to its end",
                    since.as_secs()
                ),
            ),
            Self::NotFinite => (
                "bad-answer",
                &"the source answered with a value that is not a finite number",
            ),
        };
        ReadFailure {
            category,
            message: format!("error reading metric {metric} of the {trigger_type} trigger: {what}"),
        }
    }
}

/// A read that was started.
pub(crate) struct Reading {
    task: AbortOnDropHandle<Result<Observed, ReadError>>,
    deadline: Duration,
}

impl Reading {
    /// Starts a read in a task of its own, so that a panic in a parser ends that task and no other. Dropping it ends it. What
    /// it does on the wire is noted in `traffic`.
    pub(crate) fn start(scaler: Arc<dyn Trigger>, traffic: Traffic) -> Self {
        let deadline = scaler.deadline();
        Self {
            task: AbortOnDropHandle::new(tokio::spawn(async move { traffic.during(scaler.read()).await })),
            deadline,
        }
    }

    /// What the source said within its deadline, and whether the task has ended.
    pub(crate) async fn answer(&mut self) -> (Result<Observed, Fault>, bool) {
        match timeout(self.deadline, &mut self.task).await {
            Ok(ended) => (outcome(ended), true),
            Err(_elapsed) => {
                self.task.abort();
                let ended = timeout(LETTING_GO, &mut self.task).await.is_ok();
                (Err(Fault::TimedOut(self.deadline)), ended)
            }
        }
    }

    /// Waits until a task that was cut off is gone.
    pub(crate) async fn gone(self) {
        drop(self.task.await);
    }
}

fn outcome(ended: Result<Result<Observed, ReadError>, JoinError>) -> Result<Observed, Fault> {
    match ended {
        Ok(Ok(observed)) if observed.value.is_finite() => Ok(observed),
        Ok(Ok(_)) => Err(Fault::NotFinite),
        Ok(Err(error)) => Err(Fault::Failed(error)),
        Err(_panicked) => Err(Fault::Panicked),
    }
}
