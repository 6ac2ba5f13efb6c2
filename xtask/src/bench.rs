//! `cargo xtask bench`: builds the release and runs a bench program with it, on the cluster where that is what is measured.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::build::{self, Built, Tests};
use crate::cache::{Cache, Digest};
use crate::cluster::{Cluster, Pace};
use crate::process::run;
use crate::setup::debian;
use crate::test::Stand;
use crate::workspace::{PROFILE, Workspace};

#[derive(clap::Subcommand)]
pub(crate) enum Task {
    /// The operator with many objects: how quick it is and what it uses
    Operator(Operator),
    /// The interceptor: what a request costs on its way, what those weigh that wait, and how long a cold start takes
    Http(Http),
}

#[derive(clap::Args)]
pub(crate) struct Http {
    /// Also write the figures here, as [{name, value, unit, goal}]
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Record the interceptor with perf under load, into this directory
    #[arg(long, value_name = "DIR")]
    perf: Option<PathBuf>,
    /// Take the program that tests use instead of a release: quicker to build, and slower
    #[arg(long)]
    unoptimised: bool,
    /// Only the steps whose name has this in it: throughput, latency, held, routes; edges, cold
    #[arg(long, default_value = "")]
    only: String,
}

#[derive(clap::Args)]
pub(crate) struct Operator {
    /// How many ScaledObjects
    #[arg(long, default_value_t = 1000)]
    objects: u32,
    /// Also write the figures here, as [{name, value, unit, goal}]
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Record the leader with perf in each step, into this directory
    #[arg(long, value_name = "DIR")]
    perf: Option<PathBuf>,
    /// Take the operator that tests use instead of a release: quicker to build, and slower
    #[arg(long)]
    unoptimised: bool,
}

/// The steps of `bench http` that need no cluster, and those that do.
const PLANE: &[&str] = &["throughput", "latency", "held", "routes"];
const WAKE: &[&str] = &["edges", "cold"];
/// The program gives up by itself well before.
const LIMIT: Duration = Duration::from_secs(90 * 60);

/// Runs a bench to its end. A figure that misses its goal is no failure.
pub(crate) fn bench(workspace: &Workspace, cache: &Cache, cluster: &Cluster, task: &Task) -> Result<()> {
    match task {
        Task::Operator(arguments) => operator(workspace, cache, cluster, arguments),
        Task::Http(arguments) => http(workspace, cache, cluster, arguments),
    }
}

fn operator(workspace: &Workspace, cache: &Cache, cluster: &Cluster, arguments: &Operator) -> Result<()> {
    let outputs = outputs(arguments.json.as_deref(), arguments.perf.as_deref())?;
    let stand = Stand::prepare(workspace, cache, cluster, false)?;
    let built = programs(workspace, arguments.unoptimised)?;
    let mut digest = Digest::new();
    digest.file(built.program("dormouse")?)?;
    stand.start_at(workspace, cache, &built, &Pace::ordinary())?;
    let mut bench = cluster.inside(built.program("bench")?);
    bench.args(["operator", "--objects", &arguments.objects.to_string()]);
    // A letter first: helm takes digits for a number.
    bench.args(["--build", &format!("b{}", digest.finish())]);
    bench.args(outputs);
    if stand.was_up() {
        bench.arg("--clear");
    }
    bench.envs(stand.environment(workspace)?);
    run(&mut bench, LIMIT)
}

/// First what needs no cluster, for as long as none asks for the processors.
fn http(workspace: &Workspace, cache: &Cache, cluster: &Cluster, arguments: &Http) -> Result<()> {
    let json = arguments.json.as_deref();
    let json = json.map(std::path::absolute).transpose();
    let json = json.context("unable to tell where the figures go")?;
    debian::ensure(debian::PEERS)?;
    let built = programs(workspace, arguments.unoptimised)?;
    let dir = tempfile::tempdir().context("unable to create a directory for the figures")?;
    let mut figures = Vec::new();
    let mut step = |mut bench: Command, outputs: Vec<OsString>, name: &str| {
        let file = dir.path().join(name);
        bench.args(outputs).arg("--json").arg(&file);
        run(&mut bench, LIMIT)?;
        let text = std::fs::read_to_string(&file).context("the bench left no figures")?;
        let some: Vec<serde_json::Value> = serde_json::from_str(&text).context("the figures are no list")?;
        figures.extend(some);
        Ok::<_, anyhow::Error>(())
    };
    let takes = |steps: &[&str]| steps.iter().any(|step| step.contains(&arguments.only));
    if takes(PLANE) {
        let mut bench = Command::new(built.program("bench")?);
        bench
            .args(["plane", "--only", &arguments.only, "--dormouse"])
            .arg(built.program("dormouse")?);
        step(bench, outputs(None, arguments.perf.as_deref())?, "plane.json")?;
    }
    if takes(WAKE) {
        let mut digest = Digest::new();
        digest.file(built.program("dormouse")?)?;
        let stand = Stand::prepare(workspace, cache, cluster, false)?;
        stand.start_at(workspace, cache, &built, &Pace::ordinary())?;
        let mut bench = cluster.inside(built.program("bench")?);
        bench.args([
            "wake",
            "--only",
            &arguments.only,
            "--build",
            &format!("b{}", digest.finish()),
        ]);
        if stand.was_up() {
            bench.arg("--clear");
        }
        bench.envs(stand.environment(workspace)?);
        step(bench, Vec::new(), "wake.json")?;
    }
    let Some(file) = json else { return Ok(()) };
    let text = serde_json::to_string_pretty(&figures).context("encoding the figures")?;
    std::fs::write(&file, text + "\n").with_context(|| format!("unable to write {}", file.display()))
}

/// Where a bench is to leave what it found, as its own arguments.
fn outputs(json: Option<&Path>, perf: Option<&Path>) -> Result<Vec<OsString>> {
    let mut arguments = Vec::new();
    if let Some(file) = json {
        let file = std::path::absolute(file).context("unable to tell where the figures go")?;
        arguments.extend(["--json".into(), file.into()]);
    }
    if let Some(dir) = perf {
        std::fs::create_dir_all(dir).with_context(|| format!("unable to create {}", dir.display()))?;
        let dir = std::path::absolute(dir).context("unable to tell where the recordings go")?;
        arguments.extend(["--perf".into(), dir.into()]);
    }
    Ok(arguments)
}

/// All programs; `dormouse` as in a release.
fn programs(workspace: &Workspace, unoptimised: bool) -> Result<Built> {
    let mut built = build::build(workspace, PROFILE, Tests::None)?;
    if !unoptimised {
        let release = build::release(workspace, "dormouse-cli", "dormouse")?;
        built.replace("dormouse", release);
    }
    Ok(built)
}
