//! What the running system costs and how quick it is.
//!
//! `operator`: two replicas as users install them, with many objects, on the real cluster, with a source that answers at
//! once. `plane`: the interceptor between a load and nginx, beside another nginx in its place, all on loopback. `wake`: cold
//! starts on the real cluster, beside those of the bare platform.
//!
//! Run by `cargo xtask bench`, which builds the release and brings the cluster up where one is needed. A figure that misses
//! its goal is marked and no failure: what a machine is busy with else is not the program's fault.
#![allow(clippy::print_stdout, reason = "what it prints is what it is for")]

mod audit;
mod failover;
mod figures;
mod load;
mod objects;
mod plane;
mod process;
mod reads;
mod source;
mod steps;
mod wake;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use clap::Parser;
use dormouse_tests::Cluster;

use crate::figures::Figures;

#[derive(Parser)]
enum Bench {
    /// Measures the operator.
    Operator(Arguments),
    /// Measures the interceptor's data plane.
    Plane(plane::Arguments),
    /// Measures how long a cold start takes.
    Wake(wake::Arguments),
}

impl Bench {
    /// How long it may take.
    fn limit(&self) -> Duration {
        match self {
            Self::Operator(arguments) => Duration::from_secs(600 + u64::from(arguments.objects) / 4),
            Self::Plane(_) => plane::LIMIT,
            Self::Wake(_) => wake::LIMIT,
        }
    }

    async fn run(&self, figures: &mut Figures) -> Result<()> {
        match self {
            Self::Operator(arguments) => {
                let cluster = Cluster::connect().await?;
                steps::all(&cluster, arguments, figures).await
            }
            Self::Plane(arguments) => plane::all(arguments, figures).await,
            Self::Wake(arguments) => wake::all(arguments, figures).await,
        }
    }

    /// Where the figures go as JSON.
    fn json(&self) -> Option<&PathBuf> {
        match self {
            Self::Operator(arguments) => arguments.json.as_ref(),
            Self::Plane(arguments) => arguments.json.as_ref(),
            Self::Wake(arguments) => arguments.json.as_ref(),
        }
    }
}

#[derive(clap::Args, Clone)]
struct Arguments {
    /// How many ScaledObjects
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(10..=20_000))]
    objects: u32,
    /// Where the figures go as JSON
    #[arg(long)]
    json: Option<PathBuf>,
    /// Record the leader with perf during each step, into this directory
    #[arg(long)]
    perf: Option<PathBuf>,
    /// Changes with the operator's program
    #[arg(long, default_value = "bench")]
    build: String,
    /// Remove all objects at the end: the cluster goes on
    #[arg(long)]
    clear: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    let bench = Bench::parse();
    // An error means that there is one already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let mut figures = Figures::default();
    let limit = bench.limit();
    let outcome = tokio::time::timeout(limit, bench.run(&mut figures)).await;
    let outcome = outcome.unwrap_or_else(|_| Err(anyhow!("not done after {} s", limit.as_secs())));
    println!("\n{figures}");
    let written = write(bench.json(), &figures);
    match outcome.and(written) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("The bench ended early: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn write(file: Option<&PathBuf>, figures: &Figures) -> Result<()> {
    let Some(file) = file else {
        return Ok(());
    };
    let text = figures.json().context("encoding the figures")?;
    std::fs::write(file, text + "\n").with_context(|| format!("unable to write {}", file.display()))
}
