//! Event sources: one file each, one trait, one [`REGISTRY`] line.
//!
//! A scaler only says what it saw. Deadlines, retries, thresholds, failure counts, metric names and logging belong to the
//! framework around it (here and in the engine), so that no two scalers can differ in them.

mod aws;
mod backpressure;
pub mod clients;
pub mod connect;
pub mod cpu_memory;
pub mod demand_source;
pub mod error;
pub mod metadata;
pub mod pushed;
pub mod registry;
pub mod scaler;
pub mod sensitive;
pub mod traffic;

mod aws_sqs_queue;
mod cron;
mod external_push;
mod http_auth;
mod http_read;
mod kubernetes_workload;
mod metrics_api;
mod prometheus;
mod redis;
mod redis_client;
mod redis_streams;
#[cfg(test)]
mod testing;

pub use aws::AwsEnvironment;
pub use backpressure::LONGEST_PATIENCE;
pub use clients::{Clients, ClientsConfig, EgressRules};
pub use connect::{
    AuthParams, Connect, CountPods, CountedBy, PodIdentity, ReadyEndpoint, ServiceEndpoints, TriggerParams,
};
pub use cpu_memory::{resource_metric, resource_of};
pub use demand_source::{DemandSource, RateScaling, RouteScaling};
pub use error::{ConfigError, ReadError};
pub use external_push::{OwnAddresses, route_triggers};
pub use pushed::{Hold, Pushed, Told};
pub use registry::{REGISTRY, connect};
pub use scaler::{MetricSpec, Observed, Question, Scaler, Target, Trigger};
pub use sensitive::Sensitive;
