//! What the engine needs of the world. The operator answers with Kubernetes, local mode with processes.

use std::sync::Arc;
use std::time::Duration;

use dormouse_core::{DecisionRecord, Pause, ReadFailure, Reading, ReplicaRange, ResourceMetric, TargetKind};
use dormouse_scalers::Target as TargetQuantity;
use dormouse_scalers::traffic::Traffic;
use futures::future::BoxFuture;
use tokio::sync::watch;

use crate::spec::{ObjectKey, ObjectSpec};

/// A port could not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct PortError {
    /// Bounded name for labels, such as [`GONE`].
    pub category: &'static str,
    /// One sentence.
    pub message: String,
}

/// Category of an error that says: the target is no longer what was seen.
pub const CHANGED: &str = "conflict";
/// Category of an error that says: there is no such target.
pub const GONE: &str = "not_found";
/// Categories of errors that leave open whether a change was made.
pub const UNANSWERED: [&str; 2] = ["timeout", "unreachable"];

/// The scale target as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetState {
    /// Replicas asked for.
    pub replicas: u32,
    /// The version this was seen in, where the world has versions.
    pub version: Option<String>,
}

/// What a look at the target, or a change of it, is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Urgency {
    /// To wake it: before all else.
    Wake,
    /// To go on with something that was begun.
    Soon,
    /// A polling tick: the next one looks again.
    Routine,
}

/// What is scaled.
pub trait Target: Send + Sync {
    /// Reads the replica count.
    fn observe(&self, urgency: Urgency) -> BoxFuture<'_, Result<TargetState, PortError>>;
    /// Sets it, if the target is still what was seen (of one without replicas, that it has none is enough): else the error's
    /// category is [`CHANGED`], and the caller has to look again. Answers the target as it is then.
    fn set_replicas<'a>(
        &'a self,
        to: u32,
        seen: &'a TargetState,
        urgency: Urgency,
    ) -> BoxFuture<'a, Result<TargetState, PortError>>;
    /// How many of its pods are ready; asked only for the fallback of a `Value` target.
    fn ready_replicas(&self) -> BoxFuture<'_, Result<u32, PortError>>;
}

/// What moves the replicas between 1 and N: the HPA on a cluster.
pub trait Autoscaler: Send + Sync {
    /// Makes it so.
    fn ensure<'a>(&'a self, spec: &'a AutoscalerSpec) -> BoxFuture<'a, Result<(), PortError>>;
    /// Takes it away; not finding it is fine.
    fn remove(&self) -> BoxFuture<'_, Result<(), PortError>>;
}

/// What the autoscaler has to do, as far as the engine knows it.
#[derive(Clone, Debug, PartialEq)]
pub struct AutoscalerSpec {
    /// Bounds.
    pub replicas: ReplicaRange,
    /// Directions that are closed.
    pub pause: Pause,
    /// The external metrics, in the order of the manifest.
    pub metrics: Vec<AutoscalerMetric>,
    /// What it measures on the pods itself.
    pub resources: Vec<ResourceMetric>,
}

/// One external metric.
#[derive(Clone, Debug, PartialEq)]
pub struct AutoscalerMetric {
    /// Its name.
    pub name: String,
    /// Average or whole.
    pub kind: TargetKind,
    /// The goal.
    pub target: TargetQuantity,
}

/// Who may act.
pub trait Leadership: Send + Sync {
    /// Whether this process may write at this very moment.
    fn is_leader(&self) -> bool;
    /// Follows the answer.
    fn subscribe(&self) -> watch::Receiver<bool>;
}

/// Who writes down what happened: status, Events, metrics.
pub trait Journal: Send + Sync {
    /// A source was read, on a polling tick or in between. Must not block.
    fn read(&self, object: &ObjectKey, read: &TriggerRead<'_>);
    /// A decision was computed in this time, carried out or not. Must not block.
    fn decision_made(&self, _took: Duration) {}
    /// A target was woken so long after the demand for it had begun. Must not block.
    fn woke(&self, _after: Duration) {}
    /// A polling tick is over.
    fn tick<'a>(&'a self, report: TickReport<'a>) -> BoxFuture<'a, ()>;
    /// The loop of an object broke off by a fault in this program. It begins again after `rest`, or at once when the object
    /// is changed; until then its target is left alone.
    fn quarantined<'a>(&'a self, spec: &'a ObjectSpec, rest: Duration) -> BoxFuture<'a, ()>;
}

/// One read of one source.
pub struct TriggerRead<'a> {
    /// Position of the trigger.
    pub index: usize,
    /// The user's name for it.
    pub name: Option<&'a str>,
    /// Value of KEDA's `scaler` label.
    pub label: &'a str,
    /// Trigger type.
    pub trigger_type: &'a str,
    /// Name of the metric.
    pub metric_name: &'a str,
    /// What came back.
    pub outcome: Result<&'a Reading, &'a ReadFailure>,
    /// How long it took.
    pub took: Duration,
    /// Whether the source was asked for another object, and this one only shared the answer.
    pub shared: bool,
    /// What it did on the wire.
    pub traffic: &'a Traffic,
}

/// One polling tick.
pub struct TickReport<'a> {
    /// The object.
    pub spec: &'a ObjectSpec,
    /// How far behind its time the tick began.
    pub late_by: Duration,
    /// What came of it.
    pub outcome: TickOutcome<'a>,
}

/// What came of a tick.
pub enum TickOutcome<'a> {
    /// The target could not be read, so nothing was decided.
    TargetUnknown(&'a PortError),
    /// A decision was made, and carried out if it asked for anything.
    Decided {
        /// The decision with all that led to it.
        record: &'a DecisionRecord,
        /// What was done.
        acted: Option<&'a Acted>,
    },
}

/// An attempt to change the replicas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acted {
    /// Replicas before.
    pub from: u32,
    /// Replicas asked for.
    pub to: u32,
    /// Whether it worked.
    pub result: Result<(), PortError>,
}

/// The ports of one object.
#[derive(Clone)]
pub struct Ports {
    /// What is scaled.
    pub target: Arc<dyn Target>,
    /// What moves it between 1 and N.
    pub autoscaler: Arc<dyn Autoscaler>,
}
