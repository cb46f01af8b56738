//! `hzn-armor` is the operator's program for keys, policies, bundles and alerts.
//!
//! Exit status: 0 for success, 1 if something is refused or fails, 2 for wrong usage.

// The print macros panic if standard output or standard error is closed; `armor_console` does not.
#![warn(clippy::print_stdout, clippy::print_stderr)]

use std::process::ExitCode;

use armor_cli::command::Cli;
use armor_console as console;

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
    cli.run().await.unwrap_or_else(|error| console::fail("hzn-armor", error.as_ref(), 1))
}
