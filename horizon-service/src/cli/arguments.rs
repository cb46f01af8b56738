//! The command line of `hzn-armor-agent`.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::cli::trial;

/// Enforces signed policies on an Open Horizon node.
#[derive(Debug, Parser)]
#[command(name = "hzn-armor-agent", version)]
pub struct Cli {
    /// Settings file (TOML), /etc/hzn-armor/agent.toml by default if it exists. `HZN_ARMOR_<KEY>` variables
    /// override it.
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// What to do.
    #[command(subcommand)]
    pub command: Commands,
}

/// A `Commands` is one of the agent's commands.
#[derive(Debug, Subcommand)]
pub enum Commands {
    /// Run the agent: take signed bundles from the hub, enforce them, send alerts.
    Run,
    /// Run one command under local policies and print its alerts.
    Try(trial::Trial),
    /// Show what this kernel can do and what is missing; exit 0 only if it can enforce.
    Probe {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Show what the agent enforces and how many alerts are waiting; exit 0 if it runs.
    Status {
        /// Name each policy with its counts, and each container with its policies; JSON always includes them.
        #[arg(long)]
        policies: bool,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// End the enforcement that a stopped agent left behind.
    Detach,
}
