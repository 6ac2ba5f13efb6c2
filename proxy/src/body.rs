//! Bodies on their way through: streamed both ways, never gathered, with the guards that last as long as they do.

use std::cell::{Cell, RefCell};
use std::error::Error;
use std::fmt;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::exchange::Exchange;
use crate::expect::{Expectation, Refusal};
use crate::load::InFlight;
use crate::peer::PeerLoad;
use crate::pool::Carrier;
use crate::request::ClientLeft;

/// Any error of a body.
pub(crate) type BodyError = Box<dyn Error + Send + Sync>;

/// It took longer than it may, in all.
#[derive(Debug, thiserror::Error)]
#[error("the request took longer than it may")]
struct TooLong;

/// A request's body as it is sent to an endpoint. What it came from is shared with [`Replay`], which can send it again if
/// nothing of it was taken.
#[derive(Debug)]
pub(crate) struct RequestBody {
    source: Option<Rc<Source>>,
}

/// The client's body, for as long as the request may have to be sent again.
#[derive(Debug)]
pub(crate) struct Replay {
    source: Option<Rc<Source>>,
}

#[derive(Debug)]
struct Source {
    incoming: RefCell<Incoming>,
    /// When the client last sent something of it.
    progress: Cell<Option<Instant>>,
    ended: Cell<bool>,
    expectation: Option<Expectation>,
}

impl Replay {
    pub(crate) fn new(incoming: Incoming, expectation: Option<Expectation>) -> Self {
        let source = (!incoming.is_end_stream()).then(|| {
            Rc::new(Source {
                incoming: RefCell::new(incoming),
                progress: Cell::new(None),
                ended: Cell::new(false),
                expectation,
            })
        });
        Self { source }
    }

    /// The body to send.
    pub(crate) fn body(&self) -> RequestBody {
        RequestBody {
            source: self.source.clone(),
        }
    }

    /// Whether all of it is still to be had.
    pub(crate) fn is_whole(&self) -> bool {
        self.source
            .as_ref()
            .is_none_or(|source| source.progress.get().is_none() && !source.ended.get())
    }

    /// Whether all of it was passed on.
    pub(crate) fn is_sent(&self) -> bool {
        self.source.as_ref().is_none_or(|source| source.ended.get())
    }

    /// When the client last sent something of it.
    pub(crate) fn progress(&self) -> Option<Instant> {
        self.source.as_ref()?.progress.get()
    }

    /// What the client expects before it sends.
    pub(crate) fn expectation(&self) -> Option<&Expectation> {
        self.source.as_ref()?.expectation.as_ref()
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Some(source) = &self.source else {
            return Poll::Ready(None);
        };
        if let Some(expectation) = &source.expectation {
            // The first poll of the client's body is what makes its server send 100.
            ready!(expectation.poll_met(cx))?;
        }
        let mut incoming = source.incoming.borrow_mut();
        let frame = ready!(Pin::new(&mut *incoming).poll_frame(cx));
        source.progress.set(Some(Instant::now()));
        source.ended.set(frame.is_none() || incoming.is_end_stream());
        Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.source
            .as_ref()
            .is_none_or(|source| source.incoming.borrow().is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Some(source) => source.incoming.borrow().size_hint(),
            None => SizeHint::with_exact(0),
        }
    }
}

/// A response's body as the client gets it.
#[derive(Debug)]
pub(crate) struct ResponseBody {
    content: Content,
    /// Tells the client's connection when it is done with the request.
    exchange: Option<Exchange>,
    /// Made when there is first something to wait for.
    left: Option<Left>,
    /// Whether nobody has asked for more since the client's connection got it, or a part of it.
    waits_for_room: bool,
}

/// Resolves when the client leaves.
struct Left(Pin<Box<dyn Future<Output = ()>>>);

impl fmt::Debug for Left {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Left")
    }
}

#[derive(Debug)]
enum Content {
    Ours(Option<Bytes>),
    Endpoint(Box<FromEndpoint>),
}

#[derive(Debug)]
struct FromEndpoint {
    incoming: Incoming,
    ended: bool,
    flight: Flight,
}

/// What lasts until a response's body has ended.
#[derive(Debug)]
pub(crate) struct Flight {
    /// Counts the request at its route, if it is counted, and at its endpoint.
    _counts: (Option<InFlight>, PeerLoad),
    /// `None` once others may use it.
    carrier: Option<Carrier>,
    /// Keeps the request's body from breaking it off.
    _refusal: Option<Refusal>,
    /// When it must have ended.
    deadline: Option<Pin<Box<Sleep>>>,
}

impl Flight {
    pub(crate) fn new(
        in_flight: Option<InFlight>,
        load: PeerLoad,
        carrier: Carrier,
        refusal: Option<Refusal>,
        deadline: Option<Instant>,
    ) -> Self {
        let deadline = deadline.map(|deadline| Box::pin(sleep_until(deadline)));
        Self {
            _counts: (in_flight, load),
            carrier: Some(carrier),
            _refusal: refusal,
            deadline,
        }
    }
}

impl ResponseBody {
    /// A body of our own.
    pub(crate) fn full(bytes: Bytes) -> Self {
        Self::of(Content::Ours(Some(bytes).filter(|bytes| !bytes.is_empty())))
    }

    /// No body.
    pub(crate) fn empty() -> Self {
        Self::of(Content::Ours(None))
    }

    /// The body of an endpoint's response.
    pub(crate) fn from_endpoint(incoming: Incoming, flight: Flight) -> Self {
        Self::of(Content::Endpoint(Box::new(FromEndpoint {
            incoming,
            ended: false,
            flight,
        })))
    }

    fn of(content: Content) -> Self {
        Self {
            content,
            exchange: None,
            left: None,
            waits_for_room: false,
        }
    }

    /// Resolves when its client leaves while nothing of it comes. Otherwise a write finds that out, which may stall for as long
    /// as [`Timeouts::stalled`](crate::config::Timeouts::stalled), or HTTP/2.
    fn poll_left(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let client = self.exchange.as_ref().map(Exchange::client);
        let Some(client) = client.filter(|client| !client.activity.is_multiplexed()) else {
            return Poll::Pending;
        };
        let left = self.left.get_or_insert_with(|| {
            let client = Rc::clone(client);
            Left(Box::pin(async move { client.gone().await }))
        });
        left.0.as_mut().poll(cx)
    }

    /// With what tells the client's connection when this has ended.
    pub(crate) fn with(mut self, exchange: Exchange) -> Self {
        self.exchange = Some(exchange);
        self.was_given();
        self
    }

    /// The client's connection has it, or a part of it. An HTTP/2 connection asks for more once its client has room.
    fn was_given(&mut self) {
        let client = self.exchange.as_ref().map(Exchange::client);
        if let Some(client) = client.filter(|client| client.activity.is_multiplexed())
            && !std::mem::replace(&mut self.waits_for_room, true)
        {
            client.activity.waits_for_room();
        }
    }

    fn is_asked_for(&mut self) {
        if std::mem::take(&mut self.waits_for_room)
            && let Some(exchange) = &self.exchange
        {
            exchange.client().activity.has_room();
        }
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        self.is_asked_for();
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.is_asked_for();
        let frame = match &mut self.content {
            Content::Ours(bytes) => bytes.take().map(|bytes| Ok(Frame::data(bytes))),
            Content::Endpoint(endpoint) => match endpoint.poll_frame(cx) {
                Poll::Ready(frame) => frame,
                Poll::Pending => {
                    ready!(self.poll_left(cx));
                    Some(Err(ClientLeft.into()))
                }
            },
        };
        if let (Some(exchange), Some(Ok(frame))) = (&mut self.exchange, &frame) {
            exchange.sent(frame.data_ref().map_or(0, Bytes::len));
            self.was_given();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Ours(bytes) => bytes.is_none(),
            Content::Endpoint(endpoint) => endpoint.incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Ours(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            Content::Endpoint(endpoint) => endpoint.incoming.size_hint(),
        }
    }
}

impl FromEndpoint {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(deadline) = &mut self.flight.deadline
            && deadline.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(Some(Err(TooLong.into())));
        }
        let frame = ready!(Pin::new(&mut self.incoming).poll_frame(cx));
        self.ended = frame.is_none();
        Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
    }
}

impl Drop for FromEndpoint {
    fn drop(&mut self) {
        // A response that was not read to its end leaves a connection on which the rest would be the next answer.
        if (self.ended || self.incoming.is_end_stream())
            && let Some(carrier) = self.flight.carrier.take()
        {
            carrier.give_back();
        }
    }
}
