//! Implements the commands beside `run`.

pub mod detach;
pub mod entry;
pub mod probe;
pub mod status;
pub mod trial;
