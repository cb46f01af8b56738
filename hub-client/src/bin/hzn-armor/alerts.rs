//! `hzn-armor alerts`: what the nodes reported.

use std::path::PathBuf;
use std::process::ExitCode;

use crate::hub::HubArgs;

/// What to do with alerts.
#[derive(Debug, clap::Subcommand)]
pub enum AlertsCommand {
    /// Take the nodes' alerts from the hub, verify them and print each exactly once
    Collect(Collect),
}

/// Arguments of `collect`.
#[derive(Debug, clap::Args)]
pub struct Collect {
    #[command(flatten)]
    hub: HubArgs,
    /// Go on until interrupted
    #[arg(long)]
    follow: bool,
    /// File to append to [default: standard output]
    #[arg(long)]
    out: Option<PathBuf>,
}

/// Runs the command.
pub async fn run(command: AlertsCommand) -> anyhow::Result<ExitCode> {
    let AlertsCommand::Collect(Collect { hub, follow, out }) = command;
    let _ = (hub.client()?, follow, out);
    anyhow::bail!("collecting alerts is not part of this build")
}
