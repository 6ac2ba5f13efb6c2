//! `redis`, `redis-cluster` and `redis-sentinel`: how many items a list, set, sorted set or hash holds.

use std::marker::PhantomData;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ::redis::Value;
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::time::Instant;

use crate::connect::Connect;
use crate::error::{ConfigError, ReadError, ReadErrorKind};
use crate::metadata::Metadata;
use crate::redis_client::{ConnectionParameters, Fault, Reply, Source, Topology};
use crate::scaler::{MetricSpec, Observed, Question, Scaler, Target};

const CONTEXT: &str = "error parsing redis metadata";

/// What counts the items of a key, by the kind of value that `TYPE` says it holds. The first one stands for a key that
/// is not there: all of them count 0 then.
const COUNTERS: [(&[u8], &str); 4] = [
    (b"list", "LLEN"),
    (b"set", "SCARD"),
    (b"zset", "ZCARD"),
    (b"hash", "HLEN"),
];

/// Which key is counted.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ListParameters {
    /// Key of the list, set, sorted set or hash.
    list_name: String,
    /// Items one replica is meant to carry.
    #[serde(default = "default_length")]
    list_length: i64,
    /// The trigger is active above this number of items.
    #[serde(default)]
    activation_list_length: i64,
}

fn default_length() -> i64 {
    5
}

/// The metadata of one of the three types.
pub(crate) trait ListMetadata: Metadata {
    const TYPE: &'static str;
    const TOPOLOGY: Topology;

    fn parts(self) -> (ListParameters, ConnectionParameters);
}

/// Scales on the number of items in a list, set, sorted set or hash of a Redis server.
///
/// ```yaml
/// triggers:
///   - type: redis
///     metadata:
///       address: redis.shop.svc:6379
///       listName: orders
///       listLength: "10"
///     authenticationRef:
///       name: redis
/// ```
///
/// - Metric name: `redis-<listName>`.
/// - Value: the number of items, 0 where there is no such key.
/// - The first address counts. All triggers with the same address, user and database share one connection.
/// - The user needs the commands `LLEN`, `SCARD`, `ZCARD` or `HLEN`, and `TYPE` where the key holds no list.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RedisMetadata {
    #[serde(flatten)]
    list: ListParameters,
    #[serde(flatten)]
    connection: ConnectionParameters,
}

impl Metadata for RedisMetadata {
    const CONTEXT: &'static str = CONTEXT;
    const PARSING: &'static str = CONTEXT;

    fn validate(&self) -> Result<(), String> {
        validate(&self.list, &self.connection, Self::TOPOLOGY)
    }
}

impl ListMetadata for RedisMetadata {
    const TYPE: &'static str = "redis";
    const TOPOLOGY: Topology = Topology::Single;

    fn parts(self) -> (ListParameters, ConnectionParameters) {
        (self.list, self.connection)
    }
}

/// Scales on the number of items in a list, set, sorted set or hash of a Redis cluster.
///
/// ```yaml
/// triggers:
///   - type: redis-cluster
///     metadata:
///       addresses: redis-0.redis.shop.svc:6379,redis-1.redis.shop.svc:6379
///       listName: orders
///       listLength: "10"
///     authenticationRef:
///       name: redis
/// ```
///
/// - Metric name: `redis-<listName>`.
/// - Value: the number of items, 0 where there is no such key.
/// - The addresses are those of any nodes: they lead to the one that has the key, also while its slot moves or after a
///   failover. Only nodes that have a trigger's key are connected to.
/// - The user needs the commands `LLEN`, `SCARD`, `ZCARD` or `HLEN`, and `TYPE` where the key holds no list.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RedisClusterMetadata {
    #[serde(flatten)]
    list: ListParameters,
    #[serde(flatten)]
    connection: ConnectionParameters,
}

impl Metadata for RedisClusterMetadata {
    const CONTEXT: &'static str = CONTEXT;
    const PARSING: &'static str = CONTEXT;

    fn validate(&self) -> Result<(), String> {
        validate(&self.list, &self.connection, Self::TOPOLOGY)
    }
}

impl ListMetadata for RedisClusterMetadata {
    const TYPE: &'static str = "redis-cluster";
    const TOPOLOGY: Topology = Topology::Cluster;

    fn parts(self) -> (ListParameters, ConnectionParameters) {
        (self.list, self.connection)
    }
}

/// Scales on the number of items in a list, set, sorted set or hash of a Redis master that sentinels watch.
///
/// ```yaml
/// triggers:
///   - type: redis-sentinel
///     metadata:
///       addresses: sentinel-0.redis.shop.svc:26379,sentinel-1.redis.shop.svc:26379
///       sentinelMaster: mymaster
///       listName: orders
///       listLength: "10"
///     authenticationRef:
///       name: redis
/// ```
///
/// - Metric name: `redis-<listName>`.
/// - Value: the number of items, 0 where there is no such key.
/// - The addresses are those of the sentinels. They are asked for the master at first, whenever it fails, and every
///   10 s; with `enableTLS` or `tls` over TLS as well.
/// - The user needs the commands `LLEN`, `SCARD`, `ZCARD` or `HLEN`, and `TYPE` where the key holds no list. One that
///   also may run `ROLE` is never answered by a replica.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RedisSentinelMetadata {
    #[serde(flatten)]
    list: ListParameters,
    #[serde(flatten)]
    connection: ConnectionParameters,
}

impl Metadata for RedisSentinelMetadata {
    const CONTEXT: &'static str = CONTEXT;
    const PARSING: &'static str = CONTEXT;

    fn validate(&self) -> Result<(), String> {
        validate(&self.list, &self.connection, Self::TOPOLOGY)
    }
}

impl ListMetadata for RedisSentinelMetadata {
    const TYPE: &'static str = "redis-sentinel";
    const TOPOLOGY: Topology = Topology::Sentinel;

    fn parts(self) -> (ListParameters, ConnectionParameters) {
        (self.list, self.connection)
    }
}

fn validate(
    list: &ListParameters,
    connection: &ConnectionParameters,
    topology: Topology,
) -> Result<(), String> {
    if list.list_length <= 0 {
        return Err("parameter \"listLength\" must be greater than 0".to_owned());
    }
    connection.validate(topology)
}

/// See [`RedisMetadata`], [`RedisClusterMetadata`] and [`RedisSentinelMetadata`].
pub(crate) struct RedisList<M> {
    source: Source,
    target: i64,
    activation: i64,
    /// The place among [`COUNTERS`] of the one that fitted last.
    counter: AtomicUsize,
    metadata: PhantomData<fn() -> M>,
}

impl<M: ListMetadata> Scaler for RedisList<M> {
    const TYPE: &'static str = M::TYPE;
    const LABEL: &'static str = "redisScaler";
    type Metadata = M;

    fn connect(metadata: M, cx: &Connect) -> Result<Self, ConfigError> {
        let (list, connection) = metadata.parts();
        let source = Source::new(connection, M::TOPOLOGY, list.list_name, cx);
        Ok(Self {
            source: source.map_err(|message| ConfigError::Metadata {
                context: CONTEXT,
                message,
            })?,
            target: list.list_length,
            activation: list.activation_list_length,
            counter: AtomicUsize::new(0),
            metadata: PhantomData,
        })
    }

    fn metric(&self) -> MetricSpec {
        MetricSpec {
            base_name: format!("redis-{}", self.source.key()),
            target: Target::Whole(self.target),
        }
    }

    fn deadline(&self) -> Duration {
        self.source.deadline()
    }

    #[expect(clippy::cast_precision_loss, reason = "no key holds 2^53 items")]
    async fn read(&self) -> Result<Observed, ReadError> {
        let items = self.count(self.source.until()).await?;
        Ok(Observed::above(items as f64, self.activation as f64))
    }

    #[expect(clippy::cast_precision_loss, reason = "no key holds 2^53 items")]
    fn question(&self) -> Option<Question> {
        Some(self.source.question(&[], self.activation as f64))
    }
}

impl<M> RedisList<M> {
    /// One question while the kind of value stays what it was, three when it is another.
    async fn count(&self, until: Instant) -> Result<i64, Fault> {
        let (_, command) = COUNTERS[self.counter.load(Ordering::Relaxed)];
        match self.source.count(command, until).await {
            Err(fault) if fault.reply == Reply::WrongType => {}
            counted => return counted,
        }
        let place = self.kind(until).await?;
        let counted = self.source.count(COUNTERS[place].1, until).await?;
        self.counter.store(place, Ordering::Relaxed);
        Ok(counted)
    }

    async fn kind(&self, until: Instant) -> Result<usize, Fault> {
        let answer = self.source.ask("TYPE", &[], until).await?;
        let name: &[u8] = match &answer {
            Value::SimpleString(name) => name.as_bytes(),
            Value::BulkString(name) => name,
            _ => b"",
        };
        if name == b"none" {
            return Ok(0);
        }
        let place = COUNTERS.iter().position(|(kind, _)| *kind == name);
        place.ok_or_else(|| {
            let kind = match name {
                b"string" => "a string",
                b"stream" => "a stream",
                _ => "another kind of value",
            };
            let key = self.source.key();
            let message =
                format!("key {key:?} holds {kind}; what can be counted is a list, set, sorted set or hash");
            Fault::of(Reply::WrongType, ReadErrorKind::BadAnswer, message)
        })
    }
}

#[cfg(test)]
mod tests;
