//! What the operator costs with many objects, and how quick it is: two replicas as users install them, on the real
//! cluster, with a source that answers at once.
//!
//! Run by `cargo xtask bench operator`, which brings the cluster up and the release image in. A figure that misses its goal
//! is marked and no failure: what a machine is busy with else is not the operator's fault.
#![allow(clippy::print_stdout, reason = "what it prints is what it is for")]

mod audit;
mod failover;
mod figures;
mod load;
mod objects;
mod process;
mod reads;
mod source;
mod steps;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use clap::Parser;
use dormouse_tests::Cluster;

use crate::figures::Figures;

/// Measures the operator.
#[derive(Parser, Clone)]
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
    let arguments = Arguments::parse();
    let mut figures = Figures::default();
    let limit = Duration::from_secs(600 + u64::from(arguments.objects) / 4);
    let outcome = tokio::time::timeout(limit, run(&arguments, &mut figures)).await;
    let outcome = outcome.unwrap_or_else(|_| Err(anyhow!("not done after {} s", limit.as_secs())));
    println!("\n{figures}");
    let written = write(&arguments, &figures);
    match outcome.and(written) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("The bench ended early: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: &Arguments, figures: &mut Figures) -> Result<()> {
    let cluster = Cluster::connect().await?;
    steps::all(&cluster, arguments, figures).await
}

fn write(arguments: &Arguments, figures: &Figures) -> Result<()> {
    let Some(file) = &arguments.json else {
        return Ok(());
    };
    let text = figures.json().context("encoding the figures")?;
    std::fs::write(file, text + "\n").with_context(|| format!("unable to write {}", file.display()))
}
