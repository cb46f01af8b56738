//! `hzn-armor policy` reports errors in policy files before they are signed, mends them, and explains what they decide.

mod explain;
mod migrate;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use armor_console as console;
use armor_policy::Posture;
use serde_json::Value;

use crate::files;
use crate::sources::{self, Source};

/// A `PolicyCommand` is a subcommand of `policy`.
#[derive(Debug, clap::Subcommand)]
pub enum PolicyCommand {
    /// Check files, and the YAML files in directories and their sub-directories, and print every error with
    /// its place
    Check(Check),
    /// Print what policies decide on accesses, by which rule, and what would decide without that rule
    Explain(explain::Explain),
    /// Mend what is nearly right in policies, show the difference, and name what is left and why
    Migrate(migrate::Migrate),
}

/// The postures as options name them.
pub(crate) const POSTURES: [(&str, &str, Posture); 3] =
    [("allow", "", Posture::Allow), ("audit", "", Posture::Audit), ("block", "", Posture::Block)];

/// A `Check` contains the arguments of `check`.
#[derive(Debug, clap::Args)]
pub struct Check {
    /// Policy files or directories
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Print one JSON list: per file its policies, errors and warnings
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(command: PolicyCommand) -> anyhow::Result<ExitCode> {
    match command {
        PolicyCommand::Check(command) => check(&command),
        PolicyCommand::Explain(command) => explain::run(&command),
        PolicyCommand::Migrate(command) => migrate::run(command),
    }
}

fn check(Check { files, json }: &Check) -> anyhow::Result<ExitCode> {
    let found = files::find(files)?;
    found.tell_left_out();
    let sources = sources::read(&found.files);
    let mut out = console::stdout();
    if *json {
        writeln!(out, "{:#}", sources.iter().map(Source::json).collect::<Value>())?;
    } else {
        for source in &sources {
            writeln!(out, "{}", source.report())?;
        }
    }
    Ok(if sources.iter().all(Source::is_good) { ExitCode::SUCCESS } else { ExitCode::from(1) })
}
