//! `dormouse`: arguments and nothing else.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use dormouse_operator::{OperatorArgs, ReleaseArgs};

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
    /// Before an uninstall: stop the operator and take its finalizer off every object, so that nothing is stuck later.
    Release(ReleaseArgs),
}

#[tokio::main]
async fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Operator(args) => dormouse_operator::run(*args).await,
        Command::Release(args) => dormouse_operator::release(args).await,
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "stopped");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
