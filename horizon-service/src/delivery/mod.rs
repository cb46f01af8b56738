//! Keeps alerts on disk and sends them to the hub.

pub mod spool;
pub mod uplink;
