//! KubeArmor policy documents, validated and compiled to the tables that the kernel reads.
//!
//! Pure: no I/O and no kernel. [`parse()`] reads documents, [`compile()`] resolves every precedence, inheritance, posture
//! and ownership question into a [`tables::Domain`], and [`mod@reference`] says
//! the same slowly, for tests.

mod comb;
pub mod compile;
pub mod diagnostics;
mod escape;
pub mod glob;
pub mod model;
pub mod names;
pub mod parse;
pub mod reference;
pub mod tables;
pub mod text;
pub mod yaml;

pub use compile::{CompileError, CompileOptions, Posture, compile, literal_paths};
pub use diagnostics::{Diagnostic, Diagnostics};
pub use escape::{escaped, escaped_path};
pub use model::Policy;
pub use parse::{Checked, check, parse};
