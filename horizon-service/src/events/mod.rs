//! Turns the kernel's events into alerts.

pub mod alerts;
pub mod history;
pub mod preexisting;
pub mod pump;
