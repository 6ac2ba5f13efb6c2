//! A web application as small as one can be and still be honest: it says who answered, and stops without breaking off what
//! it has begun.
//!
//! ```text
//! start ─ START_MS ─> listens ─ READY_MS ─> /readyz says 200 ... SIGTERM ─ LINGER_MS (still takes connections) ─> lets
//! the requests in hand end ─> exit
//! ```
//!
//! It speaks HTTP/1.1 and h2c on one port; what it answers is in [`answer`]. The delays show how an autoscaler copes with
//! applications that take their time.

mod answer;
mod websocket;

use std::net::{Ipv6Addr, SocketAddr};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Parser;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::answer::App;

/// Answers HTTP requests with what it was sent.
#[derive(Parser)]
#[command(version)]
struct Settings {
    /// Port to listen on.
    #[arg(long, env = "PORT", default_value_t = 8080)]
    port: u16,
    /// How long after its start it begins to listen, in milliseconds.
    #[arg(long, env = "START_MS", default_value_t = 0)]
    start_ms: u64,
    /// How long after it began to listen it breaks off each connection that it has accepted, in milliseconds.
    #[arg(long, env = "BREAK_MS", default_value_t = 0)]
    break_ms: u64,
    /// How long after it began to listen /readyz says 200, in milliseconds.
    #[arg(long, env = "READY_MS", default_value_t = 0)]
    ready_ms: u64,
    /// How long each answer takes, in milliseconds; a request may say so itself by ?delay=.
    #[arg(long, env = "WORK_MS", default_value_t = 0)]
    work_ms: u64,
    /// How long it still takes connections after SIGTERM, in milliseconds.
    #[arg(long, env = "LINGER_MS", default_value_t = 0)]
    linger_ms: u64,
    /// How long requests may then take to end, in seconds.
    #[arg(long, env = "DRAIN_SECONDS", default_value_t = 20)]
    drain_seconds: u64,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    // Before anything else: a pod may be stopped in the moment it starts.
    let stop = stop_signals();
    tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_target(false)
        .init();
    match run(&Settings::parse(), stop).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "stopped");
            ExitCode::FAILURE
        }
    }
}

async fn run(settings: &Settings, stop: anyhow::Result<(Signal, Signal)>) -> anyhow::Result<()> {
    let (mut term, mut interrupt) = stop?;
    let stopped = async {
        tokio::select! {
            _ = term.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    let stopping = CancellationToken::new();
    let tasks = TaskTracker::new();
    let serve = async {
        sleep(Duration::from_millis(settings.start_ms)).await;
        let address = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), settings.port);
        let listener = TcpListener::bind(address)
            .await
            .with_context(|| format!("listening on {address}"))?;
        tracing::info!(%address, "listening");
        accept(settings, &listener, &stopping, &tasks).await;
        anyhow::Ok(())
    };
    tokio::select! {
        failed = serve => failed?,
        () = async {
            stopped.await;
            sleep(Duration::from_millis(settings.linger_ms)).await;
        } => {}
    }
    stopping.cancel();
    tasks.close();
    tokio::select! {
        () = tasks.wait() => {}
        () = sleep(Duration::from_secs(settings.drain_seconds)) => tracing::warn!("requests were cut off"),
    }
    tracing::info!("stopped");
    Ok(())
}

/// Never returns.
async fn accept(
    settings: &Settings,
    listener: &TcpListener,
    stopping: &CancellationToken,
    tasks: &TaskTracker,
) {
    let since = Instant::now();
    let app = Arc::new(App {
        pod: std::env::var("HOSTNAME").unwrap_or_default(),
        ready_from: since + Duration::from_millis(settings.ready_ms),
        work: Duration::from_millis(settings.work_ms),
    });
    loop {
        match listener.accept().await {
            Ok((stream, _)) if since.elapsed() < Duration::from_millis(settings.break_ms) => drop(stream),
            Ok((stream, _)) => drop(tasks.spawn(connection(stream, app.clone(), stopping.clone()))),
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, app: Arc<App>, stopping: CancellationToken) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::warn!(%error, "a connection stays slow");
    }
    let service = service_fn(|request| app.clone().answer(request));
    let builder = auto::Builder::new(TokioExecutor::new());
    let serve = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    tokio::pin!(serve);
    let ended = tokio::select! {
        ended = &mut serve => ended,
        () = stopping.cancelled() => {
            serve.as_mut().graceful_shutdown();
            serve.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(error = format!("{error:#}"), "a connection broke");
    }
}

fn stop_signals() -> anyhow::Result<(Signal, Signal)> {
    let term = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
    let interrupt = signal(SignalKind::interrupt()).context("listening for SIGINT")?;
    Ok((term, interrupt))
}
