//! Keeps alerts on disk and sends them to the hub.

pub mod alert_log;
pub mod node_key;
pub mod spool;
pub mod start;
pub mod uplink;
