//! Knows paths: the rules of the sections `process` and `file`, the classes of paths, and the tables that decide
//! accesses to them.

pub(crate) mod compile;
pub mod glob;
mod model;
pub(crate) mod parse;
mod tables;

pub use model::{PathRule, Section, Target};
pub use tables::{
    OBJECT_ANONYMOUS, OBJECT_FIRST, OBJECT_NONE, OBJECT_UNRESOLVED, PERMISSIONS, Permission, Vector,
};
