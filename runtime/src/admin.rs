//! The admin server: health, metrics and the log level, on ports of their own.
//!
//! A router is put together from the parts wanted on one listener, and [`serve`] runs it. The server is for the kubelet, a
//! scraper and an operator's hands, so its bounds are small: [`MAX_CONNECTIONS`] connections, a deadline on each request
//! and on each head, and 16 KiB of head.

use std::{
    convert::Infallible,
    future::Future,
    pin::pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    extract::{DefaultBodyLimit, Request, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, put},
};
use hyper::body::Incoming;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Notify,
    task::{AbortHandle, JoinSet},
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use crate::{
    metrics::{Format, Metrics},
    telemetry::{LogLevel, Telemetry},
};

/// Connections served at once. One more takes the place of the oldest that has no request; where all have one, it waits.
pub const MAX_CONNECTIONS: usize = 64;
/// The time a whole request may take.
const REQUEST_DEADLINE: Duration = Duration::from_secs(10);
/// The time a head may take to arrive, and with it how long an idle connection is kept.
const HEAD_DEADLINE: Duration = Duration::from_secs(30);
/// How long open requests are waited for at shutdown.
const DRAIN: Duration = Duration::from_secs(2);

/// The named conditions under which the process counts as ready.
#[derive(Debug, Clone, Default)]
pub struct Readiness {
    checks: Arc<Mutex<Vec<Check>>>,
}

#[derive(Debug)]
struct Check {
    name: &'static str,
    met: Arc<AtomicBool>,
}

impl Readiness {
    /// A registry without checks, which is ready.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a check that is not met until [`Ready::set`] says so.
    #[must_use = "a dropped check is never met"]
    pub fn check(&self, name: &'static str) -> Ready {
        let met = Arc::new(AtomicBool::new(false));
        self.checks
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(Check {
                name,
                met: met.clone(),
            });
        Ready { met }
    }

    /// The names of the checks that are not met, in the order they were added.
    #[must_use]
    pub fn missing(&self) -> Vec<&'static str> {
        let checks = self.checks.lock().unwrap_or_else(PoisonError::into_inner);
        checks
            .iter()
            .filter(|check| !check.met.load(Ordering::Acquire))
            .map(|check| check.name)
            .collect()
    }
}

/// One readiness check. It counts as not met once it is dropped, so that a dead owner is never taken for a ready one.
#[derive(Debug)]
pub struct Ready {
    met: Arc<AtomicBool>,
}

impl Ready {
    /// Says whether the check is met now.
    pub fn set(&self, met: bool) {
        self.met.store(met, Ordering::Release);
    }
}

impl Drop for Ready {
    fn drop(&mut self) {
        self.set(false);
    }
}

/// `/healthz` and `/livez`, which answer while the process serves at all, and `/readyz`, which answers 503 and the names of
/// what is missing until every check is met.
pub fn health(readiness: Readiness) -> Router {
    let ready = |State(readiness): State<Readiness>| async move {
        let missing = readiness.missing();
        if missing.is_empty() {
            return (StatusCode::OK, "ok\n".to_owned());
        }
        (
            StatusCode::SERVICE_UNAVAILABLE,
            format!("not ready: {}\n", missing.join(", ")),
        )
    };
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .with_state(readiness)
}

/// `/metrics`, in the format the `Accept` header asks for.
pub fn metrics(metrics: Metrics) -> Router {
    let page = |State(metrics): State<Metrics>, headers: HeaderMap| async move {
        let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
        let format = Format::accepted(accept);
        (
            [(header::CONTENT_TYPE, format.content_type())],
            metrics.encode(format),
        )
    };
    Router::new().route("/metrics", get(page)).with_state(metrics)
}

/// `PUT /log-level`, whose body is a level as `--zap-log-level` takes it.
pub fn log_level(telemetry: Telemetry) -> Router {
    let change = |State(telemetry): State<Telemetry>, body: String| async move {
        let changed = body
            .trim()
            .parse::<LogLevel>()
            .and_then(|level| telemetry.set_level(level).map(|()| level));
        match changed {
            Ok(level) => {
                tracing::info!(%level, "log level changed");
                (StatusCode::OK, format!("{level}\n"))
            }
            Err(error) => (StatusCode::BAD_REQUEST, format!("{error}\n")),
        }
    };
    Router::new()
        .route("/log-level", put(change))
        .layer(DefaultBodyLimit::max(64))
        .with_state(telemetry)
}

/// One connection.
struct Open {
    task: AbortHandle,
    /// Has it end once it has said what it was saying.
    part: CancellationToken,
    /// Requests that are being answered.
    busy: Arc<AtomicU32>,
}

/// Serves `router` on `listener` over HTTP/1.1 until `shutdown` resolves, then gives open requests two seconds.
pub async fn serve(listener: TcpListener, router: Router, shutdown: impl Future<Output = ()>) {
    let idled = Arc::new(Notify::new());
    let stopping = CancellationToken::new();
    let mut connections = JoinSet::new();
    // The oldest first.
    let mut open: Vec<Open> = Vec::with_capacity(MAX_CONNECTIONS);
    let mut next: Option<TcpStream> = None;
    let mut shutdown = pin!(shutdown);
    loop {
        open.retain(|connection| !connection.task.is_finished());
        if let Some(stream) = next.take() {
            if has_room(&mut open) {
                let (busy, part) = (Arc::default(), stopping.child_token());
                let work = Work {
                    busy: Arc::clone(&busy),
                    idled: idled.clone(),
                };
                let serving = serve_connection(stream, router.clone(), work, part.clone().cancelled_owned());
                let task = connections.spawn(serving);
                open.push(Open { task, part, busy });
            } else {
                next = Some(stream);
            }
        }
        tokio::select! {
            () = &mut shutdown => break,
            accepted = accept(&listener), if next.is_none() => next = accepted,
            () = idled.notified(), if next.is_some() => {}
            Some(_) = connections.join_next() => {}
        }
    }
    drop((listener, next));
    stopping.cancel();
    let drained = timeout(DRAIN, async { while connections.join_next().await.is_some() {} }).await;
    if drained.is_err() {
        tracing::warn!(
            open = connections.len(),
            "admin requests did not end in time, dropping them"
        );
    }
}

/// Whether one more connection may be served; where that needs it, the oldest without a request goes. Whoever opens connections
/// and says nothing must not keep a probe of the kubelet waiting.
fn has_room(open: &mut Vec<Open>) -> bool {
    if open.len() < MAX_CONNECTIONS {
        return true;
    }
    let is_idle = |connection: &Open| connection.busy.load(Ordering::Relaxed) == 0;
    let Some(oldest) = open.iter().position(is_idle) else {
        return false;
    };
    open.remove(oldest).part.cancel();
    true
}

async fn accept(listener: &TcpListener) -> Option<TcpStream> {
    match listener.accept().await {
        Ok((stream, _)) => Some(stream),
        Err(error) => {
            tracing::warn!(%error, "unable to accept an admin connection");
            tokio::time::sleep(Duration::from_millis(100)).await;
            None
        }
    }
}

/// Counts the requests of a connection.
#[derive(Clone)]
struct Work {
    busy: Arc<AtomicU32>,
    idled: Arc<Notify>,
}

impl Work {
    fn begin(&self) -> Working {
        self.busy.fetch_add(1, Ordering::Relaxed);
        Working(self.clone())
    }
}

/// A request that is being answered, until this is dropped.
struct Working(Work);

impl Drop for Working {
    fn drop(&mut self) {
        self.0.busy.fetch_sub(1, Ordering::Relaxed);
        self.0.idled.notify_one();
    }
}

async fn serve_connection(stream: TcpStream, router: Router, work: Work, stop: impl Future<Output = ()>) {
    let service = hyper::service::service_fn(move |request: hyper::Request<Incoming>| {
        let (router, working) = (router.clone(), work.begin());
        async move {
            let _working = working;
            Ok::<_, Infallible>(answer(router, request.map(Body::new)).await)
        }
    });
    let mut server = auto::Builder::new(TokioExecutor::new()).http1_only();
    server
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_DEADLINE)
        .max_buf_size(16 * 1024);
    let mut connection = pin!(server.serve_connection(TokioIo::new(stream), service));
    // How a scraper's connection ends is the scraper's business.
    tokio::select! {
        _ = connection.as_mut() => {}
        () = stop => {
            connection.as_mut().graceful_shutdown();
            // Half a head may have come, of a request that nobody knows yet.
            let _ = timeout(DRAIN, connection).await;
        }
    }
}

async fn answer(router: Router, request: Request) -> Response {
    match timeout(REQUEST_DEADLINE, router.oneshot(request)).await {
        Ok(Ok(response)) => response,
        Err(_) => (StatusCode::SERVICE_UNAVAILABLE, "the request took too long\n").into_response(),
    }
}

#[cfg(test)]
mod tests;
