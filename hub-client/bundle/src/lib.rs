//! This crate defines signed bundles of policies: their content, the keys that sign them, and the checks with
//! which a node accepts or refuses them.
//!
//! A bundle travels as a DSSE envelope ([`dsse`]), or as the bare payload with the signature that
//! `hzn mms object publish -k` puts into the object's metadata ([`plain`]). Both contain the same payload
//! ([`payload`]), and everything that matters is inside its signed bytes. [`verify()`] is the only way from
//! bytes to a bundle that may be enforced; [`trust`] keeps the keys that a node believes.

// The print macros panic if standard output or standard error is closed; libraries do not print.
#![warn(clippy::print_stdout, clippy::print_stderr)]

pub mod constraint;
pub mod dsse;
pub mod keys;
pub mod payload;
pub mod plain;
pub mod trust;
pub mod verify;
mod version;

pub use payload::Payload;
pub use verify::{
    Accepted, NodeIdentity, Refusal, SerialFloor, SignedBundle, VerifiedBundle, reopen, verify,
};

/// Maximum size of a payload in bytes.
pub const MAX_PAYLOAD: usize = 4 << 20;
/// Maximum size of a bundle object in bytes: the largest payload in base64, and its signatures.
pub const MAX_BUNDLE: usize = MAX_PAYLOAD / 3 * 4 + (64 << 10);
