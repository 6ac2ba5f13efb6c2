//! Connections of those who ask: HTTP/2 in the clear, bounded.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use dormouse_wire::externalscaler::external_scaler_server::ExternalScalerServer;
use http::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;
use tower::ServiceExt;
use tracing::debug;

use super::service::ExternalScalerService;
use crate::listen;

/// Connections at once; further ones wait in the listen queue.
const CONNECTIONS: usize = 256;
/// How long a connection may be without a first call: until its preface has come, nothing else bounds it.
const UNUSED: Duration = Duration::from_secs(10);
/// Calls and streams of one connection at once: KEDA has all its streams in one.
const STREAMS: u32 = 4096;
/// A message at most: the metadata of a trigger.
const MAX_MESSAGE: usize = 256 * 1024;
const MAX_HEADERS: u32 = 32 * 1024;
/// How soon a connection is tried whose other end may be gone, and how long it then has.
const KEEP_ALIVE: Duration = Duration::from_secs(20);

/// Serves the scaler on `listener` until `stop` ends; streams end with it.
pub async fn serve(
    listener: TcpListener,
    service: ExternalScalerService,
    stop: impl Future<Output = ()> + Send,
) {
    let service = ExternalScalerServer::new(service).max_decoding_message_size(MAX_MESSAGE);
    let service = Arc::new(service);
    listen::serve_each(
        listener,
        "the external scaler",
        CONNECTIONS,
        stop,
        move |stream| connection(stream, service.clone()),
    )
    .await;
}

async fn connection(stream: TcpStream, scaler: Arc<ExternalScalerServer<ExternalScalerService>>) {
    let used = AtomicBool::new(false);
    let service = service_fn(|request: Request<Incoming>| {
        used.store(true, Ordering::Relaxed);
        ExternalScalerServer::clone(&scaler).oneshot(request)
    });
    let mut builder = auto::Builder::new(TokioExecutor::new()).http2_only();
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(MAX_HEADERS)
        .max_send_buf_size(16 * 1024)
        .keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE);
    let unused = async {
        sleep(UNUSED).await;
        if used.load(Ordering::Relaxed) {
            std::future::pending().await
        }
    };
    tokio::select! {
        ended = builder.serve_connection(TokioIo::new(stream), service) => {
            if let Err(error) = ended {
                debug!("a connection of the external scaler broke: {error}");
            }
        }
        () = unused => debug!("a connection of the external scaler had no call"),
    }
}
