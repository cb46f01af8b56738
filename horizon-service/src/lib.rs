//! Contains the parts of `hzn-armor-agent`.

// These macros panic if nobody reads the output; `armor_console` does not.
#![warn(clippy::print_stdout, clippy::print_stderr)]

pub mod alerts;
pub mod config;
pub mod containers;
pub mod directory;
pub mod domains;
pub mod effect;
pub mod enforce;
pub mod entry;
pub mod horizon;
pub mod hub;
pub mod intake;
pub mod kernel;
pub mod links;
pub mod lock;
pub mod preexisting;
pub mod probe;
pub mod pump;
pub mod report;
pub mod root;
pub mod run;
pub mod runtime;
pub mod services;
pub mod spool;
pub mod state;
pub mod status;
pub mod trial;
pub mod uplink;
pub mod workload;
