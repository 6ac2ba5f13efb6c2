//! `behavior` of an HPA as users write it: like Kubernetes' own, but `tolerance` may be a number as well as a string.

use k8s_openapi::api::autoscaling::v2::{
    HPAScalingPolicy, HPAScalingRules, HorizontalPodAutoscalerBehavior as Kubernetes,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer};

/// The pace at which the HPA changes replicas, for each direction. What is left out follows Kubernetes' defaults.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Behavior {
    /// Pace upwards. Default: double, or add 4 pods, whichever is more, every 15 seconds, without a stabilization window.
    scale_up: Option<Rules>,
    /// Pace downwards. Default: remove as many pods as the metrics allow, after a stabilization window of 300 seconds.
    scale_down: Option<Rules>,
}

/// The pace in one direction.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Rules {
    /// Seconds (0 to 3600) over which the most cautious of the recent recommendations is followed. It keeps a metric
    /// that swings from making the replicas swing.
    stabilization_window_seconds: Option<i32>,
    /// Which policy counts when several apply: Max (the largest change, the default), Min (the smallest), or Disabled
    /// (no change in this direction).
    select_policy: Option<String>,
    /// Limits to the change within a period.
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    policies: Option<Vec<Policy>>,
    /// How far the metric may be from its target before the replicas change, as a share of it and in quotes: "0.05" is
    /// 5 %. Default: the cluster's, which is 10 %. Needs a Kubernetes with the feature HPAConfigurableTolerance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "tolerance")]
    tolerance: Option<Tolerance>,
}

/// One limit to the change within a period.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Policy {
    /// What value counts: Pods or Percent (of the current replicas).
    #[serde(rename = "type")]
    type_: String,
    /// The largest change allowed within the period: pods or per cent, above 0.
    value: i32,
    /// Length of the period in seconds, 1 to 1800.
    period_seconds: i32,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Tolerance {
    Text(String),
    Number(serde_json::Number),
}

impl From<Behavior> for Kubernetes {
    fn from(wire: Behavior) -> Self {
        Self {
            scale_down: wire.scale_down.map(Into::into),
            scale_up: wire.scale_up.map(Into::into),
        }
    }
}

impl From<Rules> for HPAScalingRules {
    fn from(wire: Rules) -> Self {
        Self {
            policies: wire
                .policies
                .map(|policies| policies.into_iter().map(Into::into).collect()),
            select_policy: wire.select_policy,
            stabilization_window_seconds: wire.stabilization_window_seconds,
            tolerance: wire.tolerance.map(|tolerance| {
                Quantity(match tolerance {
                    Tolerance::Text(text) => text,
                    Tolerance::Number(number) => number.to_string(),
                })
            }),
        }
    }
}

impl From<Policy> for HPAScalingPolicy {
    fn from(wire: Policy) -> Self {
        Self {
            period_seconds: wire.period_seconds,
            type_: wire.type_,
            value: wire.value,
        }
    }
}

pub(crate) fn deserialize<'de, D: Deserializer<'de>>(wire: D) -> Result<Option<Kubernetes>, D::Error> {
    Ok(Option::<Behavior>::deserialize(wire)?.map(Into::into))
}

/// The pattern is that of a Kubernetes quantity.
fn tolerance(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "x-kubernetes-int-or-string": true,
        "pattern": r"^(\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))(([KMGTPE]i)|[numkMGTPE]|([eE](\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))))?$",
    })
}
