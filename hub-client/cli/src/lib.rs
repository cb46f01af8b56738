//! This crate is the operator's side of Horizon Armor: the library is the [`collector`] of alerts, and the
//! program `hzn-armor` runs it and everything else that an operator does.

// The print macros panic if standard output or standard error is closed; `armor_console` does not.
#![warn(clippy::print_stdout, clippy::print_stderr)]

pub mod collector;
