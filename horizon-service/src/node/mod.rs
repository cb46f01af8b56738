//! Runs the daemon.

pub mod accepted;
pub mod admission;
pub mod bundles;
pub mod containers;
pub mod device_task;
pub mod enforcement;
pub mod intake;
pub mod keys;
pub mod owner;
pub mod run;
pub mod snapshot;
pub mod state;
pub mod status;
pub mod status_task;
pub mod stored_bundles;
