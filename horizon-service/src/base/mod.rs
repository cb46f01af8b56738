//! Contains what every other directory may use.

pub mod backoff;
pub mod config;
pub mod disk;
pub mod lock;
pub mod report;
