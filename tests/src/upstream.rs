//! An HTTP server that answers what it is told to, for triggers that read over HTTP.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Result;
use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;

use crate::served::Served;

/// What the next requests are answered with.
#[derive(Clone, Debug)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Body, whatever the request was.
    pub body: String,
    /// How long each answer is held back.
    pub delay: Duration,
}

impl Answer {
    /// `{"value": NUMBER}`, at once.
    #[must_use]
    pub fn value(number: f64) -> Self {
        Self {
            status: 200,
            body: format!("{{\"value\":{number}}}"),
            delay: Duration::ZERO,
        }
    }

    /// An error status with a body that must not show up anywhere.
    #[must_use]
    pub fn status(status: u16, body: impl Into<String>) -> Self {
        Self {
            status,
            body: body.into(),
            delay: Duration::ZERO,
        }
    }

    /// A body that is no metric.
    #[must_use]
    pub fn garbage() -> Self {
        Self {
            status: 200,
            body: "<html>}{".to_owned(),
            delay: Duration::ZERO,
        }
    }

    /// The same answer, held back.
    #[must_use]
    pub fn after(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }
}

/// A request that was received.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Path and query.
    pub target: String,
    /// Headers.
    pub headers: HeaderMap,
    /// When it came.
    pub at: Instant,
}

/// A running server; it ends with this value.
pub struct Upstream {
    server: Served,
    script: Arc<Script>,
}

struct Script {
    // Held for a copy only, never over an await.
    answer: Mutex<Answer>,
    seen: Mutex<Vec<Seen>>,
}

const SEEN_KEPT: usize = 10_000;

impl Upstream {
    /// Starts a server on the node's address and a port of its own.
    ///
    /// # Errors
    /// When the address cannot be bound, as outside the cluster's network.
    pub async fn start(answer: Answer) -> Result<Self> {
        let script = Arc::new(Script {
            answer: Mutex::new(answer),
            seen: Mutex::default(),
        });
        let router = Router::new().fallback(respond).with_state(script.clone());
        Ok(Self {
            server: Served::start(router).await?,
            script,
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// The URL of `path`, such as `/metric`.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address())
    }

    /// From now on, requests get this.
    pub fn answer(&self, answer: Answer) {
        *self.script.answer.lock().unwrap_or_else(PoisonError::into_inner) = answer;
    }

    /// The requests received so far, at most 10,000.
    #[must_use]
    pub fn seen(&self) -> Vec<Seen> {
        self.script
            .seen
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

async fn respond(State(script): State<Arc<Script>>, request: Request) -> Response {
    {
        let mut seen = script.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.len() < SEEN_KEPT {
            let target = request
                .uri()
                .path_and_query()
                .map(ToString::to_string)
                .unwrap_or_default();
            seen.push(Seen {
                target,
                headers: request.headers().clone(),
                at: Instant::now(),
            });
        }
    }
    let answer = script
        .answer
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .clone();
    tokio::time::sleep(answer.delay).await;
    let mut response = Response::new(Body::from(answer.body));
    *response.status_mut() = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response
}
