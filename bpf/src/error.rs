//! Defines the error of everything that the kernel side is asked to do.

use std::io;
use std::path::{Path, PathBuf};

use armor_policy::escaped_path;
use thiserror::Error;

use crate::output;
use crate::symbols::Unseen;

/// A `BpfError` says why the kernel side could not do what it was asked.
#[derive(Debug, Error)]
pub enum BpfError {
    /// The kernel rejected the programs: by the verifier, for its BTF, or for missing permissions.
    #[error("the kernel refuses the programs: {source} (hzn-armor-agent probe tells what is missing){said}")]
    Load {
        /// The kernel's error.
        source: libbpf_rs::Error,
        /// libbpf's warnings about it, with the end of the verifier's log.
        said: String,
    },
    /// The programs would load, but would read nothing where they expect the kernel's variables.
    #[error(transparent)]
    Symbols(Unseen),
    /// This kernel sometimes skips a program that another task was preempted in, and it is fully preemptible.
    #[error(
        "this kernel passes over a program that another task is preempted in, and it is fully preemptible: what is blocked \
         could be done nevertheless; boot with `preempt=voluntary` on the kernel command line, or take a kernel from 6.2 on"
    )]
    PassesOver,
    /// A loaded program could not be attached to its hook.
    #[error("program {program} cannot be attached: {source}")]
    Attach {
        /// The program's name, which is its hook's.
        program: String,
        /// libbpf's error.
        source: libbpf_rs::Error,
    },
    /// A map could not be read or written, mostly for lack of memory.
    #[error("kernel map {map}: {source}")]
    Map {
        /// The map's name, as in the `maps.h` of the programs.
        map: &'static str,
        /// The kernel's error.
        source: libbpf_rs::Error,
    },
    /// A pin could not be made, read or removed: it is on no bpf filesystem, or the agent has no right to it.
    #[error("{}: {source} (is a bpf filesystem mounted there?)", escaped_path(path))]
    Pin {
        /// The pin.
        path: PathBuf,
        /// The kernel's error.
        source: io::Error,
    },
    /// The pin directory is on another filesystem; nothing was made or removed there.
    #[error(
        "{}: there is no bpf filesystem: choose a directory on one, or mount it: `mount -t bpf bpf /sys/fs/bpf`",
        escaped_path(path)
    )]
    NoBpfFilesystem {
        /// The directory.
        path: PathBuf,
    },
    /// The pin directory's path is no directory; nothing was done.
    #[error("{}: not a directory: remove what is there, or choose another", escaped_path(path))]
    NotDirectory {
        /// The path.
        path: PathBuf,
    },
    /// An iterator over tasks, or over the handles that they hold, failed.
    #[error("what tasks hold cannot be listed: {source}")]
    Iterator {
        /// The kernel's error.
        source: io::Error,
    },
    /// The kernel gives no information about the programs that it runs.
    #[error("the programs cannot be looked at: {source}")]
    Programs {
        /// The kernel's error.
        source: io::Error,
    },
    /// The generation cannot be laid out as kernel tables; nothing changed.
    #[error("generation {id}: {reason}")]
    Generation {
        /// The generation's number.
        id: u32,
        /// The reason.
        reason: String,
    },
}

impl BpfError {
    pub(crate) fn load(source: libbpf_rs::Error) -> Self {
        Self::Load { source, said: output::warnings() }
    }
}

pub(crate) fn pin_error(path: &Path, source: io::Error) -> BpfError {
    BpfError::Pin { path: path.to_owned(), source }
}
