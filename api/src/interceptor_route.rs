//! [`InterceptorRoute`]: which HTTP requests wait for which Service, and how its demand is counted.

mod cold_start;
mod matching;
mod response;
mod status;

use kube_derive::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use cold_start::{ColdStart, FallbackTarget, Placeholder, ServiceRef};
pub use matching::{HeaderMatch, PathMatch, RoutingRule};
pub use response::{ConfigMapKeyRef, StaticResponse, StaticRoute};
pub use status::{InterceptorRouteStatus, RouteCondition};

/// What a field left out means.
pub mod route_defaults {
    use std::time::Duration;

    /// `scalingMetric.requestRate.window`.
    pub const RATE_WINDOW: Duration = Duration::from_secs(60);
    /// `scalingMetric.requestRate.granularity`.
    pub const RATE_GRANULARITY: Duration = Duration::from_secs(1);
    /// `coldStart.overflow`.
    pub const OVERFLOW: &str = "Reject";
    /// `coldStart.placeholder.response.statusCode`.
    pub const PLACEHOLDER_STATUS: u16 = 503;
    /// `staticRoutes[].response.statusCode`.
    pub const STATIC_ROUTE_STATUS: u16 = 200;
    /// `staticRoutes[].responseMode`.
    pub const RESPONSE_MODE: &str = "WhenUnavailable";
}

/// Which requests go to which Service, and what happens to them while it has no pod.
#[derive(Clone, CustomResource, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[kube(
    group = "http.keda.sh",
    version = "v1beta1",
    kind = "InterceptorRoute",
    plural = "interceptorroutes",
    namespaced,
    status = "InterceptorRouteStatus",
    derive = "PartialEq",
    derive = "Default",
    crates(kube_core = "::kube_core"),
    doc = "Sends HTTP requests to a Service that may be asleep: they are held until it has a pod, and counted as the demand \
           that a ScaledObject of the same namespace scales it on."
)]
#[serde(rename_all = "camelCase")]
pub struct InterceptorRouteSpec {
    /// The Service that answers the requests, in the same namespace.
    pub target: TargetRef,
    /// Which requests this route takes: those that match at least one of the rules. Without rules it takes none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub rules: Vec<RoutingRule>,
    /// What demand is measured in, and how much of it one replica copes with.
    pub scaling_metric: ScalingMetric,
    /// What happens to requests while the Service has no ready pod. Left out, they wait for one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cold_start: Option<ColdStart>,
    /// How long each part of a request may take. What is left out follows the interceptor's own settings.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeouts: Option<Timeouts>,
    /// Requests of this route that the interceptor answers itself and that wake nothing, such as health checks. The first
    /// entry that matches holds.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub static_routes: Vec<StaticRoute>,
}

/// The Service that answers the requests.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "has(self.port) != has(self.portName)",
    "message": "exactly one of 'port' or 'portName' must be set",
}]))]
pub struct TargetRef {
    /// Name of the Service.
    #[schemars(length(min = 1))]
    pub service: String,
    /// Port of the Service by its number.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<i32>,
    /// Port of the Service by its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub port_name: Option<String>,
}

/// What demand is measured in. With both, the one that asks for more replicas counts.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "has(self.concurrency) || has(self.requestRate)",
    "message": "at least one of 'concurrency' or 'requestRate' must be set",
}]))]
pub struct ScalingMetric {
    /// Requests that wait or are being answered at the same time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<Concurrency>,
    /// Requests that arrive per second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_rate: Option<RequestRate>,
}

/// Demand in requests at the same time.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Concurrency {
    /// Requests at the same time that one replica copes with.
    #[schemars(range(min = 1))]
    pub target_value: i32,
}

/// Demand in requests per second.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RequestRate {
    /// Requests per second that one replica copes with.
    #[schemars(range(min = 1))]
    pub target_value: i32,
    /// The time that the rate is averaged over, as in 1m30s. Default: 1m.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = "1m"))]
    pub window: Option<String>,
    /// The steps in which the window moves, as in 500ms; no longer than the window. Default: 1s.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("default" = "1s"))]
    pub granularity: Option<String>,
}

/// How long each part of a request may take, as in 1m30s.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Timeouts {
    /// How long a request waits for a ready pod. 0s: as long as the rest of the request may take, but 30s where a fallback
    /// is configured. Default: the interceptor's KEDA_HTTP_READINESS_TIMEOUT.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub readiness: Option<String>,
    /// How long a request may take in all. 0s: no limit. Default: the interceptor's KEDA_HTTP_REQUEST_TIMEOUT.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
    /// How long the pod may take from the request's end to the head of its response. 0s: no limit. Default: the
    /// interceptor's KEDA_HTTP_RESPONSE_HEADER_TIMEOUT.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_header: Option<String>,
}
