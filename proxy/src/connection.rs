//! From an accepted socket to requests, and the time that each step may take.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, Sleep, sleep_until, timeout_at};
use tokio_rustls::TlsAcceptor;

use crate::activity::Activity;
use crate::client::Client;
use crate::request;
use crate::stream::{ClientStream, Version};
use crate::worker::Worker;

/// How long an idle HTTP/2 client may take to go once it was told to.
const PARTING: Duration = Duration::from_secs(5);

/// Answers the requests of one connection until it ends. `permit` is its place among the connections that there may be.
pub(crate) async fn serve(
    worker: Rc<Worker>,
    stream: TcpStream,
    address: SocketAddr,
    permit: OwnedSemaphorePermit,
) {
    let activity = Arc::new(Activity::new());
    let mut stream = ClientStream::new(stream, Arc::clone(&activity));
    let first_byte = Instant::now() + worker.shared.config.timeouts.first_byte;
    let Ok(Ok(version)) = timeout_at(first_byte, stream.version()).await else {
        return;
    };
    let write_half = stream.write_half();
    let client = Client::new(Rc::clone(&worker), address, false, write_half, activity, permit);
    serve_requests(stream, version, client).await;
}

/// The same over TLS, by whose handshake the client chooses its version of HTTP.
pub(crate) async fn serve_tls(
    worker: Rc<Worker>,
    acceptor: TlsAcceptor,
    stream: TcpStream,
    address: SocketAddr,
    permit: OwnedSemaphorePermit,
) {
    let activity = Arc::new(Activity::new());
    let stream = ClientStream::new(stream, Arc::clone(&activity));
    let write_half = stream.write_half();
    let ready = Instant::now() + worker.shared.config.timeouts.first_byte;
    let stream = match timeout_at(ready, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            tracing::trace!(client = %address, error = %error, "no TLS");
            return;
        }
        Err(_) => return,
    };
    let version = match stream.get_ref().1.alpn_protocol() {
        Some(b"h2") => Version::Http2,
        _ => Version::Http1,
    };
    let client = Client::new(Rc::clone(&worker), address, true, write_half, activity, permit);
    serve_requests(stream, version, client).await;
}

async fn serve_requests<S>(stream: S, version: Version, client: Client)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let client = Rc::new(client);
    let worker = Rc::clone(&client.worker);
    let service = {
        let client = Rc::clone(&client);
        service_fn(move |request: hyper::Request<Incoming>| request::serve(Rc::clone(&client), request))
    };
    let io = TokioIo::new(stream);
    match version {
        Version::Http1 => {
            let builder = if client.secure {
                &worker.https1
            } else {
                &worker.http1
            };
            let connection = pin!(builder.serve_connection(io, service).with_upgrades());
            drive(
                connection,
                |connection| connection.graceful_shutdown(),
                &client,
                OnTimeout::Cut,
            )
            .await;
        }
        Version::Http2 => {
            client.activity.multiplex();
            let connection = pin!(worker.http2.serve_connection(io, service));
            drive(
                connection,
                |connection| connection.graceful_shutdown(),
                &client,
                OnTimeout::Part,
            )
            .await;
        }
    }
}

/// What happens to a connection that exceeds its deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OnTimeout {
    /// It is closed.
    Cut,
    /// The client is told not to send more, and then it is closed.
    Part,
}

/// Polls a connection until it has ended, its deadline has passed, or the drain is over. `finish` tells it to take no more
/// requests.
async fn drive<C: Future<Output = hyper::Result<()>>>(
    mut connection: Pin<&mut C>,
    finish: impl Fn(Pin<&mut C>),
    client: &Client,
    on_timeout: OnTimeout,
) {
    let drain = &client.worker.drain;
    let mut drain_begins = pin!(drain.begins());
    let mut alarm = Alarm::default();
    let mut finishing = false;
    let mut told_to_go = None::<Instant>;
    let mut watches_drain = false;
    poll_fn(|cx| {
        loop {
            if let Poll::Ready(result) = connection.as_mut().poll(cx) {
                if let Err(error) = result {
                    tracing::trace!(client = %client.address, error = %error, "connection ended");
                }
                return Poll::Ready(());
            }
            if finishing || !drain.has_begun() {
                break;
            }
            // Only after it was polled: hyper closes a connection on which it has not read a request yet, and this one's may
            // be in the socket.
            finishing = true;
            finish(connection.as_mut());
        }
        // Once is enough: the task's waker stays the same, and `has_begun` is looked at above.
        if !watches_drain {
            watches_drain = true;
            let _ = drain_begins.as_mut().poll(cx);
        }
        client.activity.keep_deadline(cx.waker());
        loop {
            let deadline = client.activity.deadline(&client.worker.shared.config.timeouts);
            let parted = told_to_go.filter(|_| !drain.has_begun());
            let deadline =
                deadline.map(|deadline| parted.map_or(deadline, |told| deadline.max(told + PARTING)));
            if alarm.poll(cx, deadline).is_pending() {
                return Poll::Pending;
            }
            if on_timeout == OnTimeout::Cut || finishing {
                return Poll::Ready(());
            }
            finishing = true;
            told_to_go = Some(Instant::now());
            finish(connection.as_mut());
            if connection.as_mut().poll(cx).is_ready() {
                return Poll::Ready(());
            }
        }
    })
    .await;
}

/// A timer for a deadline that moves with each request, but seldom passes: it is set anew only when it goes off early.
#[derive(Debug, Default)]
struct Alarm {
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Alarm {
    fn poll(&mut self, cx: &mut Context<'_>, deadline: Option<Instant>) -> Poll<()> {
        let Some(deadline) = deadline else {
            return Poll::Pending;
        };
        let sleep = match &mut self.sleep {
            // Goes off before the deadline, or at it, and will wake this task then.
            Some(sleep) if sleep.deadline() <= deadline && !sleep.is_elapsed() => return Poll::Pending,
            Some(sleep) => {
                sleep.as_mut().reset(deadline);
                sleep
            }
            none => none.insert(Box::pin(sleep_until(deadline))),
        };
        sleep.as_mut().poll(cx)
    }
}
