//! This crate has what bundles, sync services and the agent have in common: files that a user names
//! ([`mod@file`]), files of our own that are replaced ([`replace`]), and names that travel between hub and
//! node ([`name`]).
//!
//! It is a crate of its own so that `armor-bundle` and `armor-mms` need not know each other.

pub mod file;
pub mod name;
pub mod replace;
