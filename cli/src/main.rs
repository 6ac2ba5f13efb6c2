//! `dormouse`: arguments and nothing else.

use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};
use dormouse_interceptor::InterceptorArgs;
use dormouse_operator::{OperatorArgs, ReleaseArgs};
use tikv_jemallocator::Jemalloc;

#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

/// An event-driven autoscaler for Kubernetes: any workload from 0 to N and back.
#[derive(Parser)]
#[command(name = "dormouse", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the operator: it watches ScaledObjects, scales their targets and serves the external metrics API.
    Operator(Box<OperatorArgs>),
    /// Run the interceptor: it takes HTTP requests, holds those whose application sleeps, and passes them on.
    Interceptor(Box<InterceptorArgs>),
    /// Before an uninstall: stop the operator and take its finalizer off every object, so that nothing is stuck later.
    Release(ReleaseArgs),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = runtime().and_then(|runtime| match cli.command {
        Command::Operator(args) => runtime.block_on(dormouse_operator::run(*args)),
        Command::Interceptor(args) => runtime.block_on(dormouse_interceptor::run(*args)),
        Command::Release(args) => runtime.block_on(dormouse_operator::release(args)),
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "stopped");
            ExitCode::FAILURE
        }
    }
}

/// A thread per processor, and at least two: code that holds on to one must not stop everything else.
fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    let threads = std::thread::available_parallelism().map_or(2, |count| count.get().max(2));
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder
        .worker_threads(threads)
        .enable_all()
        .build()
        .context("unable to start the threads of the process")
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
