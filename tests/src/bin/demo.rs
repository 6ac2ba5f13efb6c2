//! The demo: a queue worker on a real cluster goes from 0 to many pods and back, and says why at each step.
//!
//! Run by `cargo xtask demo`, which brings the cluster up and the images in.
#![allow(clippy::print_stdout, reason = "what it prints is what it is for")]

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::{ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use dormouse_api::{ConditionStatus, ScaledObject};
use dormouse_tests::example::{NAME, SqsWorker};
use dormouse_tests::scaled_object::condition;
use dormouse_tests::sqs::{self, Depth, free_address};
use dormouse_tests::{Cluster, Installation, Namespace, Queue, Timeline, logs, until};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::{Event, Namespace as KubeNamespace, Pod};
use kube::api::{Api, ListParams};
use tokio::process::{Child, Command};

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

/// What happened, each duration from the first message on.
struct Story {
    processed: usize,
    repeated: usize,
    peak: i32,
    woke: Duration,
    peaked: Duration,
    done: Duration,
    asleep: Duration,
}

/// One line of the table.
#[derive(PartialEq)]
struct Row {
    depth: Depth,
    ready: i32,
    wanted: i32,
    hpa: Option<i32>,
    why: String,
}

impl Row {
    const HEAD: &str = "  time  visible  in flight  replicas  HPA wants  last decision, and why";

    fn print(&self, since: Instant) {
        let hpa = self.hpa.map_or("-".to_owned(), |wish| wish.to_string());
        let (visible, in_flight) = (self.depth.visible, self.depth.in_flight);
        let replicas = format!("{}/{}", self.ready, self.wanted);
        let time = since.elapsed().as_secs_f64();
        println!(
            "{time:>6.1}  {visible:>7}  {in_flight:>9}  {replicas:>8}  {hpa:>9}  {}",
            self.why
        );
    }
}

/// The newest of what is said in two places, of which only one carries a time.
#[derive(Default)]
struct Why {
    condition: Option<String>,
    event: Option<String>,
    said: String,
}

impl Why {
    fn hear(&mut self, condition: Option<String>, event: Option<String>) {
        if condition != self.condition {
            self.said = condition.clone().unwrap_or_default();
            self.condition = condition;
        }
        if event != self.event {
            // The HPA controller prints its label selector as a Go value.
            let text = event.clone().unwrap_or_default();
            let (before, rest) = text.split_once("(&LabelSelector").unwrap_or((text.as_str(), ""));
            let after = rest.split_once(",})").map_or("", |(_, after)| after);
            self.said = format!("{before}{after}");
            self.event = event;
        }
    }
}

/// What the demo looks at.
struct Board {
    scaled_object: Timeline<(bool, String)>,
    replicas: Timeline<(i32, i32)>,
    hpa: Timeline<Option<i32>>,
    events: Api<Event>,
    pods: Api<Pod>,
}

impl Board {
    fn watch(cluster: &Cluster, namespace: &Namespace) -> Self {
        let hpa = format!("keda-hpa-{NAME}");
        Self {
            scaled_object: Timeline::of(namespace.api::<ScaledObject>(), NAME, |object| {
                let ready = condition(object, "Ready").is_some_and(|one| one.status == ConditionStatus::True);
                let active = condition(object, "Active").and_then(|one| one.message.clone());
                (ready, active.unwrap_or_default())
            }),
            replicas: Timeline::of(namespace.api::<Deployment>(), NAME, |object| {
                let ready = object.status.as_ref().and_then(|status| status.ready_replicas);
                (
                    ready.unwrap_or(0),
                    object.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1),
                )
            }),
            hpa: Timeline::of(namespace.api::<HorizontalPodAutoscaler>(), &hpa, |object| {
                object.status.as_ref().map(|status| status.desired_replicas)
            }),
            events: Api::namespaced(cluster.client(), namespace.name()),
            pods: namespace.api(),
        }
    }

    async fn asleep(&self, deadline: Duration) -> Result<()> {
        self.scaled_object
            .reaches("the ScaledObject is Ready", deadline, |(ready, _)| *ready)
            .await?;
        self.replicas
            .reaches("the Deployment is scaled to 0", deadline, |(_, wanted)| {
                *wanted == 0
            })
            .await?;
        until("its pods are gone", deadline, async || {
            let left = self.pods.list(&ListParams::default()).await?.items.len();
            ensure!(left == 0, "{left} are left");
            Ok(())
        })
        .await
    }

    /// Prints the table until every message is processed and the worker sleeps again.
    async fn follow(&self, sent: Instant, jobs: &Queue, results: &Queue, bodies: &[String]) -> Result<Story> {
        let mut seen: BTreeMap<String, usize> = BTreeMap::new();
        let mut done = None;
        let mut printed: Option<(Instant, Row)> = None;
        let mut why = Why::default();
        let mut sleeping_since: Option<Instant> = None;
        println!("{}", Row::HEAD);
        loop {
            for body in results.drain().await? {
                *seen.entry(body).or_default() += 1;
            }
            if done.is_none() && bodies.iter().all(|body| seen.contains_key(body)) {
                done = Some(sent.elapsed());
            }
            let row = self.row(jobs.depth().await?, &mut why).await?;
            let quiet = |(at, last): &(Instant, Row)| *last == row && at.elapsed() < Duration::from_secs(5);
            let sleeping = row.wanted == 0 && row.ready == 0;
            sleeping_since = sleeping.then(|| sleeping_since.unwrap_or_else(Instant::now));
            if !printed.as_ref().is_some_and(quiet) {
                row.print(sent);
                printed = Some((Instant::now(), row));
            }
            // A moment more, for the Event that says why.
            let rested = sleeping_since.is_some_and(|since| since.elapsed() > Duration::from_secs(2));
            if let (Some(done), true) = (done, rested) {
                return self.story(sent, done, &seen, bodies);
            }
            if done.is_none() && sent.elapsed() > Duration::from_secs(300) {
                bail!(
                    "{} of {} messages were processed within 5 minutes",
                    seen.len(),
                    bodies.len()
                );
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    async fn row(&self, depth: Depth, why: &mut Why) -> Result<Row> {
        let (ready, wanted) = self.replicas.now().unwrap_or_default();
        let condition = self.scaled_object.now().map(|(_, active)| active);
        why.hear(condition, self.newest_event().await?);
        Ok(Row {
            depth,
            ready,
            wanted,
            hpa: self.hpa.now().flatten(),
            why: why.said.clone(),
        })
    }

    /// What the operator or the HPA controller said last about a change of replicas.
    async fn newest_event(&self) -> Result<Option<String>> {
        const TELLING: [&str; 4] = [
            "KEDAScaleTargetActivated",
            "KEDAScaleTargetDeactivated",
            "KEDAScalerFailed",
            "SuccessfulRescale",
        ];
        let events = self
            .events
            .list(&ListParams::default())
            .await
            .context("reading the events")?;
        let telling = events.items.into_iter().filter(|event| {
            event
                .reason
                .as_deref()
                .is_some_and(|reason| TELLING.contains(&reason))
        });
        // One that is said again is the same Event, seen again.
        let when = |event: &Event| {
            let again = event
                .series
                .as_ref()
                .and_then(|series| series.last_observed_time.as_ref());
            let exact = event.event_time.as_ref().max(again).map(|time| time.0);
            exact.max(event.last_timestamp.as_ref().map(|time| time.0))
        };
        Ok(telling.max_by_key(when).and_then(|event| event.message))
    }

    fn story(
        &self,
        sent: Instant,
        done: Duration,
        seen: &BTreeMap<String, usize>,
        bodies: &[String],
    ) -> Result<Story> {
        let changes = self.replicas.changes();
        let after = || changes.iter().filter(|change| change.at >= sent);
        let peak = after().map(|change| change.value.1).max().unwrap_or_default();
        let first = |wanted: &dyn Fn(i32) -> bool| {
            let found = after()
                .find(|change| wanted(change.value.1))
                .map(|change| change.at - sent);
            found.ok_or_else(|| anyhow!("the replicas never changed"))
        };
        let last = after()
            .next_back()
            .ok_or_else(|| anyhow!("the replicas never changed"))?;
        Ok(Story {
            processed: bodies.iter().filter(|body| seen.contains_key(*body)).count(),
            repeated: seen.values().filter(|count| **count > 1).count(),
            peak,
            woke: first(&|wanted| wanted > 0)?,
            peaked: first(&|wanted| wanted == peak)?,
            done,
            asleep: last.at - sent,
        })
    }
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
