//! The demo: a queue worker on a real cluster goes from 0 to many pods and back, and says why at each step.
//!
//! Run by `cargo xtask demo`, which brings the cluster up and the images in.
#![allow(clippy::print_stdout, reason = "what it prints is what it is for")]

mod board;

use std::io::Write as _;
use std::process::{ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use dormouse_tests::example::SqsWorker;
use dormouse_tests::sqs::{self, free_address};
use dormouse_tests::{Cluster, Installation, Namespace, Queue, logs, until};
use k8s_openapi::api::core::v1::Namespace as KubeNamespace;
use kube::api::Api;
use tokio::process::{Child, Command};

use crate::board::Board;

const MESSAGES: usize = 100;
const ACCESS_KEY: &str = "DEMOACCESSKEY";
const WHOLE_DEADLINE: Duration = Duration::from_secs(600);

#[tokio::main]
async fn main() -> ExitCode {
    let outcome = tokio::time::timeout(WHOLE_DEADLINE, run()).await;
    match outcome.unwrap_or_else(|_| {
        Err(anyhow!(
            "not done after {} minutes",
            WHOLE_DEADLINE.as_secs() / 60
        ))
    }) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("\nThe demo failed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<()> {
    let cluster = step("connecting to the cluster", Cluster::connect()).await?;
    let installation = step("installing the chart", Installation::shared(&cluster)).await?;
    let outcome = scale(&cluster).await;
    if outcome.is_err() {
        let said = logs::of_operator(&cluster, &installation)
            .await
            .unwrap_or_default();
        let lines: Vec<_> = said.lines().collect();
        println!(
            "\nThe end of the operator's log:\n{}",
            lines[lines.len().saturating_sub(25)..].join("\n")
        );
    }
    outcome
}

async fn scale(cluster: &Cluster) -> Result<()> {
    let secret = format!("demo-{:016x}", std::process::id() as u64 ^ 0x9e37_79b9_7f4a_7c15);
    let (_server, endpoint) = step("starting an SQS server", start_server(&secret)).await?;
    let client = sqs::client(&endpoint, ACCESS_KEY, &secret);
    let jobs = Queue::create(client.clone(), "jobs").await?;
    let results = Queue::create(client, "results").await?;
    let namespace = Namespace::create(cluster, "demo").await?;
    let outcome = scale_in(cluster, &namespace, &endpoint, secret, &jobs, &results).await;
    let gone = step("cleaning up", clean_up(cluster, namespace)).await;
    outcome.and(gone)
}

async fn scale_in(
    cluster: &Cluster,
    namespace: &Namespace,
    endpoint: &str,
    secret: String,
    jobs: &Queue,
    results: &Queue,
) -> Result<()> {
    let board = Board::watch(cluster, namespace);
    let example = SqsWorker {
        queue_url: jobs.url().to_owned(),
        result_queue_url: results.url().to_owned(),
        endpoint: endpoint.to_owned(),
        access_key: ACCESS_KEY.to_owned(),
        secret_key: secret,
        work: Duration::from_secs(1),
        spec: Vec::new(),
        queue_length: 10,
    };
    step(
        "applying deploy/examples/sqs-worker",
        example.apply(cluster, namespace),
    )
    .await?;
    step(
        "waiting until it is ready, and asleep as its queue is empty",
        board.asleep(Duration::from_secs(90)),
    )
    .await?;

    let bodies: Vec<String> = (1..=MESSAGES).map(|number| format!("message {number}")).collect();
    println!("\nSending {MESSAGES} messages.\n");
    let sent = Instant::now();
    jobs.send(&bodies).await?;
    let story = board.follow(sent, jobs, results, &bodies).await?;

    println!(
        "\n{} of {MESSAGES} messages processed, each at least once",
        story.processed
    );
    if story.repeated > 0 {
        println!("  ({} of them more than once, as SQS allows)", story.repeated);
    }
    println!("Peak replicas: {}", story.peak);
    for (what, took) in [
        ("first message to first replica", story.woke),
        ("first message to peak", story.peaked),
        ("first message to last one processed", story.done),
        ("last one processed to asleep", story.asleep - story.done),
    ] {
        println!("  {what:<38} {:>6.1} s", took.as_secs_f64());
    }
    ensure!(
        story.processed == MESSAGES,
        "{} messages were never processed",
        MESSAGES - story.processed
    );
    ensure!(
        story.peak > 1,
        "the peak was {} replicas: nothing scaled out",
        story.peak
    );
    Ok(())
}

/// Starts the SQS server that was built beside this program.
async fn start_server(secret: &str) -> Result<(Child, String)> {
    let program = std::env::current_exe()
        .context("finding this program")?
        .with_file_name("sqs-server");
    let address = free_address().await?;
    let child = Command::new(&program)
        .args(["--bind", &address.to_string()])
        .env("SQS_ACCESS_KEY", ACCESS_KEY)
        .env("SQS_SECRET_KEY", secret)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("unable to start {}; build it first", program.display()))?;
    let endpoint = format!("http://{address}");
    let client = sqs::client(&endpoint, ACCESS_KEY, secret);
    until("the SQS server answers", Duration::from_secs(15), async || {
        client
            .list_queues()
            .send()
            .await
            .map(drop)
            .map_err(|_| anyhow!("no answer at {address}"))
    })
    .await?;
    Ok((child, endpoint))
}

/// Deletes the namespace and waits until it is gone: while the operator runs, its finalizers come off.
async fn clean_up(cluster: &Cluster, namespace: Namespace) -> Result<()> {
    let name = namespace.name().to_owned();
    drop(namespace);
    let api = Api::<KubeNamespace>::all(cluster.client());
    until(
        "the demo's namespace is gone",
        Duration::from_secs(90),
        async || {
            ensure!(api.get_opt(&name).await?.is_none(), "it is still there");
            Ok(())
        },
    )
    .await
}

async fn step<T>(what: &str, work: impl Future<Output = Result<T>>) -> Result<T> {
    print!("{what} ... ");
    std::io::stdout().flush().context("printing")?;
    let began = Instant::now();
    let outcome = work.await;
    let word = if outcome.is_ok() { "done" } else { "failed" };
    println!("{word} ({:.1} s)", began.elapsed().as_secs_f64());
    outcome
}
