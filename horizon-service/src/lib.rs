//! Contains the parts of `hzn-armor-agent`, a directory for each topic.
//!
//! A directory uses only those below it:
//!
//! ```text
//! cli        the commands beside `run`
//! node       the daemon: start, bundles, containers, state directory, status
//! devices    USB devices, kept out as rules say
//! events     from the kernel's events to alerts
//! workloads  containers and host: what policies select, and the tables that come of them
//! delivery   alerts on disk, and on their way to the collector
//! hub        where bundles come from and alerts go to
//! kernel     the kernel side, as the agent needs it
//! base       settings, locks, facts for the report, files
//! ```

// These macros panic if nobody reads the output; `armor_console` does not.
#![warn(clippy::print_stdout, clippy::print_stderr)]

pub mod base;
pub mod cli;
pub mod delivery;
pub mod devices;
pub mod events;
pub mod hub;
pub mod kernel;
pub mod node;
pub mod workloads;
