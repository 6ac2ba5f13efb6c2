//! The operator's side of the demand stream: what interceptors hold comes in, what they are asked to hold goes out.
//!
//! ```text
//! interceptor ─ TLS, token ─> server ─> Reviewer: whose pod is it? ─> session ── reports ──> DemandHub ─> engine
//!                                                                       ^  └── hold answers ─┐
//! engine, before 1 -> 0 ── Interceptors::hold ─────────────────────> Sessions <──────────────┘
//! authorities of the certificate ─> ConfigMap, which interceptors mount
//! pods of interceptors ── watch ── which of them exist ──────────────────────────────────> DemandHub
//! Obstacles ── what keeps the pods of a route from starting ──> sessions
//! session ── routes that wait ──> Scouts: watch of their pods ──> Ahead: what is told of them ──> session
//!         └─ pods that requests wait for ──> GET ──────────────┘
//! ```
//!
//! Every replica listens, and so a new leader's book is warm. Everything is bounded: connections, sessions, the size of a
//! message, the routes in it, and the time in which something has to be heard.

mod ahead;
mod args;
mod authorities;
mod messages;
mod obstacles;
mod pods;
mod probe_spec;
mod probes;
mod reviewer;
mod scouts;
mod server;
mod service;
mod sessions;
mod start;

#[cfg(test)]
mod tests;

pub use args::DemandArgs;
pub(crate) use authorities::Authorities;
pub use obstacles::Obstacles;
pub use pods::{InterceptorPod, follow_pods};
pub use probe_spec::Told;
pub use probes::{ClusterPods, ReadPods, Selection, Selector, Tell};
pub use reviewer::{ReviewFailed, Reviewer, TokenReviewer};
pub use server::serve;
pub use service::DemandService;
pub use sessions::Sessions;
pub use start::DemandParts;
