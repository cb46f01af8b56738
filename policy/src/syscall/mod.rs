//! Knows system calls: the rules of the section `syscalls`, and the table that says which calls are reported.
//!
//! Of what [`crate::precedence`] leaves to each kind of rule, system calls have this:
//!
//! - **Sections.** `syscalls` reports calls by name, as they begin, whatever becomes of them. It refuses none.
//! - **Specificity.** All rules are equally specific, because each names one call.
//! - **Allow-list.** There is none: an Allow rule is an error.

pub(crate) mod compile;
mod model;
mod names;
pub(crate) mod parse;

pub use model::Syscall;
