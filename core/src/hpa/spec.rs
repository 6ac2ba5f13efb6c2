//! What an HPA asks for, and the flags of the controller that carries it out.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::Quantity;

/// The flags of the HPA controller that enter into its arithmetic; the defaults are Kubernetes's own.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HpaSettings {
    /// How far from 1 the ratio of usage to target may be without any change: `--horizontal-pod-autoscaler-tolerance`.
    pub tolerance: f64,
    /// The look-back before scaling down where the behavior names none.
    pub downscale_stabilization: Duration,
    /// For how long after its start a pod's CPU counts only while it is ready and was so for a whole metric window.
    pub cpu_initialization_period: Duration,
    /// A pod that turned unready within this time of its start is taken for one that was never ready.
    pub initial_readiness_delay: Duration,
    /// The feature gate `HPAScaleToZero`, without which Kubernetes accepts no minimum of 0.
    pub scale_to_zero: bool,
}

impl Default for HpaSettings {
    fn default() -> Self {
        Self {
            tolerance: 0.1,
            downscale_stabilization: Duration::from_secs(300),
            cpu_initialization_period: Duration::from_secs(300),
            initial_readiness_delay: Duration::from_secs(30),
            scale_to_zero: false,
        }
    }
}

/// An autoscaler of `autoscaling/v2`: its bounds, its metrics and how it moves.
#[derive(Clone, Debug, PartialEq)]
pub struct HpaSpec {
    /// `minReplicas`; 1 where the object has none.
    pub min: u32,
    /// `maxReplicas`.
    pub max: u32,
    /// What is measured; the largest count that one of them asks for wins.
    pub metrics: Vec<HpaMetric>,
    /// `behavior`; without it the limits of before `autoscaling/v2` hold.
    pub behavior: Option<Behavior>,
}

/// One entry of an HPA's `metrics`.
#[derive(Clone, Debug, PartialEq)]
pub enum HpaMetric {
    /// A number from outside the cluster.
    External {
        /// The metric's name.
        name: String,
        /// Labels that its series must have, if the object has a selector at all.
        match_labels: Option<BTreeMap<String, String>>,
        /// What the number should come to.
        target: ExternalTarget,
    },
    /// What the target's pods use, or one container of each.
    Resource {
        /// `cpu`, `memory`...
        resource: String,
        /// The container, for `ContainerResource`.
        container: Option<String>,
        /// What the use should come to.
        target: ResourceTarget,
    },
}

/// The goal of an external metric. Both must be positive, as the API server sees to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ExternalTarget {
    /// So much for each replica.
    AverageValue(Quantity),
    /// So much in all: the ready pods grow by the ratio.
    Value(Quantity),
}

/// The goal of a resource metric. Both must be positive, as the API server sees to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ResourceTarget {
    /// Percent of what the pods request.
    Utilization(u32),
    /// So much for each pod.
    AverageValue(Quantity),
}

/// How fast an HPA may move.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Behavior {
    /// Towards more replicas.
    pub scale_up: Rules,
    /// Towards fewer.
    pub scale_down: Rules,
}

/// The rules of one direction. What is left out has the direction's default.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rules {
    /// The look-back over earlier recommendations, the most cautious of which holds.
    pub stabilization: Option<Duration>,
    /// Which of the policies holds.
    pub select: SelectPolicy,
    /// What may change within a period.
    pub policies: Option<Vec<Policy>>,
    /// The direction's own tolerance, a fraction of 1.
    pub tolerance: Option<Quantity>,
}

/// Which of several policies holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SelectPolicy {
    /// The one that allows the largest change.
    #[default]
    Max,
    /// The one that allows the smallest.
    Min,
    /// None: no change in this direction.
    Disabled,
}

/// How much may change within a period.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// The largest change.
    pub amount: Amount,
    /// Counted over this time; whole seconds up to 1,800 in Kubernetes.
    pub period: Duration,
}

/// A change of replicas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Amount {
    /// So many pods.
    Pods(u32),
    /// Percent of the replicas at the period's start.
    Percent(u32),
}

const DEFAULT_PERIOD: Duration = Duration::from_secs(15);
const DEFAULT_UP: [Policy; 2] = [
    Policy {
        amount: Amount::Pods(4),
        period: DEFAULT_PERIOD,
    },
    Policy {
        amount: Amount::Percent(100),
        period: DEFAULT_PERIOD,
    },
];
const DEFAULT_DOWN: [Policy; 1] = [Policy {
    amount: Amount::Percent(100),
    period: DEFAULT_PERIOD,
}];

/// Rules with nothing left out.
#[derive(Clone, Copy, Debug)]
pub(super) struct Direction<'a> {
    pub(super) stabilization: Duration,
    pub(super) select: SelectPolicy,
    pub(super) policies: &'a [Policy],
}

impl Rules {
    /// The rules with the defaults of scaling up: no look-back, the larger of 4 pods and 100% in 15 s.
    pub(super) fn up(&self) -> Direction<'_> {
        Direction {
            stabilization: self.stabilization.unwrap_or_default(),
            select: self.select,
            policies: self.policies.as_deref().unwrap_or(&DEFAULT_UP),
        }
    }

    /// The rules with the defaults of scaling down: the controller's look-back, 100% in 15 s.
    pub(super) fn down(&self, settings: &HpaSettings) -> Direction<'_> {
        Direction {
            stabilization: self.stabilization.unwrap_or(settings.downscale_stabilization),
            select: self.select,
            policies: self.policies.as_deref().unwrap_or(&DEFAULT_DOWN),
        }
    }
}

impl Direction<'_> {
    /// Beyond this age a change of replicas counts for no policy.
    pub(super) fn longest_period(&self) -> Duration {
        self.policies
            .iter()
            .map(|policy| policy.period)
            .max()
            .unwrap_or_default()
    }
}

/// How far the ratio of usage to target may be from 1 in each direction without any change.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Tolerances {
    down: f64,
    up: f64,
}

impl Tolerances {
    pub(super) fn of(spec: &HpaSpec, settings: &HpaSettings) -> Self {
        let of = |rules: fn(&Behavior) -> &Rules| {
            let own = spec
                .behavior
                .as_ref()
                .and_then(|behavior| rules(behavior).tolerance);
            own.map_or(settings.tolerance, fraction)
        };
        Self {
            down: of(|behavior| &behavior.scale_down),
            up: of(|behavior| &behavior.scale_up),
        }
    }

    pub(super) fn cover(&self, ratio: f64) -> bool {
        (1.0 - self.down..=1.0 + self.up).contains(&ratio)
    }
}

/// The floating-point number that the controller makes of a quantity. Its canonical form has thousandths, which are
/// multiplied rather than parsed: the last bit may differ, and decides at a tolerance's very edge.
fn fraction(quantity: Quantity) -> f64 {
    let milli = quantity.milli_rounded_up();
    if milli % 1000 != 0 && Quantity::from_milli(milli) == quantity {
        milli as f64 * 0.001
    } else {
        quantity.as_f64()
    }
}
