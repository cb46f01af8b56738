//! Attaches to the kernel side, and defines what the agent needs of it.

pub mod attach;
pub mod port;
pub mod requirements;
