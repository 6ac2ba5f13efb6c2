//! From what users write to what the engine and the interceptor run: ScaledObjects into policies, references into values,
//! InterceptorRoutes into routes.
//!
//! ```text
//! ScaledObject ──> policy()            bounds, periods, fallback, pause annotations
//!              ──> triggers()          one per read trigger, with its target kind
//!              ──> resources()         what the HPA measures itself: cpu and memory
//!              ──> Resolver::resolve() authentication, Secrets, ConfigMaps, container environment ──> TriggerParams
//!
//! InterceptorRoute ──> route()         what it matches, and what happens to those requests
//! ```
//!
//! Nothing here talks to Kubernetes: whatever must be looked up comes through the trait [`Objects`]. Every refusal names the
//! field and what is accepted, in KEDA's words where KEDA has words for it.

pub mod annotations;
pub mod environment;
pub mod objects;
pub mod parameters;
pub mod policy;
pub mod resources;
pub mod route;
pub mod triggers;

pub use objects::{Objects, ObjectsError};
pub use parameters::{Resolved, Resolver};
pub use policy::policy;
pub use resources::resources;
pub use route::{RouteRefusal, route};
pub use triggers::{TriggerPlan, triggers};

/// What the user wrote cannot be run. The message is for the Ready condition and the Event.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// One sentence that names the field, what is wrong and what is accepted.
    pub message: String,
}

impl Refusal {
    fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
        }
    }
}
