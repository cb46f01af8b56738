//! This crate is the operator's side of Horizon Armor: the [`collector`] of alerts, and the [`command`] line of the
//! program `hzn-armor`, with a module for each command.

// The print macros panic if standard output or standard error is closed; `armor_console` does not.
#![warn(clippy::print_stdout, clippy::print_stderr)]

mod alerts;
mod bundle;
pub mod collector;
pub mod command;
mod files;
mod hub;
mod keys;
mod policy;
mod sources;
mod text;
