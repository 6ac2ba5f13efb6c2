//! What the tests on a real cluster, and the demo, have in common.
//!
//! ```text
//! Cluster (kube client, kubectl, helm) ─> Installation (the chart, once per cluster)
//!        └─> Namespace (one per test, gone with it) ─> manifest::apply, Timeline (what changed when)
//! Outside the cluster's pods, on the node's own address: SqsServer (moto), SignedSqs, RedisServer, Upstream (scripted HTTP)
//! ```
//!
//! Everything runs inside the cluster's network and is told where things are by the environment that `cargo xtask`
//! sets. Whatever is missing is an error that says so, never a reason to pass.

pub mod audit;
pub mod black_hole;
pub mod client_pod;
pub mod cluster;
pub mod command;
pub mod example;
pub mod exposition;
pub mod fleet;
pub mod http_echo;
pub mod http_load;
pub mod install;
pub mod invariants;
pub mod logs;
pub mod manifest;
pub mod metric_reads;
pub mod metrics_server;
pub mod namespace;
pub mod operators;
pub mod prometheus;
pub mod redis;
pub mod scaled;
pub mod scaled_object;
pub mod served;
pub mod signed_sqs;
pub mod sources;
pub mod sqs;
pub mod stage;
pub mod timeline;
pub mod upstream;
pub mod visitor;
pub mod wait;

pub use black_hole::BlackHole;
pub use client_pod::ClientPod;
pub use cluster::Cluster;
pub use fleet::Fleet;
pub use http_echo::HttpEcho;
pub use http_load::{Load, Tally};
pub use install::Installation;
pub use metric_reads::MetricReads;
pub use namespace::Namespace;
pub use operators::Operators;
pub use redis::{RedisCluster, RedisSentinel, RedisServer};
pub use scaled::Scaled;
pub use served::Served;
pub use signed_sqs::SignedSqs;
pub use sources::Sources;
pub use sqs::{Queue, SqsServer};
pub use stage::Stage;
pub use timeline::Timeline;
pub use upstream::Upstream;
pub use visitor::{Visit, Visitor, Way};
pub use wait::until;
