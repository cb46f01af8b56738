//! Decides which of several agents on a machine works: the one that has locked the state directory and the
//! directory of the kernel's tables. Every other one stands by until it can lock both.
//!
//! Invariants:
//! - Locks are `flock`s: they end with the process, however that ends, and hold between containers that share
//!   the directory.
//! - An agent that stands by leaves everything that another one owns as it is. It has one thread, because
//!   labels are per task.
//! - The state is locked before the tables, so that two agents never wait for each other.

use std::fmt;
use std::fs::{self, DirBuilder, File};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use armor_base::file::{self, FileError, Links};
use armor_base::name::check_name;
use armor_policy::escaped_path;
use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FlockOperation, flock, major, minor};
use rustix::io::Errno;

/// Interval at which a standby agent tries to take over.
const POLL: Duration = Duration::from_secs(1);
/// Maximum bytes read of a lock file or a `/proc` file about another agent.
const MAX_READ: u64 = 256 << 10;

/// A `LockError` is the reason why a lock cannot be examined.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// The system refuses to open or lock it.
    #[error("{}: {error}", escaped_path(path))]
    Io {
        /// The locked file or directory.
        path: PathBuf,
        /// The system's error.
        error: io::Error,
    },
    /// The lock file of a state directory cannot be created on a read-only filesystem.
    #[error(
        "{}: {error}: mount the filesystem for writing, or choose another `state_dir`",
        escaped_path(path)
    )]
    ReadOnly {
        /// The lock file.
        path: PathBuf,
        /// The system's error.
        error: io::Error,
    },
    /// The lock file's place in a state directory is taken by something else.
    #[error("{}: a {kind}, not a regular file: remove it, the agent makes its own", escaped_path(path))]
    NotRegular {
        /// Path of the lock file.
        path: PathBuf,
        /// Kind of the object there.
        kind: &'static str,
    },
    /// The place of the pin directory is taken by something else.
    #[error("{}: not a directory: remove what is there, or choose another `pin_dir`", escaped_path(path))]
    NotDirectory {
        /// Path of the directory.
        path: PathBuf,
    },
}

/// An `InstanceLock` names what only one agent may own.
#[derive(Debug, Clone, Copy)]
pub enum InstanceLock<'a> {
    /// A state directory; the file `lock` in it is locked and has the owner's pid.
    State(&'a Path),
    /// The directory in which the kernel's tables are pinned. It is locked itself, because a BPF file system
    /// takes no files.
    Tables(&'a Path),
}

/// A `Lock` is held until it is dropped or the process ends.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

/// A `Holder` is the agent that holds a lock.
#[derive(Debug, PartialEq, Eq)]
pub struct Holder {
    directory: PathBuf,
    /// The agent's pid, or `unknown`.
    pub pid: String,
    /// The agent's agreement or control group, if `/proc` shows it.
    place: Option<String>,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} belongs to the agent with pid {}", escaped_path(&self.directory), self.pid)?;
        self.place.as_ref().map_or(Ok(()), |place| write!(f, " ({place})"))
    }
}

impl InstanceLock<'_> {
    /// Takes the lock, or returns its holder. Creates missing directories.
    ///
    /// # Errors
    /// Fails with [`LockError`] if there is nothing that can be locked.
    pub fn take(self) -> Result<Result<Lock, Holder>, LockError> {
        let file = loop {
            let file = self.make()?;
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) if is_still(&self.path(), &file) => break file,
                // Removed just now, as `detach` does, so another agent would lock another directory.
                Ok(()) => {}
                Err(Errno::WOULDBLOCK) => return Ok(Err(self.holder_of(&file))),
                Err(error) => return Err(self.failed(io::Error::from(error).into())),
            }
        };
        if let Self::State(_) = self {
            // For agents that ask for the holder; a full disk is no reason to fail.
            file.set_len(0).and_then(|()| writeln!(&file, "{}", std::process::id())).ok();
        }
        Ok(Ok(Lock { _file: file }))
    }

    /// Takes the lock like [`Self::take`], but stands by until it is free, and calls `on_wait` with each
    /// holder that it waits for. Returns `None` if SIGTERM or SIGINT came first. Only for a process with one thread.
    ///
    /// # Errors
    /// Fails like [`Self::take`].
    pub fn wait_for(self, mut on_wait: impl FnMut(&Holder)) -> Result<Option<Lock>, LockError> {
        let mut last = None;
        let mut stop = None;
        loop {
            let holder = match self.take()? {
                Ok(lock) => return Ok(Some(lock)),
                Err(holder) => holder,
            };
            if last.as_ref() != Some(&holder) {
                tracing::warn!("{holder}: standing by to take over");
                on_wait(&holder);
                last = Some(holder);
            }
            let stop = match &mut stop {
                Some(stop) => stop,
                none => none.insert(StopSignals::block().map_err(|error| self.failed(error.into()))?),
            };
            if stop.wait_for(POLL) {
                tracing::info!("stopping; was standing by");
                return Ok(None);
            }
        }
    }

    /// Returns the agent that holds the lock, if any.
    ///
    /// # Errors
    /// Fails with [`LockError`] if the lock cannot be examined.
    pub fn holder(self) -> Result<Option<Holder>, LockError> {
        let file = match self.open() {
            Ok(file) => file,
            Err(error) if error.is_missing() => return Ok(None),
            Err(error) => return Err(self.failed(error)),
        };
        match flock(&file, FlockOperation::NonBlockingLockShared) {
            Ok(()) => Ok(None),
            Err(Errno::WOULDBLOCK) => Ok(Some(self.holder_of(&file))),
            Err(error) => Err(self.failed(io::Error::from(error).into())),
        }
    }

    fn directory(&self) -> &Path {
        let (Self::State(directory) | Self::Tables(directory)) = self;
        directory
    }

    /// Returns the path that is locked.
    fn path(&self) -> PathBuf {
        match self {
            Self::State(directory) => directory.join("lock"),
            Self::Tables(directory) => directory.to_path_buf(),
        }
    }

    fn make(&self) -> Result<File, LockError> {
        let make = || {
            DirBuilder::new().recursive(true).mode(0o700).create(self.directory())?;
            match self {
                Self::State(_) => file::open_or_make(&self.path()),
                Self::Tables(_) => self.open(),
            }
        };
        make().map_err(|error| self.failed(error))
    }

    /// Opens the locked path, without blocking on whatever is there.
    fn open(&self) -> Result<File, FileError> {
        match self {
            Self::State(_) => file::open(&self.path(), Links::Follow),
            Self::Tables(directory) => {
                Ok(File::options().read(true).custom_flags(libc::O_DIRECTORY).open(directory)?)
            }
        }
    }

    fn failed(&self, error: FileError) -> LockError {
        let path = self.path();
        match (self, error) {
            (Self::Tables(_), FileError::Io(error)) if error.kind() == ErrorKind::NotADirectory => {
                LockError::NotDirectory { path }
            }
            (Self::State(_), FileError::Io(error)) if error.kind() == ErrorKind::ReadOnlyFilesystem => {
                LockError::ReadOnly { path, error }
            }
            (_, FileError::NotRegular(kind)) => LockError::NotRegular { path, kind },
            (_, FileError::Io(error)) => LockError::Io { path, error },
            (_, error) => LockError::Io { path, error: io::Error::other(error) },
        }
    }

    fn holder_of(&self, locked: &File) -> Holder {
        let pid = match self {
            Self::State(_) => read_some(locked).and_then(|text| String::from_utf8(text).ok()),
            Self::Tables(_) => pid_by_proc_locks(locked),
        };
        // Must be a number before it becomes a part of paths.
        let pid = pid.and_then(|pid| pid.trim().parse::<u32>().ok());
        Holder {
            directory: self.directory().to_owned(),
            pid: pid.map_or_else(|| "unknown".to_owned(), |pid| pid.to_string()),
            place: pid.and_then(|pid| agreement(pid).or_else(|| control_group(pid))),
        }
    }
}

/// Returns whether the path still leads to the file.
fn is_still(path: &Path, file: &File) -> bool {
    let same = || Ok::<_, io::Error>(fs::metadata(path)?.ino() == file.metadata()?.ino());
    same().unwrap_or(false)
}

/// Finds the pid of the lock's owner in `/proc/locks`, see proc_locks(5).
fn pid_by_proc_locks(locked: &File) -> Option<String> {
    let meta = locked.metadata().ok()?;
    let inode = format!("{:02x}:{:02x}:{}", major(meta.dev()), minor(meta.dev()), meta.ino());
    let locks = String::from_utf8(read_proc("locks")?).ok()?;
    locks.lines().find_map(|line| match line.split_ascii_whitespace().collect::<Vec<_>>()[..] {
        [_, "FLOCK", _, "WRITE", pid, at, ..] if at == inode => Some(pid.to_owned()),
        _ => None,
    })
}

/// Returns the agreement of a service that Horizon runs.
fn agreement(pid: u32) -> Option<String> {
    let variables = read_proc(&format!("{pid}/environ"))?;
    let agreement = variables.split(|byte| *byte == 0).find_map(|v| v.strip_prefix(b"HZN_AGREEMENTID="))?;
    let agreement = str::from_utf8(agreement).ok().filter(|name| check_name(name).is_ok())?;
    Some(format!("agreement {agreement}"))
}

/// Returns the control group, which names the container or the systemd unit.
fn control_group(pid: u32) -> Option<String> {
    let groups = String::from_utf8(read_proc(&format!("{pid}/cgroup"))?).ok()?;
    // Within its own cgroup namespace, a process only sees `/`.
    let group = groups.lines().last()?.splitn(3, ':').nth(2).filter(|group| *group != "/")?;
    Some(format!("in {}", group.escape_debug()))
}

fn read_proc(name: &str) -> Option<Vec<u8>> {
    read_some(&File::open(Path::new("/proc").join(name)).ok()?)
}

fn read_some(file: &File) -> Option<Vec<u8>> {
    let mut content = Vec::new();
    file.take(MAX_READ).read_to_end(&mut content).ok()?;
    Some(content)
}

/// While a `StopSignals` exists, SIGTERM and SIGINT are blocked and can be waited for.
struct StopSignals {
    signals: SignalFd,
    before: SigSet,
}

impl StopSignals {
    fn block() -> io::Result<Self> {
        let set: SigSet = [Signal::SIGTERM, Signal::SIGINT].into_iter().collect();
        let signals = SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC)?;
        Ok(Self { signals, before: set.thread_swap_mask(SigmaskHow::SIG_BLOCK)? })
    }

    /// Waits for a signal and returns whether one came within `time`.
    fn wait_for(&self, time: Duration) -> bool {
        let time = Timespec::try_from(time).ok();
        let mut ready = [PollFd::new(&self.signals, PollFlags::IN)];
        // The signal is taken, as it would end the process once it is no longer blocked.
        poll(&mut ready, time.as_ref()).is_ok_and(|count| count > 0) && self.signals.read_signal().is_ok()
    }
}

impl Drop for StopSignals {
    fn drop(&mut self) {
        if let Err(error) = self.before.thread_set_mask() {
            tracing::error!("signals stay blocked: {error}");
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::time::Instant;

    /// Waits until nobody holds a lock that was dropped. A process that another test starts has a copy of the
    /// descriptor until it executes.
    pub(crate) fn until_free(lock: &InstanceLock<'_>) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while lock.holder().unwrap().is_some() {
            assert!(Instant::now() < deadline, "the lock stays");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn one_at_a_time_and_the_others_know_who() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new/directory");
        for lock in [InstanceLock::State(&path), InstanceLock::Tables(&path)] {
            assert_eq!(lock.holder().unwrap(), None);
            let taken = lock.take().unwrap().unwrap();
            let held = lock.take().unwrap().unwrap_err();
            assert_eq!((&held.pid, &held.directory), (&std::process::id().to_string(), &path));
            assert!(held.to_string().ends_with(')') || control_group(std::process::id()).is_none(), "{held}");
            assert_eq!(lock.holder().unwrap(), Some(held));
            drop(taken);
            until_free(&lock);
            lock.take().unwrap().unwrap();
        }
    }

    #[test]
    fn a_lock_on_a_directory_that_is_gone_owns_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pins");
        fs::create_dir(&path).unwrap();
        let old = File::open(&path).unwrap();
        assert!(is_still(&path, &old));
        fs::remove_dir(&path).unwrap();
        assert!(!is_still(&path, &old));
        let _new = InstanceLock::Tables(&path).take().unwrap().unwrap();
        assert!(!is_still(&path, &old));
    }

    #[test]
    fn what_cannot_be_locked_is_named() {
        for lock in
            [InstanceLock::State(Path::new("/proc/none")), InstanceLock::Tables(Path::new("/proc/none"))]
        {
            assert!(lock.take().unwrap_err().to_string().starts_with("/proc/none"));
        }
    }
}
