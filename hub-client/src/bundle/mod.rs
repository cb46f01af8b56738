//! Signed bundles of policies: what is in them, how they are signed, what a node refuses.
//!
//! A bundle travels as a DSSE envelope ([`dsse`]) or as the bare payload with the signature that `hzn mms object publish -k`
//! puts into the object's metadata ([`plain`]). Both carry the same payload ([`payload`]), and everything that must hold is inside
//! its signed bytes. [`verify()`] is the one way from bytes to something that may be enforced.

pub mod constraint;
pub mod dsse;
pub mod payload;
pub mod plain;
pub mod verify;
mod version;

pub use payload::Payload;
pub use verify::{
    Accepted, NodeIdentity, Refusal, SerialFloor, SignedBundle, VerifiedBundle, reopen, verify,
};

/// The most bytes of a payload.
pub const MAX_PAYLOAD: usize = 4 << 20;
/// The most bytes of a bundle as an object: the largest payload in base64, and its signatures.
pub const MAX_BUNDLE: usize = MAX_PAYLOAD / 3 * 4 + (64 << 10);
