//! An SQS server for the demo: one address, one pair of keys, nothing kept on disk.
//!
//! Requests must be signed with those keys, so that a wrong or revoked key is refused as by the real service.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Parser;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use rustack_auth::StaticCredentialProvider;
use rustack_sqs_core::config::SqsConfig;
use rustack_sqs_core::handler::RustackSqsHandler;
use rustack_sqs_core::provider::RustackSqs;
use rustack_sqs_http::service::{SqsHttpConfig, SqsHttpService};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Semaphore;

/// Serves the SQS protocol from memory.
#[derive(Parser)]
struct Arguments {
    /// Address to listen on; it is also the host in the URLs of queues.
    #[arg(long)]
    bind: SocketAddr,
    /// The one access key that is known.
    #[arg(long, env = "SQS_ACCESS_KEY")]
    access_key: String,
    /// Its secret half; prefer the variable, as arguments can be seen by other users.
    #[arg(long, env = "SQS_SECRET_KEY", hide_env_values = true)]
    secret_key: String,
    /// Region in which requests are signed.
    #[arg(long, default_value = dormouse_tests::sqs::REGION)]
    region: String,
}

const CONNECTIONS: usize = 1000;

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_env_filter("warn")
        .init();
    let listener = TcpListener::bind(arguments.bind)
        .await
        .with_context(|| format!("unable to listen on {}", arguments.bind))?;
    let mut term = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
    tokio::select! {
        done = serve(listener, arguments) => done,
        _ = term.recv() => Ok(()),
    }
}

async fn serve(listener: TcpListener, arguments: Arguments) -> Result<()> {
    let address = listener.local_addr().context("reading the bound address")?;
    let provider = RustackSqs::new(SqsConfig {
        skip_signature_validation: false,
        default_region: arguments.region.clone(),
        host: address.ip().to_string(),
        port: address.port(),
        ..SqsConfig::default()
    });
    let keys = StaticCredentialProvider::new([(arguments.access_key, arguments.secret_key)]);
    let service = SqsHttpService::new(
        Arc::new(RustackSqsHandler::new(Arc::new(provider))),
        SqsHttpConfig {
            skip_signature_validation: false,
            region: arguments.region,
            credential_provider: Some(Arc::new(keys)),
        },
    );
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let permit = room
            .clone()
            .acquire_owned()
            .await
            .context("the semaphore is never closed")?;
        let (stream, _) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "accept failed");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let service = service.clone();
        tokio::spawn(async move {
            let _permit = permit;
            let server = auto::Builder::new(TokioExecutor::new());
            if let Err(error) = server.serve_connection(TokioIo::new(stream), service).await {
                tracing::debug!(%error, "a connection broke");
            }
        });
    }
}
