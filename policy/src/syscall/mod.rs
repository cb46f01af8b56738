//! Knows system calls: the rules of the section `syscalls`, and the table that says which calls are reported.
//!
//! Of what [`crate::precedence`] leaves to each kind of rule, system calls have this:
//!
//! - **Sections.** `syscalls` reports calls by name, as they begin, whatever becomes of them. It refuses none.
//! - **Matching.** A rule with a path is about calls that name it, as it is written in the call and made absolute. Links are
//!   not followed.
//! - **Specificity.** First come rules with the longest paths; of the same path that without what is below it; rules without a
//!   path come last.
//! - **Allow-list.** There is none: an Allow rule is an error.

pub(crate) mod compile;
mod model;
mod names;
pub(crate) mod parse;
mod paths;
mod table;

pub use model::{CallPath, Syscall, SyscallRule};
pub use paths::{Base, PathArgument};
pub use table::SyscallTable;
