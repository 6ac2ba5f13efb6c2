//! The data plane of the interceptor: it takes requests, holds them while their application sleeps, and passes them on.
//!
//! ```text
//! listeners ─> connection ─> request: route ─> admit ─┬─ endpoint ─> forward ─> response ─> in flight until it has ended
//!  (one per data thread)                              └─ gate: waits for a grant ─┘
//!
//! Proxy (the handle): routes, endpoints, probes, holds ──snapshots──> data threads ──counters──> Demand
//!                                                    └─ probers, while requests wait or an endpoint is suspect
//! ```
//!
//! Each data thread has a listener, a runtime and a pool of connections of its own. What it has in common with the others
//! is read from snapshots and counted in atomics; locks are for what waits and for what changes. No Kubernetes here: what
//! there is to know of it comes in through [`Proxy`].

mod access;
mod activity;
mod admit;
mod answers;
mod body;
mod busy;
mod client;
mod config;
mod connect;
mod connection;
mod demand;
mod exchange;
mod expect;
mod failure;
mod forward;
mod forwarded;
mod gate;
mod gathered;
mod headers;
mod inbound;
mod listener;
mod load;
mod no_wake;
mod outbound;
mod peer;
mod pool;
mod probe;
mod proxy;
mod random;
mod request;
mod route;
mod shared;
mod stats;
mod stream;
mod thread;
mod trace;
mod upgrade;
mod upstream;
mod websocket;
mod worker;

pub use access::AccessLog;
pub use config::{Bounds, Config, Timeouts, TlsListener};
pub use demand::{Demand, RouteLoad};
pub use no_wake::NoWake;
pub use probe::{Check, HttpCheck, Probe, ProbeSpec, Scheme};
pub use proxy::{Drained, Held, HoldOutcome, Proxy, StartError};
pub use stats::{FirstBytes, Histogram, HoldEnd, Holds, RequestStats, Requests, Status};
pub use trace::{Hold, RequestTrace, Span, TraceSink, Upstream};
pub use upstream::Protocol;
