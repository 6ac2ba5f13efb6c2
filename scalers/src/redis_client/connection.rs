//! One connection: logged in, with the database chosen, and shared by all that ask this server.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use redis::aio::{ConnectionLike as _, MultiplexedConnection};
use redis::{AsyncConnectionConfig, Cmd, RedisConnectionInfo, RedisError, Value};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use super::address::Address;
use super::fault::{Fault, Reply};
use super::net::{Metered, Stream};
use crate::error::ReadErrorKind;
use crate::sensitive::Sensitive;

/// Unanswered commands on one connection; further ones wait.
const AT_ONCE: usize = 64;
/// The longest answer.
const MAX_ANSWER: usize = 1 << 20;

/// A command with the name that errors give it.
pub(super) struct Command {
    name: &'static str,
    words: Cmd,
}

impl Command {
    /// `<name> <key> <arguments>`.
    pub(super) fn about(name: &'static str, key: &str, arguments: &[&str]) -> Self {
        let mut this = Self::named(name);
        this.words.arg(key).arg(arguments);
        this
    }

    /// One more word.
    pub(super) fn add(&mut self, word: &str) {
        self.words.arg(word);
    }

    /// `<name>`, whose words are separated by blanks.
    pub(super) fn named(name: &'static str) -> Self {
        let mut words = Cmd::new();
        for word in name.split(' ') {
            words.arg(word);
        }
        Self { name, words }
    }
}

/// Who asks.
#[derive(Clone, Default)]
pub(super) struct Credentials {
    pub(super) username: Option<Sensitive>,
    pub(super) password: Option<Sensitive>,
}

/// How a connection begins.
#[derive(Clone, Default)]
pub(super) struct Login {
    pub(super) credentials: Credentials,
    pub(super) database: u32,
    /// The server must say that it is a master.
    pub(super) must_lead: bool,
}

/// See the module.
pub(super) struct Connection {
    address: Address,
    /// How errors begin.
    failed: &'static str,
    pipe: MultiplexedConnection,
    driver: JoinHandle<()>,
    turns: Semaphore,
    allowance: Arc<AtomicUsize>,
    broken: AtomicBool,
}

impl Connection {
    /// Logs in over `stream`. The caller sets the deadline.
    pub(super) async fn begin(
        stream: Box<dyn Stream>,
        address: Address,
        failed: &'static str,
        login: &Login,
    ) -> Result<Self, Fault> {
        let allowance = Arc::new(AtomicUsize::new(MAX_ANSWER));
        let metered = Metered {
            stream,
            allowance: Arc::clone(&allowance),
        };
        // Nothing is sent by the library itself: whoever may run one command only must get that far.
        let silent = RedisConnectionInfo::default().set_skip_set_lib_name();
        let config = AsyncConnectionConfig::new().set_response_timeout(None);
        let (pipe, driver) = MultiplexedConnection::new_with_config(&silent, metered, config)
            .await
            .map_err(|error| Fault::from_redis(failed, &address, "the first command", &error))?;
        let this = Self {
            address,
            failed,
            pipe,
            driver: tokio::spawn(driver),
            turns: Semaphore::new(AT_ONCE),
            allowance,
            broken: AtomicBool::new(false),
        };
        this.log_in(login).await?;
        Ok(this)
    }

    async fn log_in(&self, login: &Login) -> Result<(), Fault> {
        let Credentials { username, password } = &login.credentials;
        if let Some(password) = password {
            let mut auth = Command::named("AUTH");
            if let Some(username) = username {
                auth.add(username.reveal());
            }
            auth.add(password.reveal());
            if let Err(error) = self.send(&auth, false).await {
                self.judge_login(&error)?;
            }
        }
        if login.database != 0 {
            let mut select = Command::named("SELECT");
            select.words.arg(login.database);
            self.ask_now(&select).await?;
        }
        if login.must_lead {
            self.leads().await?;
        }
        Ok(())
    }

    /// Whether a failed login is one.
    fn judge_login(&self, error: &RedisError) -> Result<(), Fault> {
        let detail = error.detail().unwrap_or_default().to_ascii_lowercase();
        let plain = error.code() == Some("ERR");
        if plain && detail.contains("without any password configured") {
            // A server that asks nobody for a password lets everyone in, also those who bring one.
            return Ok(());
        }
        let fault = Fault::from_redis(self.failed, &self.address, "AUTH", error);
        if plain && fault.reply == Reply::Other {
            let message = format!("redis at {} refused the username or password", self.address);
            return Err(Fault::of(Reply::Other, ReadErrorKind::Denied, message));
        }
        Err(fault)
    }

    async fn leads(&self) -> Result<(), Fault> {
        let role = match self.ask_now(&Command::named("ROLE")).await {
            // Who may not ask believes the sentinels.
            Err(fault) if fault.error.kind == ReadErrorKind::Denied => return Ok(()),
            answer => answer?,
        };
        let first = match &role {
            Value::Array(parts) => parts.first(),
            _ => None,
        };
        match first {
            Some(Value::BulkString(name)) if name == b"master" => Ok(()),
            _ => Err(Fault::of(
                Reply::NotMaster,
                ReadErrorKind::Unreachable,
                format!(
                    "redis at {} is not the master that the sentinels take it for",
                    self.address
                ),
            )),
        }
    }

    async fn ask_now(&self, command: &Command) -> Result<Value, Fault> {
        let answer = self.send(command, false).await;
        answer.map_err(|error| Fault::from_redis(self.failed, &self.address, command.name, &error))
    }

    /// Asks, and waits no longer than `patience` for the answer.
    pub(super) async fn ask(
        &self,
        command: &Command,
        asking: bool,
        patience: Duration,
    ) -> Result<Value, Fault> {
        let answered = tokio::time::timeout(patience, async {
            let turn = self.turns.acquire().await;
            self.allowance.fetch_max(MAX_ANSWER, Ordering::Relaxed);
            let mut unanswered = Unanswered {
                connection: self,
                answered: false,
            };
            let answer = self.send(command, asking).await;
            drop(turn);
            let answer =
                answer.map_err(|error| Fault::from_redis(self.failed, &self.address, command.name, &error));
            unanswered.answered = !matches!(&answer, Err(fault) if fault.is_lost());
            answer
        });
        match answered.await {
            Ok(answer) => answer,
            Err(_) => Err(Fault::late(self.failed, &self.address, patience, "answer")),
        }
    }

    async fn send(&self, command: &Command, asking: bool) -> Result<Value, RedisError> {
        let mut pipe = self.pipe.clone();
        if !asking {
            return pipe.req_packed_command(&command.words).await?.extract_error();
        }
        // The two must not be parted: ASKING holds for the next command of the connection only.
        let mut both = redis::Pipeline::with_capacity(2);
        both.cmd("ASKING");
        both.add_command(command.words.clone());
        let mut answers = pipe.req_packed_commands(&both, 1, 1).await?;
        answers.pop().unwrap_or(Value::Nil).extract_error()
    }

    /// Whether it may be asked again.
    pub(super) fn is_usable(&self) -> bool {
        !self.broken.load(Ordering::Relaxed) && !self.driver.is_finished()
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// A command under way. Where none answers, whoever stopped waiting, the connection may be half open: it is not used
/// again.
struct Unanswered<'a> {
    connection: &'a Connection,
    answered: bool,
}

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        if !self.answered {
            self.connection.broken.store(true, Ordering::Relaxed);
        }
    }
}
