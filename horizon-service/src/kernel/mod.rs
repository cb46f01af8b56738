//! Defines what the agent needs of the kernel side.

pub mod port;
