//! This crate defines what a node tells the hub and what the hub answers: [`alert`]s, sealed in a [`batch`], the
//! [`receipt`] for them, and a node's [`status`]. It reads and writes these objects, but neither sends nor
//! stores them.

// The print macros panic if standard output or standard error is closed; libraries do not print.
#![warn(clippy::print_stdout, clippy::print_stderr)]

pub mod alert;
pub mod batch;
pub mod receipt;
pub mod signed;
pub mod status;
pub mod steps;
