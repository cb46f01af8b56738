//! The agent's parts: everything `hzn-armor-agent` is made of.

pub mod spool;
pub mod uplink;
