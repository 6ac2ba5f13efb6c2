//! The interceptor's data plane by itself: no cluster, all on loopback, so that nothing else asks for the processors.
//!
//! ```text
//! load (this process) ──> interceptor ──> nginx as the application
//!                    └──> nginx as a proxy ──┘
//! ```
//!
//! Peers are measured in turn, in the same minute: what is left of the noise is the same for both.

mod added;
mod api;
mod closed;
mod held;
mod interceptor;
mod nginx;

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::process::Command;
use tokio::time::{Instant, sleep};

use self::added::latencies;
pub(crate) use self::added::percentile;
use self::api::{ApiServer, host};
use self::closed::{Throughput, throughput};
use self::interceptor::Interceptor;
use self::nginx::Nginx;
use crate::figures::Figures;
use crate::process::Process;
use crate::steps::{load_average, say};

/// For everything.
pub(crate) const LIMIT: Duration = Duration::from_secs(20 * 60);
/// Connections of a load, as in the peers' figures.
const CONNECTIONS: usize = 50;
const ROUNDS: usize = 5;
const RATE: u32 = 1000;
const MANY_ROUTES: usize = 10_000;
/// How long a fresh process is left alone before it is weighed.
const REST: Duration = Duration::from_secs(5);

/// Measures the interceptor's data plane.
#[derive(clap::Args, Clone)]
pub(crate) struct Arguments {
    /// The program dormouse
    #[arg(long)]
    dormouse: PathBuf,
    /// Where the figures go as JSON
    #[arg(long)]
    pub(crate) json: Option<PathBuf>,
    /// Record the interceptor with perf under load, into this directory
    #[arg(long)]
    perf: Option<PathBuf>,
    /// Threads of the interceptor that carry requests, and workers of nginx
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Seconds of each load
    #[arg(long, default_value_t = 4)]
    seconds: u64,
    /// Only steps whose name has this in it: throughput, latency, held, routes
    #[arg(long, default_value = "")]
    only: String,
}

impl Arguments {
    fn span(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }

    async fn interceptor(&self, api: &ApiServer) -> Result<Interceptor> {
        Interceptor::start(&self.dormouse, self.threads, api).await
    }
}

/// Goes through all steps.
pub(crate) async fn all(arguments: &Arguments, figures: &mut Figures) -> Result<()> {
    let note = "waiting for a processor before the start";
    figures.add("load", load_average(), "processes", None, note);
    let processors = std::thread::available_parallelism().map_or(0, usize::from);
    let note = format!(
        "shared by all; {} data threads, as many nginx workers",
        arguments.threads
    );
    figures.add("processors", processors as f64, "", None, note);
    let app = Nginx::application(arguments.threads).await?;
    let does = |step: &str| step.contains(&arguments.only);
    if does("throughput") {
        versus_nginx(arguments, &app, figures).await?;
    }
    if does("latency") {
        added_latency(arguments, &app, figures).await?;
    }
    if does("held") {
        held::all(arguments, &app, figures).await?;
    }
    if does("routes") {
        many_routes(arguments, &app, figures).await?;
    }
    Ok(())
}

async fn versus_nginx(arguments: &Arguments, app: &Nginx, figures: &mut Figures) -> Result<()> {
    say("requests per second of processor time, beside nginx");
    let api = ApiServer::start(1, Some(app.address())).await?;
    let ours = arguments.interceptor(&api).await?;
    let theirs = Nginx::proxy(arguments.threads, app.address()).await?;
    let hosts = vec![host(0); CONNECTIONS];
    let mut rounds = Vec::new();
    for round in 0..ROUNDS {
        let theirs = throughput(theirs.address(), &hosts, &theirs.workers()?, arguments.span()).await?;
        if round == ROUNDS / 2 {
            record(arguments, "throughput", ours.process()?);
        }
        let ours = throughput(ours.address(), &hosts, &[ours.process()?], arguments.span()).await?;
        rounds.push((ours, theirs));
    }
    let of = |value: fn(&(Throughput, Throughput)) -> f64| median(rounds.iter().map(value).collect());
    let ours = of(|(ours, _)| ours.per_cpu_second);
    let theirs = of(|(_, theirs)| theirs.per_cpu_second);
    let spread: Vec<_> = rounds
        .iter()
        .map(|(ours, theirs)| ours.per_cpu_second / theirs.per_cpu_second)
        .collect();
    let note = format!("median of {ROUNDS} rounds in turn: {}", list(&spread));
    figures.add_at_least("throughput_vs_nginx", median(spread), "of nginx's", 0.8, note);
    let note = |rate: f64| format!("{rate:.0} per second, with load and application on the same processors");
    let rate = of(|(ours, _)| ours.per_second);
    figures.add("throughput", ours, "per CPU-second", None, note(rate));
    let rate = of(|(_, theirs)| theirs.per_second);
    figures.add("throughput_nginx", theirs, "per CPU-second", None, note(rate));
    Ok(())
}

async fn added_latency(arguments: &Arguments, app: &Nginx, figures: &mut Figures) -> Result<()> {
    say("latency at 1,000 requests per second, beside as many straight to the application");
    let api = ApiServer::start(1, Some(app.address())).await?;
    let ours = arguments.interceptor(&api).await?;
    let (mut p50, mut p99, mut own) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let both = latencies(app.address(), ours.address(), &host(0), RATE, arguments.span()).await?;
        let added =
            |share| Some((percentile(&both.proxied, share)? - percentile(&both.direct, share)?) * 1000.0);
        p50.extend(added(0.5));
        p99.extend(added(0.99));
        own.extend(percentile(&both.direct, 0.99).map(|seconds| seconds * 1000.0));
    }
    figures.add(
        "added_latency_p50",
        median(p50),
        "ms",
        None,
        format!("median of {ROUNDS} rounds"),
    );
    let note = format!(
        "rounds: {}; straight to the application {}",
        list(&p99),
        list(&own)
    );
    figures.add("added_latency_p99", median(p99), "ms", 1.0, note);
    Ok(())
}

async fn many_routes(arguments: &Arguments, app: &Nginx, figures: &mut Figures) -> Result<()> {
    say("10,000 routes, each with its own Service and slice");
    let api = ApiServer::start(MANY_ROUTES, Some(app.address())).await?;
    let began = Instant::now();
    let many = arguments.interceptor(&api).await?;
    let note = format!("ready {:.1} s after its start", began.elapsed().as_secs_f64());
    sleep(REST).await;
    figures.add("routes_10k_rss", many.process()?.resident()?, "MiB", 60.0, note);
    let few_api = ApiServer::start(CONNECTIONS, Some(app.address())).await?;
    let few = arguments.interceptor(&few_api).await?;
    let hosts = |step: usize| {
        (0..CONNECTIONS)
            .map(|number| host(number * step))
            .collect::<Vec<_>>()
    };
    let mut rounds = Vec::new();
    let (some, spread) = (hosts(1), hosts(MANY_ROUTES / CONNECTIONS));
    let of_few = async || throughput(few.address(), &some, &[few.process()?], arguments.span()).await;
    let of_many = async || throughput(many.address(), &spread, &[many.process()?], arguments.span()).await;
    for round in 0..2 * ROUNDS {
        // Each as often after the other: the machine is not the same from one minute to the next.
        let (of_few, of_many) = if round % 2 == 0 {
            let first = of_few().await?;
            (first, of_many().await?)
        } else {
            let first = of_many().await?;
            (of_few().await?, first)
        };
        rounds.push(of_many.per_cpu_second / of_few.per_cpu_second);
    }
    let note = format!(
        "of {CONNECTIONS} routes among 10,000, over that of {CONNECTIONS} alone: {}",
        list(&rounds)
    );
    figures.add_at_least(
        "routes_10k_throughput",
        median(rounds),
        "of few routes'",
        0.98,
        note,
    );
    let resident = many.process()?.resident()?;
    figures.add("routes_10k_rss_after_load", resident, "MiB", None, "");
    Ok(())
}

/// Records a process for the next few seconds, where that was asked for.
fn record(arguments: &Arguments, step: &str, process: Process) {
    let Some(dir) = &arguments.perf else { return };
    let spawned = Command::new("perf")
        .args(["record", "--quiet", "--freq=1999", "--call-graph=fp", "--output"])
        .arg(dir.join(format!("{step}.data")))
        .args(["--pid", &process.0.to_string(), "--", "sleep"])
        .arg(arguments.seconds.to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn();
    if let Err(error) = spawned {
        say(&format!("perf cannot be started: {error}"));
    }
}

/// A port of loopback that is free now.
fn port() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no port is free")?;
    Ok(listener.local_addr()?.port())
}

/// Waits until somebody takes connections at `address`.
async fn until_listening(address: SocketAddr) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(10);
    while let Err(error) = tokio::net::TcpStream::connect(address).await {
        anyhow::ensure!(Instant::now() < deadline, "nobody listens at {address}: {error}");
        sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let at = |index: usize| values.get(index).copied().unwrap_or(f64::NAN);
    // Of an even number, both in the middle.
    f64::midpoint(at(values.len() / 2), at(values.len().saturating_sub(1) / 2))
}

fn list(values: &[f64]) -> String {
    let values: Vec<_> = values.iter().map(|value| format!("{value:.2}")).collect();
    values.join(" ")
}
