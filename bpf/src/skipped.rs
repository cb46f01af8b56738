//! Counts how often the kernel skipped one of our programs. Some kernels do not run a program on a processor
//! where it is already running, and permit what it would have refused.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use libbpf_rs::{Link, Program};

use crate::bpffs::entries;
use crate::enforcer::{is_on_demand, is_syscall_link};
use crate::error::{BpfError, pin_error};
use crate::program;

/// An `Attached` has a descriptor of each attached program.
pub(crate) struct Attached(Vec<OwnedFd>);

impl Attached {
    /// Opens the programs of links that this process made.
    pub(crate) fn of<'a>(links: impl IntoIterator<Item = &'a Link>) -> Result<Self, BpfError> {
        let program = |link: &Link| Program::fd_from_id(link.info()?.prog_id);
        let programs = links.into_iter().map(program).collect::<libbpf_rs::Result<_>>();
        programs.map(Self).map_err(|source| BpfError::Programs { source: io::Error::other(source) })
    }

    /// Opens the programs whose links are pinned in a directory, without those that are attached on demand.
    pub(crate) fn pinned(directory: &Path) -> Result<Self, BpfError> {
        let open = |path: &Path| Link::open(path).map_err(|source| pin_error(path, io::Error::other(source)));
        let links = entries(directory)?;
        let is_ours = |name: &OsStr| is_on_demand(name) || is_syscall_link(name);
        let links = links.iter().filter(|path| !path.file_name().is_some_and(is_ours));
        Self::of(&links.map(|path| open(path)).collect::<Result<Vec<_>, _>>()?)
    }

    /// Adds programs that are attached on demand, whether they are or not.
    pub(crate) fn and<'a>(mut self, more: impl Iterator<Item = BorrowedFd<'a>>) -> Result<Self, BpfError> {
        for program in more {
            let program = program.try_clone_to_owned();
            self.0.push(program.map_err(|source| BpfError::Programs { source })?);
        }
        Ok(self)
    }

    /// Returns how often the programs were not run where they should have been, since they were loaded.
    pub(crate) fn skipped(&self) -> Result<u64, BpfError> {
        let misses = |program: &OwnedFd| Ok(program::info(program.as_fd())?.recursion_misses);
        self.0.iter().map(misses).sum::<io::Result<u64>>().map_err(|source| BpfError::Programs { source })
    }
}
