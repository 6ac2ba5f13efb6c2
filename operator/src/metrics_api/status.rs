//! Failures as the clients of the Kubernetes API read them: a `Status` object under the matching HTTP code.

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;

use super::source::MetricReadError;

/// An answer other than a success.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    code: StatusCode,
    /// One of the API's reasons. KEDA's plain errors have none, and neither have ours of that kind.
    reason: Option<&'static str>,
    message: String,
}

#[derive(Serialize)]
struct Status<'a> {
    kind: &'static str,
    #[serde(rename = "apiVersion")]
    api_version: &'static str,
    metadata: Empty,
    status: &'static str,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    code: u16,
}

#[derive(Serialize)]
struct Empty {}

impl Failure {
    /// An error of the metric itself: 500 without a reason, which is how KEDA's arrive.
    pub(crate) fn plain(message: impl Into<String>) -> Self {
        Self {
            code: StatusCode::INTERNAL_SERVER_ERROR,
            reason: None,
            message: message.into(),
        }
    }

    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::with(StatusCode::BAD_REQUEST, "BadRequest", message)
    }

    pub(crate) fn unauthorized() -> Self {
        Self::with(StatusCode::UNAUTHORIZED, "Unauthorized", "Unauthorized")
    }

    pub(crate) fn forbidden(message: impl Into<String>) -> Self {
        Self::with(StatusCode::FORBIDDEN, "Forbidden", message)
    }

    pub(crate) fn not_found() -> Self {
        Self::with(
            StatusCode::NOT_FOUND,
            "NotFound",
            "the server could not find the requested resource",
        )
    }

    pub(crate) fn method_not_allowed() -> Self {
        Self::with(
            StatusCode::METHOD_NOT_ALLOWED,
            "MethodNotAllowed",
            "the server does not allow this method on the requested resource: only GET is accepted",
        )
    }

    pub(crate) fn not_acceptable(accepted: &str) -> Self {
        Self::with(
            StatusCode::NOT_ACCEPTABLE,
            "NotAcceptable",
            format!("only the following media types are served: {accepted}"),
        )
    }

    pub(crate) fn unavailable(message: impl Into<String>) -> Self {
        Self::with(StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable", message)
    }

    pub(crate) fn timeout() -> Self {
        Self::with(
            StatusCode::GATEWAY_TIMEOUT,
            "Timeout",
            "the request was not answered in time",
        )
    }

    fn with(code: StatusCode, reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            reason: Some(reason),
            message: message.into(),
        }
    }
}

impl From<MetricReadError> for Failure {
    fn from(error: MetricReadError) -> Self {
        match error {
            MetricReadError::NotLeader { .. } => Self::unavailable(error.to_string()),
            _ => Self::plain(error.to_string()),
        }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let status = Status {
            kind: "Status",
            api_version: "v1",
            metadata: Empty {},
            status: "Failure",
            message: &self.message,
            reason: self.reason,
            code: self.code.as_u16(),
        };
        (self.code, json(&status)).into_response()
    }
}

/// `value` as an `application/json` body.
pub(crate) fn json(value: &impl Serialize) -> Response {
    let body = serde_json::to_vec(value).expect("structs of strings and numbers always serialise");
    let mut response = Response::new(axum::body::Body::from(body));
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
