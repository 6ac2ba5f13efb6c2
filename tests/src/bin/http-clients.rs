//! Clients of HTTP, in a pod: see [`dormouse_tests::client_pod`].

use std::net::Ipv4Addr;

use anyhow::{Context as _, Result};
use dormouse_tests::client_pod::{PORT, app};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

#[tokio::main]
async fn main() -> Result<()> {
    let mut term = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)).await;
    let listener = listener.with_context(|| format!("unable to listen on port {PORT}"))?;
    tokio::select! {
        served = axum::serve(listener, app()) => served.context("serving errands"),
        _ = term.recv() => Ok(()),
    }
}
