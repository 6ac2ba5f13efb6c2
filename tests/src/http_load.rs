//! Requests without end, by clients that do what good clients do: they keep their connections, and open another one when the
//! server closed theirs. What must not be sent twice gets a connection of its own, which cannot be closed at that moment.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use bytes::Bytes;
use http::header::{CONNECTION, HOST};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::client_pod::{ClientPod, Errand, Outcome, Task};
use crate::visitor::{Http1, Visitor};

/// An answer must be there by then.
const DEADLINE: Duration = Duration::from_secs(60);
/// Failures that are told.
const TOLD: usize = 10;

/// What came of the requests.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Tally {
    /// Those that were answered as they should.
    pub done: u64,
    /// Those that were not.
    pub failed: u64,
    /// What went wrong with the first of them.
    pub failures: Vec<String>,
    /// Requests that were repeated because a used connection was closed before any of the answer: the server may have
    /// closed it before it saw them.
    pub repeated: u64,
    /// Connections that were opened.
    pub connections: u64,
    /// The longest that one took.
    pub slowest: Duration,
}

impl Tally {
    fn add(&mut self, other: Self) {
        self.done += other.done;
        self.failed += other.failed;
        self.failures.extend(other.failures);
        self.failures.truncate(TOLD);
        self.repeated += other.repeated;
        self.connections += other.connections;
        self.slowest = self.slowest.max(other.slowest);
    }

    fn fail(&mut self, error: &anyhow::Error) {
        self.failed += 1;
        if self.failures.len() < TOLD {
            self.failures.push(format!("{error:#}"));
        }
    }

    /// Fails unless all were answered, and at least `least` of them.
    ///
    /// # Errors
    /// When some were not; with the first of them.
    pub fn is_whole(&self, least: u64) -> Result<()> {
        ensure!(
            self.failed == 0,
            "{} of {} requests failed: {:?}",
            self.failed,
            self.failed + self.done,
            self.failures
        );
        ensure!(self.done >= least, "only {} requests were made", self.done);
        Ok(())
    }
}

/// Clients at work, until they are stopped.
pub struct Load {
    workers: JoinSet<Result<Tally>>,
    stop: CancellationToken,
    done: Arc<AtomicU64>,
}

impl Load {
    /// So many clients, each with one request at a time, and so long a pause between two.
    #[must_use]
    pub fn start(visitor: &Visitor, clients: usize, method: &Method, path: &str, pause: Duration) -> Self {
        let stop = CancellationToken::new();
        let done = Arc::new(AtomicU64::new(0));
        let mut workers = JoinSet::new();
        if let Some(pod) = visitor.pod() {
            let errand = visitor.errand(Task::Load {
                clients,
                method: method.to_string(),
                path: path.to_owned(),
                pause,
            });
            workers.spawn(elsewhere(pod.clone(), errand, stop.clone()));
            return Self { workers, stop, done };
        }
        for _ in 0..clients {
            let client = Client {
                visitor: visitor.clone(),
                method: method.clone(),
                path: path.to_owned(),
                connection: None,
                tally: Tally::default(),
                done: done.clone(),
            };
            workers.spawn(client.work(stop.clone(), pause));
        }
        Self { workers, stop, done }
    }

    /// Requests that were answered so far; of those in a pod nothing is known before they are stopped.
    #[must_use]
    pub fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// Lets each client finish its request, and tells what came of all.
    ///
    /// # Errors
    /// When a client did not come to its end.
    pub async fn stop(mut self) -> Result<Tally> {
        self.stop.cancel();
        let mut sum = Tally::default();
        while let Some(tally) = self.workers.join_next().await {
            sum.add(tally.context("a client panicked")??);
        }
        Ok(sum)
    }
}

/// A load in a pod, until it is stopped.
async fn elsewhere(pod: ClientPod, errand: Errand, stop: CancellationToken) -> Result<Tally> {
    let mut load = std::pin::pin!(pod.run(&errand));
    let outcome = tokio::select! {
        outcome = &mut load => outcome?,
        () = stop.cancelled() => loop {
            // The first word may overtake the order.
            pod.stop().await?;
            if let Ok(outcome) = timeout(Duration::from_secs(1), &mut load).await {
                break outcome?;
            }
        },
    };
    match outcome {
        Outcome::Load(tally) => Ok(tally),
        other => bail!("{other:?} of a load"),
    }
}

struct Client {
    visitor: Visitor,
    method: Method,
    path: String,
    /// And whether it was used before.
    connection: Option<(Http1, bool)>,
    tally: Tally,
    done: Arc<AtomicU64>,
}

impl Client {
    async fn work(mut self, stop: CancellationToken, pause: Duration) -> Result<Tally> {
        while !stop.is_cancelled() {
            let began = Instant::now();
            let ended = timeout(DEADLINE, self.request()).await;
            match ended.unwrap_or_else(|_elapsed| Err(anyhow!("no answer within {DEADLINE:?}"))) {
                Ok(()) => {
                    self.tally.done += 1;
                    self.done.fetch_add(1, Ordering::Relaxed);
                }
                Err(error) => {
                    self.connection = None;
                    self.tally
                        .fail(&error.context(format!("after {:?}", began.elapsed())));
                }
            }
            self.tally.slowest = self.tally.slowest.max(began.elapsed());
            tokio::time::sleep(pause).await;
        }
        Ok(self.tally)
    }

    async fn request(&mut self) -> Result<()> {
        loop {
            let mut kept = self.connection.take();
            if let Some((connection, _)) = &mut kept
                && connection.0.ready().await.is_err()
            {
                kept = None;
            }
            let (mut connection, used) = match kept {
                Some(kept) => kept,
                None => {
                    self.tally.connections += 1;
                    (self.visitor.http1().await?, false)
                }
            };
            let request = Request::builder()
                .method(&self.method)
                .uri(&self.path)
                .header(HOST, self.visitor.host())
                .body(Full::new(Bytes::from_static(b"")))?;
            let answer = match connection.0.send_request(request).await {
                Ok(answer) => answer,
                // It was never sent; or RFC 9110 §9.2.2 lets it be sent again.
                Err(error)
                    if used && (error.is_canceled() || error.is_closed() || self.method.is_idempotent()) =>
                {
                    self.tally.repeated += 1;
                    continue;
                }
                Err(error) => return Err(error).context("no answer"),
            };
            let (parts, body) = answer.into_parts();
            let body = body.collect().await.context("the body broke off")?.to_bytes();
            ensure!(
                parts.status == StatusCode::OK,
                "{}: {:?}",
                parts.status,
                String::from_utf8_lossy(&body)
            );
            if self.method.is_idempotent()
                && parts.headers.get(CONNECTION).is_none_or(|value| value != "close")
            {
                self.connection = Some((connection, true));
            }
            return Ok(());
        }
    }
}
