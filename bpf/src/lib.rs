//! The kernel side: CO-RE programs in C (`src/bpf`), and the one safe door to them.
//!
//! Rules reach the kernel as a [`Generation`], which [`Enforcer::swap`] makes live by one map update: a task sees the
//! rules of one generation or of the next, never a mix and never none. Pinned, enforcement goes on without any process.

mod container;
mod counters;
mod enforcer;
mod error;
mod event;
mod guard;
mod hooks;
mod image;
mod iterator;
mod judge;
mod mount_tree;
mod output;
mod pins;
mod preemption;
mod probe;
mod program;
mod skipped;
mod symbols;

/// Generated from the C sources by `build.rs`.
#[allow(missing_docs, unused, clippy::all, clippy::restriction)]
mod skeleton {
    include!(concat!(env!("OUT_DIR"), "/armor.skel.rs"));
}

pub use container::ContainerId;
pub use counters::Counters;
pub use enforcer::{Enforcer, Labelled, Labeller};
pub use error::BpfError;
pub use event::{Event, Events, Guard, Hook};
pub use hooks::sees_file_attributes;
pub use image::Generation;
pub use mount_tree::{LinkedFile, MountTree};
pub use pins::{Detached, Leftover, cannot_be_made, detach, is_pinned, require_bpffs};
pub use probe::{Probe, ProgramProbe, ProofError, active_modules, probe};
pub use symbols::Unseen;

/// The domain of every task without a label.
pub const HOST_DOMAIN: u32 = 0;
/// A domain that no generation describes: its tasks are under no rules. The agent's own.
pub const EXEMPT_DOMAIN: u32 = u32::MAX;
/// The domain of containers that were not named yet when their first program was started.
pub const UNIDENTIFIED_DOMAIN: u32 = MAX_DOMAIN - 1;
/// In the place of a [`LinkedFile`]'s device: it is a character device, and the inode its number.
pub const DEVICE_CHARACTER: u32 = u32::MAX;
/// The same for a block device.
pub const DEVICE_BLOCK: u32 = u32::MAX - 1;
/// Domains are numbered from 0 to here, as in `abi.h`.
pub const MAX_DOMAIN: u32 = 2047;
