//! The heart: reads triggers in the background, holds what they said, decides, and acts through ports.
//!
//! ```text
//!  apply(spec) ──> Object ── loop ──> reads (spawned, with deadlines, ──> Board (latest reading per trigger)
//!                              │       shared by equal questions)           └──> external_metric(): from memory
//!                              └─ polling tick ──> Target::observe ──> core::decide ──> Target::set_replicas
//!                                                                                └──> Journal (status, Events, metrics)
//! ```
//!
//! Triggers that are told of changes ([`demand`]) have their object's loop look at once, and are asked before it sleeps.
//!
//! The engine knows nothing of Kubernetes: what it observes and changes goes through the ports of [`ports`]. One object has
//! one loop; a source that hangs, fails or panics is cut off by its own deadline and delays no other object, and no other
//! trigger of its own object past the next tick. A loop that panics is quarantined.

pub mod board;
pub mod demand;
pub mod engine;
pub mod ports;
pub mod spec;
pub mod view;

mod cadence;
mod looks;
mod object;
mod quarantine;
mod reader;
mod source;
mod successor;
mod ticks;
mod wake;

pub use board::{MetricError, Served};
pub use demand::{DemandHub, Interceptors};
pub use engine::{Applied, ApplyError, Engine, Settings};
pub use ports::{
    Acted, Autoscaler, AutoscalerMetric, AutoscalerSpec, Journal, Leadership, PortError, Ports, Target,
    TargetState, TickOutcome, TickReport, TriggerRead, Urgency,
};
pub use spec::{ObjectKey, ObjectSpec, TriggerSpec};
pub use view::{LatestRead, ObjectView, TriggerView};
