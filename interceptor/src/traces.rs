//! Traces, as OpenTelemetry has them: from what the data plane tells of each request to a collector.
//!
//! ```text
//! request is done ── RequestTrace ──> queue (bounded; what does not fit is lost and counted) ──> batches ──> exporter
//! ```

mod args;
mod spans;

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use dormouse_proxy::{RequestTrace, TraceSink};
use opentelemetry_otlp::tonic_types::transport::{Certificate, ClientTlsConfig};
use opentelemetry_otlp::{
    ExporterBuildError, OTEL_EXPORTER_OTLP_ENDPOINT, Protocol, SpanExporter, WithExportConfig,
    WithHttpConfig, WithTonicConfig,
};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SpanExporter as _;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

pub use args::{TraceArgs, TraceProtocol};

/// Requests that may wait to be told.
const WAITING: usize = 4096;
/// Requests that are told at once.
const BATCH: usize = 256;
/// How long the first of a batch waits for the others.
const GATHER: Duration = Duration::from_secs(1);
/// How long the collector may take for a batch.
const EXPORT: Duration = Duration::from_secs(10);
/// How long it may take for the last ones.
const LAST: Duration = Duration::from_secs(1);

/// Why traces cannot be told.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TraceError {
    /// The endpoint is none, or the like.
    #[error("unable to tell traces")]
    Exporter(#[from] ExporterBuildError),
    /// There can be no client.
    #[error("unable to tell traces over HTTP")]
    Client(#[from] reqwest::Error),
    /// There is no such file, or no certificate in it.
    #[error("unable to read the collector's authorities from {}: {error}", .file.display())]
    Authorities {
        /// Where they should be.
        file: PathBuf,
        /// Why they are not.
        error: io::Error,
    },
}

/// Tells traces, once it runs.
pub(crate) struct Traces {
    waiting: mpsc::Receiver<RequestTrace>,
    lost: Arc<AtomicU64>,
    to: Destination,
}

enum Destination {
    Console,
    Collector(Box<SpanExporter>),
}

impl Traces {
    /// What takes traces, and what tells them; `None` if nobody wants to know. To be called in the runtime.
    ///
    /// # Errors
    /// The collector's address is none.
    pub(crate) fn new(args: &TraceArgs) -> Result<Option<(TraceSink, Self)>, TraceError> {
        if !args.otlp_traces_enabled {
            return Ok(None);
        }
        let (queue, waiting) = mpsc::channel(WAITING);
        let lost = Arc::new(AtomicU64::new(0));
        let counter = lost.clone();
        let sink = TraceSink::new(move |trace| {
            if queue.try_send(trace).is_err() {
                counter.fetch_add(1, Ordering::Relaxed);
            }
        });
        let to = args.destination()?;
        Ok(Some((sink, Self { waiting, lost, to })))
    }

    /// Tells them until `end`, and then what is left.
    pub(crate) async fn run(mut self, end: CancellationToken) {
        let mut works = true;
        loop {
            let mut batch = Vec::new();
            let is_over = !self.gather(&mut batch, &end).await;
            let at_most = if is_over { LAST } else { EXPORT };
            let told = match timeout(at_most, self.tell(batch)).await {
                Ok(told) => told,
                Err(_elapsed) => Err(format!("not within {at_most:?}")),
            };
            match &told {
                Ok(()) if !works => info!("traces are told again"),
                Err(error) if works => warn!(%error, "traces cannot be told and are lost"),
                _ => {}
            }
            works = told.is_ok();
            let lost = self.lost.swap(0, Ordering::Relaxed);
            if lost > 0 {
                warn!(lost, "traces came faster than they could be told");
            }
            if is_over {
                return;
            }
        }
    }

    /// Waits for some. `false` at the end.
    async fn gather(&mut self, batch: &mut Vec<RequestTrace>, end: &CancellationToken) -> bool {
        let mut until = None::<Instant>;
        while batch.len() < BATCH {
            let left = BATCH - batch.len();
            let gathered = async {
                match until {
                    Some(until) => sleep_until(until).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = end.cancelled() => {
                    while let Ok(trace) = self.waiting.try_recv() {
                        batch.push(trace);
                    }
                    return false;
                }
                () = gathered => return true,
                count = self.waiting.recv_many(batch, left) => if count == 0 { return false },
            }
            until.get_or_insert_with(|| Instant::now() + GATHER);
        }
        true
    }

    async fn tell(&self, batch: Vec<RequestTrace>) -> Result<(), String> {
        if batch.is_empty() {
            return Ok(());
        }
        let spans: Vec<_> = batch.into_iter().flat_map(spans::of).collect();
        match &self.to {
            Destination::Collector(exporter) => {
                let told = exporter.export(spans).await;
                told.map_err(|error| error.to_string())
            }
            Destination::Console => {
                let lines: Vec<u8> = spans.iter().flat_map(spans::line).collect();
                let written = tokio::task::spawn_blocking(move || {
                    let mut out = io::stdout().lock();
                    out.write_all(&lines)?;
                    out.flush()
                });
                match written.await {
                    Ok(written) => written.map_err(|error| error.to_string()),
                    Err(stopped) => Err(stopped.to_string()),
                }
            }
        }
    }
}

impl TraceArgs {
    fn destination(&self) -> Result<Destination, TraceError> {
        let mut exporter = match self.otlp_traces_protocol {
            TraceProtocol::Console => return Ok(Destination::Console),
            TraceProtocol::Grpc => {
                let mut builder = SpanExporter::builder().with_tonic().with_timeout(EXPORT);
                if let Some(endpoint) = &self.otlp_traces_endpoint {
                    builder = builder.with_endpoint(endpoint);
                }
                if self.is_tls_spoken() {
                    let tls = ClientTlsConfig::new();
                    builder = builder.with_tls_config(match self.authorities()? {
                        Some(pem) => tls.ca_certificate(Certificate::from_pem(pem)),
                        None => tls.with_enabled_roots(),
                    });
                }
                builder.build()?
            }
            TraceProtocol::HttpProtobuf => {
                let mut client = reqwest::Client::builder().timeout(EXPORT);
                if let Some(pem) = self.authorities()? {
                    client = client.tls_certs_only(reqwest::Certificate::from_pem_bundle(&pem)?);
                }
                let builder = SpanExporter::builder()
                    .with_http()
                    .with_http_client(client.build()?);
                let mut builder = builder.with_protocol(Protocol::HttpBinary).with_timeout(EXPORT);
                if let Some(endpoint) = &self.otlp_traces_endpoint {
                    builder = builder.with_endpoint(endpoint);
                }
                builder.build()?
            }
        };
        let resource = Resource::builder().with_service_name(self.otel_service_name.clone());
        exporter.set_resource(&resource.build());
        Ok(Destination::Collector(Box::new(exporter)))
    }

    /// Over gRPC, where an address without a scheme is one that is spoken to by TLS.
    fn is_tls_spoken(&self) -> bool {
        let general = || std::env::var(OTEL_EXPORTER_OTLP_ENDPOINT).ok();
        let stated = |endpoint: &String| !endpoint.is_empty();
        let own = self.otlp_traces_endpoint.clone().filter(stated);
        let endpoint = own.or_else(general).filter(stated);
        endpoint.is_some_and(|endpoint| !endpoint.starts_with("http://"))
    }

    fn authorities(&self) -> Result<Option<Vec<u8>>, TraceError> {
        let own = self.otlp_traces_certificate.as_ref();
        let Some(file) = own.or(self.otlp_certificate.as_ref()) else {
            return Ok(None);
        };
        let read = certificates(file);
        read.map(Some).map_err(|error| TraceError::Authorities {
            file: file.clone(),
            error,
        })
    }
}

/// A file with at least one certificate.
fn certificates(file: &Path) -> io::Result<Vec<u8>> {
    let pem = std::fs::read(file)?;
    if let Some(Ok(_)) = CertificateDer::pem_slice_iter(&pem).next() {
        return Ok(pem);
    }
    let none = "there is no certificate in PEM in it";
    Err(io::Error::new(io::ErrorKind::InvalidData, none))
}

#[cfg(test)]
mod tests;
