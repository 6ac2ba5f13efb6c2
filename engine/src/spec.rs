//! What the shell hands to the engine for one ScaledObject.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use dormouse_core::{MetricTarget, ScalePolicy, TargetKind, TriggerPolicy, metric_name};
use dormouse_scalers::{MetricSpec, Pushed, Question, Trigger, TriggerParams};
use jiff::Timestamp;

/// Namespace and name of a ScaledObject.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectKey {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl ObjectKey {
    /// The key of `namespace`/`name`.
    #[must_use]
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// A ScaledObject, validated and with everything it refers to resolved.
#[derive(Clone, Debug, PartialEq)]
pub struct ObjectSpec {
    /// Which object.
    pub key: ObjectKey,
    /// Its uid: spreads first ticks evenly.
    pub uid: String,
    /// Its generation: another one means that anything may have changed, the target included.
    pub generation: i64,
    /// When it was created.
    pub created: Timestamp,
    /// The policy; its `triggers` are filled in by the engine once the scalers are connected.
    pub policy: ScalePolicy,
    /// The triggers to read, in the order of the manifest.
    pub triggers: Vec<TriggerSpec>,
    /// The last moment of activity that its status knows.
    pub last_active: Option<Timestamp>,
    /// Whether its status says Active: a loop that takes over counts it as active at that moment.
    pub was_active: bool,
    /// Whether an earlier process had it ready already: its first tick may then wait its turn.
    pub resumed: bool,
}

/// One trigger to read.
#[derive(Clone, Debug, PartialEq)]
pub struct TriggerSpec {
    /// Position in `spec.triggers`.
    pub index: usize,
    /// The user's name for it.
    pub name: Option<String>,
    /// How its metric is held against its target.
    pub target_kind: TargetKind,
    /// `useCachedMetrics`.
    pub use_cached_metrics: bool,
    /// What its scaler is built from.
    pub params: TriggerParams,
}

/// A trigger whose scaler is connected.
#[derive(Clone)]
pub(crate) struct ConnectedTrigger {
    pub(crate) spec: TriggerSpec,
    pub(crate) policy: TriggerPolicy,
    pub(crate) metric: MetricSpec,
    pub(crate) scaler: Arc<dyn Trigger>,
    /// What it asks, where others may ask the same.
    pub(crate) question: Option<Question>,
}

impl ConnectedTrigger {
    pub(crate) fn new(spec: TriggerSpec, scaler: Arc<dyn Trigger>) -> Self {
        let metric = scaler.metric();
        let policy = TriggerPolicy {
            index: spec.index,
            name: spec.name.clone(),
            trigger_type: spec.params.trigger_type.clone(),
            metric_name: metric_name::external(spec.index, &metric.base_name),
            target: MetricTarget {
                kind: spec.target_kind,
                value: metric.target.value(),
            },
            use_cached_metrics: spec.use_cached_metrics,
            sizes: scaler.pushed().is_some_and(Pushed::sizes),
        };
        Self {
            spec,
            policy,
            metric,
            question: scaler.question(),
            scaler,
        }
    }

    /// The label of KEDA's Prometheus series: the user's name, else the scaler's own.
    pub(crate) fn label(&self) -> &str {
        self.spec.name.as_deref().unwrap_or_else(|| self.scaler.label())
    }
}

/// The first metric name that two triggers share.
pub(crate) fn duplicate_metric(triggers: &[ConnectedTrigger]) -> Option<&str> {
    let mut seen = HashSet::new();
    triggers
        .iter()
        .map(|trigger| trigger.policy.metric_name.as_str())
        .find(|name| !seen.insert(*name))
}
