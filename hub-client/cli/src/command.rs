//! The command line of `hzn-armor`.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::{alerts, bundle, keys, policy};

/// Signed security policies for Open Horizon edge nodes, and the alerts they make.
#[derive(Parser)]
#[command(name = "hzn-armor", version)]
pub struct Cli {
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

impl Cli {
    /// Runs the command, and returns the status to exit with.
    ///
    /// # Errors
    /// Fails with what the user is to be told.
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        match self.command {
            Command::Keys(command) => keys::run(command),
            Command::Policy(command) => policy::run(command),
            Command::Bundle(command) => bundle::run(command).await,
            Command::Alerts(command) => alerts::run(command).await,
        }
    }
}
