//! Connections: how many, for how long, and how they end.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use futures::FutureExt;
use http::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use rustls::server::ResolvesServerCert;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;
use tracing::{debug, info, warn};

use super::activity::Activity;
use super::gatekeeper::Gatekeeper;
use super::peer::Peer;
use super::routes::router;
use super::source::MetricSource;
use super::tls::server_config;

/// The bounds of the server.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at once; further ones wait in the listen queue.
    pub connections: usize,
    /// How many of them may belong to clients without a certificate that counts; further ones are closed, so that
    /// nobody in the cluster can crowd out the aggregation layer.
    pub unknown_connections: usize,
    /// From the accepted connection to the end of the TLS handshake.
    pub handshake: Duration,
    /// From the handshake to the first request.
    pub first_request: Duration,
    /// From the end of a request to the next one.
    pub idle: Duration,
    /// For one request, authentication and authorization included.
    pub request: Duration,
    /// For what is under way when the server is told to stop.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 512,
            unknown_connections: 128,
            handshake: Duration::from_secs(5),
            first_request: Duration::from_secs(10),
            idle: Duration::from_secs(75),
            request: Duration::from_secs(15),
            drain: Duration::from_secs(5),
        }
    }
}

/// A connection that came in just before the stop gets this long to send its request.
const LAST_REQUEST: Duration = Duration::from_millis(500);
/// A connection told to close gets this long to do it.
const CLOSING: Duration = Duration::from_secs(5);
const MAX_HEADERS: usize = 64 * 1024;
const STREAMS: u32 = 128;

/// Serves the metrics API on `listener` until `stop` ends, then lets what is under way finish within
/// [`Limits::drain`]. Until `certificate` holds one, handshakes fail.
pub async fn serve(
    listener: TcpListener,
    certificate: Arc<dyn ResolvesServerCert>,
    gatekeeper: Arc<Gatekeeper>,
    source: Arc<dyn MetricSource>,
    limits: Limits,
    stop: impl Future<Output = ()> + Send,
) {
    let server = Arc::new(Server {
        acceptor: TlsAcceptor::from(server_config(certificate)),
        routes: router(Arc::clone(&gatekeeper), source, limits.request),
        gatekeeper,
        unknown: Arc::new(Semaphore::new(limits.unknown_connections)),
        limits,
        stopping: CancellationToken::new(),
    });
    let tasks = TaskTracker::new();
    let slots = Arc::new(Semaphore::new(limits.connections));
    tokio::select! {
        () = stop => {}
        () = accept(&listener, &server, &slots, &tasks) => {}
        () = server.gatekeeper.keep_current() => {}
    }
    server.stopping.cancel();
    // Connections already in the queue have been promised an answer by the kernel.
    while let Some(Ok((stream, _))) = listener.accept().now_or_never() {
        let Ok(slot) = Arc::clone(&slots).try_acquire_owned() else {
            break;
        };
        tasks.spawn(Arc::clone(&server).connection(stream, slot));
    }
    drop(listener);
    tasks.close();
    if timeout(limits.drain, tasks.wait()).await.is_err() {
        warn!(
            connections = tasks.len(),
            "the metrics API stops with connections still open after {} s",
            limits.drain.as_secs_f32()
        );
    } else {
        info!("the metrics API has answered all it had accepted");
    }
}

async fn accept(listener: &TcpListener, server: &Arc<Server>, slots: &Arc<Semaphore>, tasks: &TaskTracker) {
    loop {
        let Ok(slot) = Arc::clone(slots).acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                tasks.spawn(Arc::clone(server).connection(stream, slot));
            }
            Err(error) => pause_after(&error).await,
        }
    }
}

/// Waits when the machine is out of something, so that a full file table is not met with a busy loop.
async fn pause_after(error: &io::Error) {
    let of_one_connection = matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused
    );
    if !of_one_connection {
        warn!("the metrics API cannot accept a connection: {error}");
        sleep(Duration::from_millis(200)).await;
    }
}

struct Server {
    acceptor: TlsAcceptor,
    routes: Router,
    gatekeeper: Arc<Gatekeeper>,
    unknown: Arc<Semaphore>,
    limits: Limits,
    stopping: CancellationToken,
}

impl Server {
    async fn connection(self: Arc<Self>, stream: TcpStream, slot: OwnedSemaphorePermit) {
        let _slot = slot;
        if let Err(error) = stream.set_nodelay(true) {
            debug!("TCP_NODELAY cannot be set: {error}");
        }
        let stream = match timeout(self.limits.handshake, self.acceptor.accept(stream)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return debug!("a TLS handshake of the metrics API failed: {error}"),
            Err(_) => return debug!("a TLS handshake of the metrics API took too long"),
        };
        let (_, session) = stream.get_ref();
        let chain = session.peer_certificates().unwrap_or_default().to_vec();
        let peer = Arc::new(Peer::new(chain));
        let _unknown = if self.gatekeeper.knows(&peer) {
            None
        } else {
            match Arc::clone(&self.unknown).try_acquire_owned() {
                Ok(permit) => Some(permit),
                Err(_) => return debug!("too many connections without a known client certificate"),
            }
        };
        self.serve(stream, peer).await;
    }

    async fn serve(&self, stream: TlsStream<TcpStream>, peer: Arc<Peer>) {
        let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        let activity = Activity::new();
        let service = service_fn(|mut request: Request<Incoming>| {
            let in_flight = activity.begin();
            request.extensions_mut().insert(Arc::clone(&peer));
            let answer = self.routes.clone().oneshot(request.map(axum::body::Body::new));
            async move {
                let answer: Result<_, Infallible> = answer.await;
                drop(in_flight);
                answer
            }
        });
        let builder = builder(is_http2);
        let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
        let mut closing = None;
        let ready_to_stop = async {
            self.stopping.cancelled().await;
            let _ = timeout(LAST_REQUEST, activity.first_request()).await;
        };
        let mut ready_to_stop = pin!(ready_to_stop);
        loop {
            let idle_at = self.idle_deadline(&activity);
            tokio::select! {
                result = connection.as_mut() => {
                    if let Err(error) = result {
                        debug!("a connection of the metrics API broke: {error}");
                    }
                    return;
                }
                () = &mut ready_to_stop, if closing.is_none() => {
                    connection.as_mut().graceful_shutdown();
                    closing = Some(Instant::now() + self.limits.drain);
                }
                () = sleep_until(idle_at), if closing.is_none() => {
                    if self.idle_deadline(&activity) <= Instant::now() {
                        connection.as_mut().graceful_shutdown();
                        closing = Some(Instant::now() + CLOSING);
                    }
                }
                () = sleep_until(closing.unwrap_or(idle_at)), if closing.is_some() => return,
            }
        }
    }

    /// When the connection will have been idle for too long, if nothing comes.
    fn idle_deadline(&self, activity: &Activity) -> Instant {
        let limit = if activity.is_fresh() {
            self.limits.first_request
        } else {
            self.limits.idle
        };
        activity.idle_since().unwrap_or_else(Instant::now) + limit
    }
}

/// ALPN has settled the protocol, so nothing is left to be sniffed.
fn builder(is_http2: bool) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder = if is_http2 {
        builder.http2_only()
    } else {
        builder.http1_only()
    };
    builder
        .http1()
        .timer(TokioTimer::new())
        // A head that trickles in is met by the idle limits, which also know keep-alive.
        .header_read_timeout(None)
        .max_buf_size(MAX_HEADERS);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(MAX_HEADERS as u32)
        .initial_stream_window_size(64 * 1024)
        .initial_connection_window_size(256 * 1024)
        .max_send_buf_size(64 * 1024)
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(10));
    builder
}
