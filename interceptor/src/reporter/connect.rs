//! A connection to one operator: TCP, TLS, HTTP/2, and the token that says who calls.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use dormouse_wire::demand::demand_client::DemandClient;
use futures::FutureExt;
use futures::future::BoxFuture;
use hyper::body::Incoming;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper::rt::{Read, Write};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_util::task::AbortOnDropHandle;
use tonic::body::Body;
use tonic::metadata::AsciiMetadataValue;
use tracing::debug;

/// How soon a connection is tried whose other end may be gone, and how long it then has.
const KEEP_ALIVE: Duration = Duration::from_secs(2);

/// How operators are known, and how they know this process.
#[derive(Clone, Debug)]
pub(crate) struct Access {
    /// The name that they are called by, and that their certificate bears.
    pub(crate) name: String,
    /// The authorities whose certificates they may have, as PEM; `None` speaks in the clear. Read for each connection.
    pub(crate) ca_file: Option<PathBuf>,
    /// The token of this pod; `None` sends none. Read for each session, as it is replaced well before it ends.
    pub(crate) token_file: Option<PathBuf>,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    #[error("unable to read {path:?}: {source}")]
    Read { path: PathBuf, source: io::Error },
    #[error("{path:?} holds no token that can be sent")]
    Token { path: PathBuf },
    #[error("{path:?} holds no certificate that can be trusted")]
    Authority { path: PathBuf },
    #[error("{0:?} is no name that a certificate could bear")]
    Name(String),
    #[error("unable to connect: {0}")]
    Tcp(#[source] io::Error),
    #[error("TLS: {0}")]
    Tls(#[source] io::Error),
    #[error("HTTP/2: {0}")]
    Http2(#[from] hyper::Error),
}

/// A connection. It ends when this is dropped.
pub(super) struct Connection {
    pub(super) client: DemandClient<Channel>,
    _driver: AbortOnDropHandle<()>,
}

impl Access {
    /// Connects to the operator at `address`. The caller sets the deadline.
    pub(super) async fn connect(&self, address: SocketAddr) -> Result<Connection, ConnectError> {
        // Before the connection is made: it would be kept waiting.
        let tls = self.tls().await?;
        let stream = TcpStream::connect(address).await.map_err(ConnectError::Tcp)?;
        stream.set_nodelay(true).map_err(ConnectError::Tcp)?;
        let Some((connector, name)) = tls else {
            return self.over(TokioIo::new(stream), "http").await;
        };
        let stream = connector.connect(name, stream).await.map_err(ConnectError::Tls)?;
        self.over(TokioIo::new(stream), "https").await
    }

    async fn over<S>(&self, stream: S, scheme: &str) -> Result<Connection, ConnectError>
    where
        S: Read + Write + Unpin + Send + 'static,
    {
        let (sender, connection) = Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE)
            .keep_alive_while_idle(true)
            .handshake(stream)
            .await?;
        let driver = tokio::spawn(async move {
            if let Err(error) = connection.await {
                debug!(%error, "a connection to an operator broke");
            }
        });
        let origin = format!("{scheme}://{}", self.name).parse();
        let origin = origin.map_err(|_| ConnectError::Name(self.name.clone()))?;
        Ok(Connection {
            client: DemandClient::with_origin(Channel(sender), origin),
            _driver: AbortOnDropHandle::new(driver),
        })
    }

    async fn tls(&self) -> Result<Option<(TlsConnector, ServerName<'static>)>, ConnectError> {
        let Some(path) = &self.ca_file else {
            return Ok(None);
        };
        let text = read(path).await?;
        let untrustworthy = || ConnectError::Authority { path: path.clone() };
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&text) {
            let certificate = certificate.map_err(|_| untrustworthy())?;
            roots.add(certificate).map_err(|_| untrustworthy())?;
        }
        if roots.is_empty() {
            return Err(untrustworthy());
        }
        let name = ServerName::try_from(self.name.clone());
        let name = name.map_err(|_| ConnectError::Name(self.name.clone()))?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let mut config = config
            .map_err(|error| ConnectError::Tls(io::Error::other(error)))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Some((TlsConnector::from(Arc::new(config)), name)))
    }

    /// What goes into the header `authorization`.
    pub(super) async fn authorization(&self) -> Result<Option<AsciiMetadataValue>, ConnectError> {
        let Some(path) = &self.token_file else {
            return Ok(None);
        };
        let text = read(path).await?;
        let token = std::str::from_utf8(&text).map(str::trim).unwrap_or_default();
        let value = format!("Bearer {token}").parse::<AsciiMetadataValue>();
        match value {
            Ok(mut value) if !token.is_empty() => {
                value.set_sensitive(true);
                Ok(Some(value))
            }
            _ => Err(ConnectError::Token { path: path.clone() }),
        }
    }
}

async fn read(path: &PathBuf) -> Result<Vec<u8>, ConnectError> {
    let text = tokio::fs::read(path).await;
    text.map_err(|source| ConnectError::Read {
        path: path.clone(),
        source,
    })
}

/// One HTTP/2 connection, as the generated client wants it.
#[derive(Clone)]
pub(super) struct Channel(SendRequest<Body>);

impl tower::Service<http::Request<Body>> for Channel {
    type Response = http::Response<Incoming>;
    type Error = hyper::Error;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        self.0.send_request(request).boxed()
    }
}
