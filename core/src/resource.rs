//! Triggers `cpu` and `memory`: what the HPA measures on the pods itself, and what it holds that against.

use crate::quantity::Quantity;

/// What pods use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PodResource {
    /// Processor time.
    Cpu,
    /// Memory.
    Memory,
}

impl PodResource {
    /// Its name, both as a trigger type and in a container's requests.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Memory => "memory",
        }
    }
}

/// The goal of a resource metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResourceTarget {
    /// Percent of what the containers request; above 0.
    Utilization(i32),
    /// Average over the pods; above 0.
    AverageValue(Quantity),
}

/// One resource metric of an HPA.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResourceMetric {
    /// What is measured.
    pub resource: PodResource,
    /// The container that is measured; all of a pod where there is none.
    pub container: Option<String>,
    /// The goal.
    pub target: ResourceTarget,
}
