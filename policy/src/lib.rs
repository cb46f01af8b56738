//! This crate validates KubeArmor policy documents and compiles them to the tables that the kernel side
//! reads.
//!
//! It does no I/O and uses no kernel interface. [`parse()`] reads documents, and [`compile()`] resolves every
//! question of precedence, inheritance, posture and ownership into a [`Domain`].

pub mod automaton;
pub mod capability;
mod compile;
pub mod decision;
pub mod destination;
pub mod device;
pub mod dns;
pub mod document;
mod domain;
mod escape;
pub mod keyed;
pub mod model;
pub mod network;
pub mod path;
pub mod precedence;
pub mod preset;
pub mod selector_keys;
pub mod syscall;

pub use compile::{compile, compile_to_explain, literal_paths};
pub use decision::{Posture, Postures};
pub use document::diagnostics::{Diagnostic, Diagnostics};
pub use document::{
    Checked, Choices, LabelMap, LabelMapError, MigrateError, Migration, check, migrate, parse,
};
pub use domain::{Domain, SUBJECT_NONE};
pub use escape::{escaped, escaped_path};
pub use model::Policy;
pub use precedence::error::CompileError;
pub use precedence::links::Links;
pub use precedence::sets::PolicySet;
