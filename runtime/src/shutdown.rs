//! How the process ends: on a signal, or because a task it cannot do without has ended.
//!
//! ```text
//! stop signal, or a task ended ──> token() cancelled ──> ordinary tasks drain (grace)
//!                                                    ──> last_token() cancelled ──> last tasks drain ──> run() returns
//! ```
//!
//! The two stages exist for what must outlive the writers: a lease is given up only once nobody writes under it, and the
//! admin server answers until the end.

use std::{borrow::Cow, collections::HashMap, error::Error, future::Future, io, time::Duration};

use tokio::{
    signal::unix::{SignalKind, signal},
    task::{Id, JoinError, JoinSet},
    time::{Instant, timeout_at},
};
use tokio_util::sync::CancellationToken;

/// How long the last tasks may take once the ordinary ones are gone.
pub const LAST_GRACE: Duration = Duration::from_secs(3);

/// Any error, as a task may return it.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// Why the process has to exit with a failure.
#[derive(Debug, thiserror::Error)]
pub enum SupervisorError {
    /// A task that should run for as long as the process returned.
    #[error("task {task:?} ended although the process was not stopping")]
    Ended {
        /// The task's name.
        task: Cow<'static, str>,
    },
    /// A task returned an error.
    #[error("task {task:?} failed")]
    Failed {
        /// The task's name.
        task: Cow<'static, str>,
        /// What it returned.
        #[source]
        source: BoxError,
    },
    /// A task panicked.
    #[error("task {task:?} panicked: {message}")]
    Panicked {
        /// The task's name.
        task: Cow<'static, str>,
        /// The panic's message.
        message: String,
    },
}

/// What a supervised task may return.
pub trait Outcome: Send + 'static {
    /// The task's result, with its error boxed.
    fn into_result(self) -> Result<(), BoxError>;
}

impl Outcome for () {
    fn into_result(self) -> Result<(), BoxError> {
        Ok(())
    }
}

impl<E: Into<BoxError> + Send + 'static> Outcome for Result<(), E> {
    fn into_result(self) -> Result<(), BoxError> {
        self.map_err(Into::into)
    }
}

/// A future that resolves at the first SIGTERM or SIGINT after this call.
///
/// # Errors
/// When the handlers cannot be installed.
pub fn termination() -> io::Result<impl Future<Output = ()> + Send> {
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(async move {
        let name = tokio::select! {
            _ = term.recv() => "SIGTERM",
            _ = int.recv() => "SIGINT",
        };
        tracing::info!(signal = name, "stopping");
    })
}

/// Owns the process's critical tasks. Dropping it aborts them.
#[derive(Debug, Default)]
pub struct Supervisor {
    token: CancellationToken,
    last_token: CancellationToken,
    tasks: Stage,
    last_tasks: Stage,
}

impl Supervisor {
    /// A supervisor without tasks.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Cancelled when the process begins to stop.
    #[must_use]
    pub fn token(&self) -> CancellationToken {
        self.token.clone()
    }

    /// Cancelled when every ordinary task is gone.
    #[must_use]
    pub fn last_token(&self) -> CancellationToken {
        self.last_token.clone()
    }

    /// Runs a task without which the process cannot go on. It should return soon after [`Self::token`] is cancelled, and
    /// not before.
    pub fn spawn<T: Outcome>(
        &mut self,
        name: impl Into<Cow<'static, str>>,
        task: impl Future<Output = T> + Send + 'static,
    ) {
        self.tasks.spawn(name.into(), task);
    }

    /// As [`Self::spawn`], for a task that is told to stop only by [`Self::last_token`].
    pub fn spawn_last<T: Outcome>(
        &mut self,
        name: impl Into<Cow<'static, str>>,
        task: impl Future<Output = T> + Send + 'static,
    ) {
        self.last_tasks.spawn(name.into(), task);
    }

    /// Waits for `stop`, for the token to be cancelled or for the first task to end, then drains both stages: the ordinary
    /// tasks within `grace`, the last ones within [`LAST_GRACE`] after that. Tasks that do not make it are aborted, and
    /// the log names them.
    ///
    /// # Errors
    /// The first unexpected end of a task, also one during the drain when it was an error or a panic.
    pub async fn run(
        mut self,
        stop: impl Future<Output = ()>,
        grace: Duration,
    ) -> Result<(), SupervisorError> {
        let mut failure = tokio::select! {
            () = stop => None,
            () = self.token.cancelled() => None,
            ended = self.tasks.next_end() => Some(ended.unexpected()),
            ended = self.last_tasks.next_end() => Some(ended.unexpected()),
        };
        if let Some(error) = &failure {
            tracing::error!(
                error = error as &dyn Error,
                "a critical task ended, stopping the process"
            );
        }
        self.token.cancel();
        self.tasks.drain(grace, &mut failure).await;
        self.last_token.cancel();
        self.last_tasks.drain(LAST_GRACE, &mut failure).await;
        failure.map_or(Ok(()), Err)
    }
}

#[derive(Debug, Default)]
struct Stage {
    tasks: JoinSet<Result<(), BoxError>>,
    names: HashMap<Id, Cow<'static, str>>,
}

impl Stage {
    fn spawn<T: Outcome>(&mut self, name: Cow<'static, str>, task: impl Future<Output = T> + Send + 'static) {
        let handle = self.tasks.spawn(async move { task.await.into_result() });
        self.names.insert(handle.id(), name);
    }

    /// The next task that ends; pending for ever while there is none.
    async fn next_end(&mut self) -> End {
        let (id, result) = match self.tasks.join_next_with_id().await {
            Some(Ok((id, result))) => (id, Ok(result)),
            Some(Err(error)) => (error.id(), Err(error)),
            None => std::future::pending().await,
        };
        End {
            task: self.names.remove(&id).unwrap_or_default(),
            result,
        }
    }

    async fn drain(&mut self, grace: Duration, failure: &mut Option<SupervisorError>) {
        let deadline = Instant::now() + grace;
        while !self.tasks.is_empty() {
            let Ok(end) = timeout_at(deadline, self.next_end()).await else {
                let mut names: Vec<&str> = self.names.values().map(AsRef::as_ref).collect();
                names.sort_unstable();
                tracing::warn!(
                    tasks = names.join(", "),
                    ?grace,
                    "tasks did not stop in time, aborting them"
                );
                self.tasks.shutdown().await;
                self.names.clear();
                return;
            };
            if let Some(error) = end.failed() {
                tracing::error!(error = &error as &dyn Error, "a task failed while stopping");
                failure.get_or_insert(error);
            }
        }
    }
}

struct End {
    task: Cow<'static, str>,
    result: Result<Result<(), BoxError>, JoinError>,
}

impl End {
    fn failed(self) -> Option<SupervisorError> {
        let task = self.task;
        match self.result {
            Ok(Ok(())) => None,
            Ok(Err(source)) => Some(SupervisorError::Failed { task, source }),
            Err(error) => Some(SupervisorError::Panicked {
                task,
                message: panic_message(error),
            }),
        }
    }

    fn unexpected(self) -> SupervisorError {
        let task = self.task.clone();
        self.failed().unwrap_or(SupervisorError::Ended { task })
    }
}

/// What a task that did not return had to say.
#[must_use]
pub fn panic_message(error: JoinError) -> String {
    match error.try_into_panic() {
        Ok(payload) => match payload.downcast::<String>() {
            Ok(message) => *message,
            Err(payload) => payload
                .downcast_ref::<&str>()
                .map_or_else(|| "no message".into(), |m| (*m).to_owned()),
        },
        Err(_) => "the task was aborted".into(),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::pending,
        sync::{Arc, Mutex},
    };

    use super::*;

    const GRACE: Duration = Duration::from_secs(20);

    #[tokio::test(start_paused = true)]
    async fn a_signal_stops_everything_and_is_no_failure() {
        let mut supervisor = Supervisor::new();
        let order = Arc::new(Mutex::new(Vec::new()));
        let (token, last, log) = (supervisor.token(), supervisor.last_token(), order.clone());
        supervisor.spawn_last("lease", async move {
            last.cancelled().await;
            log.lock().unwrap().push("lease");
        });
        let log = order.clone();
        supervisor.spawn("writer", async move {
            token.cancelled().await;
            tokio::time::sleep(Duration::from_secs(5)).await;
            log.lock().unwrap().push("writer");
        });
        supervisor.run(async {}, GRACE).await.unwrap();
        assert_eq!(
            *order.lock().unwrap(),
            ["writer", "lease"],
            "the lease must outlive the writer"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_unexpected_end_stops_the_others_and_names_the_task() {
        let mut supervisor = Supervisor::new();
        let token = supervisor.token();
        supervisor.spawn("watch", async {});
        supervisor.spawn("other", async move { token.cancelled().await });
        let error = supervisor.run(pending(), GRACE).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "task \"watch\" ended although the process was not stopping"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn an_error_and_a_panic_are_told_apart() {
        let mut supervisor = Supervisor::new();
        supervisor.spawn("lease", async { Err::<(), _>(io::Error::other("gone")) });
        let error = supervisor.run(pending(), GRACE).await.unwrap_err();
        assert_eq!(error.to_string(), "task \"lease\" failed");
        assert_eq!(error.source().unwrap().to_string(), "gone");

        let mut supervisor = Supervisor::new();
        let bad = 3;
        supervisor.spawn("parser", async move {
            assert_ne!(bad, 3, "bad input");
        });
        let error = supervisor.run(pending(), GRACE).await.unwrap_err().to_string();
        assert!(
            error.starts_with("task \"parser\" panicked: ") && error.contains("bad input"),
            "{error}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_will_not_stop_is_aborted_at_the_deadline_and_the_last_ones_still_get_their_turn() {
        let mut supervisor = Supervisor::new();
        let (released, was_released) = tokio::sync::oneshot::channel();
        let (alive, dead) = tokio::sync::oneshot::channel::<()>();
        let last = supervisor.last_token();
        supervisor.spawn("stuck", async move {
            let _alive = alive;
            pending::<()>().await;
        });
        supervisor.spawn_last("lease", async move {
            last.cancelled().await;
            // The stuck task was dropped first, so that it cannot write under a lease that is given up.
            assert!(dead.await.is_err());
            released.send(Instant::now()).unwrap();
        });
        let start = Instant::now();
        supervisor.run(async {}, GRACE).await.unwrap();
        assert_eq!(was_released.await.unwrap() - start, GRACE);
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_during_the_drain_is_reported() {
        let mut supervisor = Supervisor::new();
        let token = supervisor.token();
        supervisor.spawn("flush", async move {
            token.cancelled().await;
            Err::<(), _>(io::Error::other("full"))
        });
        let error = supervisor.run(async {}, GRACE).await.unwrap_err();
        assert_eq!(error.to_string(), "task \"flush\" failed");
    }
}
