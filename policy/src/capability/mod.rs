//! Knows capabilities: the rules of the section `capabilities`, and the table that decides their use.
//!
//! Of what [`crate::precedence`] leaves to each kind of rule, capabilities have this:
//!
//! - **Sections.** `capabilities` decides each use of a capability that the task has. A rule gives no task a
//!   capability that it lacks.
//! - **Specificity.** All rules are equally specific, because each names one capability.
//! - **Allow-list.** Capabilities without a name here, of later kernels, get the posture too.

pub(crate) mod compile;
mod model;
pub(crate) mod parse;

pub use model::{Capability, CapabilityRule};
