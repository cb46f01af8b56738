//! This library runs the real `hzn` against a stand-in for the services that it talks to: [`Hzn`] runs it,
//! [`Hub`] is the Exchange, the CSS and the node's agent, and [`Registry`] is a real image registry.
//!
//! The tests show that `hzn` accepts the files that this project ships, and that it sends what they mean.

mod hub;
mod hzn;
mod registry;

pub use hub::{Hub, Object, Request};
pub use hzn::{Hzn, Said};
pub use registry::Registry;
