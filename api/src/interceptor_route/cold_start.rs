//! What happens to requests while there is no ready pod.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::response::StaticResponse;

/// What happens to requests while the Service has no ready pod.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "has(self.fallback) || has(self.placeholder) || has(self.maxPendingRequests)",
        "message": "at least one of 'fallback', 'placeholder' or 'maxPendingRequests' must be set",
    },
    {
        "rule": "self.overflow != 'Placeholder' || has(self.placeholder)",
        "message": "'placeholder' must be set when 'overflow' is 'Placeholder'",
    },
]))]
pub struct ColdStart {
    /// Who answers the requests that have waited for timeouts.readiness in vain. Left out, they fail with 504.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fallback: Option<FallbackTarget>,
    /// The answer that requests get at once instead of waiting; with maxPendingRequests and overflow Placeholder, only
    /// those that there is no room for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub placeholder: Option<Placeholder>,
    /// How many requests of this route wait at once in each interceptor. Default: the interceptor's own bound.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub max_pending_requests: Option<i32>,
    /// What a request gets that there is no room for: Reject (503, the default) or Placeholder.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["Reject", "Placeholder"], "default" = "Reject"))]
    pub overflow: Option<String>,
}

/// Who answers requests that have waited in vain.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FallbackTarget {
    /// A Service of the same namespace.
    pub service: ServiceRef,
}

/// A port of a Service.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "has(self.port) != has(self.portName)",
    "message": "exactly one of 'port' or 'portName' must be set",
}]))]
pub struct ServiceRef {
    /// Name of the Service.
    #[schemars(length(min = 1))]
    pub name: String,
    /// Port of the Service by its number.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<i32>,
    /// Port of the Service by its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1))]
    pub port_name: Option<String>,
}

/// The answer to requests that are not held.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Placeholder {
    /// The answer; its statusCode is 503 by default.
    pub response: StaticResponse,
}
