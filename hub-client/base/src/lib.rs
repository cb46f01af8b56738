//! This crate checks two kinds of input that bundles and sync services have in common: files that a user names
//! ([`file`]), and names that travel between hub and node ([`name`]).
//!
//! It is a crate of its own so that `armor-bundle` and `armor-mms` need not know each other.

pub mod file;
pub mod name;
