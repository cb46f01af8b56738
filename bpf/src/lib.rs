//! Loads the kernel side, CO-RE programs in C (`src/bpf`), and is the only safe way to use them.
//!
//! Rules reach the kernel as a [`Generation`], which [`Enforcer::swap`] makes live by one map update: a task
//! sees the rules of one generation or of the next, never a mix and never none. Pinned programs enforce
//! without any process.

mod bpffs;
mod container;
mod contract;
mod counters;
mod detach;
mod enforcer;
mod error;
mod event;
mod guard;
mod hooks;
mod image;
mod iterator;
mod judge;
mod leftover;
mod mount_tree;
mod output;
mod pins;
mod preemption;
mod probe;
mod program;
mod raw;
mod root_cgroup;
mod skipped;
mod socket_names;
mod symbols;

/// Generated from the C sources by `build.rs`.
#[allow(missing_docs, unused, clippy::all, clippy::restriction)]
mod skeleton {
    include!(concat!(env!("OUT_DIR"), "/armor.skel.rs"));
}

pub use bpffs::{cannot_be_made, require_bpffs};
pub use container::ContainerId;
pub use counters::Counters;
pub use detach::{Detached, detach, is_pinned};
pub use enforcer::{Enforcer, Labelled, Labeller, exempt_from_pinned};
pub use error::BpfError;
pub use event::{Access, Event, Events, Guard, Hook, PathAccess, SocketAccess, SyscallAccess, Task};
pub use hooks::sees_file_attributes;
pub use image::{DomainRules, DomainSettings, Generation};
pub use leftover::Leftover;
pub use mount_tree::{LinkedFile, MountTree, kernel_device};
pub use probe::{Probe, ProgramProbe, ProofError, active_modules, probe};
pub use symbols::Unseen;

/// Domain of every task without a label.
pub const HOST_DOMAIN: u32 = contract::domain_number::HOST_DOMAIN.0;
/// Highest number of a domain; the lowest is [`HOST_DOMAIN`].
pub const MAX_DOMAIN: u32 = contract::domain_number::MAX_DOMAIN.0;
/// Domain of unidentified containers: they had not been named yet when their first program was started.
pub const UNIDENTIFIED_DOMAIN: u32 = contract::domain_number::UNIDENTIFIED_DOMAIN.0;
/// Domain that no generation describes, so that its tasks are under no rules: the agent's own.
pub const EXEMPT_DOMAIN: u32 = u32::MAX;
/// Stands in a [`LinkedFile`]'s `device` for a character device, whose number is then the `inode`.
pub const DEVICE_CHARACTER: u32 = contract::device_kind::DEVICE_CHARACTER.0;
/// Stands in a [`LinkedFile`]'s `device` for a block device, whose number is then the `inode`.
pub const DEVICE_BLOCK: u32 = contract::device_kind::DEVICE_BLOCK.0;
