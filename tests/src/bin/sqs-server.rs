//! An SQS server for the demo: one address, one pair of keys, nothing kept on disk.
//!
//! Requests must be signed with those keys, so that a wrong or revoked key is refused as by the real service.

use std::net::SocketAddr;

use anyhow::{Context as _, Result};
use clap::Parser;
use dormouse_tests::signed_sqs::{Keys, serve};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

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
    let keys = Keys::default();
    keys.allow(&arguments.access_key, &arguments.secret_key);
    tokio::select! {
        done = serve(listener, keys, arguments.region) => done,
        _ = term.recv() => Ok(()),
    }
}
