//! A request in the form in which endpoints get it, for as long as it may have to be sent again.

use http::header::{HOST, TRANSFER_ENCODING};
use http::uri::{Authority, Scheme};
use http::{HeaderMap, HeaderValue, Method, Request, Uri, Version, request};
use http_body::Body;
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;

use crate::body::{Replay, RequestBody};
use crate::client::Client;
use crate::expect::Expectation;
use crate::route::Route;
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

/// What is left of a request that was handed to a connection.
#[derive(Debug)]
pub(crate) struct Sent {
    /// The head, if the request can be sent a second time.
    spare: Option<request::Parts>,
    pub(crate) replay: Replay,
    upgrade: Option<(HeaderValue, OnUpgrade)>,
}

impl Outbound {
    /// Makes of a normalised request what is passed on.
    pub(crate) fn new(client: &Client, route: &Route, mut head: request::Parts, body: Incoming) -> Self {
        let on_upgrade = head.extensions.remove::<OnUpgrade>();
        let protocol = headers::strip_request(&mut head.headers);
        let host = head.headers.get(HOST).cloned();
        forwarded::add(&mut head.headers, client, host.as_ref());
        // HTTP/1.0 has none, and goes on as a version that must have one.
        if host.is_none()
            && let Ok(host) = HeaderValue::try_from(route.target_name())
        {
            head.headers.insert(HOST, host);
        }
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

    /// What of its headers depends on the endpoint may be set here.
    pub(crate) fn headers_mut(&mut self) -> &mut HeaderMap {
        &mut self.head.headers
    }

    /// Whether a connection that was used before has failed it.
    pub(crate) fn needs_new(&self) -> bool {
        self.needs_new
    }

    /// Whether to be sent twice is the same as once (RFC 9110 §9.2.2).
    pub(crate) fn is_idempotent(&self) -> bool {
        let methods = [
            Method::GET,
            Method::HEAD,
            Method::PUT,
            Method::DELETE,
            Method::OPTIONS,
            Method::TRACE,
        ];
        methods.contains(&self.head.method)
    }

    /// Whether it is a call of gRPC: one over HTTP/2 that says so.
    pub(crate) fn is_grpc(&self) -> bool {
        self.head.version == Version::HTTP_2 && headers::is_grpc(&self.head.headers)
    }

    /// Whether nothing of its body was taken.
    pub(crate) fn is_whole(&self) -> bool {
        self.replay.is_whole()
    }

    /// The request for HTTP/1.1, and what is needed to send it again; with `spare`, also once it was sent.
    pub(crate) fn into_http1(self, spare: bool) -> (Sent, Request<RequestBody>) {
        let (sent, mut request) = self.split(spare);
        if let Some((protocol, _)) = &sent.upgrade {
            headers::set_upgrade(request.headers_mut(), protocol.clone());
        }
        // Of some methods hyper would otherwise drop a body of unknown length.
        if !request.body().is_end_stream() && request.body().size_hint().exact().is_none() {
            request
                .headers_mut()
                .insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
        if let Some(expectation) = sent.replay.expectation() {
            expectation.listen(&mut request);
        }
        (sent, request)
    }

    /// The request for HTTP/2, and what is needed to send it again.
    pub(crate) fn into_http2(mut self) -> (Sent, Request<RequestBody>) {
        self.upgrade = None;
        let whole = self.is_whole();
        let (sent, mut request) = self.split(whole);
        *request.version_mut() = Version::HTTP_2;
        if let Some(target) = absolute(&request) {
            *request.uri_mut() = target;
            request.headers_mut().remove(HOST);
        }
        if let Some(expectation) = sent.replay.expectation() {
            // The 100 of an HTTP/2 endpoint does not get here.
            expectation.waive();
        }
        (sent, request)
    }

    fn split(self, spare: bool) -> (Sent, Request<RequestBody>) {
        let Self {
            mut head,
            replay,
            upgrade,
            ..
        } = self;
        let spare = spare.then(|| head.clone());
        head.version = Version::HTTP_11;
        let request = Request::from_parts(head, replay.body());
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

impl Sent {
    /// The request again, from what a connection gave back of it unsent.
    pub(crate) fn take_back(mut self, unsent: Request<RequestBody>) -> Outbound {
        let head = self.spare.take().unwrap_or_else(|| {
            let (mut head, _) = unsent.into_parts();
            // What is for one connection is added anew.
            headers::strip_request(&mut head.headers);
            head
        });
        self.again(head)
    }

    /// The request again although it was sent, if it was kept for that and its body is still to be had.
    pub(crate) fn repeat(mut self) -> Option<Outbound> {
        let head = self.spare.take()?;
        self.replay.is_whole().then(|| self.again(head))
    }

    /// The client's side of the change of protocol that it asked for.
    pub(crate) fn into_upgrade(self) -> Option<OnUpgrade> {
        self.upgrade.map(|(_, on_upgrade)| on_upgrade)
    }

    fn again(self, head: request::Parts) -> Outbound {
        Outbound {
            head,
            replay: self.replay,
            upgrade: self.upgrade,
            needs_new: true,
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
