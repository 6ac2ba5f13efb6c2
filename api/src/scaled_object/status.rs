//! The status of a ScaledObject.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::conditions::Condition;

/// What the operator last found and did.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ScaledObjectStatus {
    /// The workload's kind with its API group and version, as in apps/v1.Deployment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scale_target_kind: Option<String>,
    /// The workload's kind, resolved.
    #[serde(rename = "scaleTargetGVKR", skip_serializing_if = "Option::is_none")]
    pub scale_target_gvkr: Option<GroupVersionKindResource>,
    /// Replicas the workload had when this object first took it over.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub original_replica_count: Option<i32>,
    /// When a trigger was last active; the cooldown counts from here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::crd::date_time")]
    pub last_active_time: Option<Time>,
    /// Names of the metrics that the operator serves to the HPA.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub external_metric_names: Vec<String>,
    /// Names of the pod resources (cpu, memory) that the HPA reads itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub resource_metric_names: Vec<String>,
    /// Name of the one metric that stands for all when a formula is given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub composite_scaler_name: Option<String>,
    /// The aspects of the object's state: Ready, Active, Fallback, Paused, HPAActive.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// For each metric, whether its source can be read; kept while a fallback is set.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub health: BTreeMap<String, HealthStatus>,
    /// For each metric, whether its trigger asks for replicas.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub triggers_activity: BTreeMap<String, TriggerActivity>,
    /// Replicas that an annotation holds the workload at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub paused_replica_count: Option<i32>,
    /// Name of the HPA.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hpa_name: Option<String>,
    /// The kinds of the triggers, each once, separated by commas.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub triggers_types: Option<String>,
    /// The names of the authentications in use, each once, separated by commas.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub authentications_types: Option<String>,
}

/// A kind with its API group, version and resource name.
#[derive(Clone, Debug, Default, Deserialize, Eq, Hash, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GroupVersionKindResource {
    /// API group of the workload; empty for the core group.
    pub group: String,
    /// API version of the workload.
    pub version: String,
    /// Kind of the workload.
    pub kind: String,
    /// Resource name of the workload, as in URLs: deployments.
    pub resource: String,
}

/// Whether a metric's source can be read.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HealthStatus {
    /// Reads that failed in a row.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub number_of_failures: Option<i32>,
    /// Happy (the last read worked) or Failing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
}

/// Whether a trigger asks for replicas.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TriggerActivity {
    /// Whether the trigger asks for replicas.
    #[serde(default)]
    #[schemars(transform = crate::crd::without_default)]
    pub is_active: bool,
}
