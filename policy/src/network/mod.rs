//! Knows networks: the rules of the section `network`, the kinds of sockets, and the table that decides their use.
//!
//! Of what [`crate::precedence`] leaves to each kind of rule, networks have this:
//!
//! - **Sections.** `network` decides making, connecting, binding and listening of sockets, accepting on them, sending
//!   with them and receiving their descriptors.
//! - **Specificity.** First come the names of protocols, then those of types of sockets, then `all`.
//! - **What is not judged.** No rule is about UNIX sockets, which rules for paths govern, nor about netlink, by which
//!   programs ask the kernel.

pub(crate) mod compile;
mod model;
pub(crate) mod parse;

pub use model::{NetworkRule, Protocol, SocketKind};
