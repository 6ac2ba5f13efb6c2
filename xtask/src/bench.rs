//! `cargo xtask bench`: brings the cluster up with the release in it and runs a bench program there.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::build::{self, Tests};
use crate::cache::{Cache, Digest};
use crate::cluster::{Cluster, Pace};
use crate::process::run;
use crate::test::Stand;
use crate::workspace::{PROFILE, Workspace};

#[derive(clap::Subcommand)]
pub(crate) enum Task {
    /// The operator with many objects: how quick it is and what it uses
    Operator(Operator),
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
    let Task::Operator(arguments) = task;
    let json = arguments.json.as_ref().map(std::path::absolute).transpose();
    let json = json.context("unable to tell where the figures go")?;
    if let Some(dir) = &arguments.perf {
        std::fs::create_dir_all(dir).with_context(|| format!("unable to create {}", dir.display()))?;
    }
    let stand = Stand::prepare(workspace, cache, cluster, false)?;
    let mut built = build::build(workspace, PROFILE, Tests::None)?;
    if !arguments.unoptimised {
        let release = build::release(workspace, "dormouse-cli", "dormouse")?;
        built.replace("dormouse", release);
    }
    let mut digest = Digest::new();
    digest.file(built.program("dormouse")?)?;
    stand.start_at(workspace, cache, &built, &Pace::ordinary())?;
    let mut bench = cluster.inside(built.program("bench")?);
    bench.args(["--objects", &arguments.objects.to_string()]);
    // A letter first: helm takes digits for a number.
    bench.args(["--build", &format!("b{}", digest.finish())]);
    bench.args(json.iter().flat_map(|file| ["--json".as_ref(), file.as_os_str()]));
    bench.args(
        arguments
            .perf
            .iter()
            .flat_map(|dir| ["--perf".as_ref(), dir.as_os_str()]),
    );
    if stand.was_up() {
        bench.arg("--clear");
    }
    bench.envs(stand.environment(workspace)?);
    run(&mut bench, LIMIT)
}
