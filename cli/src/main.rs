//! `dormouse`: arguments and nothing else.

use std::env;
use std::ffi::OsStr;
use std::process::ExitCode;

use anyhow::Context;
use clap::builder::Resettable;
use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
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
    let is_empty = |name: &OsStr| env::var_os(name).is_some_and(|value| value.is_empty());
    let cli = Cli::from_arg_matches(&command(is_empty).get_matches()).unwrap_or_else(|error| error.exit());
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

/// The command line. A variable that is there but empty counts as one that is not there, as KEDA and its add-on have it:
/// charts and overlays write those.
fn command(is_empty: impl Fn(&OsStr) -> bool) -> clap::Command {
    Cli::command().mut_subcommands(|command| {
        command.mut_args(|arg| match arg.get_env() {
            Some(name) if is_empty(name) => arg.env(Resettable::Reset),
            _ => arg,
        })
    })
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
    use super::command;

    #[test]
    fn the_command_line_is_consistent() {
        command(|_| false).debug_assert();
    }

    #[test]
    fn an_empty_variable_is_one_that_is_not_there() {
        const NAME: &str = "KEDA_HTTP_CONNECT_TIMEOUT";
        let variables = |command: clap::Command| {
            let interceptor = command.find_subcommand("interceptor").cloned().unwrap();
            let names = interceptor.get_arguments().filter_map(|arg| arg.get_env());
            names.map(|name| name.to_owned()).collect::<Vec<_>>()
        };
        let (all, others) = (
            variables(command(|_| false)),
            variables(command(|name| name == NAME)),
        );
        assert!(all.iter().any(|name| name == NAME), "{all:?}");
        assert!(!others.iter().any(|name| name == NAME), "{others:?}");
        assert_eq!(others.len(), all.len() - 1);
    }
}
