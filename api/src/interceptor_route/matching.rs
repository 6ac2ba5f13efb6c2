//! Which requests a rule matches.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Matches a request by its host, its path and its headers; what is left out matches every request.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RoutingRule {
    /// Hosts, one of which must be the request's: shop.example.com, *.example.com for all names that end so, or * for all
    /// hosts. Case, port and a trailing dot do not matter. The most specific host of all routes wins.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "set"))]
    pub hosts: Vec<String>,
    /// Paths, with one of which the request's must begin. The longest path of all routes of a host wins.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub paths: Vec<PathMatch>,
    /// Headers, all of which the request must have. Of routes with the same host and path, the one with more headers wins.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub headers: Vec<HeaderMatch>,
}

/// The beginning of a path.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PathMatch {
    /// The path in whole segments, without escapes: /api matches /api and /api/orders, and not /apis.
    #[schemars(length(min = 1))]
    pub value: String,
}

/// A header that the request must have.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HeaderMatch {
    /// Name of the header; its case does not matter.
    #[schemars(length(min = 1))]
    pub name: String,
    /// The value, exactly. Left out, any value will do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
}
