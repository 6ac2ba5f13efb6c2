//! Why a request got no answer from an endpoint, and what its client gets instead: the only place that picks a status.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::header::{CONNECTION, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, Version};

use crate::body::ResponseBody;
use crate::headers::is_grpc;

/// When a client that was turned away should come back: by then a wake is usually over.
const RETRY: HeaderValue = HeaderValue::from_static("1");
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// Why a request got no answer from an endpoint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Failure {
    /// It is not one that can be passed on as exactly one request.
    #[error("bad request: {0}")]
    BadRequest(&'static str),
    /// Its method asks for a tunnel.
    #[error("CONNECT is not served here")]
    Connect,
    /// It belongs to no route.
    #[error("no route for this host and path")]
    NoRoute,
    /// Its route's Service or port is not there.
    #[error("the route's Service or port does not exist")]
    TargetMissing,
    /// The answer that its route has for it is not there.
    #[error("the route's response does not exist")]
    PageMissing,
    /// It must not wake its application, which sleeps.
    #[error("the application sleeps, and this request does not wake it")]
    Asleep,
    /// As many requests wait as may.
    #[error("too many requests wait for this application to start")]
    Overflow,
    /// Its route went while it waited.
    #[error("the route was removed")]
    RouteGone,
    /// The proxy stops.
    #[error("this proxy is stopping")]
    Stopping,
    /// No endpoint was there in time.
    #[error("the application did not start within {0:?}{because}", because = Because(.1))]
    NotReady(Duration, Option<Arc<str>>),
    /// No endpoint took it in time.
    #[error("the application does not take connections: {0}")]
    Unreachable(String),
    /// The endpoint did not answer in time.
    #[error("the application did not answer within {0:?}")]
    NoAnswer(Duration),
    /// It took longer than it may, in all.
    #[error("the request took longer than {0:?}")]
    TooLong(Duration),
    /// Its body did not come.
    #[error("the request's body did not come")]
    NoBody,
    /// The endpoint broke off, or does not speak HTTP.
    #[error("the application broke off the connection: {0}")]
    Broken(String),
    /// Its client left.
    #[error("the client left")]
    ClientGone,
}

/// The reason behind a sentence, where there is one.
struct Because<'f>(&'f Option<Arc<str>>);

impl fmt::Display for Because<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(reason) => write!(f, ": {reason}"),
            None => Ok(()),
        }
    }
}

impl Failure {
    /// The status that stands for it.
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::BadRequest(_) => StatusCode::BAD_REQUEST,
            Self::Connect => StatusCode::METHOD_NOT_ALLOWED,
            Self::NoRoute => StatusCode::NOT_FOUND,
            Self::TargetMissing | Self::PageMissing => StatusCode::INTERNAL_SERVER_ERROR,
            Self::NoBody => StatusCode::REQUEST_TIMEOUT,
            Self::Broken(_) | Self::Unreachable(_) => StatusCode::BAD_GATEWAY,
            Self::Asleep | Self::Overflow | Self::RouteGone | Self::Stopping => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::NotReady(..) | Self::NoAnswer(_) | Self::TooLong(_) => StatusCode::GATEWAY_TIMEOUT,
            // Seen by nobody but metrics; nginx made the number known.
            Self::ClientGone => StatusCode::from_u16(499).unwrap_or(StatusCode::BAD_REQUEST),
        }
    }

    /// The same for a client that speaks gRPC (its own table of HTTP statuses, but for the cases it has better ones for).
    fn grpc_status(&self) -> HeaderValue {
        HeaderValue::from_static(match self.status().as_u16() {
            400 | 500 => "13",
            404 | 405 => "12",
            408 | 504 => "4",
            499 => "1",
            _ => "14",
        })
    }

    fn is_for_later(&self) -> bool {
        self.status() == StatusCode::SERVICE_UNAVAILABLE
    }

    /// Whether what follows on the connection cannot be trusted to be a request.
    fn ends_connection(&self) -> bool {
        matches!(
            self,
            Self::BadRequest(_) | Self::Connect | Self::NoBody | Self::Stopping | Self::ClientGone
        )
    }

    /// What the client gets.
    pub(crate) fn response(&self, client: Speaks) -> Response<ResponseBody> {
        let mut response = match client {
            Speaks::Http(_) => {
                let mut response = Response::new(ResponseBody::full(format!("{self}\n").into()));
                *response.status_mut() = self.status();
                response.headers_mut().insert(
                    CONTENT_TYPE,
                    HeaderValue::from_static("text/plain; charset=utf-8"),
                );
                response
            }
            Speaks::Grpc(_) => {
                let mut response = Response::new(ResponseBody::empty());
                let headers = response.headers_mut();
                headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
                headers.insert(GRPC_STATUS, self.grpc_status());
                // Its text has no character that gRPC would want escaped but in what an operating system says.
                if let Ok(message) = HeaderValue::from_str(&self.to_string()) {
                    headers.insert(GRPC_MESSAGE, message);
                }
                response
            }
        };
        if self.is_for_later() {
            response.headers_mut().insert(RETRY_AFTER, RETRY);
        }
        if self.ends_connection() && client.version() < Version::HTTP_2 {
            response
                .headers_mut()
                .insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

/// What the client of a request can read.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Speaks {
    /// Statuses and text.
    Http(Version),
    /// `grpc-status`.
    Grpc(Version),
}

impl Speaks {
    /// By the head of its request.
    pub(crate) fn of(version: Version, headers: &HeaderMap) -> Self {
        if is_grpc(headers) {
            Self::Grpc(version)
        } else {
            Self::Http(version)
        }
    }

    fn version(self) -> Version {
        match self {
            Self::Http(version) | Self::Grpc(version) => version,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grpc(content_type: &'static str) -> Speaks {
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(content_type))]);
        Speaks::of(Version::HTTP_2, &headers)
    }

    #[test]
    fn http_clients_get_statuses() {
        let soon = Failure::Overflow.response(Speaks::Http(Version::HTTP_11));
        assert_eq!(
            (soon.status().as_u16(), &soon.headers()[RETRY_AFTER]),
            (503, &RETRY)
        );
        assert!(!soon.headers().contains_key(CONNECTION));
        let bad = Failure::BadRequest("why").response(Speaks::Http(Version::HTTP_11));
        assert_eq!(
            (bad.status().as_u16(), &bad.headers()[CONNECTION]),
            (400, &HeaderValue::from_static("close"))
        );
    }

    #[test]
    fn grpc_clients_get_their_status() {
        for (failure, status) in [
            (Failure::Overflow, "14"),
            (Failure::NotReady(Duration::from_secs(1), None), "4"),
            (Failure::NoRoute, "12"),
            (Failure::Broken("x".into()), "14"),
        ] {
            let response = failure.response(grpc("application/grpc+proto"));
            assert_eq!(response.status(), StatusCode::OK);
            assert_eq!(response.headers()[GRPC_STATUS], status, "{failure:?}");
        }
        let web = Failure::Overflow.response(grpc("application/grpc-web"));
        assert_eq!(web.status(), StatusCode::SERVICE_UNAVAILABLE);
    }
}
