//! Runs the policy cases of tests/cases inside the guest.
fn main() {}
