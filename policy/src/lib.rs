//! This crate validates KubeArmor policy documents and compiles them to the tables that the kernel side
//! reads.
//!
//! It does no I/O and uses no kernel interface. [`parse()`] reads documents, and [`compile()`] resolves every
//! question of precedence, inheritance, posture and ownership into a [`tables::Domain`].

mod comb;
pub mod compile;
pub mod diagnostics;
mod escape;
pub mod glob;
pub mod model;
pub mod names;
pub mod parse;
pub mod tables;
pub mod text;
pub mod yaml;

pub use compile::{CompileError, CompileOptions, Posture, compile, literal_paths};
pub use diagnostics::{Diagnostic, Diagnostics};
pub use escape::{escaped, escaped_path};
pub use model::Policy;
pub use parse::{Checked, check, parse};
