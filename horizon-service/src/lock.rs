//! Which of several agents on a machine is at work: the one that holds the state directory and the directory of the kernel's
//! tables. Every other one stands by until it can have both.
//!
//! Invariants:
//! - Locks are `flock`s: they end with the process, however that ends, and hold between containers that share the directory.
//! - Who stands by leaves everything that another one owns as it is, and has one thread: labels are per task.
//! - The state is taken first, the tables after it, so that two agents never wait for each other.

use std::fmt;
use std::fs::{self, DirBuilder, File};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use armor_hub_client::file::{self, FileError, Links};
use armor_hub_client::mms::check_name;
use armor_policy::escaped_path;
use rustix::fs::{FlockOperation, flock, major, minor};
use rustix::io::Errno;

/// How soon who stands by sees that it may take over.
const POLL: Duration = Duration::from_secs(1);
/// The most that is read of what a lock or `/proc` says about another agent, in bytes.
const MAX_READ: u64 = 256 << 10;

/// A lock that cannot be looked at.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// The system does not let it be opened or locked.
    #[error("{}: {error}", escaped_path(path))]
    Io {
        /// What is locked.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The lock of a state directory is to be made on a filesystem that takes no files.
    #[error(
        "{}: {error}: mount the filesystem for writing, or choose another `state_dir`",
        escaped_path(path)
    )]
    ReadOnly {
        /// The lock.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// Something else is where the lock of a state directory is made.
    #[error("{}: a {kind}, not a regular file: remove it, the agent makes its own", escaped_path(path))]
    NotRegular {
        /// Where the lock is made.
        path: PathBuf,
        /// What is there.
        kind: &'static str,
    },
    /// Something else is in the place of the directory for pins.
    #[error("{}: not a directory: remove what is there, or choose another `pin_dir`", escaped_path(path))]
    NotDirectory {
        /// Where the directory is to be.
        path: PathBuf,
    },
}

/// What one agent alone may have.
#[derive(Debug, Clone, Copy)]
pub enum InstanceLock<'a> {
    /// A state directory; the file `lock` in it says by pid who has it.
    State(&'a Path),
    /// The directory that the kernel's tables are pinned in. It takes no files on a BPF file system, and is locked itself.
    Tables(&'a Path),
}

/// Holds what was claimed, until it is dropped or the process ends.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

/// The agent that has it.
#[derive(Debug, PartialEq, Eq)]
pub struct Holder {
    directory: PathBuf,
    /// Its pid, or `unknown`.
    pub pid: String,
    /// Its agreement or control group, as far as `/proc` tells.
    place: Option<String>,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} belongs to the agent with pid {}", escaped_path(&self.directory), self.pid)?;
        self.place.as_ref().map_or(Ok(()), |place| write!(f, " ({place})"))
    }
}

impl InstanceLock<'_> {
    /// Takes it, or tells who has it. Directories are made where they are not there.
    ///
    /// # Errors
    /// [`LockError`] where there is nothing that could be locked.
    pub fn take(self) -> Result<Result<Lock, Holder>, LockError> {
        let file = loop {
            let file = self.make()?;
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) if is_still(&self.path(), &file) => break file,
                // Removed just now, as `detach` does; whoever comes next would lock another one.
                Ok(()) => {}
                Err(Errno::WOULDBLOCK) => return Ok(Err(self.holder_of(&file))),
                Err(error) => return Err(self.failed(io::Error::from(error).into())),
            }
        };
        if let Self::State(_) = self {
            // For whoever asks who holds it; a full disk is no reason not to.
            file.set_len(0).and_then(|()| writeln!(&file, "{}", std::process::id())).ok();
        }
        Ok(Ok(Lock { _file: file }))
    }

    /// As [`Self::take`], but stands by until it is free, and calls `told` with each holder that it waits for. `None` if
    /// SIGTERM or SIGINT came first. Only for a process with one thread.
    ///
    /// # Errors
    /// As [`Self::take`].
    pub fn wait_for(self, mut told: impl FnMut(&Holder)) -> Result<Option<Lock>, LockError> {
        let mut last = None;
        let mut stop = None;
        loop {
            let holder = match self.take()? {
                Ok(lock) => return Ok(Some(lock)),
                Err(holder) => holder,
            };
            if last.as_ref() != Some(&holder) {
                tracing::warn!("{holder}: standing by to take over");
                told(&holder);
                last = Some(holder);
            }
            if stop.get_or_insert_with(StopSignals::hold_back).come_within(POLL) {
                tracing::info!("stopping; was standing by");
                return Ok(None);
            }
        }
    }

    /// Who has it, if an agent has.
    ///
    /// # Errors
    /// [`LockError`] if that cannot be looked at.
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

    /// What is locked.
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

    /// Waits for nobody, whatever is there.
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
        // A number, before it becomes a part of paths.
        let pid = pid.and_then(|pid| pid.trim().parse::<u32>().ok());
        Holder {
            directory: self.directory().to_owned(),
            pid: pid.map_or_else(|| "unknown".to_owned(), |pid| pid.to_string()),
            place: pid.and_then(|pid| agreement(pid).or_else(|| control_group(pid))),
        }
    }
}

/// Whether the path still leads to the file.
fn is_still(path: &Path, file: &File) -> bool {
    let same = || Ok::<_, io::Error>(fs::metadata(path)?.ino() == file.metadata()?.ino());
    same().unwrap_or(false)
}

/// proc_locks(5).
fn pid_by_proc_locks(locked: &File) -> Option<String> {
    let meta = locked.metadata().ok()?;
    let inode = format!("{:02x}:{:02x}:{}", major(meta.dev()), minor(meta.dev()), meta.ino());
    let locks = String::from_utf8(read_proc("locks")?).ok()?;
    locks.lines().find_map(|line| match line.split_ascii_whitespace().collect::<Vec<_>>()[..] {
        [_, "FLOCK", _, "WRITE", pid, at, ..] if at == inode => Some(pid.to_owned()),
        _ => None,
    })
}

/// Of a service that Horizon runs.
fn agreement(pid: u32) -> Option<String> {
    let variables = read_proc(&format!("{pid}/environ"))?;
    let agreement = variables.split(|byte| *byte == 0).find_map(|v| v.strip_prefix(b"HZN_AGREEMENTID="))?;
    let agreement = str::from_utf8(agreement).ok().filter(|name| check_name(name).is_ok())?;
    Some(format!("agreement {agreement}"))
}

/// Names the container, or the unit of systemd.
fn control_group(pid: u32) -> Option<String> {
    let groups = String::from_utf8(read_proc(&format!("{pid}/cgroup"))?).ok()?;
    // Within an own cgroup namespace it is only `/`.
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

/// SIGTERM and SIGINT, which wait to be asked for as long as this is there.
struct StopSignals {
    set: libc::sigset_t,
    before: libc::sigset_t,
}

impl StopSignals {
    fn hold_back() -> Self {
        // SAFETY: plain data, made a valid set by the calls that follow; none of them fails with these arguments.
        unsafe {
            let mut signals = Self { set: std::mem::zeroed(), before: std::mem::zeroed() };
            libc::sigemptyset(&mut signals.set);
            libc::sigaddset(&mut signals.set, libc::SIGTERM);
            libc::sigaddset(&mut signals.set, libc::SIGINT);
            libc::pthread_sigmask(libc::SIG_BLOCK, &signals.set, &mut signals.before);
            signals
        }
    }

    /// Whether one has come when the time is over, or before.
    fn come_within(&self, time: Duration) -> bool {
        let time = libc::timespec {
            tv_sec: libc::time_t::try_from(time.as_secs()).unwrap_or(libc::time_t::MAX),
            tv_nsec: time.subsec_nanos().into(),
        };
        // SAFETY: a valid set and time; what is known of the signal is not asked for.
        unsafe { libc::sigtimedwait(&self.set, std::ptr::null_mut(), &time) > 0 }
    }
}

impl Drop for StopSignals {
    fn drop(&mut self) {
        // SAFETY: the mask is the one that this replaced.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &self.before, std::ptr::null_mut()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time_and_the_others_know_who() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new/directory");
        for claim in [InstanceLock::State(&path), InstanceLock::Tables(&path)] {
            assert_eq!(claim.holder().unwrap(), None);
            let lock = claim.take().unwrap().unwrap();
            let held = claim.take().unwrap().unwrap_err();
            assert_eq!((&held.pid, &held.directory), (&std::process::id().to_string(), &path));
            assert!(held.to_string().ends_with(')') || control_group(std::process::id()).is_none(), "{held}");
            assert_eq!(claim.holder().unwrap(), Some(held));
            drop(lock);
            assert_eq!(claim.holder().unwrap(), None);
            claim.take().unwrap().unwrap();
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
        for claim in
            [InstanceLock::State(Path::new("/proc/none")), InstanceLock::Tables(Path::new("/proc/none"))]
        {
            assert!(claim.take().unwrap_err().to_string().starts_with("/proc/none"));
        }
    }
}
