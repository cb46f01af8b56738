//! Keeps USB devices out that rules of the section `device` refuse, by the kernel's own authorisation of devices.
//!
//! While rules in force may refuse a device, new devices start unauthorised: no driver binds to one before it was decided
//! on, and while no agent runs none is authorised. What the kernel says of devices is only a reason to look at sysfs.

pub mod descriptors;
pub mod guard;
mod record;
pub mod sysfs;
pub mod uevents;
