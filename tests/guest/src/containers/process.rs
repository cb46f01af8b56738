//! Starts processes in control groups as container runtimes do, and has them wait.

use std::ffi::CString;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd as _, RawFd};
use std::path::Path;
use std::ptr;

use anyhow::{Context as _, ensure};

/// Path of this program, which some tests copy.
pub(super) const ITSELF: &str = "/usr/bin/armor-guest-tests";
pub(super) const EACCES: i32 = libc::EACCES;
/// Exit status of a shell that may not start a program.
pub(super) const NOT_STARTED: i32 = 126;

/// An `Entry` says how a group is entered.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Entry {
    /// The first task is moved there.
    Attached,
    /// The first task is created there, which raises no event.
    Cloned,
}

/// A `Before` says what a container's first task does before it starts the program.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Before {
    /// Gets a mount namespace of its own and gives up its capabilities, as in a container.
    Enter,
    /// Gets a mount namespace of its own and keeps its capabilities, as in a privileged container.
    EnterPrivileged,
    /// Gets a mount namespace of its own and keeps its capabilities, without one that it could have.
    EnterBounded,
    /// Stays in the host's mount namespace.
    Stay,
}

/// `CAP_SYS_MODULE`, include/uapi/linux/capability.h.
const SYS_MODULE: libc::c_ulong = 16;
/// `struct __user_cap_header_struct`, include/uapi/linux/capability.h, for the calling process.
pub(super) const CAPABILITIES_V3: [u32; 2] = [0x2008_0522, 0];

/// A `Started` is a process that was started in a group.
pub(super) struct Started(pub(super) i32);

/// Starts a program in a group.
pub(super) fn start(group: &Path, entry: Entry, before: Before, program: &[&str]) -> anyhow::Result<Started> {
    let procs = File::options().write(true).open(group.join("cgroup.procs"))?;
    let directory = File::open(group)?;
    let words = program.iter().map(|word| CString::new(*word)).collect::<Result<Vec<_>, _>>()?;
    let mut argv: Vec<*const libc::c_char> = words.iter().map(|word| word.as_ptr()).collect();
    argv.push(ptr::null());
    let path = c"PATH=/usr/bin:/usr/sbin".as_ptr();
    let env = [path, ptr::null()];
    let cgroup = (entry == Entry::Cloned).then(|| directory.as_raw_fd());
    let pid = clone(cgroup)?;
    if pid == 0 {
        // SAFETY: between fork and exec only system calls are made, on memory that was allocated before.
        unsafe {
            if entry == Entry::Attached && libc::write(procs.as_raw_fd(), c"0".as_ptr().cast(), 1) != 1 {
                libc::_exit(121);
            }
            if before != Before::Stay && libc::unshare(libc::CLONE_NEWNS) != 0 {
                libc::_exit(122);
            }
            if before == Before::Enter && libc::syscall(libc::SYS_capset, &CAPABILITIES_V3, &[0_u32; 6]) != 0
            {
                libc::_exit(123);
            }
            if before == Before::EnterBounded && libc::prctl(libc::PR_CAPBSET_DROP, SYS_MODULE, 0, 0, 0) != 0
            {
                libc::_exit(124);
            }
            libc::execve(argv[0], argv.as_ptr(), env.as_ptr());
            libc::_exit(*libc::__errno_location());
        }
    }
    Ok(Started(pid))
}

/// Forks, into a control group of version 2 if one is given.
pub(super) fn clone(cgroup: Option<RawFd>) -> anyhow::Result<i32> {
    /// `struct clone_args`, include/uapi/linux/sched.h, up to `cgroup`.
    #[repr(C)]
    #[derive(Default)]
    struct CloneArgs {
        flags: u64,
        words: [u64; 3],
        exit_signal: u64,
        stack: [u64; 5],
        cgroup: u64,
    }
    const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
    let mut args = CloneArgs { exit_signal: libc::SIGCHLD as u64, ..CloneArgs::default() };
    if let Some(cgroup) = cgroup {
        args.flags = CLONE_INTO_CGROUP;
        args.cgroup = u64::try_from(cgroup)?;
    }
    // SAFETY: this acts as fork(); the structure is the kernel's, and its size is passed.
    match unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<CloneArgs>()) } {
        -1 => Err(io::Error::last_os_error()).context("clone3"),
        pid => Ok(i32::try_from(pid)?),
    }
}

impl Started {
    /// Returns the exit status, which is an errno if the program was not started.
    pub(super) fn wait(&self) -> anyhow::Result<i32> {
        let mut status = 0;
        // SAFETY: the child is this process's, and the status is valid memory.
        ensure!(unsafe { libc::waitpid(self.0, &raw mut status, 0) } == self.0, io::Error::last_os_error());
        ensure!(libc::WIFEXITED(status), "ended by a signal: {status}");
        Ok(libc::WEXITSTATUS(status))
    }
}

pub(super) fn run(group: &Path, entry: Entry, program: &[&str]) -> anyhow::Result<i32> {
    start(group, entry, Before::Enter, program)?.wait()
}

pub(super) fn shell(group: &Path, script: &str) -> anyhow::Result<i32> {
    run(group, Entry::Attached, &["/usr/bin/sh", "-c", script])
}

/// A `Gate` is a FIFO that a shell waits at.
pub(super) struct Gate {
    pub(super) path: &'static str,
    pub(super) wait: String,
}

impl Gate {
    pub(super) fn new() -> anyhow::Result<Self> {
        let path = "/t/c/gate";
        fs::remove_file(path).ok();
        rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, 0o600.into(), 0)?;
        Ok(Self { path, wait: format!("read line <{path}") })
    }

    /// Returns once the shell waits. It goes on with the first line.
    pub(super) fn open(&self) -> io::Result<File> {
        File::options().write(true).open(self.path)
    }
}
