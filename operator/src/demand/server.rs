//! Connections of interceptors: TLS, HTTP/2, bounded.

use std::sync::Arc;
use std::time::Duration;

use dormouse_wire::demand::demand_server::DemandServer;
use http::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use rustls::server::ResolvesServerCert;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt;
use tracing::debug;

use super::service::DemandService;
use crate::listen;
use crate::metrics_api::tls::server_config;

/// Connections at once; further ones wait in the listen queue.
const CONNECTIONS: usize = 512;
/// From the accepted connection to the end of the TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// How long a connection may be without a session.
const UNUSED: Duration = Duration::from_secs(10);
/// A message at most: room for [`MOST_ROUTES`](dormouse_core::demand::MOST_ROUTES) with long names.
const MAX_MESSAGE: usize = 4 * 1024 * 1024;
const STREAMS: u32 = 4;
const MAX_HEADERS: u32 = 32 * 1024;
/// How soon a connection is tried whose other end may be gone, and how long it then has.
const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// Part of a connection's requests: as long as one is held, the connection is in use.
#[derive(Clone)]
pub(super) struct InUse(#[expect(dead_code, reason = "held, and counted by its holders")] Arc<()>);

struct Server {
    acceptor: TlsAcceptor,
    service: DemandServer<DemandService>,
}

/// Serves the demand stream on `listener` until `stop` ends; sessions end with it. Until `certificate` holds one, handshakes
/// fail.
pub async fn serve(
    listener: TcpListener,
    certificate: Arc<dyn ResolvesServerCert>,
    service: DemandService,
    stop: impl Future<Output = ()> + Send,
) {
    let server = Arc::new(Server {
        acceptor: TlsAcceptor::from(server_config(certificate)),
        service: DemandServer::new(service).max_decoding_message_size(MAX_MESSAGE),
    });
    let connection = move |stream| {
        let server = server.clone();
        async move { server.connection(stream).await }
    };
    listen::serve_each(listener, "the demand server", CONNECTIONS, stop, connection).await;
}

impl Server {
    async fn connection(&self, stream: TcpStream) {
        let stream = match timeout(HANDSHAKE, self.acceptor.accept(stream)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return debug!("a TLS handshake of the demand server failed: {error}"),
            Err(_elapsed) => return debug!("a TLS handshake of the demand server took too long"),
        };
        let users = Arc::new(());
        let service = service_fn(|mut request: Request<Incoming>| {
            request.extensions_mut().insert(InUse(users.clone()));
            self.service.clone().oneshot(request)
        });
        let builder = builder();
        let unused = async {
            loop {
                sleep(UNUSED).await;
                if Arc::strong_count(&users) == 1 {
                    return;
                }
            }
        };
        tokio::select! {
            ended = builder.serve_connection(TokioIo::new(stream), service) => {
                if let Err(error) = ended {
                    debug!("a connection of the demand server broke: {error}");
                }
            }
            () = unused => debug!("a connection of the demand server had no session"),
        }
    }
}

fn builder() -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new()).http2_only();
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(MAX_HEADERS)
        .initial_stream_window_size(256 * 1024)
        .initial_connection_window_size(512 * 1024)
        .max_send_buf_size(64 * 1024)
        .keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE);
    builder
}
