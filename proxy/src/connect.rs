//! Connections to endpoints.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::client::conn::{http1, http2};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::task::spawn_local;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::body::RequestBody;
use crate::gathered::{MOST, gathered};
use crate::worker::LocalExecutor;

/// The most bytes of a response's head, and of what hyper reads ahead.
const MAX_HEAD: usize = 64 * 1024;
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;

/// An endpoint whose machine is gone is noticed after about a minute, however long its answer may take.
const KEEPALIVE: TcpKeepalive = TcpKeepalive::new()
    .with_time(Duration::from_secs(30))
    .with_interval(Duration::from_secs(10))
    .with_retries(3);

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    /// The system said no.
    #[error("{0}")]
    Refused(#[from] io::Error),
    /// Nothing came back in time.
    #[error("no connection within {0:?}")]
    Silent(Duration),
    /// It took no other connection a moment ago.
    #[error("it took no connection a moment ago")]
    Suspect,
    /// It is no endpoint that TLS can be spoken with as things are set.
    #[error("this proxy does not speak TLS with it")]
    NoTls,
    /// It has no certificate that can be believed, or speaks no TLS.
    #[error("TLS: {0}")]
    Tls(#[source] io::Error),
    /// It does not speak the protocol.
    #[error("{0}")]
    Handshake(#[from] hyper::Error),
}

/// The socket of an endpoint, which notes whether anything came back.
#[derive(Debug)]
pub(crate) struct EndpointStream<S> {
    stream: S,
    /// Only the connection's own task and the request on it use it; hyper wants the socket to be `Send`.
    received: Arc<AtomicBool>,
}

/// A connection that carries one request at a time.
#[derive(Debug)]
pub(crate) struct Http1 {
    pub(crate) sender: http1::SendRequest<RequestBody>,
    received: Arc<AtomicBool>,
}

impl Http1 {
    /// From here on [`Self::has_received`] speaks of the next response.
    pub(crate) fn expect_response(&self) {
        self.received.store(false, Ordering::Relaxed);
    }

    /// Whether a byte came since.
    pub(crate) fn has_received(&self) -> bool {
        self.received.load(Ordering::Relaxed)
    }
}

/// Connects for HTTP/1.1.
///
/// # Errors
/// The endpoint does not take the connection within `at_most`.
pub(crate) async fn http1(address: SocketAddr, at_most: Duration) -> Result<Http1, ConnectError> {
    over(tcp(address, at_most).await?, address).await
}

/// Connects for HTTP/1.1 over TLS, with an endpoint that has a certificate for `name`.
///
/// # Errors
/// The endpoint does not take the connection within `at_most`, does not shake hands within twice as long again, or is not to
/// be believed.
pub(crate) async fn https(
    address: SocketAddr,
    config: &Arc<ClientConfig>,
    name: &ServerName<'static>,
    at_most: Duration,
) -> Result<Http1, ConnectError> {
    let tcp = tcp(address, at_most).await?;
    let within = at_most.saturating_mul(2);
    let shaking = timeout(
        within,
        TlsConnector::from(Arc::clone(config)).connect(name.clone(), tcp),
    );
    let stream = shaking.await.map_err(|_| ConnectError::Silent(within))?;
    over(stream.map_err(ConnectError::Tls)?, address).await
}

async fn over<S>(stream: S, address: SocketAddr) -> Result<Http1, ConnectError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let received = Arc::new(AtomicBool::new(false));
    let stream = EndpointStream {
        stream,
        received: Arc::clone(&received),
    };
    let (sender, connection) = http1::Builder::new()
        .max_buf_size(MAX_HEAD)
        .handshake(TokioIo::new(stream))
        .await?;
    spawn_local(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::trace!(endpoint = %address, error = %error, "connection to an endpoint ended");
        }
    });
    Ok(Http1 { sender, received })
}

/// Connects for HTTP/2 by prior knowledge.
///
/// # Errors
/// The endpoint does not take the connection within `at_most`.
pub(crate) async fn http2(
    address: SocketAddr,
    at_most: Duration,
) -> Result<http2::SendRequest<RequestBody>, ConnectError> {
    let stream = tcp(address, at_most).await?;
    let handshake = http2::Builder::new(LocalExecutor)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(MAX_HEAD)
        .max_header_list_size(MAX_HEAD as u32)
        .handshake(TokioIo::new(stream));
    let (sender, connection) = timeout(at_most, handshake)
        .await
        .map_err(|_| ConnectError::Silent(at_most))??;
    spawn_local(async move {
        if let Err(error) = connection.await {
            tracing::trace!(endpoint = %address, error = %error, "connection to an endpoint ended");
        }
    });
    Ok(sender)
}

async fn tcp(address: SocketAddr, at_most: Duration) -> Result<TcpStream, ConnectError> {
    let connecting = timeout(at_most, TcpStream::connect(address));
    let tcp = connecting.await.map_err(|_| ConnectError::Silent(at_most))??;
    tcp.set_nodelay(true)?;
    SockRef::from(&tcp).set_tcp_keepalive(&KEEPALIVE)?;
    Ok(tcp)
}

impl<S: AsyncRead + Unpin> AsyncRead for EndpointStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        if buf.filled().len() > before {
            self.received.store(true, Ordering::Relaxed);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for EndpointStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match gathered(bufs, &mut [0; MOST]) {
            Some(all) => Pin::new(&mut self.stream).poll_write(cx, all),
            None => Pin::new(&mut self.stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
