//! Where the values come from: the port between this server and whoever holds the readings.

use std::time::Duration;

use dormouse_core::Quantity;
use futures::future::BoxFuture;
use jiff::Timestamp;

/// Who sent a query, as far as the answer may depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caller {
    /// A client of the API: the aggregation layer, or somebody with a token.
    Client,
    /// Another replica of this operator that passed a client's query on. It must never be passed on again.
    Forwarded,
}

/// One question: the value of `metric` of the ScaledObject `scaled_object` in `namespace`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MetricQuery<'a> {
    /// The namespace of the ScaledObject.
    pub namespace: &'a str,
    /// The ScaledObject's name, from the query's label selector.
    pub scaled_object: &'a str,
    /// The metric's name as the client wrote it; sources compare without regard to case.
    pub metric: &'a str,
    /// Who asks.
    pub caller: Caller,
}

/// One value of one metric.
#[derive(Clone, Copy, Debug)]
pub struct ExternalMetric {
    /// The value, served in its canonical form.
    pub value: Quantity,
    /// When the source was read; served to the second.
    pub timestamp: Timestamp,
}

/// Answers queries from memory.
pub trait MetricSource: Send + Sync + 'static {
    /// The newest value of the queried metric.
    ///
    /// # Errors
    /// See [`MetricReadError`]: no value that is missing, failed or too old is ever given as a number.
    fn external_metric<'a>(
        &'a self,
        query: MetricQuery<'a>,
    ) -> BoxFuture<'a, Result<ExternalMetric, MetricReadError>>;
}

/// Why there is no value. Each text begins with the sentence KEDA's users know and may say more after it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MetricReadError {
    /// There is no such ScaledObject in the namespace.
    #[error(
        "error when getting metric values error getting scalers ScaledObject.keda.sh \"{scaled_object}\" not found"
    )]
    UnknownObject {
        /// The ScaledObject asked for.
        scaled_object: String,
    },
    /// The process has not set the ScaledObject up: it has just started, or the object is not in order.
    #[error(
        "error when getting metric values ScaledObject {scaled_object:?} is not set up by this replica, or not yet: see its Ready condition"
    )]
    NotSetUp {
        /// The ScaledObject asked for.
        scaled_object: String,
    },
    /// The ScaledObject has no trigger with such a metric.
    #[error("error when getting metric values no matching metrics found for {metric}")]
    UnknownMetric {
        /// The metric asked for.
        metric: String,
    },
    /// The last read failed and no fallback value applies.
    #[error("error when getting metric values metric:{metric} encountered error: {cause}")]
    Failing {
        /// The metric asked for.
        metric: String,
        /// Why the read failed; no secret and no remote answer's body.
        cause: String,
    },
    /// The object is known but its trigger has not been read yet.
    #[error(
        "error when getting metric values no matching metrics found for {metric}: it has not been read yet"
    )]
    NotYetRead {
        /// The metric asked for.
        metric: String,
    },
    /// There is a reading, but it says nothing about now.
    #[error(
        "error when getting metric values metric:{metric} encountered error: its last reading is {}s old, older than the {}s it may be",
        age.as_secs(), limit.as_secs()
    )]
    TooOld {
        /// The metric asked for.
        metric: String,
        /// The reading's age.
        age: Duration,
        /// The age up to which it would have been served.
        limit: Duration,
    },
    /// The leader's own reason, passed on by a replica that does not lead.
    #[error("{message}")]
    FromLeader {
        /// The leader's sentence.
        message: String,
    },
    /// This replica does not lead, and the query was already passed on once.
    #[error("this replica is not the leader and holds no reading of metric {metric}")]
    NotLeader {
        /// The metric asked for.
        metric: String,
    },
}
