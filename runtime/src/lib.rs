//! The process shell every long-running Dormouse command shares.
//!
//! ```text
//! main ── telemetry::init ── Supervisor ──┬─ spawn("reconcile", ..)        ordinary tasks: told first, drained first
//!                                         ├─ spawn_last("lease", ..)       told when the ordinary ones are gone
//!                SIGTERM / SIGINT ────────┘
//!         admin::serve(listener, router) ── /healthz /livez /readyz /metrics PUT /log-level
//! ```
//!
//! Nothing here knows what the process does: names, metrics and readiness checks are handed in.

pub mod admin;
pub mod backoff;
pub mod metrics;
pub mod shutdown;
pub mod telemetry;

pub use backoff::Backoff;
pub use metrics::Metrics;
pub use shutdown::Supervisor;
pub use telemetry::Telemetry;
