//! OpenAPI v2 and v3 of the one resource, so that the aggregation layer has something to merge and `kubectl explain
//! externalmetrics` something to show.

use std::sync::LazyLock;

use axum::response::Response;
use http::HeaderMap;
use serde_json::{Value, json};

use super::discovery::{Document, GROUP, VERSION, answer_json};

const LIST: &str = "io.k8s.metrics.pkg.apis.external_metrics.v1beta1.ExternalMetricValueList";
const VALUE: &str = "io.k8s.metrics.pkg.apis.external_metrics.v1beta1.ExternalMetricValue";
const PATH: &str = "/apis/external.metrics.k8s.io/v1beta1/namespaces/{namespace}/{metricName}";
/// `kubectl explain` finds a kind only by a path that ends in the resource's name of the discovery document.
const LISTED_PATH: &str = "/apis/external.metrics.k8s.io/v1beta1/namespaces/{namespace}/externalmetrics";

static V2: LazyLock<Document> = LazyLock::new(|| Document::new("application/json", v2().to_string()));
static V3: LazyLock<Document> = LazyLock::new(|| Document::new("application/json", v3().to_string()));
static V3_INDEX: LazyLock<Document> = LazyLock::new(|| {
    let group_version = format!("apis/{GROUP}/{VERSION}");
    let url = format!("/openapi/v3/{group_version}?hash={}", V3.hash());
    let index = json!({ "paths": { group_version: { "serverRelativeURL": url } } });
    Document::new("application/json", index.to_string())
});

/// `GET /openapi/v2`. Protobuf is refused with 406; the aggregation layer asks for JSON.
pub(crate) async fn version_2(headers: HeaderMap) -> Response {
    answer_json(&V2, &headers)
}

/// `GET /openapi/v3`: which documents there are.
pub(crate) async fn version_3_index(headers: HeaderMap) -> Response {
    answer_json(&V3_INDEX, &headers)
}

/// `GET /openapi/v3/apis/<group>/<version>`. The `hash` in its address serves caches alone and is not looked at.
pub(crate) async fn version_3(headers: HeaderMap) -> Response {
    answer_json(&V3, &headers)
}

fn v2() -> Value {
    let reference = format!("#/definitions/{LIST}");
    json!({
        "swagger": "2.0",
        "info": info(),
        "paths": { PATH: { "get": {
            "description": "Reads the newest value of one external metric.",
            "operationId": "readExternalMetric",
            "produces": ["application/json"],
            "schemes": ["https"],
            "tags": ["externalMetrics_v1beta1"],
            "parameters": [
                path_parameter("namespace", json!({ "type": "string" })),
                path_parameter("metricName", json!({ "type": "string" })),
                { "name": "labelSelector", "in": "query", "type": "string", "uniqueItems": true, "description": SELECTOR },
            ],
            "responses": { "200": { "description": "OK", "schema": { "$ref": reference } } },
        } } },
        "definitions": schemas("#/definitions/"),
    })
}

fn v3() -> Value {
    let reference = format!("#/components/schemas/{LIST}");
    let text = json!({ "schema": { "type": "string" } });
    let ok = json!({
        "description": "OK",
        "content": { "application/json": { "schema": { "$ref": reference } } },
    });
    json!({
        "openapi": "3.0.0",
        "info": info(),
        "paths": { PATH: { "get": {
            "description": "Reads the newest value of one external metric.",
            "operationId": "readExternalMetric",
            "tags": ["externalMetrics_v1beta1"],
            "parameters": [
                path_parameter("namespace", text.clone()),
                path_parameter("metricName", text),
                { "name": "labelSelector", "in": "query", "schema": { "type": "string" }, "description": SELECTOR },
            ],
            "responses": { "200": ok },
        } }, LISTED_PATH: { "get": {
            "description": "Stands for the reads of all metrics, which are not listed one by one.",
            "operationId": "listExternalMetrics",
            "tags": ["externalMetrics_v1beta1"],
            "x-kubernetes-action": "list",
            "x-kubernetes-group-version-kind": { "group": GROUP, "version": VERSION, "kind": "ExternalMetricValueList" },
            "parameters": [path_parameter("namespace", json!({ "schema": { "type": "string" } }))],
            "responses": { "200": ok },
        } } },
        "components": { "schemas": schemas("#/components/schemas/") },
    })
}

const SELECTOR: &str = "Equality requirements joined by commas; scaledobject.keda.sh/name names the ScaledObject and is required.";

fn info() -> Value {
    json!({ "title": "Dormouse external metrics", "version": concat!("v", env!("CARGO_PKG_VERSION")) })
}

fn path_parameter(name: &str, kind: Value) -> Value {
    let mut parameter = json!({ "name": name, "in": "path", "required": true });
    if let (Some(parameter), Value::Object(kind)) = (parameter.as_object_mut(), kind) {
        parameter.extend(kind);
    }
    parameter
}

fn schemas(prefix: &str) -> Value {
    let value = format!("{prefix}{VALUE}");
    json!({
        LIST: {
            "type": "object",
            "description": "The values of one external metric.",
            "required": ["items"],
            "properties": {
                "apiVersion": { "type": "string", "description": "The version of this object's schema." },
                "kind": { "type": "string", "description": "The name of this object's schema." },
                "metadata": { "type": "object", "description": "Always empty." },
                "items": {
                    "type": "array",
                    "description": "One value per metric that matched; here always exactly one.",
                    "items": { "$ref": value },
                },
            },
            "x-kubernetes-group-version-kind": [
                { "group": GROUP, "version": VERSION, "kind": "ExternalMetricValueList" }
            ],
        },
        VALUE: {
            "type": "object",
            "description": "What one metric said last.",
            "required": ["metricName", "metricLabels", "timestamp", "value"],
            "properties": {
                "metricName": { "type": "string", "description": "The metric asked for." },
                "metricLabels": {
                    "type": "object",
                    "additionalProperties": { "type": "string" },
                    "description": "Labels that tell this value from others of the metric; there are none.",
                },
                "timestamp": { "type": "string", "format": "date-time", "description": "When the source was read." },
                "window": {
                    "type": "integer",
                    "format": "int64",
                    "description": "Seconds over which the value was measured; left out for values of one instant.",
                },
                "value": { "type": "string", "description": "The value, a Kubernetes quantity." },
            },
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn references(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(map) => {
                for (key, value) in map {
                    match value.as_str() {
                        Some(text) if key == "$ref" => found.push(text.to_owned()),
                        _ => references(value, found),
                    }
                }
            }
            Value::Array(items) => items.iter().for_each(|item| references(item, found)),
            _ => {}
        }
    }

    #[test]
    fn every_reference_leads_somewhere() {
        for (document, count) in [(v2(), 2), (v3(), 3)] {
            let mut found = Vec::new();
            references(&document, &mut found);
            assert_eq!(found.len(), count);
            for reference in found {
                let pointer = reference.strip_prefix('#').unwrap();
                assert!(document.pointer(pointer).is_some(), "{reference}");
            }
        }
    }
}
