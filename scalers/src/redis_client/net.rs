//! Where the redis triggers open a connection: to where the rules of egress allow, with TLS or without.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::TlsConnector;

use super::address::Address;
use crate::clients::Egress;
use crate::error::{ReadError, ReadErrorKind};

/// What a connection runs over.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// How servers are connected to.
#[derive(Clone)]
pub(super) struct Dialer {
    pub(super) egress: Egress,
    pub(super) tls: Option<Arc<ClientConfig>>,
}

impl Dialer {
    /// A connection to an address that may be reached. The caller sets the deadline.
    ///
    /// # Errors
    /// What the rules of egress, the network or TLS have against it, after `failed`.
    pub(super) async fn dial(&self, failed: &str, address: &Address) -> Result<Box<dyn Stream>, ReadError> {
        let connected = self.egress.connect(&address.host, address.port).await;
        let stream = connected.map_err(|error| {
            let cause = match error.kind {
                _ if address.printable => error.message,
                ReadErrorKind::EgressDenied => format!("{address} may not be reached"),
                _ => format!("{address} cannot be reached"),
            };
            ReadError::new(error.kind, format!("{failed}: {cause}"))
        })?;
        let Some(tls) = &self.tls else {
            return Ok(Box::new(stream));
        };
        let refused = |cause: &str| {
            ReadError::new(
                ReadErrorKind::Unreachable,
                format!("{failed}: {address}: TLS: {cause}"),
            )
        };
        let name = address.host.trim_end_matches('.').to_owned();
        let name = ServerName::try_from(name).map_err(|_| refused("no certificate could have this name"))?;
        match TlsConnector::from(Arc::clone(tls)).connect(name, stream).await {
            Ok(secured) => Ok(Box::new(secured)),
            Err(error) => Err(refused(&cause(&error, address))),
        }
    }
}

/// The TLS library's or the operating system's word. The library's may repeat the name that was asked for.
fn cause(error: &io::Error, address: &Address) -> String {
    match error.get_ref() {
        Some(inner) if address.printable => inner.to_string(),
        Some(_) => "the handshake failed".to_owned(),
        None => error.kind().to_string(),
    }
}

/// A stream whose other side may send no more than it is allowed at a time.
pub(super) struct Metered<S> {
    pub(super) stream: S,
    /// How many more bytes may come.
    pub(super) allowance: Arc<AtomicUsize>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Metered<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        let came = buf.filled().len() - before;
        let within = self
            .allowance
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                left.checked_sub(came)
            });
        if within.is_err() {
            return Poll::Ready(Err(io::Error::other("more than 1 MiB came as an answer")));
        }
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Metered<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
