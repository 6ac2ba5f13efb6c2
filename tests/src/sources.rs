//! Many metric sources behind one HTTP server, each with a mood of its own and a memory of what it said when.
//!
//! What a source answered is the truth that replicas are held against: an operator can know no more than it was told.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Result;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use futures::stream;

use crate::served::Served;

/// What a source does when it is asked.
#[derive(Clone, Debug, PartialEq)]
pub enum Mood {
    /// `{"value": NUMBER}`.
    Value(f64),
    /// The same, held back.
    Slow(f64, Duration),
    /// 200 with this body.
    Says(String),
    /// This status, with a body that must not show up anywhere.
    Status(u16, String),
    /// 429 with `Retry-After`.
    Throttles(Duration),
    /// Takes the request and never answers.
    Hangs,
    /// 200 and the first half of an answer, then silence.
    Stalls,
    /// 200 and a body without an end, as fast as it is read.
    Floods,
}

impl Mood {
    /// The number it gives to whoever waits long enough, if it gives one.
    #[must_use]
    pub fn number(&self) -> Option<f64> {
        match self {
            Self::Value(number) | Self::Slow(number, _) => Some(*number),
            _ => None,
        }
    }
}

/// One request and what became of it.
#[derive(Clone, Debug)]
pub struct Asked {
    /// When it came.
    pub at: Instant,
    /// The `Authorization` header.
    pub authorization: Option<String>,
    /// The number it was answered with; `None` for everything else.
    pub said: Option<f64>,
    /// The status it was answered with; 0 for none.
    pub status: u16,
}

#[derive(Debug)]
struct Source {
    mood: Mood,
    /// The only values of `Authorization` that are let in; empty for no check.
    accepts: Vec<String>,
    asked: VecDeque<Asked>,
    total: usize,
}

impl Default for Source {
    fn default() -> Self {
        Self {
            mood: Mood::Value(0.0),
            accepts: Vec::new(),
            asked: VecDeque::new(),
            total: 0,
        }
    }
}

/// A running server; it ends with this value.
pub struct Sources {
    shared: Served,
    own: BTreeMap<String, Served>,
    book: Book,
}

/// One address at which the server is found.
async fn door(book: &Book) -> Result<Served> {
    Served::start(Router::new().fallback(respond).with_state(book.clone())).await
}

// Held for a look or an entry only, never over an await.
type Book = Arc<Mutex<BTreeMap<String, Source>>>;

const KEPT: usize = 2_000;

impl Sources {
    /// Starts a server on the node's address. A source exists as soon as it is named, and says 0.
    ///
    /// # Errors
    /// When the address cannot be bound, as outside the cluster's network.
    pub async fn start() -> Result<Self> {
        let book = Book::default();
        Ok(Self {
            shared: door(&book).await?,
            own: BTreeMap::new(),
            book,
        })
    }

    /// Gives each of these sources an address of its own: to whoever asks, they are different servers, and what one of
    /// them wants (as to be left alone) says nothing about the others.
    ///
    /// # Errors
    /// When an address cannot be bound.
    pub async fn apart(mut self, sources: &[String]) -> Result<Self> {
        for source in sources {
            self.own.insert(source.clone(), door(&self.book).await?);
        }
        Ok(self)
    }

    /// The URL of a source.
    #[must_use]
    pub fn url(&self, source: &str) -> String {
        let door = self.own.get(source).unwrap_or(&self.shared);
        format!("http://{}/{source}", door.address())
    }

    /// From now on the source is in this mood.
    pub fn is(&self, source: &str, mood: Mood) {
        lock(&self.book).entry(source.to_owned()).or_default().mood = mood;
    }

    /// From now on only these `Authorization` headers are let in; others get 401.
    pub fn accepts(&self, source: &str, authorizations: Vec<String>) {
        lock(&self.book).entry(source.to_owned()).or_default().accepts = authorizations;
    }

    /// The latest requests to a source, oldest first; at most 2,000.
    #[must_use]
    pub fn asked(&self, source: &str) -> Vec<Asked> {
        lock(&self.book)
            .get(source)
            .map(|source| source.asked.iter().cloned().collect())
            .unwrap_or_default()
    }

    /// How often a source was ever asked.
    #[must_use]
    pub fn count(&self, source: &str) -> usize {
        lock(&self.book).get(source).map_or(0, |source| source.total)
    }

    /// When a source was first asked after `since`.
    #[must_use]
    pub fn first_since(&self, source: &str, since: Instant) -> Option<Instant> {
        lock(&self.book)
            .get(source)?
            .asked
            .iter()
            .map(|asked| asked.at)
            .find(|at| *at > since)
    }

    /// When a source last said a number that is `wanted`.
    #[must_use]
    pub fn last_said(&self, source: &str, wanted: impl Fn(f64) -> bool) -> Option<Instant> {
        lock(&self.book)
            .get(source)?
            .asked
            .iter()
            .rev()
            .find(|asked| asked.said.is_some_and(&wanted))
            .map(|asked| asked.at)
    }
}

async fn respond(State(book): State<Book>, request: Request) -> Response {
    let name = request.uri().path().trim_start_matches('/').to_owned();
    let header = request.headers().get(AUTHORIZATION);
    let authorization = header.and_then(|value| value.to_str().ok()).map(str::to_owned);
    let at = Instant::now();
    let (mood, is_refused) = {
        let mut book = lock(&book);
        let source = book.entry(name.clone()).or_default();
        let known = authorization
            .as_ref()
            .is_some_and(|own| source.accepts.contains(own));
        let is_refused = !source.accepts.is_empty() && !known;
        (source.mood.clone(), is_refused)
    };
    let note = |said, status| {
        let mut book = lock(&book);
        let source = book.entry(name.clone()).or_default();
        source.total += 1;
        if source.asked.len() == KEPT {
            source.asked.pop_front();
        }
        source.asked.push_back(Asked {
            at,
            authorization: authorization.clone(),
            said,
            status,
        });
    };
    if is_refused {
        note(None, 401);
        return answer(401, Body::from("who are you"));
    }
    match mood {
        Mood::Value(number) => {
            note(Some(number), 200);
            answer(200, Body::from(format!("{{\"value\":{number}}}")))
        }
        Mood::Slow(number, delay) => {
            tokio::time::sleep(delay).await;
            note(Some(number), 200);
            answer(200, Body::from(format!("{{\"value\":{number}}}")))
        }
        Mood::Says(body) => {
            note(None, 200);
            answer(200, Body::from(body))
        }
        Mood::Status(status, body) => {
            note(None, status);
            answer(status, Body::from(body))
        }
        Mood::Throttles(wait) => {
            note(None, 429);
            let mut response = answer(429, Body::from("slow down"));
            let seconds = HeaderValue::from(wait.as_secs());
            response.headers_mut().insert(RETRY_AFTER, seconds);
            response
        }
        Mood::Hangs => {
            note(None, 0);
            std::future::pending().await
        }
        Mood::Stalls => {
            note(None, 200);
            let half = stream::iter([Ok::<_, std::io::Error>(Bytes::from_static(b"{\"value\":"))]);
            answer(
                200,
                Body::from_stream(futures::StreamExt::chain(half, stream::pending())),
            )
        }
        Mood::Floods => {
            note(None, 200);
            let block = Bytes::from(vec![b'['; 16 << 10]);
            answer(
                200,
                Body::from_stream(stream::repeat_with(move || {
                    Ok::<_, std::io::Error>(block.clone())
                })),
            )
        }
    }
}

fn answer(status: u16, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response
}

fn lock(book: &Book) -> MutexGuard<'_, BTreeMap<String, Source>> {
    book.lock().unwrap_or_else(PoisonError::into_inner)
}
