//! Knows presets: what workloads rarely need and attackers often do, each refused under one name.
//!
//! Of what [`crate::precedence`] leaves to each kind of rule, presets have this:
//!
//! - **Sections.** `presets` is a list in the spec, for containers alone. A preset is about all programs.
//! - **Specificity.** All rules are equally specific. `filelessExec` is also a rule of `process` for each of
//!   [`MEMORY_DIRECTORIES`], where a closer one of that section makes an exception.
//! - **Allow-list.** There is none: an Allow rule is an error.

pub(crate) mod compile;
mod model;
pub(crate) mod parse;

pub use model::{MEMORY_DIRECTORIES, Preset};
