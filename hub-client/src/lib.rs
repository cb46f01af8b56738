//! This crate holds the code that hub and node share: MMS clients, signed bundles and their keys, alerts and
//! receipts.

// The print macros panic if standard output or standard error is closed; `armor_console` does not.
#![warn(clippy::print_stdout, clippy::print_stderr)]

pub mod collector;
