//! KEDA's protocol for external scalers, in the clear: for whoever else than this process scales on InterceptorRoutes, under
//! the name and the port that ScaledObjects give as scalerAddress.
//!
//! ```text
//! KEDA ── IsActive, StreamIsActive, GetMetricSpec, GetMetrics ──> server ──> DemandSource
//! ```
//!
//! Every replica answers from its own book. What is unknown is an error, never a 0. Anybody in the cluster can ask, and so
//! connections, streams and messages are bounded.

mod server;
mod service;
#[cfg(test)]
mod tests;

pub use server::serve;
pub use service::ExternalScalerService;
