//! The aggregated API `external.metrics.k8s.io/v1beta1`, answered from memory.
//!
//! ```text
//! HPA controller ─> kube-apiserver ─ client certificate + X-Remote-* headers ─┐
//! somebody with a token, or another replica that passes a query on ───────────┤
//!                                                                             v
//!    TLS (hot certificate) ─> Peer ─> Gatekeeper: who is it, may they? ─> routes ─> MetricSource
//!                                       │  TokenReview, SubjectAccessReview,
//!                                       └─ extension-apiserver-authentication: all remembered, all bounded
//! ```
//!
//! The aggregation layer does not retry, so nothing here may keep it waiting: answers about callers are renewed before
//! they run out, and old ones still count for its callers while the API server is silent.

mod access;
mod activity;
mod discovery;
mod gatekeeper;
mod openapi;
mod peer;
pub(crate) mod review;
mod routes;
mod selector;
mod server;
mod source;
mod status;
pub(crate) mod tls;
mod tokens;
mod trust;
mod user;

#[cfg(test)]
mod tests;

pub use gatekeeper::Gatekeeper;
pub use server::{Limits, serve};
pub use source::{Caller, ExternalMetric, MetricQuery, MetricReadError, MetricSource};
