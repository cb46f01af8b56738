//! Why the kernel side could not do what it was asked.

use std::io;
use std::path::PathBuf;

use armor_policy::escaped_path;
use thiserror::Error;

use crate::output;
use crate::symbols::Unseen;

/// Why the kernel side could not do what it was asked.
#[derive(Debug, Error)]
pub enum BpfError {
    /// The kernel's verifier, BTF or permissions refused the programs.
    #[error("the kernel refuses the programs: {source} (hzn-armor-agent probe tells what is missing){said}")]
    Load {
        /// The kernel's error.
        source: libbpf_rs::Error,
        /// What libbpf said about it, with the end of the verifier's log.
        said: String,
    },
    /// The programs would load, and read nothing where they look for the kernel's variables.
    #[error(transparent)]
    Symbols(Unseen),
    /// The kernel would now and then not run a program where a task can be preempted in it, and it lets tasks be.
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
        /// What libbpf says.
        source: libbpf_rs::Error,
    },
    /// A map could not be read or written; out of memory, mostly.
    #[error("kernel map {map}: {source}")]
    Map {
        /// The map's name in `maps.h`.
        map: &'static str,
        /// What the kernel says.
        source: libbpf_rs::Error,
    },
    /// A pin could not be made, read or removed: not a bpf filesystem, or no right to it.
    #[error("{}: {source} (is a bpf filesystem mounted there?)", escaped_path(path))]
    Pin {
        /// The pin.
        path: PathBuf,
        /// What the kernel says.
        source: io::Error,
    },
    /// The directory for pins is elsewhere; nothing was made, or removed, there.
    #[error(
        "{}: there is no bpf filesystem: choose a directory on one, or mount it: `mount -t bpf bpf /sys/fs/bpf`",
        escaped_path(path)
    )]
    NoBpfFilesystem {
        /// The directory.
        path: PathBuf,
    },
    /// Something else is in the place of the directory for pins; nothing was done.
    #[error("{}: not a directory: remove what is there, or choose another", escaped_path(path))]
    NotDirectory {
        /// What is there.
        path: PathBuf,
    },
    /// What tasks hold cannot be listed.
    #[error("what tasks hold cannot be listed: {source}")]
    Iterator {
        /// What the kernel says.
        source: io::Error,
    },
    /// The kernel does not tell of the programs that it runs.
    #[error("the programs cannot be looked at: {source}")]
    Programs {
        /// What the kernel says.
        source: io::Error,
    },
    /// The generation cannot be a kernel table; nothing changed.
    #[error("generation {id}: {reason}")]
    Generation {
        /// Its number.
        id: u32,
        /// Why.
        reason: String,
    },
}

impl BpfError {
    pub(crate) fn load(source: libbpf_rs::Error) -> Self {
        Self::Load { source, said: output::warnings() }
    }
}
