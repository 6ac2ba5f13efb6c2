//! What Dormouse decides, with no clock, no network and no Kubernetes in sight.
//!
//! ```text
//! ScalePolicy (what the user asked for) ─┐
//! Observation (what the target is now)  ─┼─> decide() ─> Decision ─> DecisionRecord
//! ReadingSet  (what the triggers say)   ─┘
//! ```
//!
//! Everything here is a value or a pure, total function of values: the same input gives the same answer, nothing panics,
//! and time comes in as an argument.

pub mod decision;
pub mod endpoints;
pub mod fallback;
pub mod hpa;
pub mod metric_name;
pub mod policy;
pub mod quantity;
pub mod reading;
pub mod record;
pub mod replicas;
pub mod resource;
pub mod routes;

pub use decision::{Action, Activity, Decision, Observation, Reason, TriggerHealth, decide};
pub use policy::{Fallback, FallbackBehavior, MetricTarget, Pause, ScalePolicy, TargetKind, TriggerPolicy};
pub use quantity::Quantity;
pub use reading::{ReadFailure, Reading, ReadingSet, TriggerReading};
pub use record::{DecisionRecord, RecordRing};
pub use replicas::{ReplicaRange, ReplicaRangeError};
pub use resource::{PodResource, ResourceMetric, ResourceTarget};
