//! A queue worker as small as one can be and still be honest: it loses no message, whenever it is told to stop.
//!
//! ```text
//! receive (long poll, one at a time) ─> work ─> pass the result on ─> delete
//!        └── SIGTERM: what the poll still brings is given back   └── SIGTERM: finish, or give back after DRAIN_SECONDS
//! ```
//!
//! A message is deleted only after its result is out, so it may be done twice, never not at all.

mod queue;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::queue::{Job, Queue};

/// Receives messages from an SQS queue, works on each, and deletes it.
#[derive(Parser)]
#[command(version)]
struct Settings {
    /// URL of the queue to work on.
    #[arg(long, env = "QUEUE_URL")]
    queue_url: String,
    /// URL of a queue that each finished message's body is sent to.
    #[arg(long, env = "RESULT_QUEUE_URL")]
    result_queue_url: Option<String>,
    /// How long the work on one message takes, in milliseconds.
    #[arg(long, env = "WORK_MS", default_value_t = 1000)]
    work_ms: u64,
    /// How long one receive waits for a message, in seconds.
    #[arg(long, env = "WAIT_SECONDS", default_value_t = 5, value_parser = clap::value_parser!(i32).range(0..=20))]
    wait_seconds: i32,
    /// How long after SIGTERM the message in hand may take, in seconds; then it is given back.
    #[arg(long, env = "DRAIN_SECONDS", default_value_t = 20)]
    drain_seconds: u64,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    // Before anything else: a pod may be stopped in the moment it starts.
    let stopping = stop_signal();
    tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_target(false)
        .init();
    match run(Settings::parse(), stopping).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "stopped");
            ExitCode::FAILURE
        }
    }
}

async fn run(settings: Settings, stopping: anyhow::Result<Stopping>) -> anyhow::Result<()> {
    let mut stopping = stopping?;
    let work = Duration::from_millis(settings.work_ms);
    let queue = Queue::open(
        settings.queue_url,
        settings.result_queue_url,
        work,
        settings.wait_seconds,
    )
    .await;
    let mut pause = FIRST_PAUSE;
    tracing::info!("ready");
    while stopping.borrow().is_none() {
        // The poll is left to end by itself even when SIGTERM comes: an abandoned one may already have taken a message,
        // which would then stay hidden until its visibility timeout.
        let job = match queue.receive().await {
            Ok(job) => job,
            Err(error) => {
                tracing::warn!(error = format!("{error:#}"), "receive failed");
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    _ = stopping.changed() => {}
                }
                pause = (pause * 2).min(LONGEST_PAUSE);
                continue;
            }
        };
        pause = FIRST_PAUSE;
        let Some(job) = job else { continue };
        if stopping.borrow().is_some() {
            queue
                .give_back(&job)
                .await
                .context("giving back a message received while stopping")?;
            break;
        }
        handle(
            &queue,
            job,
            work,
            &mut stopping,
            Duration::from_secs(settings.drain_seconds),
        )
        .await;
    }
    tracing::info!("stopped");
    Ok(())
}

/// Works on one message. A failure leaves it in the queue, to be received again.
async fn handle(queue: &Queue, job: Job, work: Duration, stopping: &mut Stopping, drain: Duration) {
    let began = Instant::now();
    let done = tokio::select! {
        () = tokio::time::sleep(work) => true,
        () = drained(stopping, drain) => false,
    };
    let outcome = if done {
        queue.finish(&job).await
    } else {
        queue.give_back(&job).await
    };
    let (id, attempt, took_ms) = (job.id(), job.attempt(), began.elapsed().as_millis() as u64);
    match outcome {
        Ok(()) if done => tracing::info!(id, attempt, took_ms, "done"),
        Ok(()) => tracing::info!(id, attempt, took_ms, "given back"),
        Err(error) => tracing::warn!(id, attempt, took_ms, error = format!("{error:#}"), "failed"),
    }
}

/// When SIGTERM or SIGINT came, once it has.
type Stopping = watch::Receiver<Option<Instant>>;

const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

fn stop_signal() -> anyhow::Result<Stopping> {
    let (tell, stopping) = watch::channel(None);
    let mut term = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listening for SIGINT")?;
    tokio::spawn(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = interrupt.recv() => {}
        }
        tell.send_replace(Some(Instant::now()));
        tell.closed().await;
    });
    Ok(stopping)
}

/// Returns `drain` after the stop signal; never before one came.
async fn drained(stopping: &mut Stopping, drain: Duration) {
    let since = match stopping.wait_for(Option::is_some).await {
        Ok(at) => *at,
        Err(_) => None,
    };
    match since {
        Some(at) => tokio::time::sleep_until((at + drain).into()).await,
        None => std::future::pending().await,
    }
}
