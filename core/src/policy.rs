//! What a ScaledObject asks for, as the decision sees it: validated, defaults filled in, no strings left to parse.

use std::time::Duration;

use crate::replicas::ReplicaRange;
use crate::resource::ResourceMetric;

/// Everything of a ScaledObject that the decision depends on.
#[derive(Clone, Debug, PartialEq)]
pub struct ScalePolicy {
    /// Bounds and resting count.
    pub replicas: ReplicaRange,
    /// How often activity is decided; at least one second.
    pub polling_interval: Duration,
    /// How long after the last active reading the target may rest.
    pub cooldown_period: Duration,
    /// How long after its creation an object that was never active may rest.
    pub initial_cooldown_period: Duration,
    /// What to assume when a trigger cannot be read.
    pub fallback: Option<Fallback>,
    /// The pause annotations in force.
    pub pause: Pause,
    /// `autoscaling.keda.sh/force-activation`: behave as if a trigger were active.
    pub force_activation: bool,
    /// The triggers that are read, in the order of the manifest. Resource triggers (cpu, memory) are the HPA's and not here.
    pub triggers: Vec<TriggerPolicy>,
    /// What the HPA measures on the pods itself, in the order of the manifest.
    pub resources: Vec<ResourceMetric>,
}

/// One trigger that Dormouse reads.
#[derive(Clone, Debug, PartialEq)]
pub struct TriggerPolicy {
    /// Position in `spec.triggers`.
    pub index: usize,
    /// `name` of the trigger, if the user gave one.
    pub name: Option<String>,
    /// Trigger type, as in the manifest.
    pub trigger_type: String,
    /// Name of the metric on the HPA: `s<index>-<normalised base name>`.
    pub metric_name: String,
    /// What one replica is meant to carry.
    pub target: MetricTarget,
    /// `useCachedMetrics`: the source is read once per polling interval and never in between.
    pub use_cached_metrics: bool,
    /// Whether the value, held against the target, says at once how many replicas are needed: an activation goes straight
    /// there, and is raised while what waits grows.
    pub sizes: bool,
}

/// The goal an HPA metric is held against.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MetricTarget {
    /// Whether the value is shared out over the replicas.
    pub kind: TargetKind,
    /// The goal, in the metric's own unit.
    pub value: f64,
}

impl MetricTarget {
    /// The replicas that carry `value` when each carries its target; none where the target says nothing.
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "such a cast saturates, and takes what is not a number for 0"
    )]
    pub fn replicas_for(&self, value: f64) -> u32 {
        if self.value > 0.0 {
            (value / self.value).ceil() as u32
        } else {
            0
        }
    }
}

/// `metricType` of an external metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetKind {
    /// The metric divided by the replicas is held against the target (the default).
    AverageValue,
    /// The metric as a whole is held against the target.
    Value,
}

/// `spec.fallback`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fallback {
    /// The fallback holds once a metric failed more often in a row than this.
    pub failure_threshold: u32,
    /// Replicas to assume.
    pub replicas: u32,
    /// How `replicas` meets the current count.
    pub behavior: FallbackBehavior,
}

/// `spec.fallback.behavior`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FallbackBehavior {
    /// Always `replicas`.
    #[default]
    Static,
    /// Whatever runs now.
    CurrentReplicas,
    /// The higher of both.
    CurrentReplicasIfHigher,
    /// The lower of both.
    CurrentReplicasIfLower,
}

/// The pause annotations, reduced to what they mean. A full pause wins over a directional one, and
/// `paused-replicas` over `paused`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pause {
    /// Not paused.
    #[default]
    No,
    /// Scaling stands still; with a count, at that count.
    Full {
        /// `paused-replicas`.
        replicas: Option<u32>,
    },
    /// Only some directions are closed; at least one of the two is set.
    Directions {
        /// `paused-scale-in`.
        scale_in: bool,
        /// `paused-scale-out`.
        scale_out: bool,
    },
}

impl Pause {
    /// Whether replicas may not go down.
    #[must_use]
    pub fn blocks_scale_in(&self) -> bool {
        matches!(self, Self::Full { .. } | Self::Directions { scale_in: true, .. })
    }

    /// Whether replicas may not go up.
    #[must_use]
    pub fn blocks_scale_out(&self) -> bool {
        matches!(self, Self::Full { .. } | Self::Directions { scale_out: true, .. })
    }

    /// Whether the loop stands still altogether.
    #[must_use]
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Full { .. })
    }

    /// Whether any annotation is in force.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        *self != Self::No
    }
}

impl ScalePolicy {
    /// The longest the HPA may be behind a source while replicas run: one of its own default sync periods.
    pub const AWAKE_CADENCE: Duration = Duration::from_secs(15);

    /// How often a trigger's source is read: at zero once per polling interval; while replicas run at least every
    /// [`AWAKE_CADENCE`](Self::AWAKE_CADENCE), unless the trigger asked for `useCachedMetrics`.
    #[must_use]
    pub fn cadence(&self, trigger: &TriggerPolicy, awake: bool) -> Duration {
        if awake && !trigger.use_cached_metrics {
            self.polling_interval.min(Self::AWAKE_CADENCE)
        } else {
            self.polling_interval
        }
    }

    /// Age past which a reading is no longer served, at the cadence in force and with the trigger's own read deadline.
    #[must_use]
    pub fn max_age(&self, trigger: &TriggerPolicy, awake: bool, read_deadline: Duration) -> Duration {
        self.cadence(trigger, awake) + read_deadline + Duration::from_secs(1)
    }
}
