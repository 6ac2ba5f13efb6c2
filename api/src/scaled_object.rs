//! [`ScaledObject`]: which workload scales, on what, and how far.

mod status;

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscalerBehavior;
use kube_derive::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::behavior;

pub use status::{GroupVersionKindResource, HealthStatus, ScaledObjectStatus, TriggerActivity};

/// What a field left out means.
pub mod defaults {
    use std::time::Duration;

    /// `pollingInterval`.
    pub const POLLING_INTERVAL: Duration = Duration::from_secs(30);
    /// `cooldownPeriod`.
    pub const COOLDOWN_PERIOD: Duration = Duration::from_secs(300);
    /// `initialCooldownPeriod`.
    pub const INITIAL_COOLDOWN_PERIOD: Duration = Duration::ZERO;
    /// `minReplicaCount`.
    pub const MIN_REPLICA_COUNT: i32 = 0;
    /// `maxReplicaCount`.
    pub const MAX_REPLICA_COUNT: i32 = 100;
    /// `scaleTargetRef.apiVersion`.
    pub const TARGET_API_VERSION: &str = "apps/v1";
    /// `scaleTargetRef.kind`.
    pub const TARGET_KIND: &str = "Deployment";
    /// `advanced.horizontalPodAutoscalerConfig.name` is this and the name of the ScaledObject.
    pub const HPA_NAME_PREFIX: &str = "keda-hpa-";
    /// `advanced.scalingModifiers.metricType`, and `triggers[].metricType` of an external metric.
    pub const METRIC_TYPE: &str = "AverageValue";
    /// `triggers[].authenticationRef.kind`.
    pub const AUTHENTICATION_KIND: &str = "TriggerAuthentication";
    /// `fallback.behavior`.
    pub const FALLBACK_BEHAVIOR: &str = "static";
}

/// What to scale, on which events, and within which bounds.
#[derive(Clone, CustomResource, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[kube(
    group = "keda.sh",
    version = "v1alpha1",
    kind = "ScaledObject",
    plural = "scaledobjects",
    shortname = "so",
    namespaced,
    status = "ScaledObjectStatus",
    derive = "PartialEq",
    derive = "Default",
    crates(kube_core = "::kube_core"),
    doc = "Scales a workload between 0 and many replicas on what its triggers read: the length of a queue, a schedule, \
           a metric, waiting HTTP requests."
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "!has(self.minReplicaCount) || self.minReplicaCount <= (has(self.maxReplicaCount) ? self.maxReplicaCount : 100)",
    "message": "minReplicaCount must be less than or equal to maxReplicaCount",
}]))]
pub struct ScaledObjectSpec {
    /// The workload to scale: anything in the same namespace that has a scale subresource.
    pub scale_target_ref: ScaleTargetRef,
    /// Seconds between two looks at the triggers, at least 1. Default: 30.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub polling_interval: Option<i32>,
    /// Seconds after the creation of this object during which the workload is not scaled to zero although no trigger has
    /// been active yet. Default: 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub initial_cooldown_period: Option<i32>,
    /// Seconds that pass between the last active look at the triggers and scaling to zero (or to idleReplicaCount).
    /// Between 1 and many replicas the HPA decides, with its own stabilization window. Default: 300.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub cooldown_period: Option<i32>,
    /// Replicas to keep while no trigger is active, fewer than minReplicaCount. Left out, a workload without active
    /// triggers goes to minReplicaCount.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub idle_replica_count: Option<i32>,
    /// Fewest replicas. 0, the default, lets the workload sleep while no trigger is active.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub min_replica_count: Option<i32>,
    /// Most replicas, at least 1 and no fewer than minReplicaCount. Default: 100.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub max_replica_count: Option<i32>,
    /// Settings that most users leave alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advanced: Option<Advanced>,
    /// The event sources. The workload wakes when any of them is active; above zero the one that asks for the most
    /// replicas counts.
    #[schemars(length(min = 1))]
    pub triggers: Vec<Trigger>,
    /// How many replicas to ask for while a trigger's source cannot be read. Left out, an unreadable source leaves the
    /// replicas as they are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fallback: Option<Fallback>,
}

impl ScaledObjectSpec {
    /// Time between two looks at the triggers.
    #[must_use]
    pub fn polling_interval(&self) -> Duration {
        self.polling_interval.map_or(defaults::POLLING_INTERVAL, seconds)
    }

    /// Time between the last active look at the triggers and the way to zero.
    #[must_use]
    pub fn cooldown_period(&self) -> Duration {
        self.cooldown_period.map_or(defaults::COOLDOWN_PERIOD, seconds)
    }

    /// Time between the object's creation and the first way to zero.
    #[must_use]
    pub fn initial_cooldown_period(&self) -> Duration {
        self.initial_cooldown_period
            .map_or(defaults::INITIAL_COOLDOWN_PERIOD, seconds)
    }

    /// Fewest replicas.
    #[must_use]
    pub fn min_replica_count(&self) -> i32 {
        self.min_replica_count.unwrap_or(defaults::MIN_REPLICA_COUNT)
    }

    /// Most replicas.
    #[must_use]
    pub fn max_replica_count(&self) -> i32 {
        self.max_replica_count.unwrap_or(defaults::MAX_REPLICA_COUNT)
    }

    /// Settings of the HPA, where given.
    #[must_use]
    pub fn hpa_config(&self) -> Option<&HorizontalPodAutoscalerConfig> {
        self.advanced.as_ref()?.horizontal_pod_autoscaler_config.as_ref()
    }

    /// Name of the HPA of the ScaledObject called `scaled_object`.
    #[must_use]
    pub fn hpa_name(&self, scaled_object: &str) -> String {
        let configured = self.hpa_config().and_then(|config| config.name.as_deref());
        match configured.filter(|name| !name.is_empty()) {
            Some(name) => name.to_owned(),
            None => format!("{}{scaled_object}", defaults::HPA_NAME_PREFIX),
        }
    }

    /// Whether the target gets its former replicas back when the ScaledObject is deleted.
    #[must_use]
    pub fn restore_to_original_replica_count(&self) -> bool {
        self.advanced
            .as_ref()
            .is_some_and(|advanced| advanced.restore_to_original_replica_count)
    }
}

/// The workload to scale.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ScaleTargetRef {
    /// Name of the workload.
    #[schemars(length(min = 1))]
    pub name: String,
    /// API group and version of the workload. Default: apps/v1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api_version: Option<String>,
    /// Kind of the workload. Default: Deployment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Container of the workload whose environment the triggers' "FromEnv" parameters read. Default: the first one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub env_source_container_name: Option<String>,
}

impl ScaleTargetRef {
    /// API group and version.
    #[must_use]
    pub fn api_version(&self) -> &str {
        given(self.api_version.as_deref()).unwrap_or(defaults::TARGET_API_VERSION)
    }

    /// Kind.
    #[must_use]
    pub fn kind(&self) -> &str {
        given(self.kind.as_deref()).unwrap_or(defaults::TARGET_KIND)
    }
}

/// Settings that most users leave alone.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Advanced {
    /// The HPA that scales between 1 and many replicas.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub horizontal_pod_autoscaler_config: Option<HorizontalPodAutoscalerConfig>,
    /// Whether deleting this object gives the workload the replicas back that it had before. Default: false, the
    /// replicas stay as they are.
    #[serde(default, skip_serializing_if = "is_false")]
    pub restore_to_original_replica_count: bool,
    /// One formula over all triggers, in place of "the largest wins".
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scaling_modifiers: Option<ScalingModifiers>,
}

/// The HPA that scales between 1 and many replicas.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HorizontalPodAutoscalerConfig {
    /// Name of the HPA. Default: keda-hpa- and the name of this object.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The pace at which the HPA changes replicas, for each direction. What is left out follows Kubernetes' defaults.
    #[serde(
        default,
        deserialize_with = "behavior::deserialize",
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(with = "Option<behavior::Behavior>")]
    pub behavior: Option<HorizontalPodAutoscalerBehavior>,
}

/// One formula over all triggers.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ScalingModifiers {
    /// Expression over the names of the triggers, such as "max(orders, invoices) / 2". Its result is the only metric the
    /// HPA sees.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub formula: Option<String>,
    /// Value of the formula that one replica copes with; a number above 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// The workload wakes when the formula gives more than this. Default: 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub activation_target: Option<String>,
    /// How the target is meant: AverageValue (per replica, the default) or Value (for all replicas together).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["AverageValue", "Value"]))]
    pub metric_type: Option<String>,
}

/// One event source.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Trigger {
    /// Which kind of source: aws-sqs-queue, cron, metrics-api and so on.
    #[serde(rename = "type")]
    #[schemars(length(min = 1))]
    pub type_: String,
    /// Name of this trigger, unique within the object. A formula refers to it, and metrics show it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Parameters of the source, each kind's own; all values are strings.
    pub metadata: BTreeMap<String, String>,
    /// How the HPA compares the metric with its target: AverageValue (per replica, the default for event sources), Value
    /// (for all replicas together), or Utilization (cpu and memory only, which have no default).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metric_type: Option<String>,
    /// Whether the source is read once per polling interval even while replicas run. Default: false, then it is read at
    /// least every 15 seconds, as often as the HPA looks.
    #[serde(default, skip_serializing_if = "is_false")]
    pub use_cached_metrics: bool,
    /// Where the credentials for the source come from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub authentication_ref: Option<AuthenticationRef>,
}

/// The object that holds a trigger's credentials.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AuthenticationRef {
    /// Name of the TriggerAuthentication or ClusterTriggerAuthentication.
    pub name: String,
    /// TriggerAuthentication (of the same namespace, the default) or ClusterTriggerAuthentication.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["TriggerAuthentication", "ClusterTriggerAuthentication"]))]
    pub kind: Option<String>,
}

impl AuthenticationRef {
    /// Kind of the object.
    #[must_use]
    pub fn kind(&self) -> &str {
        given(self.kind.as_deref()).unwrap_or(defaults::AUTHENTICATION_KIND)
    }
}

/// What to do while a trigger's source cannot be read.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Fallback {
    /// Failures in a row that are borne before the fallback takes over, at least 0.
    #[schemars(range(min = 0))]
    pub failure_threshold: i32,
    /// Replicas to ask for, at least 0.
    #[schemars(range(min = 0))]
    pub replicas: i32,
    /// How replicas is meant. static (the default): that many. currentReplicas: as many as there are.
    /// currentReplicasIfHigher: as many as there are, but no fewer than replicas. currentReplicasIfLower: as many as there
    /// are, but no more than replicas. scalingModifiers: the formula decides, in which an unreadable trigger is nil.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend(
        "enum" = ["static", "currentReplicas", "currentReplicasIfHigher", "currentReplicasIfLower", "scalingModifiers"],
        "default" = "static",
    ))]
    pub behavior: Option<String>,
}

impl Fallback {
    /// How `replicas` is meant.
    #[must_use]
    pub fn behavior(&self) -> &str {
        given(self.behavior.as_deref()).unwrap_or(defaults::FALLBACK_BEHAVIOR)
    }
}

fn seconds(count: i32) -> Duration {
    Duration::from_secs(u64::try_from(count).unwrap_or(0))
}

fn given(text: Option<&str>) -> Option<&str> {
    text.filter(|text| !text.is_empty())
}

fn is_false(flag: &bool) -> bool {
    !flag
}
