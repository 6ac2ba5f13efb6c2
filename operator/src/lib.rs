//! The operator: Dormouse on Kubernetes.
//!
//! ```text
//! watches ──> queues ──> reconcile ──> engine.apply ──> loops ──> journal ──> status, Events, metrics
//!                                        │
//! HPA controller ──> metrics API ────────┘ (readings, from memory)
//! ```

pub mod args;
pub mod authentications;
pub mod autoscaler;
pub mod certificates;
pub mod changes;
pub mod conflicts;
pub mod context;
pub mod debug;
pub mod demand;
pub mod egress;
pub mod endpoints;
pub mod events;
pub mod external_scaler;
pub mod failure;
pub mod finalize;
pub mod hpa;
pub mod journal;
pub mod leadership;
mod listen;
pub mod measured;
pub mod metric_source;
pub mod metrics;
pub mod metrics_api;
pub mod neighbours;
pub mod objects;
pub mod peers;
pub mod pods;
pub mod reconcile;
pub mod references;
pub mod release;
pub mod routes;
pub mod run;
pub mod status;
pub mod status_book;
pub mod target;
pub mod undecodable;
mod work;

pub use args::OperatorArgs;
pub use release::{ReleaseArgs, release};
pub use run::run;
