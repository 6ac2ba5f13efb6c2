//! The interceptor as a process: what the cluster says goes into the data plane, what the data plane holds is reported to
//! the operators.
//!
//! ```text
//! InterceptorRoutes ──translate──> table of routes ──┐
//! Services, EndpointSlices ──────> endpoint sets ────┼──> dormouse-proxy ──> demand snapshots ──> reporter ──> operators
//! labelled ConfigMaps ───────────> bodies ───────────┘          ^                                    │
//!                                                               └── newcomers, probe specs, holds ───┘
//! ```

mod args;
mod backend;
mod backends;
mod freshness;
mod metrics;
mod newcomers;
mod pages;
mod queue;
mod reporter;
mod routes;
mod run;
mod slim;
mod tls;
mod traces;

pub use args::InterceptorArgs;
pub use run::run;
pub use tls::TlsArgs;
pub use traces::{TraceArgs, TraceProtocol};
