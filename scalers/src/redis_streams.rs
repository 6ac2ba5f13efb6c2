//! `redis-streams`, `redis-cluster-streams` and `redis-sentinel-streams`: how much of a stream is still to be done.

use std::marker::PhantomData;
use std::time::Duration;

use ::redis::Value;
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::time::Instant;

use crate::connect::Connect;
use crate::error::{ConfigError, ReadError, ReadErrorKind};
use crate::metadata::Metadata;
use crate::redis_client::{ConnectionParameters, Fault, Reply, Source, Topology, number, unexpected};
use crate::scaler::{MetricSpec, Observed, Question, Scaler, Target};

const CONTEXT: &str = "error parsing redis streams metadata";

/// Which stream is counted, and how.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct StreamParameters {
    /// Key of the stream.
    stream: String,
    /// Consumer group; without one the length of the stream counts.
    consumer_group: Option<String>,
    /// Pending entries of the group one replica is meant to carry.
    #[serde(default = "default_count")]
    pending_entries_count: i64,
    /// Entries of the stream one replica is meant to carry, where there is no group.
    #[serde(default = "default_count")]
    stream_length: i64,
    /// Entries the group has not read yet that one replica is meant to carry. When given and not 0, the lag of the group
    /// counts instead of its pending entries.
    lag_count: Option<i64>,
    /// The trigger is active above this number of entries, whichever are counted.
    #[serde(default)]
    activation_lag_count: i64,
}

fn default_count() -> i64 {
    5
}

impl StreamParameters {
    /// What is counted, and the parameter that says how much one replica is meant to carry.
    fn measure(&self) -> (Measure, i64, &'static str) {
        let lag = self.lag_count.filter(|lag| *lag != 0);
        match (self.consumer_group.clone(), lag) {
            (None, _) => (Measure::Length, self.stream_length, "streamLength"),
            (Some(group), None) => (
                Measure::Pending(group),
                self.pending_entries_count,
                "pendingEntriesCount",
            ),
            (Some(group), Some(lag)) => (Measure::Lag(group), lag, "lagCount"),
        }
    }
}

/// The metadata of one of the three types.
pub(crate) trait StreamMetadata: Metadata {
    const TYPE: &'static str;
    const TOPOLOGY: Topology;

    fn parts(self) -> (StreamParameters, ConnectionParameters);
}

/// Scales on the entries of a stream of a Redis server.
///
/// ```yaml
/// triggers:
///   - type: redis-streams
///     metadata:
///       address: redis.shop.svc:6379
///       stream: orders
///       consumerGroup: workers
///       lagCount: "10"
///     authenticationRef:
///       name: redis
/// ```
///
/// - Metric name: `redis-streams-<stream>`.
/// - Value, without `consumerGroup`: the length of the stream (`XLEN`), against `streamLength`; 0 where there is no such
///   stream.
/// - Value, with `consumerGroup`: the group's pending entries, that is those read and not acknowledged (`XPENDING`),
///   against `pendingEntriesCount`. A group that does not exist is an error.
/// - Value, with `consumerGroup` and `lagCount`: the entries the group has not read yet (`XINFO GROUPS`), against
///   `lagCount`. Needs Redis 7 or newer. 0 where there is no such stream; the length of the stream where there is no such
///   group. Where Redis cannot tell the lag, because entries were deleted before they were read: 0 if none is left to
///   be read (`XRANGE`), else the length of the stream.
/// - The first address counts. All triggers with the same address, user and database share one connection.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RedisStreamsMetadata {
    #[serde(flatten)]
    stream: StreamParameters,
    #[serde(flatten)]
    connection: ConnectionParameters,
}

impl Metadata for RedisStreamsMetadata {
    const CONTEXT: &'static str = CONTEXT;
    const PARSING: &'static str = CONTEXT;

    fn validate(&self) -> Result<(), String> {
        validate(&self.stream, &self.connection, Self::TOPOLOGY)
    }
}

impl StreamMetadata for RedisStreamsMetadata {
    const TYPE: &'static str = "redis-streams";
    const TOPOLOGY: Topology = Topology::Single;

    fn parts(self) -> (StreamParameters, ConnectionParameters) {
        (self.stream, self.connection)
    }
}

/// Scales on the entries of a stream of a Redis cluster.
///
/// ```yaml
/// triggers:
///   - type: redis-cluster-streams
///     metadata:
///       addresses: redis-0.redis.shop.svc:6379,redis-1.redis.shop.svc:6379
///       stream: orders
///       consumerGroup: workers
///       pendingEntriesCount: "10"
///     authenticationRef:
///       name: redis
/// ```
///
/// - Metric name: `redis-streams-<stream>`.
/// - Value: as of [redis-streams](redis-streams.md).
/// - The addresses are those of any nodes: they lead to the one that has the key, also while its slot moves or after a
///   failover. Only nodes that have a trigger's key are connected to.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RedisClusterStreamsMetadata {
    #[serde(flatten)]
    stream: StreamParameters,
    #[serde(flatten)]
    connection: ConnectionParameters,
}

impl Metadata for RedisClusterStreamsMetadata {
    const CONTEXT: &'static str = CONTEXT;
    const PARSING: &'static str = CONTEXT;

    fn validate(&self) -> Result<(), String> {
        validate(&self.stream, &self.connection, Self::TOPOLOGY)
    }
}

impl StreamMetadata for RedisClusterStreamsMetadata {
    const TYPE: &'static str = "redis-cluster-streams";
    const TOPOLOGY: Topology = Topology::Cluster;

    fn parts(self) -> (StreamParameters, ConnectionParameters) {
        (self.stream, self.connection)
    }
}

/// Scales on the entries of a stream of a Redis master that sentinels watch.
///
/// ```yaml
/// triggers:
///   - type: redis-sentinel-streams
///     metadata:
///       addresses: sentinel-0.redis.shop.svc:26379,sentinel-1.redis.shop.svc:26379
///       sentinelMaster: mymaster
///       stream: orders
///       streamLength: "10"
///     authenticationRef:
///       name: redis
/// ```
///
/// - Metric name: `redis-streams-<stream>`.
/// - Value: as of [redis-streams](redis-streams.md).
/// - The addresses are those of the sentinels. They are asked for the master at first, whenever it fails, and every
///   10 s; with `enableTLS` or `tls` over TLS as well. A user that may run `ROLE` is never answered by a replica.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RedisSentinelStreamsMetadata {
    #[serde(flatten)]
    stream: StreamParameters,
    #[serde(flatten)]
    connection: ConnectionParameters,
}

impl Metadata for RedisSentinelStreamsMetadata {
    const CONTEXT: &'static str = CONTEXT;
    const PARSING: &'static str = CONTEXT;

    fn validate(&self) -> Result<(), String> {
        validate(&self.stream, &self.connection, Self::TOPOLOGY)
    }
}

impl StreamMetadata for RedisSentinelStreamsMetadata {
    const TYPE: &'static str = "redis-sentinel-streams";
    const TOPOLOGY: Topology = Topology::Sentinel;

    fn parts(self) -> (StreamParameters, ConnectionParameters) {
        (self.stream, self.connection)
    }
}

fn validate(
    stream: &StreamParameters,
    connection: &ConnectionParameters,
    topology: Topology,
) -> Result<(), String> {
    let (_, target, parameter) = stream.measure();
    if target <= 0 {
        return Err(format!("parameter {parameter:?} must be greater than 0"));
    }
    connection.validate(topology)
}

/// What is counted, of which group.
enum Measure {
    Length,
    Pending(String),
    Lag(String),
}

/// What `XINFO GROUPS` says of a group.
#[derive(Debug, PartialEq)]
struct Group {
    /// `None` where the server does not know such a thing; `Some(None)` where it cannot tell.
    lag: Option<Option<i64>>,
    last_delivered: String,
}

/// See [`RedisStreamsMetadata`], [`RedisClusterStreamsMetadata`] and [`RedisSentinelStreamsMetadata`].
pub(crate) struct RedisStreams<M> {
    source: Source,
    measure: Measure,
    target: i64,
    activation: i64,
    metadata: PhantomData<fn() -> M>,
}

impl<M: StreamMetadata> Scaler for RedisStreams<M> {
    const TYPE: &'static str = M::TYPE;
    const LABEL: &'static str = "redisStreamsScaler";
    type Metadata = M;

    fn connect(metadata: M, cx: &Connect) -> Result<Self, ConfigError> {
        let (stream, connection) = metadata.parts();
        let (measure, target, _) = stream.measure();
        let source = Source::new(connection, M::TOPOLOGY, stream.stream, cx);
        Ok(Self {
            source: source.map_err(|message| ConfigError::Metadata {
                context: CONTEXT,
                message,
            })?,
            measure,
            target,
            activation: stream.activation_lag_count,
            metadata: PhantomData,
        })
    }

    fn metric(&self) -> MetricSpec {
        MetricSpec {
            base_name: format!("redis-streams-{}", self.source.key()),
            target: Target::Whole(self.target),
        }
    }

    fn deadline(&self) -> Duration {
        self.source.deadline()
    }

    #[expect(clippy::cast_precision_loss, reason = "no stream holds 2^53 entries")]
    async fn read(&self) -> Result<Observed, ReadError> {
        let until = self.source.until();
        let entries = match &self.measure {
            Measure::Length => self.source.count("XLEN", until).await?,
            Measure::Pending(group) => self.pending(group, until).await?,
            Measure::Lag(group) => self.lag(group, until).await?,
        };
        Ok(Observed::above(entries as f64, self.activation as f64))
    }

    #[expect(clippy::cast_precision_loss, reason = "no stream holds 2^53 entries")]
    fn question(&self) -> Option<Question> {
        let parts = match &self.measure {
            Measure::Length => ["length", ""],
            Measure::Pending(group) => ["pending", group],
            Measure::Lag(group) => ["lag", group],
        };
        Some(self.source.question(&parts, self.activation as f64))
    }
}

impl<M> RedisStreams<M> {
    async fn pending(&self, group: &str, until: Instant) -> Result<i64, Fault> {
        let answer = self.source.ask("XPENDING", &[group], until).await;
        let answer = answer.map_err(|fault| match fault.reply {
            Reply::NoGroup => Fault::of(
                Reply::NoGroup,
                ReadErrorKind::NotFound,
                format!(
                    "there is no stream {:?} with a consumer group {group:?} (NOGROUP)",
                    self.source.key()
                ),
            ),
            _ => fault,
        })?;
        match &answer {
            Value::Array(summary) => number("XPENDING", summary.first().unwrap_or(&Value::Nil)),
            _ => Err(unexpected("XPENDING")),
        }
    }

    async fn lag(&self, group: &str, until: Instant) -> Result<i64, Fault> {
        let groups = match self.source.ask("XINFO GROUPS", &[], until).await {
            Err(fault) if fault.reply == Reply::NoSuchKey => return Ok(0),
            answer => answer?,
        };
        let Some(found) = find(&groups, group)? else {
            return self.source.count("XLEN", until).await;
        };
        match found.lag {
            Some(Some(lag)) => Ok(lag),
            None => Err(Fault::of(
                Reply::Other,
                ReadErrorKind::BadAnswer,
                "redis version 7+ required for lag",
            )),
            Some(None) => {
                let after = format!("({}", found.last_delivered);
                let next = self
                    .source
                    .ask("XRANGE", &[&after, "+", "COUNT", "1"], until)
                    .await?;
                match next {
                    Value::Array(entries) if entries.is_empty() => Ok(0),
                    _ => self.source.count("XLEN", until).await,
                }
            }
        }
    }
}

/// The group of this name out of an answer to `XINFO GROUPS`.
fn find(groups: &Value, name: &str) -> Result<Option<Group>, Fault> {
    let Value::Array(groups) = groups else {
        return Err(unexpected("XINFO GROUPS"));
    };
    for group in groups {
        let Value::Array(fields) = group else {
            return Err(unexpected("XINFO GROUPS"));
        };
        let field = |name: &str| {
            let mut pairs = fields.chunks_exact(2);
            pairs
                .find(|pair| text(&pair[0]) == Some(name))
                .map(|pair| &pair[1])
        };
        if field("name").and_then(text) != Some(name) {
            continue;
        }
        let lag = match field("lag") {
            None => None,
            Some(Value::Nil) => Some(None),
            Some(lag) => Some(Some(number("XINFO GROUPS", lag)?)),
        };
        let last_delivered = field("last-delivered-id").and_then(text);
        return Ok(Some(Group {
            lag,
            last_delivered: last_delivered.unwrap_or("0-0").to_owned(),
        }));
    }
    Ok(None)
}

fn text(value: &Value) -> Option<&str> {
    match value {
        Value::BulkString(bytes) => std::str::from_utf8(bytes).ok(),
        Value::SimpleString(text) => Some(text),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
