//! A command that is started and held before its first instruction, with the descriptors that it brings along.
//!
//! `execve` has been done by then: descriptors that end with it are closed, and the kernel side knows the command's program. Only
//! a tracer can hold a process there; it lets go before anything runs.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd as _, RawFd};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Child, Command, ExitStatus};
use std::ptr;

use rustix::process::{Pid, WaitOptions, waitpid};

/// The last of input, output and error, which a program expects to be there: one that it may not have becomes `/dev/null`.
pub const LAST_STANDARD: RawFd = 2;

/// A command that has not begun.
pub struct Entry {
    child: Child,
    /// The kernel itself ended it in the middle of `execve`.
    ended: Option<ExitStatus>,
}

impl Entry {
    /// Starts `command` without the descriptors `without`, in a process that first does `enter`. This process has one thread.
    ///
    /// # Errors
    /// What keeps the command from being started, as [`Command::spawn`] tells it, or from being held.
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
            // SAFETY: the system calls are on numbers and null pointers, which touch no memory of this process.
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
        // SAFETY: between fork and exec `begin` makes system calls, and memory is there for what it needs: no other thread could
        // have been forked away from while it held a lock.
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

    /// It does not begin either when this process ends before it lets go.
    fn hold(&mut self) -> io::Result<()> {
        let nothing = ptr::null_mut::<libc::c_void>();
        // SAFETY: sets an option of a process that this one traces; no memory is told of.
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

    /// Its process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Lets it begin.
    ///
    /// # Errors
    /// If it cannot be let go; it is ended then.
    pub fn go(mut self) -> io::Result<Begun> {
        if self.ended.is_none() {
            let nothing = ptr::null_mut::<libc::c_void>();
            // SAFETY: lets go of a process that this one traces; no memory is told of.
            let done = unsafe { libc::ptrace(libc::PTRACE_DETACH, self.child.id(), nothing, nothing) };
            if done < 0 {
                let error = io::Error::last_os_error();
                self.child.kill()?;
                return Err(error);
            }
        }
        Ok(Begun { child: self.child, ended: self.ended })
    }

    /// Ends it; it has done nothing.
    ///
    /// # Errors
    /// If it cannot be ended.
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

/// A command that runs.
pub struct Begun {
    child: Child,
    ended: Option<ExitStatus>,
}

impl Begun {
    /// Its process, which this one has not waited for; `None` where it has ended and was.
    pub fn pid(&self) -> Option<Pid> {
        self.ended.is_none().then(|| Pid::from_child(&self.child))
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// What the system says.
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
    fn a_command_is_held_until_it_is_let_go_and_has_not_what_it_may_not_have() {
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
