//! One attempt to have an endpoint answer a request.

use std::error::Error;
use std::pin::pin;
use std::time::Duration;

use http::header::HOST;
use http::uri::{Authority, Scheme};
use http::{HeaderValue, Method, Request, Response, Uri, Version, request};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::upgrade::OnUpgrade;
use tokio::time::{Instant, timeout_at};

use crate::admit::Passage;
use crate::body::{Replay, RequestBody};
use crate::client::Client;
use crate::expect::Expectation;
use crate::failure::Failure;
use crate::pool::{Age, Lease};
use crate::route::Route;
use crate::upstream::Protocol;
use crate::worker::Worker;
use crate::{forwarded, headers};

/// A request in the form in which endpoints get it.
#[derive(Debug)]
pub(crate) struct Outbound {
    head: request::Parts,
    replay: Replay,
    /// What it asks to change to, and the client's side of that.
    upgrade: Option<(HeaderValue, OnUpgrade)>,
    /// Whether a connection that was used before has failed it.
    needs_new: bool,
}

/// How long an attempt may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// From the end of the request to the head of the response.
    pub(crate) response_header: Option<Duration>,
    /// When the request has to be done.
    pub(crate) deadline: Option<Instant>,
    /// How long it may take in all, as the failure says it.
    pub(crate) request: Duration,
    /// Requests that an endpoint copes with at once.
    pub(crate) target: u32,
}

impl Limits {
    /// Those of a request that has to be done at `deadline`.
    pub(crate) fn of(route: &Route, deadline: Option<Instant>) -> Self {
        let waits = route.waits();
        Self {
            response_header: waits.response_header,
            deadline,
            request: waits.request.unwrap_or_default(),
            target: route.pace(),
        }
    }
}

/// An endpoint's answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) response: Response<Incoming>,
    /// The connection, if it carries one request at a time.
    pub(crate) lease: Option<Lease>,
    /// The client's side of the change of protocol that it asked for.
    pub(crate) upgrade: Option<OnUpgrade>,
}

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum Unanswered {
    /// The request can be sent again, to this endpoint or another.
    Again {
        /// The request.
        outbound: Box<Outbound>,
        /// What happened.
        how: String,
        /// Whether the endpoint should be left alone until a probe finds it serving.
        blame: bool,
    },
    /// It cannot.
    Failed(Failure),
}

impl Outbound {
    /// Makes of a normalised request what is passed on.
    pub(crate) fn new(client: &Client, mut head: request::Parts, body: Incoming) -> Self {
        let on_upgrade = head.extensions.remove::<OnUpgrade>();
        let protocol = headers::strip_request(&mut head.headers);
        let host = head.headers.get(HOST).cloned();
        forwarded::add(&mut head.headers, client, host.as_ref());
        let expectation = Expectation::of(&head.headers);
        Self {
            head,
            replay: Replay::new(body, expectation),
            upgrade: protocol.zip(on_upgrade),
            needs_new: false,
        }
    }

    /// Its head.
    pub(crate) fn head(&self) -> &request::Parts {
        &self.head
    }

    fn is_idempotent(&self) -> bool {
        [
            Method::GET,
            Method::HEAD,
            Method::PUT,
            Method::DELETE,
            Method::OPTIONS,
            Method::TRACE,
        ]
        .contains(&self.head.method)
    }

    /// What is needed to send it again, and the request to send.
    fn split(self, spare: bool) -> (Sent, Request<RequestBody>) {
        let Self {
            mut head,
            replay,
            upgrade,
            ..
        } = self;
        let spare = spare.then(|| head.clone());
        // `clone` keeps the extensions, of which none are left that matter.
        head.version = Version::HTTP_11;
        if let Some((protocol, _)) = &upgrade {
            headers::set_upgrade(&mut head.headers, protocol.clone());
        }
        let mut request = Request::from_parts(head, replay.body());
        if let Some(expectation) = replay.expectation() {
            expectation.listen(&mut request);
        }
        (
            Sent {
                spare,
                replay,
                upgrade,
            },
            request,
        )
    }
}

/// What is left of a request that was handed to a connection.
#[derive(Debug)]
struct Sent {
    spare: Option<request::Parts>,
    replay: Replay,
    upgrade: Option<(HeaderValue, OnUpgrade)>,
}

impl Sent {
    /// The request, with the head that was not sent or a copy of the one that was.
    fn again(self, head: request::Parts, how: String, blame: bool) -> Unanswered {
        let Self { replay, upgrade, .. } = self;
        Unanswered::Again {
            outbound: Box::new(Outbound {
                head,
                replay,
                upgrade,
                needs_new: true,
            }),
            how,
            blame,
        }
    }
}

/// Sends a request to the endpoint of its passage, and waits for the head of the answer.
///
/// # Errors
/// There is none: see [`Unanswered`].
pub(crate) async fn forward(
    worker: &Worker,
    passage: &Passage,
    outbound: Outbound,
    limits: &Limits,
) -> Result<Answer, Unanswered> {
    match passage.protocol {
        Protocol::Http1 => forward_http1(worker, passage, outbound, limits).await,
        Protocol::H2c => forward_http2(worker, passage, outbound, limits).await,
    }
}

async fn forward_http1(
    worker: &Worker,
    passage: &Passage,
    outbound: Outbound,
    limits: &Limits,
) -> Result<Answer, Unanswered> {
    let peer = passage.load.peer();
    // What may be sent twice may go on a connection that is about to be closed.
    let replayable = outbound.is_idempotent() && outbound.replay.is_whole();
    let age = match (outbound.needs_new, replayable) {
        (true, _) => Age::New,
        (false, true) => Age::Any,
        (false, false) => Age::Fresh,
    };
    let mut lease = match worker.pool.http1(peer, limits.target, age).await {
        Ok(lease) => lease,
        Err(error) => {
            return Err(Unanswered::Again {
                outbound: Box::new(outbound),
                how: error.to_string(),
                blame: true,
            });
        }
    };
    // An endpoint that has never answered is not known to serve at all.
    let (sent, request) = outbound.split(replayable && (lease.is_used || !peer.has_answered()));
    lease.connection.expect_response();
    let sending = lease.connection.sender.try_send_request(request);
    let error = match head(sending, &sent.replay, limits)
        .await
        .map_err(Unanswered::Failed)?
    {
        Ok(response) => {
            if let Some(expectation) = sent.replay.expectation() {
                expectation.answered();
            }
            let upgrade = sent.upgrade.map(|(_, on_upgrade)| on_upgrade);
            return Ok(Answer {
                response,
                lease: Some(lease),
                upgrade,
            });
        }
        Err(error) => error,
    };
    let silent = !lease.connection.has_received();
    Err(unanswered(error, sent, silent, !lease.is_used))
}

async fn forward_http2(
    worker: &Worker,
    passage: &Passage,
    outbound: Outbound,
    limits: &Limits,
) -> Result<Answer, Unanswered> {
    let mut sender = match worker.pool.http2(passage.load.peer()).await {
        Ok(sender) => sender,
        Err(error) => {
            return Err(Unanswered::Again {
                outbound: Box::new(outbound),
                how: error.to_string(),
                blame: true,
            });
        }
    };
    let idempotent = outbound.is_idempotent();
    let whole = outbound.replay.is_whole();
    let (sent, mut request) = Outbound {
        upgrade: None,
        ..outbound
    }
    .split(whole);
    *request.version_mut() = Version::HTTP_2;
    if let Some(uri) = absolute(&request) {
        *request.uri_mut() = uri;
        request.headers_mut().remove(HOST);
    }
    let sending = sender.try_send_request(request);
    let error = match head(sending, &sent.replay, limits)
        .await
        .map_err(Unanswered::Failed)?
    {
        Ok(response) => {
            return Ok(Answer {
                response,
                lease: None,
                upgrade: None,
            });
        }
        Err(error) => error,
    };
    // What the endpoint says that it did not touch may be sent again whatever it is.
    let untouched = reset_reason(error.error()) == Some(h2::Reason::REFUSED_STREAM);
    Err(unanswered(error, sent, untouched || idempotent, false))
}

/// Whether a request that got no answer can be sent again: if nothing of it was sent, or if it `may_repeat` and was kept
/// for that. `new` is whether the connection was made for it, so that the endpoint is at fault.
fn unanswered(
    mut error: TrySendError<Request<RequestBody>>,
    mut sent: Sent,
    may_repeat: bool,
    new: bool,
) -> Unanswered {
    let how = describe(error.error());
    let spare = sent.spare.take();
    if let Some(request) = error.take_message() {
        let head = spare.unwrap_or_else(|| {
            let (mut head, _) = request.into_parts();
            // What asks for another protocol is added anew.
            headers::strip_request(&mut head.headers);
            head
        });
        return sent.again(head, how, new);
    }
    if error.error().is_user() {
        return Unanswered::Failed(Failure::BadRequest("its body broke off"));
    }
    match spare {
        Some(head) if may_repeat && sent.replay.is_whole() => sent.again(head, how, new),
        _ => Unanswered::Failed(Failure::Broken(how)),
    }
}

/// Waits for the head of a response. Its time counts from the end of the request, or from the last that came of it.
async fn head<F: Future>(response: F, replay: &Replay, limits: &Limits) -> Result<F::Output, Failure> {
    let mut response = pin!(response);
    let began = Instant::now();
    loop {
        let since = replay.progress().map_or(began, |progress| progress.max(began));
        let header = limits.response_header.map(|allowed| since + allowed);
        let Some(until) = header.into_iter().chain(limits.deadline).min() else {
            return Ok(response.await);
        };
        if let Ok(response) = timeout_at(until, response.as_mut()).await {
            return Ok(response);
        }
        if limits.deadline.is_some_and(|deadline| deadline <= until) {
            return Err(Failure::TooLong(limits.request));
        }
        let waited_since = replay.progress().map_or(began, |progress| progress.max(began));
        if waited_since == since {
            return Err(match limits.response_header {
                Some(allowed) if replay.is_sent() => Failure::NoAnswer(allowed),
                _ => Failure::NoBody,
            });
        }
    }
}

/// The target with the host, as HTTP/2 has it.
fn absolute(request: &Request<RequestBody>) -> Option<Uri> {
    let authority = Authority::try_from(request.headers().get(HOST)?.as_bytes()).ok()?;
    let mut parts = request.uri().clone().into_parts();
    parts.scheme = Some(Scheme::HTTP);
    parts.authority = Some(authority);
    Uri::from_parts(parts).ok()
}

/// What an error comes from, without the layers in between.
fn describe(error: &hyper::Error) -> String {
    let mut innermost: &dyn Error = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

fn reset_reason(error: &hyper::Error) -> Option<h2::Reason> {
    error.source()?.downcast_ref::<h2::Error>()?.reason()
}
