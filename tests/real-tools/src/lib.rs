//! The real `hzn` against a stand-in for what it talks to: [`Hzn`] runs it, [`Hub`] is the Exchange, the CSS and the node's agent;
//! [`Registry`] is a real one.
//!
//! The tests show that the files which this project ships are what `hzn` takes, and that what it sends of them is what was meant.

mod hub;
mod hzn;
mod registry;

pub use hub::{Hub, Object, Request};
pub use hzn::{Hzn, Said};
pub use registry::Registry;
