//! One attempt to have an endpoint answer a request.

use std::error::Error;
use std::future::pending;
use std::pin::pin;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::upgrade::OnUpgrade;
use tokio::time::{Instant, sleep, sleep_until};

use crate::admit::Passage;
use crate::body::{Replay, RequestBody};
use crate::client::Client;
use crate::connect::ConnectError;
use crate::expect::Refusal;
use crate::failure::Failure;
use crate::outbound::{Outbound, Sent};
use crate::peer::Peer;
use crate::pool::{Age, Carrier};
use crate::route::Route;
use crate::upstream::Protocol;

/// How often it is looked whether the request of a client that left has been passed on.
const PASSING_ON: Duration = Duration::from_secs(1);

/// How long an attempt may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// From the end of the request to the head of the response.
    response_header: Option<Duration>,
    /// When the request has to be done.
    deadline: Option<Instant>,
    /// How long it may take in all, as the failure says it.
    request: Duration,
    /// Requests that an endpoint copes with at once.
    target: u32,
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
    /// That it came instead of a 100, until it has ended.
    pub(crate) refusal: Option<Refusal>,
    pub(crate) carrier: Carrier,
    /// The client's side of the change of protocol that it asked for.
    pub(crate) upgrade: Option<OnUpgrade>,
}

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum Unanswered {
    /// The request can be sent again, to this endpoint or another.
    Again(Again),
    /// It cannot.
    Failed(Failure),
}

/// A request that can be sent again.
#[derive(Debug)]
pub(crate) struct Again {
    pub(crate) outbound: Box<Outbound>,
    /// What happened to it.
    pub(crate) how: String,
    /// Whether the endpoint should be left alone until a probe finds it serving.
    pub(crate) blame: bool,
    /// Whether the endpoint may have seen it, or something of a connection for it: it gets few such tries.
    pub(crate) seen: bool,
    /// Whether the next try should wait a little.
    pub(crate) pause: bool,
}

/// Sends a request to the endpoint of its passage, and waits for the head of the answer.
///
/// # Errors
/// There is none: see [`Unanswered`].
pub(crate) async fn forward(
    client: &Client,
    passage: &Passage,
    outbound: Outbound,
    limits: &Limits,
) -> Result<Answer, Unanswered> {
    match passage.protocol {
        // Nobody serves gRPC over HTTP/1.1, whatever the Service's port says or leaves out.
        Protocol::Http1 if outbound.is_grpc() => forward_http2(client, passage, outbound, limits).await,
        Protocol::Http1 | Protocol::Https => forward_http1(client, passage, outbound, limits).await,
        Protocol::H2c => forward_http2(client, passage, outbound, limits).await,
    }
}

async fn forward_http1(
    client: &Client,
    passage: &Passage,
    outbound: Outbound,
    limits: &Limits,
) -> Result<Answer, Unanswered> {
    let peer = passage.load.peer();
    // What may be sent twice may go on a connection that is about to be closed.
    let repeatable = outbound.is_idempotent() && outbound.is_whole();
    let age = match (outbound.needs_new(), repeatable) {
        (true, _) => Age::New,
        (false, true) => Age::Any,
        (false, false) => Age::Fresh,
    };
    let mut lease = match client
        .worker
        .pool
        .http1(peer, passage.tls.as_deref(), limits.target, age)
        .await
    {
        Ok(lease) => lease,
        Err(error) => return Err(not_connected(outbound, &error)),
    };
    let unproved = !peer.has_answered();
    let (sent, request) = outbound.into_http1(repeatable);
    lease.connection.expect_response();
    let sending = lease.connection.sender.try_send_request(request);
    match head(sending, &sent.replay, limits, client)
        .await
        .map_err(Unanswered::Failed)?
    {
        Ok(response) => {
            let expectation = sent.replay.expectation();
            Ok(Answer {
                refusal: expectation.and_then(|expectation| expectation.answered(response.status())),
                response,
                carrier: Carrier::Lease(lease),
                upgrade: sent.into_upgrade(),
            })
        }
        Err(error) => {
            let may_repeat =
                !lease.connection.has_received() && (lease.is_used || unproved || peer.is_retired());
            Err(unanswered(error, sent, may_repeat, !lease.is_used, peer))
        }
    }
}

async fn forward_http2(
    client: &Client,
    passage: &Passage,
    outbound: Outbound,
    limits: &Limits,
) -> Result<Answer, Unanswered> {
    let peer = passage.load.peer();
    let mut stream = match client.worker.pool.http2(peer).await {
        Ok(stream) => stream,
        Err(error) => return Err(not_connected(outbound, &error)),
    };
    // As over HTTP/1.1: once, if the connection may have been about to end, or where nothing had answered yet.
    let is_idempotent = outbound.is_idempotent();
    let may_have_ended = (stream.is_used && !outbound.needs_new()) || !peer.has_answered();
    let (sent, request) = outbound.into_http2();
    let sending = stream.sender.try_send_request(request);
    match head(sending, &sent.replay, limits, client)
        .await
        .map_err(Unanswered::Failed)?
    {
        Ok(response) => Ok(Answer {
            response,
            refusal: None,
            carrier: Carrier::Stream(stream),
            upgrade: None,
        }),
        Err(error) => {
            // What the endpoint says that it did not touch may be sent again whatever it is; what it gave up on is answered.
            let reset = reset_reason(error.error());
            let may_repeat = match reset {
                Some(reason) => reason == h2::Reason::REFUSED_STREAM,
                None => is_idempotent && (may_have_ended || peer.is_retired()),
            };
            Err(unanswered(
                error,
                sent,
                may_repeat,
                !stream.is_used && reset.is_none(),
                peer,
            ))
        }
    }
}

fn not_connected(outbound: Outbound, error: &ConnectError) -> Unanswered {
    let how = error.to_string();
    // One that takes connections and then does not speak as this route wants it gets as many tries as one that breaks off.
    // It may serve another Service well, and our probes would find nothing wrong with it.
    let blame = matches!(error, ConnectError::Refused(_) | ConnectError::Silent(_));
    let seen = !blame && !matches!(error, ConnectError::Suspect);
    Unanswered::Again(Again {
        outbound: Box::new(outbound),
        how,
        blame,
        seen,
        pause: seen,
    })
}

/// Whether a request that got no answer can be sent again: if nothing of it was sent, or if it `may_repeat` and was kept
/// for that. `new` is whether the connection was made for it, so that the endpoint is at fault, unless it is on its way out.
fn unanswered(
    mut error: TrySendError<Request<RequestBody>>,
    sent: Sent,
    may_repeat: bool,
    new: bool,
    peer: &Peer,
) -> Unanswered {
    let how = describe(error.error());
    let again = |outbound, seen| Again {
        outbound: Box::new(outbound),
        how: how.clone(),
        blame: new && !peer.is_retired(),
        seen,
        pause: new,
    };
    if let Some(unsent) = error.take_message() {
        return Unanswered::Again(again(sent.take_back(unsent), false));
    }
    if error.error().is_user() {
        return Unanswered::Failed(Failure::BadRequest("its body broke off"));
    }
    let repeated = if may_repeat { sent.repeat() } else { None };
    match repeated {
        Some(outbound) => Unanswered::Again(again(outbound, true)),
        None => Unanswered::Failed(Failure::Broken(how)),
    }
}

/// Waits for the head of a response, for as long as the client does. Its time counts from the end of the request, or from the
/// last that came of it.
async fn head<F: Future>(
    response: F,
    replay: &Replay,
    limits: &Limits,
    client: &Client,
) -> Result<F::Output, Failure> {
    let mut response = pin!(response);
    let mut left = pin!(left(client, replay));
    let began = Instant::now();
    loop {
        let since = replay.progress().unwrap_or(began);
        let header = limits.response_header.map(|allowed| since + allowed);
        let until = header.into_iter().chain(limits.deadline).min();
        tokio::select! {
            biased;
            response = response.as_mut() => return Ok(response),
            () = left.as_mut() => return Err(Failure::ClientGone),
            () = sleep_until(until.unwrap_or(began)), if until.is_some() => {}
        }
        if limits.deadline.is_some() && limits.deadline == until {
            return Err(Failure::TooLong(limits.request));
        }
        if replay.progress().unwrap_or(began) == since {
            return Err(match limits.response_header {
                Some(allowed) if replay.is_sent() => Failure::NoAnswer(allowed),
                _ => Failure::NoBody,
            });
        }
    }
}

/// Resolves when the client left and nothing of its request is on its way any more: who says all and goes has said it. Over
/// HTTP/2 a client that leaves ends its streams.
async fn left(client: &Client, replay: &Replay) {
    if client.activity.is_multiplexed() {
        return pending().await;
    }
    client.gone().await;
    while !replay.is_sent() {
        sleep(PASSING_ON).await;
    }
}

/// What an error comes from, without the layers in between.
fn describe(error: &hyper::Error) -> String {
    let mut innermost: &dyn Error = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

/// Why the endpoint ended this one request, if it is no failure of the whole connection.
fn reset_reason(error: &hyper::Error) -> Option<h2::Reason> {
    let error = error.source()?.downcast_ref::<h2::Error>()?;
    error.is_reset().then(|| error.reason())?
}
