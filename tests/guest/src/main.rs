//! The enforcement tests, one static binary for the guest of `scripts/vm`, as root.
//!
//! - `armor-guest-tests run FOLDER [FILTER...]` runs the cases in FOLDER (`tests/cases`), each under
//!   `hzn-armor-agent try`; options as those of any Rust test binary (`--list`, `--exact`, `--skip`).
//! - `armor-guest-tests do WAY [ARGUMENT]...` makes one access in a way that a shell cannot; exits with the errno.

mod case;
mod run;
mod uring;
mod way;

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    match args.next().as_deref() {
        Some("do") => way::main(&args.collect::<Vec<_>>()),
        Some("run") => match args.next() {
            Some(folder) => run::main(folder.as_ref(), args),
            None => usage(),
        },
        _ => usage(),
    }
}

fn usage() -> ExitCode {
    eprintln!(
        "usage: armor-guest-tests run FOLDER [FILTER]...\n       armor-guest-tests do WAY [ARGUMENT]..."
    );
    ExitCode::from(2)
}
