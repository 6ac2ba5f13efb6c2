//! Answers that the interceptor gives by itself.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::matching::RoutingRule;

/// Requests that the interceptor answers itself. They are not counted as demand and wake nothing.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StaticRoute {
    /// Which requests these are: those that match at least one of the rules.
    #[schemars(length(min = 1), extend("x-kubernetes-list-type" = "atomic"))]
    pub rules: Vec<RoutingRule>,
    /// The answer; its statusCode is 200 by default.
    pub response: StaticResponse,
    /// When it is given: Always, or WhenUnavailable (the default): while there is no ready pod; a ready one answers
    /// itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["Always", "WhenUnavailable"], "default" = "WhenUnavailable"))]
    pub response_mode: Option<String>,
}

/// An answer.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "!(has(self.body) && has(self.bodyFromConfigMap))",
    "message": "at most one of 'body' or 'bodyFromConfigMap' may be set",
}]))]
pub struct StaticResponse {
    /// Its status code.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 100, max = 599))]
    pub status_code: Option<i32>,
    /// Its body. Default: empty.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32768))]
    pub body: Option<String>,
    /// Where its body comes from instead: a ConfigMap of the same namespace with the label
    /// http.keda.sh/response-body: "true".
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body_from_config_map: Option<ConfigMapKeyRef>,
    /// Its headers. A Content-Type left out is guessed from the ending of the ConfigMap's key.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
}

/// A value of a ConfigMap.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ConfigMapKeyRef {
    /// Name of the ConfigMap.
    #[schemars(length(min = 1))]
    pub name: String,
    /// Key within the ConfigMap. Default: the request's path without its first slash; index.html for the path / alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}
