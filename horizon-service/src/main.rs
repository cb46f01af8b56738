//! `hzn-armor-agent` is the agent that runs on the node.

// These macros panic if nobody reads the output; `console` does not.
#![warn(clippy::print_stdout, clippy::print_stderr)]

use std::io::IsTerminal as _;
use std::process::ExitCode;

use anyhow::Context as _;
use armor_agent::base::config::Settings;
use armor_agent::cli::arguments::{Cli, Commands};
use armor_agent::cli::{detach, probe, status, trial};
use armor_agent::node::run;
use armor_console as console;
use tracing_subscriber::EnvFilter;

const NAME: &str = "hzn-armor-agent";
/// Exit status for failures of the program itself; `try` passes on every other status from its command.
const OWN_FAILURE: u8 = 125;

/// Size in bytes from which a freed allocation is returned to the system.
const GIVE_BACK: i32 = 64 << 10;

/// Makes the allocator return freed memory to the system.
///
/// Loading the BPF programs and checking a bundle need many times the memory that the agent needs in between.
/// By default glibc keeps it: after the first large free it serves allocations up to that size from the heap.
fn give_memory_back() {
    // SAFETY: only sets two parameters of the allocator, while there is one thread.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, GIVE_BACK);
        libc::mallopt(libc::M_TRIM_THRESHOLD, GIVE_BACK);
    }
}

fn main() -> ExitCode {
    give_memory_back();
    let cli = match console::arguments::<Cli>(NAME) {
        Ok(cli) => cli,
        Err(status) => return status,
    };
    match dispatch(cli) {
        Ok(status) => ExitCode::from(status),
        Err(error) => console::fail(NAME, error.as_ref(), OWN_FAILURE),
    }
}

fn dispatch(cli: Cli) -> anyhow::Result<u8> {
    let settings = || Settings::load(cli.config.as_deref());
    match cli.command {
        Commands::Run => {
            let settings = settings()?;
            log(&settings.log)?;
            if let Some(variable) = &settings.unknown_variable {
                tracing::warn!("{variable}: no setting of the agent is called so");
            }
            run::run(&settings)?;
            Ok(0)
        }
        // Neither command needs settings, but a file named with --config must exist and parse.
        Commands::Try(trial) => {
            cli.config.as_ref().map(|_| settings()).transpose()?;
            trial::run(&trial)
        }
        Commands::Probe { json } => {
            cli.config.as_ref().map(|_| settings()).transpose()?;
            probe::show(json)
        }
        Commands::Status { json, policies } => {
            let settings = settings()?;
            status::show(&settings.state_dir, &settings.pin_dir, json, policies)
        }
        Commands::Detach => detach::run(&settings()?),
    }
}

fn log(filter: &str) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(filter).with_context(|| format!("settings: log = {filter}"))?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .init();
    Ok(())
}
