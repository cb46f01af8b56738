//! `hzn-armor` is the operator's program for keys, policies, bundles and alerts.
//!
//! Exit status: 0 for success, 1 if something is refused or fails, 2 for wrong usage.

// The print macros panic if standard output or standard error is closed; `armor_console` does not.
#![warn(clippy::print_stdout, clippy::print_stderr)]

mod alerts;
mod bundle;
mod files;
mod hub;
mod keys;
mod policy;
mod sources;
mod text;

use std::process::ExitCode;

use armor_console as console;
use clap::{Parser, Subcommand};

/// Signed security policies for Open Horizon edge nodes, and the alerts they make.
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Keys that sign bundles and receipts
    #[command(subcommand)]
    Keys(keys::KeysCommand),
    /// Policy files
    #[command(subcommand)]
    Policy(policy::PolicyCommand),
    /// Signed bundles of policies
    #[command(subcommand)]
    Bundle(bundle::BundleCommand),
    /// Alerts of the nodes
    #[command(subcommand)]
    Alerts(alerts::AlertsCommand),
}

#[tokio::main(flavor = "multi_thread", worker_threads = 1)]
async fn main() -> ExitCode {
    let cli = match console::arguments::<Cli>("hzn-armor") {
        Ok(cli) => cli,
        Err(status) => return status,
    };
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "warn".into()),
        )
        .with_writer(std::io::stderr)
        .init();
    let done = match cli.command {
        Command::Keys(command) => keys::run(command),
        Command::Policy(command) => policy::run(command),
        Command::Bundle(command) => bundle::run(command).await,
        Command::Alerts(command) => alerts::run(command).await,
    };
    done.unwrap_or_else(|error| console::fail("hzn-armor", error.as_ref(), 1))
}
