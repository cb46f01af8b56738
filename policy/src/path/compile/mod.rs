//! Compiles the rules for paths to the tables that decide accesses to them.

pub(crate) mod classes;
mod globs;
pub(crate) mod objects;
