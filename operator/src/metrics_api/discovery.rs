//! The documents by which clients find out what is served. All are constant.

use std::sync::LazyLock;

use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use sha2::{Digest, Sha256};

use super::status::Failure;

/// The API group.
pub(crate) const GROUP: &str = "external.metrics.k8s.io";
/// Its only version.
pub(crate) const VERSION: &str = "v1beta1";

const JSON: &str = "application/json";
const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

const GROUP_LIST: &str = r#"{"kind":"APIGroupList","apiVersion":"v1","groups":[{"name":"external.metrics.k8s.io","versions":[{"groupVersion":"external.metrics.k8s.io/v1beta1","version":"v1beta1"}],"preferredVersion":{"groupVersion":"external.metrics.k8s.io/v1beta1","version":"v1beta1"}}]}"#;
const GROUP_INFO: &str = r#"{"kind":"APIGroup","apiVersion":"v1","name":"external.metrics.k8s.io","versions":[{"groupVersion":"external.metrics.k8s.io/v1beta1","version":"v1beta1"}],"preferredVersion":{"groupVersion":"external.metrics.k8s.io/v1beta1","version":"v1beta1"}}"#;
const RESOURCE_LIST: &str = r#"{"kind":"APIResourceList","apiVersion":"v1","groupVersion":"external.metrics.k8s.io/v1beta1","resources":[{"name":"externalmetrics","singularName":"","namespaced":true,"kind":"ExternalMetricValueList","verbs":["get"]}]}"#;
const AGGREGATED_LIST: &str = r#"{"kind":"APIGroupDiscoveryList","apiVersion":"apidiscovery.k8s.io/v2","metadata":{},"items":[{"metadata":{"name":"external.metrics.k8s.io","creationTimestamp":null},"versions":[{"version":"v1beta1","resources":[{"resource":"externalmetrics","responseKind":{"group":"external.metrics.k8s.io","version":"v1beta1","kind":"ExternalMetricValueList"},"scope":"Namespaced","singularResource":"","verbs":["get"]}],"freshness":"Current"}]}]}"#;

static GROUPS: LazyLock<Document> = LazyLock::new(|| Document::new(JSON, GROUP_LIST));
static GROUPS_AGGREGATED: LazyLock<Document> = LazyLock::new(|| Document::new(AGGREGATED, AGGREGATED_LIST));
static ONE_GROUP: LazyLock<Document> = LazyLock::new(|| Document::new(JSON, GROUP_INFO));
static RESOURCES: LazyLock<Document> = LazyLock::new(|| Document::new(JSON, RESOURCE_LIST));
static SERVER_VERSION: LazyLock<Document> = LazyLock::new(|| {
    let version = env!("CARGO_PKG_VERSION");
    let (major, rest) = version.split_once('.').unwrap_or((version, "0"));
    let minor = rest.split('.').next().unwrap_or("0");
    Document::new(
        JSON,
        format!(r#"{{"major":"{major}","minor":"{minor}","gitVersion":"v{version}"}}"#),
    )
});

/// A constant body with its validator.
pub(crate) struct Document {
    content_type: &'static str,
    body: Bytes,
    etag: HeaderValue,
}

impl Document {
    pub(crate) fn new(content_type: &'static str, body: impl Into<String>) -> Self {
        let body = Bytes::from(body.into());
        let etag =
            HeaderValue::try_from(format!("\"{}\"", digest(&body))).expect("hexadecimal digits in quotes");
        Self {
            content_type,
            body,
            etag,
        }
    }

    /// The digest that identifies this body.
    pub(crate) fn hash(&self) -> String {
        digest(&self.body)
    }

    /// The document, or 304 when the client has it.
    pub(crate) fn answer(&self, request: &HeaderMap) -> Response {
        let known = request
            .get_all(header::IF_NONE_MATCH)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .any(|tag| tag.trim().as_bytes() == self.etag.as_bytes());
        let mut response = if known {
            StatusCode::NOT_MODIFIED.into_response()
        } else {
            Response::new(axum::body::Body::from(self.body.clone()))
        };
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(self.content_type));
        headers.insert(header::ETAG, self.etag.clone());
        headers.insert(header::VARY, HeaderValue::from_static("Accept"));
        response
    }
}

/// `GET /apis`: the aggregated form for those who ask for it, else the list of groups.
pub(crate) async fn groups(headers: HeaderMap) -> Response {
    if wants_aggregated(&headers) {
        GROUPS_AGGREGATED.answer(&headers)
    } else {
        answer_json(&GROUPS, &headers)
    }
}

/// `GET /apis/<group>`.
pub(crate) async fn group(headers: HeaderMap) -> Response {
    answer_json(&ONE_GROUP, &headers)
}

/// `GET /apis/<group>/<version>`: one resource stands for all metrics, whose names are not listed.
pub(crate) async fn resources(headers: HeaderMap) -> Response {
    answer_json(&RESOURCES, &headers)
}

/// `GET /version`.
pub(crate) async fn version(headers: HeaderMap) -> Response {
    answer_json(&SERVER_VERSION, &headers)
}

/// `document`, unless the client takes no JSON.
pub(crate) fn answer_json(document: &Document, headers: &HeaderMap) -> Response {
    if accepts_json(headers) {
        document.answer(headers)
    } else {
        Failure::not_acceptable(JSON).into_response()
    }
}

/// Whether the client reads plain JSON. One that says nothing does.
pub(crate) fn accepts_json(headers: &HeaderMap) -> bool {
    let mut ranges = media_ranges(headers).peekable();
    ranges.peek().is_none()
        || ranges.any(|(media, parameters)| {
            matches!(media, "*/*" | "application/*")
                || media == JSON && !parameters.clone().any(|(name, _)| name == "as" || name == "g")
        })
}

fn wants_aggregated(headers: &HeaderMap) -> bool {
    media_ranges(headers).any(|(media, parameters)| {
        let has = |name, value| parameters.clone().any(|parameter| parameter == (name, value));
        media == JSON
            && has("g", "apidiscovery.k8s.io")
            && has("v", "v2")
            && has("as", "APIGroupDiscoveryList")
    })
}

fn media_ranges(
    headers: &HeaderMap,
) -> impl Iterator<Item = (&str, impl Iterator<Item = (&str, &str)> + Clone)> {
    headers
        .get_all(header::ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|range| {
            let mut parts = range.split(';').map(str::trim);
            let media = parts.next().unwrap_or_default();
            (media, parts.filter_map(|part| part.split_once('=')))
        })
        .filter(|(media, _)| !media.is_empty())
}

fn digest(body: &[u8]) -> String {
    use std::fmt::Write;
    Sha256::digest(body)
        .iter()
        .fold(String::with_capacity(64), |mut hex, byte| {
            write!(hex, "{byte:02X}").expect("a String takes any text");
            hex
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accept(value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(header::ACCEPT, HeaderValue::from_static(value))])
    }

    #[test]
    fn json_is_served_to_whoever_takes_it() {
        assert!(accepts_json(&HeaderMap::new()));
        assert!(accepts_json(&accept("application/vnd.kubernetes.protobuf, */*")));
        assert!(accepts_json(&accept(
            "application/vnd.kubernetes.protobuf,application/json"
        )));
        assert!(accepts_json(&accept("application/json;q=0.8")));
        assert!(!accepts_json(&accept(
            "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"
        )));
        assert!(!accepts_json(&accept(
            "application/json;as=Table;v=v1;g=meta.k8s.io"
        )));
    }

    #[tokio::test]
    async fn the_aggregator_gets_aggregated_discovery_and_304_afterwards() {
        let mut headers = accept(
            "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json",
        );
        let first = groups(headers.clone()).await;
        assert_eq!(first.headers()[header::CONTENT_TYPE], AGGREGATED);
        headers.insert(header::IF_NONE_MATCH, first.headers()[header::ETAG].clone());
        assert_eq!(groups(headers).await.status(), StatusCode::NOT_MODIFIED);
        let plain = groups(accept("application/json")).await;
        assert_eq!(plain.headers()[header::CONTENT_TYPE], JSON);
    }

    #[test]
    fn every_document_is_json() {
        for document in [
            &GROUPS,
            &GROUPS_AGGREGATED,
            &ONE_GROUP,
            &RESOURCES,
            &SERVER_VERSION,
        ] {
            serde_json::from_slice::<serde_json::Value>(&document.body).unwrap();
        }
    }
}
