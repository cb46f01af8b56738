//! Knows paths: the rules of the sections `process` and `file`, the classes of paths, and the tables that decide
//! accesses to them.

pub(crate) mod compile;
pub mod glob;
mod tables;

pub use tables::{
    OBJECT_ANONYMOUS, OBJECT_FIRST, OBJECT_NONE, OBJECT_UNRESOLVED, PERMISSIONS, Permission, Vector,
};
