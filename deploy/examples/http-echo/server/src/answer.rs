//! What is answered, by what is asked.
//!
//! | request | answer |
//! |---|---|
//! | `GET /readyz` | 200 once it is time, 503 before |
//! | `Upgrade: websocket` | each message back |
//! | `Content-Type: application/grpc` | the messages back, `grpc-status: 0` in the trailers |
//! | `GET /events?count=3&interval=100` | so many server-sent events, so many milliseconds apart |
//! | `POST /echo` | the body back, as it comes |
//! | any other, with `?delay=100` | after so many milliseconds, who answers and what was asked, as JSON |

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::stream;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, UPGRADE};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use serde_json::json;
use tokio::time::sleep;

use crate::websocket;

/// A response's body.
pub(crate) type Body = UnsyncBoxBody<Bytes, Box<dyn Error + Send + Sync>>;

/// What answers need to know.
pub(crate) struct App {
    /// The name of this pod.
    pub(crate) pod: String,
    /// When it begins to be ready.
    pub(crate) ready_from: Instant,
    /// How long an answer takes unless the request says.
    pub(crate) work: Duration,
}

impl App {
    /// Answers one request.
    pub(crate) async fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
    ) -> Result<Response<Body>, Infallible> {
        let kind = request
            .headers()
            .get(CONTENT_TYPE)
            .map_or(&b""[..], HeaderValue::as_bytes);
        Ok(match request.uri().path() {
            "/readyz" => self.readiness(),
            _ if request.headers().contains_key(UPGRADE) => websocket::accept(request),
            _ if kind.starts_with(b"application/grpc") => grpc(request),
            "/events" => events(&request),
            "/echo" => echo(request),
            _ => self.describe(request).await,
        })
    }

    fn readiness(&self) -> Response<Body> {
        if Instant::now() >= self.ready_from {
            text(StatusCode::OK, "ready\n")
        } else {
            text(StatusCode::SERVICE_UNAVAILABLE, "not yet\n")
        }
    }

    /// Who answers, and what was asked, once the whole body has come.
    async fn describe(&self, request: Request<Incoming>) -> Response<Body> {
        let work = parameter(&request, "delay").map_or(self.work, Duration::from_millis);
        let (parts, mut body) = request.into_parts();
        let mut bytes = 0;
        while let Some(frame) = body.frame().await {
            match frame {
                Ok(frame) => bytes += frame.data_ref().map_or(0, Bytes::len),
                Err(error) => {
                    return text(StatusCode::BAD_REQUEST, &format!("the body broke off: {error}\n"));
                }
            }
        }
        sleep(work).await;
        let headers: BTreeMap<_, _> = parts
            .headers
            .iter()
            .map(|(name, value)| (name.as_str(), String::from_utf8_lossy(value.as_bytes())))
            .collect();
        let said = json!({
            "pod": self.pod,
            "method": parts.method.as_str(),
            "path": parts.uri.path(),
            "version": format!("{:?}", parts.version),
            "bytes": bytes,
            "headers": headers,
        });
        let body = Full::new(Bytes::from(format!("{said}\n")));
        response(StatusCode::OK, "application/json", boxed(body))
    }
}

/// The messages back as they come, and that all is well.
fn grpc(request: Request<Incoming>) -> Response<Body> {
    let trailers = HeaderMap::from_iter([(
        http::HeaderName::from_static("grpc-status"),
        HeaderValue::from_static("0"),
    )]);
    let body = request.into_body().map_err(Into::into);
    let body = body.with_trailers(async { Some(Ok(trailers)) });
    response(StatusCode::OK, "application/grpc", body.boxed_unsync())
}

fn echo(request: Request<Incoming>) -> Response<Body> {
    if request.method() != Method::POST {
        let mut refusal = text(StatusCode::METHOD_NOT_ALLOWED, "POST something\n");
        refusal
            .headers_mut()
            .insert(ALLOW, HeaderValue::from_static("POST"));
        return refusal;
    }
    let body = request.into_body().map_err(Into::into).boxed_unsync();
    response(StatusCode::OK, "application/octet-stream", body)
}

fn events(request: &Request<Incoming>) -> Response<Body> {
    let count = parameter(request, "count").unwrap_or(3);
    let interval = Duration::from_millis(parameter(request, "interval").unwrap_or(100));
    let events = stream::unfold(0, move |number| async move {
        if number >= count {
            return None;
        }
        if number > 0 {
            sleep(interval).await;
        }
        let event = Bytes::from(format!("id: {number}\ndata: event {number}\n\n"));
        Some((Ok(Frame::data(event)), number + 1))
    });
    let mut answer = response(
        StatusCode::OK,
        "text/event-stream",
        StreamBody::new(events).boxed_unsync(),
    );
    answer
        .headers_mut()
        .insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

/// A number of the query.
fn parameter<B>(request: &Request<B>, name: &str) -> Option<u64> {
    let pairs = request.uri().query()?.split('&');
    pairs
        .filter_map(|pair| pair.split_once('='))
        .find(|(key, _)| *key == name)?
        .1
        .parse()
        .ok()
}

/// A short text.
pub(crate) fn text(status: StatusCode, text: &str) -> Response<Body> {
    let body = Full::new(Bytes::copy_from_slice(text.as_bytes()));
    response(status, "text/plain; charset=utf-8", boxed(body))
}

fn response(status: StatusCode, kind: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

fn boxed(body: Full<Bytes>) -> Body {
    body.map_err(|never| match never {}).boxed_unsync()
}
