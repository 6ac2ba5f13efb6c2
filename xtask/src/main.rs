//! `cargo xtask`: checks, images, the real test cluster and the tests on it.
//!
//! Everything a run needs beyond cargo, root and a Debian is set up here, with its progress shown.

mod bench;
mod build;
mod cache;
mod check;
mod cluster;
mod daemon;
mod demo;
mod environment;
mod image;
mod process;
mod progress;
mod setup;
mod soak;
mod target;
mod test;
mod workspace;

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand};

use crate::cache::Cache;
use crate::cluster::{Cluster, Pace};
use crate::workspace::Workspace;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Builds, checks and tests Dormouse")]
struct Arguments {
    /// Which test cluster: work trees that test at the same time need one each.
    #[arg(long, global = true, env = "DORMOUSE_CLUSTER", default_value = "dormouse")]
    cluster_name: String,
    #[command(subcommand)]
    command: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Run every test, setting up all they need; or only the named files of tests/tests/
    Test(test::Arguments),
    /// Formatting, lints, licences, documentation, generated files, and the rules of this workspace
    Check,
    /// Build the programs' images and load them into the cluster, which must be up
    Image {
        /// Optimised, as in a release
        #[arg(long)]
        release: bool,
    },
    /// A queue worker from 0 to many pods and back, on the real cluster
    Demo,
    /// Measure the running system on the real cluster: a table, and JSON where it is wanted
    #[command(subcommand)]
    Bench(bench::Task),
    /// The long tests: rotation, failing sources, dying leaders, and a day of random faults
    Soak(soak::Arguments),
    /// The real Kubernetes on this machine
    #[command(subcommand)]
    Cluster(ClusterTask),
}

#[derive(Subcommand)]
enum ClusterTask {
    /// Start it, or mend it; harmless when it runs already
    Up(Pace),
    /// Stop it and remove everything it left
    Down,
    /// Say which parts run; exits with 1 unless all is well
    Status,
    /// A shell inside its network, with kubectl and helm on the PATH
    Shell {
        /// Run this instead of a shell
        #[arg(last = true)]
        command: Vec<String>,
    },
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(code) => code,
        Err(error) => {
            progress::say(format_args!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<ExitCode> {
    process::watch_for_interruption()?;
    let mut workspace = Workspace::find()?;
    let cache = Cache::open()?;
    let cluster = Cluster::named(&arguments.cluster_name)?;
    if let Task::Cluster(task) = arguments.command {
        return cluster_task(task, &workspace, &cache, &cluster);
    }
    let _target = target::share(&mut workspace, &cache)?;
    let is_clean = match arguments.command {
        Task::Cluster(_) => true,
        Task::Test(arguments) => test::test(&workspace, &cache, &cluster, &arguments)?,
        Task::Check => check::check(&workspace, &cache)?,
        Task::Image { release } => {
            let parts = setup::cluster_parts(&workspace, &cache)?;
            cluster.expect_up(&parts)?;
            let built = build::build(&workspace, build::profile(release), build::Tests::None)?;
            image::load(&workspace, &cache, &cluster, &built)?;
            true
        }
        Task::Bench(task) => {
            bench::bench(&workspace, &cache, &cluster, &task)?;
            true
        }
        Task::Soak(arguments) => soak::soak(&workspace, &cache, &cluster, &arguments)?,
        Task::Demo => {
            demo::demo(&workspace, &cache, &cluster)?;
            true
        }
    };
    Ok(if is_clean {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn cluster_task(
    task: ClusterTask,
    workspace: &Workspace,
    cache: &Cache,
    cluster: &Cluster,
) -> Result<ExitCode> {
    match task {
        ClusterTask::Up(pace) => {
            let parts = setup::cluster_parts(workspace, cache)?;
            cluster.up(workspace, &parts, &pace)?;
        }
        ClusterTask::Down => cluster.down()?,
        ClusterTask::Status => {
            let (text, well) = match cluster.exists() {
                // Nobody who asks wants to wait for a build.
                false => (format!("cluster {}: down\n", cluster.layout().name()), false),
                true => cluster.status(&setup::cluster_parts(workspace, cache)?),
            };
            std::io::stdout()
                .write_all(text.as_bytes())
                .context("unable to print the status")?;
            return Ok(if well {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            });
        }
        ClusterTask::Shell { command } => {
            anyhow::ensure!(
                cluster.exists(),
                "there is no cluster; start one with `cargo xtask cluster up`"
            );
            let parts = setup::cluster_parts(workspace, cache)?;
            let environment = environment::of_cluster(workspace, cluster, &parts)?;
            cluster.shell(&environment, &command)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
