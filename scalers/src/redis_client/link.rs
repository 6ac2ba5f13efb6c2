//! The way to one server: a connection when there is one, else a single attempt at one for all that wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use redis::Value;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::address::Address;
use super::connection::{Command, Connection, Login};
use super::fault::{Fault, Reply};
use super::net::Dialer;

/// After a failed attempt the next one waits, from the first of these to the second. No polling interval is shorter
/// than the second, so that a server that is back answers the next tick.
const SHORTEST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// What failed last.
struct Failure {
    fault: Fault,
    at: Instant,
    /// In a row.
    times: u32,
    /// Its number among all attempts.
    attempt: u64,
}

#[derive(Default)]
struct State {
    connection: Option<Arc<Connection>>,
    failure: Option<Failure>,
}

/// See the module.
pub(super) struct Link {
    address: Address,
    failed: &'static str,
    dialer: Dialer,
    login: Login,
    // Held while an attempt is under way: the others wait for its outcome, each until its own deadline.
    state: Mutex<State>,
    /// Attempts that came to an end.
    attempts: AtomicU64,
}

impl Link {
    pub(super) fn new(address: Address, failed: &'static str, dialer: Dialer, login: Login) -> Self {
        Self {
            address,
            failed,
            dialer,
            login,
            state: Mutex::default(),
            attempts: AtomicU64::new(0),
        }
    }

    /// Asks over the connection there is, and when nothing comes of that, over a new one.
    pub(super) async fn ask(&self, command: &Command, asking: bool, until: Instant) -> Result<Value, Fault> {
        let (connection, reused) = self.connection(until).await?;
        if !reused {
            return connection.ask(command, asking, left(until)).await;
        }
        // A connection that was idle may be dead without anyone having been told.
        match connection.ask(command, asking, left(until) / 3).await {
            Err(fault) if fault.is_lost() => {}
            answer => return answer,
        }
        drop(connection);
        let (connection, _) = self.connection(until).await?;
        connection.ask(command, asking, left(until)).await
    }

    /// The connection, and whether it is an old one.
    async fn connection(&self, until: Instant) -> Result<(Arc<Connection>, bool), Fault> {
        let began = Instant::now();
        let late = || {
            // A server that does not speak TLS waits for the rest of what it takes for a command.
            let what = if self.dialer.tls.is_some() {
                "connection over TLS"
            } else {
                "connection"
            };
            Fault::late(self.failed, &self.address, began.elapsed(), what)
        };
        let seen = self.attempts.load(Ordering::Acquire);
        let mut state = timeout_at(until, self.state.lock()).await.map_err(|_| late())?;
        if let Some(connection) = state.connection.as_ref().filter(|it| it.is_usable()) {
            return Ok((Arc::clone(connection), true));
        }
        state.connection = None;
        if let Some(failure) = &state.failure {
            if failure.attempt > seen {
                return Err(failure.fault.clone());
            }
            let pause = SHORTEST_PAUSE * 2_u32.saturating_pow(failure.times.min(8) - 1);
            let next = failure.at + pause.min(LONGEST_PAUSE);
            if next >= until {
                return Err(failure.fault.clone());
            }
            sleep_until(next).await;
        }
        let opened = timeout_at(until, self.open())
            .await
            .unwrap_or_else(|_| Err(late()));
        let attempt = self.attempts.fetch_add(1, Ordering::AcqRel) + 1;
        match opened {
            Ok(connection) => {
                let connection = Arc::new(connection);
                state.failure = None;
                state.connection = Some(Arc::clone(&connection));
                Ok((connection, false))
            }
            Err(fault) => {
                let times = state
                    .failure
                    .as_ref()
                    .map_or(1, |last| last.times.saturating_add(1));
                state.failure = Some(Failure {
                    fault: fault.clone(),
                    at: Instant::now(),
                    times,
                    attempt,
                });
                Err(fault)
            }
        }
    }

    async fn open(&self) -> Result<Connection, Fault> {
        let stream = self.dialer.dial(self.failed, &self.address).await;
        let stream = stream.map_err(|error| Fault {
            reply: Reply::Lost,
            error,
        })?;
        Connection::begin(stream, self.address.clone(), self.failed, &self.login).await
    }
}

/// The time until then.
pub(super) fn left(until: Instant) -> Duration {
    until.saturating_duration_since(Instant::now())
}
