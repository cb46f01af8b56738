//! Runs the daemon.

pub mod bundle;
pub mod containers;
pub mod intake;
pub mod run;
pub mod state;
pub mod status;
