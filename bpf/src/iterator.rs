//! Runs the iterator programs in this process.
//!
//! Invariant: their links belong to this process alone and are never pinned. Anybody who has a descriptor of
//! an iterator's link can give it another program, and a pin gives out a descriptor without asking any
//! program.

use std::ffi::{CString, c_int};
use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::path::Path;
use std::ptr;

use libbpf_rs::libbpf_sys;

/// The iterator programs: first those over preexisting handles (`path/preexisting.bpf.h`), then those over all
/// tasks.
pub(crate) const ITERATORS: [&str; 6] =
    ["preexisting_files", "preexisting_mappings", LABEL, RELEASE, NAMESPACES, SETTLE];
pub(crate) const LABEL: &str = "label_tasks";
pub(crate) const RELEASE: &str = "release_unidentified";
pub(crate) const NAMESPACES: &str = "note_namespaces";
pub(crate) const SETTLE: &str = "settle_undecided";
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
        // SAFETY: without options the call reads no memory of ours.
        let link = unsafe {
            libbpf_sys::bpf_link_create(program.as_raw_fd(), 0, libbpf_sys::BPF_TRACE_ITER, ptr::null())
        };
        Ok(Self { link: descriptor(link)? })
    }

    /// Returns the link's id.
    pub(crate) fn id(&self) -> io::Result<u32> {
        let mut info = MaybeUninit::<libbpf_sys::bpf_link_info>::zeroed();
        let mut length = size_of::<libbpf_sys::bpf_link_info>() as u32;
        // SAFETY: the kernel writes at most `length` bytes.
        let result = unsafe {
            libbpf_sys::bpf_obj_get_info_by_fd(self.link.as_raw_fd(), info.as_mut_ptr().cast(), &mut length)
        };
        check(result)?;
        // SAFETY: it was all zeros, which is a valid value, before the kernel wrote into it.
        Ok(unsafe { info.assume_init() }.id)
    }

    /// Starts a new run. The file yields what the program writes, to its end.
    pub(crate) fn start(&self) -> io::Result<File> {
        // SAFETY: the descriptor is open as long as `self`.
        let started = unsafe { libbpf_sys::bpf_iter_create(self.link.as_raw_fd()) };
        descriptor(started).map(File::from)
    }
}

/// Opens a pinned program.
pub(crate) fn pinned_program(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_encoded_bytes())?;
    // SAFETY: the path is a C string.
    descriptor(unsafe { libbpf_sys::bpf_obj_get(path.as_ptr()) })
}

/// Turns libbpf's result, which is a negated error number on failure, into an `io::Result`.
fn check(result: c_int) -> io::Result<c_int> {
    if result < 0 { Err(io::Error::from_raw_os_error(-result)) } else { Ok(result) }
}

fn descriptor(result: c_int) -> io::Result<OwnedFd> {
    let fd = check(result)?;
    // SAFETY: the kernel just made this descriptor for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
