//! What an HPA looks at before it decides.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

use crate::Quantity;

/// Everything that one evaluation takes into account.
#[derive(Clone, Debug, PartialEq)]
pub struct HpaObservation {
    /// The target's `/scale`, or why it could not be read.
    pub scale: Result<Scale, String>,
    /// What was read for each metric of the spec, in the same order, or why it could not be read.
    pub readings: Vec<Result<HpaReading, String>>,
    /// The pods that the scale's selector selects.
    pub pods: Vec<Pod>,
}

/// The `/scale` of a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scale {
    /// `spec.replicas`: what is wanted.
    pub wanted: u32,
    /// `status.replicas`: what is there.
    pub running: u32,
    /// Whether `status.selector` is filled, without which no metric is looked at.
    pub has_selector: bool,
}

/// What was read for one metric.
#[derive(Clone, Debug, PartialEq)]
pub enum HpaReading {
    /// The values of an external metric's series, which are added up.
    Series(Vec<Quantity>),
    /// What pods use, by their names. Pods that the metrics source does not know are left out.
    Pods(BTreeMap<String, PodUsage>),
}

/// What one pod used.
#[derive(Clone, Debug, PartialEq)]
pub struct PodUsage {
    /// When the window ended.
    pub taken: Timestamp,
    /// Over how long the use was averaged.
    pub window: Duration,
    /// Each container's use of each resource.
    pub containers: BTreeMap<String, BTreeMap<String, Quantity>>,
}

/// A pod of the target, as far as it matters here.
#[derive(Clone, Debug, PartialEq)]
pub struct Pod {
    /// Its name.
    pub name: String,
    /// `status.phase`.
    pub phase: PodPhase,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// `status.startTime`.
    pub started: Option<Timestamp>,
    /// The condition `Ready`, where there is one.
    pub ready: Option<PodReadiness>,
    /// What each container requests of each resource, in the order of the pod's spec.
    pub requests: Vec<(String, BTreeMap<String, Quantity>)>,
}

/// `status.phase` of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PodPhase {
    /// Not all containers have been started.
    Pending,
    /// It runs.
    Running,
    /// All containers ended well.
    Succeeded,
    /// Some container ended badly.
    Failed,
    /// Its node is out of reach.
    Unknown,
}

/// The condition `Ready` of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PodReadiness {
    /// Its status; `None` stands for `Unknown`.
    pub status: Option<bool>,
    /// When the status changed last.
    pub since: Timestamp,
}

impl Pod {
    pub(super) fn is_running_and_ready(&self) -> bool {
        self.phase == PodPhase::Running && self.ready.is_some_and(|ready| ready.status == Some(true))
    }
}
