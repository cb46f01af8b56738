//! Implements the commands beside `run`.

pub mod entry;
pub mod probe;
pub mod trial;
