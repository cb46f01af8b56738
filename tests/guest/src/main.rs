//! Runs the enforcement tests, as root, from one static binary in the guest of `scripts/vm`.
//!
//! - `armor-guest-tests run FOLDER [FILTER...]` runs the cases in FOLDER (`tests/cases`), each under
//!   `hzn-armor-agent try`; it takes the options of any Rust test binary (`--list`, `--exact`, `--skip`).
//! - `armor-guest-tests run-unruled FOLDER [FILTER...]` runs the cases that expect a refusal, without their
//!   policy, and checks that they end otherwise.
//! - `armor-guest-tests do METHOD [ARGUMENT]...` makes one access that a shell cannot make, and exits with
//!   the errno.
//! - `armor-guest-tests containers [FILTER...]` makes and enters control groups as container runtimes do.
//! - `armor-guest-tests race` moves files while a task under a policy opens them; it needs two processors.
//! - `armor-guest-tests preempted` preempts tasks inside a program while the program has to decide on another
//!   task.
//! - `armor-guest-tests measure` prints what operations cost. It needs `prepare` and `policy RULES` before
//!   it.
//! - `armor-guest-tests memory PID` prints the memory of the kernel's maps and of the agent with this process
//!   id.

mod access;
mod agent;
mod arguments;
mod bpf;
mod capabilities;
mod case;
mod containers;
mod executable;
mod measure;
mod memory;
mod other;
mod preempted;
mod race;
mod resolver;
mod run;
mod sockets;
mod unopened;
mod uring;
mod visits;

use std::process::ExitCode;

use run::Mode;

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    match args.next().as_deref() {
        Some("prepare") => report(measure::prepare()),
        Some("measure") => report(measure::measure()),
        Some("policy") => match args.next().and_then(|rules| rules.parse().ok()) {
            Some(rules) => {
                measure::print_policy(rules);
                ExitCode::SUCCESS
            }
            None => usage(),
        },
        Some("memory") => match args.next().and_then(|pid| pid.parse().ok()) {
            Some(pid) => report(memory::print(pid)),
            None => usage(),
        },
        Some("containers") => containers::main(args),
        Some("race") => report(race::main()),
        Some("race-reader") => match args.next() {
            Some(race) => report(race::reader(&race)),
            None => usage(),
        },
        Some("preempted") => report(preempted::main()),
        Some("preempted-tries") => report(preempted::tries()),
        Some("preempted-opener") => match args.next().and_then(|number| number.parse().ok()) {
            Some(number) => report(preempted::opener(number)),
            None => usage(),
        },
        Some("do") => access::main(&args.collect::<Vec<_>>()),
        Some(mode @ ("run" | "run-unruled")) => match args.next() {
            Some(directory) if mode == "run" => run::main(Mode::Ruled, directory.as_ref(), args),
            Some(directory) => run::main(Mode::Unruled, directory.as_ref(), args),
            None => usage(),
        },
        _ => usage(),
    }
}

fn report(result: anyhow::Result<()>) -> ExitCode {
    let Err(error) = result else { return ExitCode::SUCCESS };
    eprintln!("armor-guest-tests: {error:#}");
    ExitCode::FAILURE
}

fn usage() -> ExitCode {
    eprintln!(
        "usage: armor-guest-tests run FOLDER [FILTER]...\n       armor-guest-tests do METHOD [ARGUMENT]...\n       armor-guest-tests containers|race|preempted|prepare|measure|policy RULES|memory PID"
    );
    ExitCode::from(2)
}
