//! Knows USB devices: the rules of the section `device`, and the table that decides on devices.
//!
//! Of what [`crate::precedence`] leaves to each kind of rule, devices have this:
//!
//! - **Sections.** `device` decides whether a device may be used. It is for hosts alone, and about no program.
//! - **Objects.** A device is one thing with several functions, which its descriptors name: the device's own class, unless
//!   that is 0, and the class of each of its interfaces. Each is decided on, and the strictest decision holds for the
//!   device as a whole: a device cannot hide what is refused among what is not.
//! - **Specificity.** As in KubeArmor, first come rules that name a level, then those that name a subclass, then those
//!   that name a protocol. Last come rules for all classes.

pub(crate) mod compile;
mod model;
pub(crate) mod parse;
mod table;

pub use model::{DeviceRule, Function};
pub use table::DeviceTable;
