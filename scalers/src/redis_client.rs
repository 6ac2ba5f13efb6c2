//! How all redis triggers reach their servers.
//!
//! ```text
//! Source (one per trigger: its key) ──> Server (shared per servers and identity) ──> Link (one per node) ──> Connection
//!                                         │ single: the first address             single flight, back-off
//!                                         │ cluster: MOVED and ASK lead to the node that has the key
//!                                         └ sentinel: the master that the sentinels name
//! ```
//!
//! Only what answers a trigger is connected to: of a cluster the nodes that have a trigger's key, of a sentinel set-up
//! one sentinel and the master. All commands only read, so that each may be asked again.

mod address;
mod connection;
mod fault;
mod link;
mod net;
mod parameters;
mod server;

use std::sync::Arc;
use std::time::Duration;

use redis::Value;
use tokio::time::Instant;

use crate::clients::Fingerprint;
use crate::connect::Connect;
use crate::error::{ReadError, ReadErrorKind};
use crate::scaler::Question;
use connection::Command;
pub(crate) use fault::{Fault, Reply};
pub(crate) use parameters::ConnectionParameters;
use server::{Home, Server};

/// How the servers of a trigger belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Topology {
    Single,
    Cluster,
    Sentinel,
}

impl Topology {
    /// How KEDA begins the error of a server that cannot be reached.
    fn failed(self) -> &'static str {
        match self {
            Self::Single => "connection to redis failed",
            Self::Cluster => "connection to redis cluster failed",
            Self::Sentinel => "connection to redis sentinel failed",
        }
    }
}

/// One key on the servers of a trigger.
pub(crate) struct Source {
    server: Arc<Server>,
    /// Stands for the servers, the identity and the key.
    asks: Fingerprint,
    home: Home,
    key: String,
    deadline: Duration,
}

impl Source {
    /// Takes over validated parameters.
    ///
    /// # Errors
    /// One sentence about the parameter that cannot be used.
    pub(crate) fn new(
        parameters: ConnectionParameters,
        topology: Topology,
        key: String,
        cx: &Connect,
    ) -> Result<Self, String> {
        let (server, fingerprint) = parameters.server(topology, cx)?;
        Ok(Self {
            server,
            asks: fingerprint.and(&[&key]),
            home: Home::default(),
            key,
            deadline: cx.default_deadline,
        })
    }

    /// The key.
    pub(crate) fn key(&self) -> &str {
        &self.key
    }

    /// What is asked of whom, where `parts` say what of the key.
    pub(crate) fn question(&self, parts: &[&str], activation: f64) -> Question {
        Question {
            fingerprint: self.asks.and(parts),
            activation,
        }
    }

    /// How long one read may take.
    pub(crate) fn deadline(&self) -> Duration {
        self.deadline
    }

    /// When a read that begins now must have ended: a little before its deadline, so that it can say what it waited for.
    pub(crate) fn until(&self) -> Instant {
        Instant::now() + self.deadline - self.deadline / 20
    }

    /// Sends `<name> <words> <key> <arguments>`, where a name of two words has both before the key.
    pub(crate) async fn ask(
        &self,
        name: &'static str,
        arguments: &[&str],
        until: Instant,
    ) -> Result<Value, Fault> {
        let command = Command::about(name, &self.key, arguments);
        self.server.ask(&self.home, &command, until).await
    }

    /// The same for a command whose answer is a count.
    pub(crate) async fn count(&self, name: &'static str, until: Instant) -> Result<i64, Fault> {
        number(name, &self.ask(name, &[], until).await?)
    }
}

/// A count out of an answer.
pub(crate) fn number(name: &str, value: &Value) -> Result<i64, Fault> {
    match value {
        Value::Int(count) if *count >= 0 => Ok(*count),
        _ => Err(unexpected(name)),
    }
}

/// The failure of an answer that has not the form it should have.
pub(crate) fn unexpected(name: &str) -> Fault {
    Fault::of(
        Reply::Other,
        ReadErrorKind::BadAnswer,
        format!("redis answered {name} with something that is not a number"),
    )
}

impl From<Fault> for ReadError {
    fn from(fault: Fault) -> Self {
        fault.error
    }
}
