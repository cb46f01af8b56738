//! Has the command line, and implements the commands beside `run`.

pub mod arguments;
pub mod detach;
pub mod entry;
pub mod probe;
pub mod status;
pub mod trial;
