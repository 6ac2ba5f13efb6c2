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
    /// The interceptor: what a request costs on its way, and what those weigh that wait
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
    /// Only the steps whose name has this in it: throughput, latency, held, routes
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

/// The program gives up by itself well before.
const LIMIT: Duration = Duration::from_secs(90 * 60);

/// Runs a bench to its end. A figure that misses its goal is no failure.
pub(crate) fn bench(workspace: &Workspace, cache: &Cache, cluster: &Cluster, task: &Task) -> Result<()> {
    match task {
        Task::Operator(arguments) => operator(workspace, cache, cluster, arguments),
        Task::Http(arguments) => http(workspace, arguments),
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

fn http(workspace: &Workspace, arguments: &Http) -> Result<()> {
    let outputs = outputs(arguments.json.as_deref(), arguments.perf.as_deref())?;
    debian::ensure(debian::PEERS)?;
    let built = programs(workspace, arguments.unoptimised)?;
    let mut bench = Command::new(built.program("bench")?);
    bench.args(["plane", "--only", &arguments.only, "--dormouse"]);
    bench.arg(built.program("dormouse")?).args(outputs);
    run(&mut bench, LIMIT)
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
