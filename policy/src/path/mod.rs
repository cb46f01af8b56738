//! Knows paths: the rules of the sections `process` and `file`, the classes of paths, and the tables that
//! decide accesses to them.
//!
//! Of what [`crate::precedence`] leaves to each kind of rule, paths have this:
//!
//! - **Sections.** `process` rules decide [`Permission::Exec`] and [`Permission::Map`], `file` rules decide
//!   [`Permission::Read`] and [`Permission::Write`].
//! - **Specificity.** First come exact paths; then patterns, those with more literal bytes first; `execname`;
//!   directories, the deepest first. Of rules with the same action, ownerOnly, readOnly and allowedArgs make one
//!   stricter.
//! - **Outcome.** With `readOnly`, reads are permitted silently, and writes are refused, or under Audit
//!   permitted with an alert. With `ownerOnly`, the file's owner is permitted silently, and others are
//!   refused, or under Audit permitted with an alert. With both, only reads by the owner are permitted
//!   silently. So Audit never refuses, and raises alerts exactly where Block would refuse.
//! - **Arguments.** With `allowedArgs`, a start is permitted silently if each argument behind the program's name is
//!   in the list, with at least one and at most [`MAX_ARGS`], in any order. Any other start is refused, or under Audit
//!   permitted with an alert; and so is mapping the program, because whoever maps it gives it its arguments. With
//!   `ownerOnly`, both have to hold.
//! - **Allow-list.** `Map` never gets the posture, because otherwise no library could be loaded.
//! - **Paths.** A path rule matches the file or the directory of that path. A directory rule matches the
//!   directory itself and its direct entries, a recursive one everything below it.
//! - **Links.** If [`Links`] says that a rule's path resolves to another path in the
//!   workload's root, the rule matches both.
//! - **No path.** An access to a file without a path (a memfd), or to a file whose path cannot be determined,
//!   is refused if the section has any rule other than Audit rules, and audited if it has only Audit rules.
//!   Reading and writing a file without a path is always permitted. Mapping it is permitted too, unless
//!   `process` is an allow-list with the posture Block.

pub(crate) mod compile;
pub mod glob;
mod model;
pub(crate) mod parse;
mod tables;

pub use model::{MAX_ARG_BYTES, MAX_ARGS, PathRule, Section, Target, path_rules};
pub use tables::{
    ArgumentTables, OBJECT_ANONYMOUS, OBJECT_FIRST, OBJECT_NONE, OBJECT_UNRESOLVED, PERMISSIONS, PathTables,
    Permission, Vector,
};

#[cfg(doc)]
use crate::Links;
