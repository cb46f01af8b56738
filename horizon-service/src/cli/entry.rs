//! Starts a command and stops it before its first instruction, so that the descriptors it inherits can be
//! checked.
//!
//! `execve` is complete by then: descriptors with close-on-exec are closed, and the kernel side knows the
//! command's program. Only a tracer can stop a process there; it detaches before anything runs.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd as _, RawFd};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Child, Command, ExitStatus};
use std::ptr;

use rustix::process::{Pid, WaitOptions, waitpid};

/// The last of standard input, output and error. A program expects these to be open, so a refused one becomes
/// `/dev/null`.
pub const LAST_STANDARD: RawFd = 2;

/// An `Entry` is a command that was started but has not run yet.
pub struct Entry {
    child: Child,
    /// Set if the kernel killed it during `execve`.
    ended: Option<ExitStatus>,
}

impl Entry {
    /// Starts `command` without the descriptors `without`, in a process that first calls `enter`. This
    /// process must have only one thread.
    ///
    /// # Errors
    /// Fails if the command cannot be started, with the error of [`Command::spawn`], or cannot be stopped.
    pub fn start(
        command: &[OsString],
        without: &[RawFd],
        enter: impl Fn() -> io::Result<()> + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let (program, arguments) = command.split_first().ok_or(io::ErrorKind::InvalidInput)?;
        let nothing = File::options().read(true).write(true).open("/dev/null")?;
        let without = without.to_vec();
        let mut command = Command::new(program);
        let begin = move || {
            // SAFETY: the system calls take numbers and null pointers, which touch no memory of this process.
            unsafe {
                for &descriptor in &without {
                    let done = if descriptor <= LAST_STANDARD {
                        libc::dup2(nothing.as_raw_fd(), descriptor)
                    } else {
                        libc::close(descriptor)
                    };
                    if done < 0 {
                        return Err(io::Error::last_os_error());
                    }
                }
                enter()?;
                let nobody = ptr::null_mut::<libc::c_void>();
                if libc::ptrace(libc::PTRACE_TRACEME, 0, nobody, nobody) < 0 {
                    return Err(io::Error::last_os_error());
                }
            }
            Ok(())
        };
        // SAFETY: between fork and exec `begin` makes system calls and may allocate; with one thread, nobody
        // else can hold the allocator's lock at the fork.
        let child = unsafe { command.args(arguments).pre_exec(begin) }.spawn()?;
        let mut entry = Self { child, ended: None };
        match waitpid(Some(Pid::from_child(&entry.child)), WaitOptions::empty())? {
            Some((_, status)) if status.stopped() => entry.hold()?,
            status => {
                entry.ended = status.map(|(_, status)| ExitStatus::from_raw(status.as_raw()));
            }
        }
        Ok(entry)
    }

    /// Makes the kernel kill the command if this process ends before it lets it run.
    fn hold(&mut self) -> io::Result<()> {
        let nothing = ptr::null_mut::<libc::c_void>();
        // SAFETY: sets an option of a process that this one traces; passes no memory.
        let done = unsafe {
            libc::ptrace(libc::PTRACE_SETOPTIONS, self.child.id(), nothing, libc::PTRACE_O_EXITKILL)
        };
        if done < 0 {
            let error = io::Error::last_os_error();
            self.child.kill()?;
            return Err(error);
        }
        Ok(())
    }

    /// Returns the pid of the command.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Lets the command run.
    ///
    /// # Errors
    /// Fails if the tracer cannot detach; the command is killed then.
    pub fn go(mut self) -> io::Result<Begun> {
        if self.ended.is_none() {
            let nothing = ptr::null_mut::<libc::c_void>();
            // SAFETY: detaches from a process that this one traces; passes no memory.
            let done = unsafe { libc::ptrace(libc::PTRACE_DETACH, self.child.id(), nothing, nothing) };
            if done < 0 {
                let error = io::Error::last_os_error();
                self.child.kill()?;
                return Err(error);
            }
        }
        Ok(Begun { child: self.child, ended: self.ended })
    }

    /// Kills the command before it has done anything.
    ///
    /// # Errors
    /// Fails if it cannot be killed.
    pub fn end(mut self) -> io::Result<ExitStatus> {
        match self.ended {
            Some(status) => Ok(status),
            None => {
                self.child.kill()?;
                self.child.wait()
            }
        }
    }
}

/// A `Begun` is a running command.
pub struct Begun {
    child: Child,
    ended: Option<ExitStatus>,
}

impl Begun {
    /// Returns the pid of the command, or `None` if it has ended and was waited for.
    pub fn pid(&self) -> Option<Pid> {
        self.ended.is_none().then(|| Pid::from_child(&self.child))
    }

    /// Waits for the end of the command.
    ///
    /// # Errors
    /// Fails with the system's error.
    pub fn wait(&mut self) -> io::Result<ExitStatus> {
        self.ended.map_or_else(|| self.child.wait(), Ok)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::io::{FdFlags, fcntl_setfd};
    use std::fs;

    fn words(script: &str) -> Vec<OsString> {
        ["/bin/sh", "-c", script].map(OsString::from).to_vec()
    }

    #[test]
    fn a_stopped_command_lacks_the_refused_descriptors() {
        let dir = tempfile::tempdir().unwrap();
        let began = dir.path().join("began");
        let brought = File::create(dir.path().join("brought")).unwrap();
        fcntl_setfd(&brought, FdFlags::empty()).unwrap();
        let number = brought.as_raw_fd();
        let script = format!("echo >{}; [ -e /proc/self/fd/{number} ]", began.display());
        for (without, status) in [(&[][..], 0), (&[number][..], 1)] {
            let entry = Entry::start(&words(&script), without, || Ok(())).unwrap();
            assert!(!began.exists(), "it has begun");
            let held = fs::read_link(format!("/proc/{}/fd/{number}", entry.id()));
            assert_eq!(held.is_ok(), without.is_empty());
            assert_eq!(entry.go().unwrap().wait().unwrap().code(), Some(status));
            fs::remove_file(&began).unwrap();
        }
        let entry = Entry::start(&words(&script), &[], || Ok(())).unwrap();
        assert_eq!(entry.end().unwrap().signal(), Some(libc::SIGKILL));
        assert!(!began.exists());
    }

    #[test]
    fn standard_input_is_there_though_empty() {
        let entry = Entry::start(&words("! read line && [ -e /proc/self/fd/0 ]"), &[0], || Ok(())).unwrap();
        assert_eq!(entry.go().unwrap().wait().unwrap().code(), Some(0));
    }

    #[test]
    fn what_cannot_be_started_is_told_as_ever() {
        let error = Entry::start(&["/no/such".into()], &[], || Ok(())).map(|_| ()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
