//! What one read did on the wire, told to whoever asked for the read.
//!
//! ```text
//! engine: Traffic::during(read) ──task-local──> scaler ──> sent(request) ──> noted: status, time
//! ```
//!
//! A scaler knows neither the object nor the trigger it reads for, and clients are shared; the task knows both.

use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use reqwest::{Response, StatusCode};
use tokio::time::Instant;

/// Requests noted of one read; a read that makes more is a list of endpoints, whose first ones tell enough.
const MOST: usize = 64;

tokio::task_local! {
    static CURRENT: Traffic;
}

/// One HTTP request of a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HttpExchange {
    /// The answer's status; none where there was no answer.
    pub status: Option<u16>,
    /// From the request to the answer's head, or to its failure.
    pub took: Duration,
}

/// Collects what one read does. Cheap to clone; all clones are the same collection.
#[derive(Clone, Debug, Default)]
pub struct Traffic(Arc<Mutex<Noted>>);

#[derive(Debug, Default)]
struct Noted {
    exchanges: Vec<HttpExchange>,
    under_way: Vec<Instant>,
    empty: Option<bool>,
}

impl Traffic {
    /// Runs a read and notes its requests here.
    pub async fn during<T>(&self, read: impl Future<Output = T>) -> T {
        CURRENT.scope(self.clone(), read).await
    }

    /// The requests of a read that is over, in the order of their ends. Those still under way were given up with it.
    #[must_use]
    pub fn exchanges(&self) -> Vec<HttpExchange> {
        let noted = self.lock();
        let given_up = noted.under_way.iter().map(|started| HttpExchange {
            status: None,
            took: started.elapsed(),
        });
        noted
            .exchanges
            .iter()
            .copied()
            .chain(given_up)
            .take(MOST)
            .collect()
    }

    /// Whether the source answered without any value, and if so, whether the trigger lets that pass as a 0
    /// (`ignoreNullValues`).
    #[must_use]
    pub fn empty_answer(&self) -> Option<bool> {
        self.lock().empty
    }

    fn lock(&self) -> MutexGuard<'_, Noted> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Notes that the source answered without any value; `ignored` says whether the trigger lets that pass
/// (`ignoreNullValues`).
pub(crate) fn empty_answer(ignored: bool) {
    let _ = CURRENT.try_with(|traffic| traffic.lock().empty = Some(ignored));
}

/// Sends a request that belongs to the read under way, and notes how it ended: also where the caller gave up on it.
pub(crate) async fn sent<E>(request: impl Future<Output = Result<Response, E>>) -> Result<Response, E> {
    let mut pending = Pending::start();
    let answer = request.await;
    pending.status = answer.as_ref().ok().map(Response::status);
    answer
}

/// A request under way; dropped with its end, whatever that is.
struct Pending {
    traffic: Option<Traffic>,
    started: Instant,
    status: Option<StatusCode>,
}

impl Pending {
    fn start() -> Self {
        let (traffic, started) = (CURRENT.try_with(Clone::clone).ok(), Instant::now());
        if let Some(traffic) = &traffic {
            traffic.lock().under_way.push(started);
        }
        Self {
            traffic,
            started,
            status: None,
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        let Some(traffic) = &self.traffic else { return };
        let mut noted = traffic.lock();
        if let Some(at) = noted.under_way.iter().position(|at| *at == self.started) {
            noted.under_way.swap_remove(at);
        }
        if noted.exchanges.len() < MOST {
            noted.exchanges.push(HttpExchange {
                status: self.status.map(|status| status.as_u16()),
                took: self.started.elapsed(),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    async fn answers(status: u16) -> Result<Response, Infallible> {
        let answer = http::Response::builder().status(status).body("").unwrap();
        Ok(Response::from(answer))
    }

    #[tokio::test]
    async fn a_read_is_told_of_its_own_requests_and_of_those_it_gave_up() {
        let (traffic, other) = (Traffic::default(), Traffic::default());
        let read = async {
            let _ = sent(answers(200)).await;
            let _ = sent(async { Err::<Response, _>("refused") }).await;
            let never = sent(std::future::pending::<Result<Response, Infallible>>());
            let _ = tokio::time::timeout(Duration::from_millis(20), never).await;
        };
        let (_, other_answer) = tokio::join!(traffic.during(read), other.during(sent(answers(503))));
        assert!(other_answer.is_ok());
        let statuses = |traffic: &Traffic| traffic.exchanges().iter().map(|e| e.status).collect::<Vec<_>>();
        assert_eq!(statuses(&traffic), [Some(200), None, None]);
        assert!(traffic.exchanges()[2].took >= Duration::from_millis(20));
        assert_eq!(statuses(&other), [Some(503)]);
        assert_eq!(traffic.empty_answer(), None);
        // A read that is cut off from outside has given up what it waits for.
        let cut = Traffic::default();
        let hangs = cut.during(sent(std::future::pending::<Result<Response, Infallible>>()));
        let mut hangs = Box::pin(hangs);
        assert!(futures::poll!(&mut hangs).is_pending());
        assert_eq!(statuses(&cut), [None]);
        drop(hangs);
        assert_eq!(statuses(&cut), [None], "told once");
        // Outside of a read there is nobody to tell.
        assert!(sent(answers(200)).await.is_ok());
    }

    #[tokio::test]
    async fn what_is_noted_is_bounded() {
        let traffic = Traffic::default();
        let read = async {
            for _ in 0..1000 {
                let _ = sent(answers(200)).await;
            }
        };
        traffic.during(read).await;
        assert_eq!(traffic.exchanges().len(), MOST);
    }
}
