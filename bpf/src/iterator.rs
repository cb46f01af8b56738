//! Runs the iterator programs in this process.
//!
//! Invariant: their links belong to this process alone and are never pinned. Anybody who has a descriptor of
//! an iterator's link can give it another program, and a pin gives out a descriptor without asking any
//! program.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use libbpf_rs::libbpf_sys;

use crate::raw;

/// The iterator programs: first those over preexisting handles (`path/preexisting.bpf.h`), then those over all
/// tasks.
pub(crate) const ITERATORS: [&str; 7] =
    ["preexisting_files", "preexisting_mappings", LABEL, RELEASE, NAMESPACES, SETTLE, RECEIVERS];
pub(crate) const LABEL: &str = "label_tasks";
pub(crate) const RELEASE: &str = "release_unidentified";
pub(crate) const NAMESPACES: &str = "note_namespaces";
pub(crate) const SETTLE: &str = "settle_undecided";
pub(crate) const RECEIVERS: &str = "note_receivers";
/// Number of [`ITERATORS`], the first ones, that yield preexisting handles.
pub(crate) const HELD: usize = 2;

/// Returns the index of an iterator in [`ITERATORS`].
pub(crate) fn position(iterator: &str) -> usize {
    ITERATORS.iter().position(|name| *name == iterator).unwrap_or(ITERATORS.len())
}

/// An `Iterator` is an attached iterator program, represented by its link.
pub(crate) struct Iterator {
    link: OwnedFd,
}

impl Iterator {
    pub(crate) fn of(program: BorrowedFd<'_>) -> io::Result<Self> {
        Ok(Self { link: raw::link_create(program, None, libbpf_sys::BPF_TRACE_ITER)? })
    }

    /// Returns the link's id.
    pub(crate) fn id(&self) -> io::Result<u32> {
        raw::link_id(self.link.as_fd())
    }

    /// Starts a new run. The file yields what the program writes, to its end.
    pub(crate) fn start(&self) -> io::Result<File> {
        raw::iter_create(self.link.as_fd()).map(File::from)
    }
}
