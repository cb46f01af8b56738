//! These tests run the agent, or parts of it, with each hub, by armor-contract-tests. They are one program,
//! because linking takes longer than most of them.

#![allow(clippy::unwrap_used)]

mod agent;
mod intake;
mod uplink;

use std::process::ExitCode;

use armor_contract_tests::disk::own_mounts;
use armor_contract_tests::run_all;

fn main() -> ExitCode {
    if let Err(error) = own_mounts() {
        eprintln!("hub: {error}");
        return ExitCode::FAILURE;
    }
    run_all([agent::trials(), intake::trials(), uplink::trials()])
}
