//! Keeps alerts on disk and sends them to the hub.

pub mod node_key;
pub mod spool;
pub mod uplink;
