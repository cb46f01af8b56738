//! `hzn-armor bundle` builds, signs, verifies, inspects and publishes bundles.

mod build;
mod inspect;
mod publish;
mod sign;
mod verify;

use std::process::ExitCode;

use build::Build;
use inspect::Inspect;
use publish::Publish;
use sign::Sign;
use verify::Verify;

/// A `BundleCommand` is a subcommand of `bundle`.
#[derive(Debug, clap::Subcommand)]
pub enum BundleCommand {
    /// Build a payload from policy files, to be signed
    Build(Build),
    /// Sign a payload, or add a signature to a signed bundle
    Sign(Sign),
    /// Check whether a node that has accepted no bundle yet would accept this one
    Verify(Verify),
    /// Print the content of a bundle without verifying any signature
    Inspect(Inspect),
    /// Publish a bundle at the hub and remove the older serials of its name
    Publish(Publish),
}

/// Runs the command.
pub async fn run(command: BundleCommand) -> anyhow::Result<ExitCode> {
    match command {
        BundleCommand::Build(command) => build::run(&command),
        BundleCommand::Sign(command) => sign::run(&command),
        BundleCommand::Verify(command) => verify::run(&command),
        BundleCommand::Inspect(command) => inspect::run(&command),
        BundleCommand::Publish(command) => publish::run(command).await,
    }
}
