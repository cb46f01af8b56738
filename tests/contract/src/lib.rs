//! This crate provides the real CSS and ESS for tests, beside the development hub and under the same trait,
//! [`Hub`].
//!
//! The contract tests in `tests/contract.rs` check one list of behaviours on both; `tests/clients.rs` runs the
//! product's clients on both. Other crates' tests use a [`Fixture`] to do so too. The real hub is built with
//! the Go toolchain from `tests/real-hub`; a failure to build is an error.

mod client;
pub mod disk;
mod fixture;
pub mod pages;
mod real;
pub mod reference;

pub use armor_dev_hub::{Credential, DevHub, DevHubConfig, Hub, Role};
pub use client::{Answer, Client};
pub use fixture::{Fixture, Outcome, run, run_all};
pub use libtest_mimic::Trial;
pub use real::{RealHub, RealHubError};

use std::future::Future;
use std::time::{Duration, Instant};

/// Time limit of [`eventually`], for changes that take the real services a few polls.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Asks again until the answer is `Some`.
///
/// # Errors
/// Fails with `what` after [`PATIENCE`].
pub async fn eventually<T, F: Future<Output = Option<T>>>(
    what: &str,
    mut ask: impl FnMut() -> F,
) -> Result<T, String> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask().await {
            return Ok(answer);
        }
        if Instant::now() > deadline {
            return Err(format!("this did not come true within {PATIENCE:?}: {what}"));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
