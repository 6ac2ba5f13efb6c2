//! How Dormouse talks to a Kubernetes API server.
//!
//! ```text
//! client ── Cluster ──┬── calls::Calls      every unary call: a permit, a deadline, a class of failure
//!                     ├── watch::Watch ──> watch::Watched (store) ──> queue::Queue ──> reconcile
//!                     ├── named::NamedWatches   single objects by name, each watched once however many refer to it
//!                     ├── discovery         (apiVersion, kind) ──> resource
//!                     └── lease             who may write, over a connection of its own
//! ```
//!
//! Every wait on the network ends: connecting after 3 s, a call after 5 s, a silent watch within a minute, a dead peer after
//! 6 s without an acknowledgement.

pub mod calls;
pub mod client;
pub mod discovery;
#[cfg(test)]
mod fake_api;
pub mod key;
pub mod lease;
pub mod named;
pub mod names;
pub mod namespaces;
mod outage;
pub mod queue;
mod requests;
pub mod slim;
pub mod watch;

pub use calls::{CallError, Calls, Priority};
pub use client::Cluster;
pub use key::ObjectKey;
pub use lease::{LeaderState, Leadership};
pub use named::{NamedWatches, Reference, Sighting};
pub use names::shared_name;
pub use namespaces::Namespaces;
pub use queue::{Action, Queue};
pub use watch::{Change, Readable, Watch, Watchable, Watched};
