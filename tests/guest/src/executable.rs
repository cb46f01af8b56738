//! Makes memory executable, and starts files that have no name, or with a terminal. As in `access`, the exit status is
//! an errno.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::ptr;

use rustix::fs::{Mode, OFlags};
use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap, mmap_anonymous, mprotect};

use crate::access::{check, exec_fd};

pub const USAGE: &str = "
  anonymous-exec [private|shared|huge|read-implies]   maps memory that is no file's, executable
  anonymous-mprotect               makes it executable later
  shm-exec                         attaches a segment of System V's shared memory, executable
  device-exec PATH                 maps a device, executable and private
  written-exec PATH                maps a file private, writable and executable
  modified-exec PATH               maps a file private, changes its page, makes it executable
  tmpfile-exec PROGRAM...          starts a copy of PROGRAM that never had a name
  with-terminal PATH PROGRAM...    starts PROGRAM in a session that the terminal PATH controls
  with-new-terminal DEVPTS PROGRAM...    the same with a terminal of its own of that instance of devpts";

const PAGE: usize = 4096;
/// A huge page of x86-64, and of arm64 with small pages of 4 KiB.
const HUGE_PAGE: usize = 2 << 20;
/// Has the kernel take each readable mapping for an executable one (include/uapi/linux/personality.h).
const READ_IMPLIES_EXEC: libc::c_ulong = 0x0040_0000;
const SHM_EXEC: i32 = 0o100_000;

/// Runs a method; returns `None` if the words name none of these.
pub fn run(words: &[&str]) -> Option<anyhow::Result<()>> {
    let executable = ProtFlags::READ | ProtFlags::EXEC;
    Some(match words {
        ["anonymous-exec", "private"] => anonymous(PAGE, executable, MapFlags::PRIVATE),
        ["anonymous-exec", "shared"] => anonymous(PAGE, executable, MapFlags::SHARED),
        ["anonymous-exec", "huge"] => {
            anonymous(HUGE_PAGE, executable, MapFlags::PRIVATE | MapFlags::HUGETLB | MapFlags::NORESERVE)
        }
        ["anonymous-exec", "read-implies"] => {
            // SAFETY: only a number is passed.
            check(unsafe { libc::personality(READ_IMPLIES_EXEC) })
                .and_then(|()| anonymous(PAGE, ProtFlags::READ, MapFlags::PRIVATE))
        }
        ["anonymous-mprotect"] => anonymous_mprotect(),
        ["shm-exec"] => shm_exec(),
        ["device-exec", path] => map(path, executable).map(drop),
        ["written-exec", path] => map(path, executable | ProtFlags::WRITE).map(drop),
        ["modified-exec", path] => modified(path),
        ["tmpfile-exec", program, ..] => tmpfile_exec(program, &words[1..]),
        ["with-terminal", terminal, program, rest @ ..] => with_terminal(terminal, program, rest),
        ["with-new-terminal", devpts, program, rest @ ..] => {
            new_terminal(devpts).and_then(|(_kept, terminal)| with_terminal(&terminal, program, rest))
        }
        _ => return None,
    })
}

fn anonymous(length: usize, protection: ProtFlags, flags: MapFlags) -> anyhow::Result<()> {
    // SAFETY: a new mapping, placed by the kernel and left to the process's end.
    unsafe { mmap_anonymous(ptr::null_mut(), length, protection, flags) }?;
    Ok(())
}

fn anonymous_mprotect() -> anyhow::Result<()> {
    // SAFETY: a new mapping, placed by the kernel; nothing reads or runs it.
    unsafe {
        let address =
            mmap_anonymous(ptr::null_mut(), PAGE, ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE)?;
        Ok(mprotect(address, PAGE, MprotectFlags::READ | MprotectFlags::EXEC)?)
    }
}

fn shm_exec() -> anyhow::Result<()> {
    // SAFETY: only numbers are passed.
    let segment = unsafe { libc::shmget(libc::IPC_PRIVATE, PAGE, 0o700) };
    check(segment)?;
    // SAFETY: the kernel chooses the address of a new mapping.
    let address = unsafe { libc::shmat(segment, ptr::null(), SHM_EXEC) };
    let error = io::Error::last_os_error();
    // SAFETY: the segment is this process's own; it goes once nobody is attached.
    check(unsafe { libc::shmctl(segment, libc::IPC_RMID, ptr::null_mut()) })?;
    if address as isize == -1 { Err(error.into()) } else { Ok(()) }
}

fn map(path: &str, protection: ProtFlags) -> anyhow::Result<*mut std::ffi::c_void> {
    let file = File::open(path)?;
    // SAFETY: a new private mapping, placed by the kernel and left to the process's end.
    Ok(unsafe { mmap(ptr::null_mut(), PAGE, protection, MapFlags::PRIVATE, &file, 0) }?)
}

fn modified(path: &str) -> anyhow::Result<()> {
    let address = map(path, ProtFlags::READ | ProtFlags::WRITE)?;
    // SAFETY: the page is this process's own, writable, and nothing else refers to it.
    unsafe {
        address.cast::<u8>().write_volatile(0);
        Ok(mprotect(address, PAGE, MprotectFlags::READ | MprotectFlags::EXEC)?)
    }
}

fn tmpfile_exec(program: &str, words: &[&str]) -> anyhow::Result<()> {
    let written =
        rustix::fs::open(".", OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC, Mode::from(0o755))?;
    let mut written = File::from(written);
    written.write_all(&fs::read(program)?)?;
    let read = File::open(format!("/proc/self/fd/{}", written.as_raw_fd()))?;
    // No file that somebody may write can be started.
    drop(written);
    exec_fd(&read, words)
}

/// Makes a terminal of an instance of devpts. Returns what keeps it, and its path.
pub fn new_terminal(devpts: &str) -> anyhow::Result<(File, String)> {
    let master = File::options().read(true).write(true).open(format!("{devpts}/ptmx"))?;
    let (locked, mut number) = (0i32, 0u32);
    // SAFETY: the kernel reads and writes an integer, which outlives the call.
    let made = unsafe {
        libc::ioctl(master.as_raw_fd(), libc::TIOCSPTLCK, &raw const locked) == 0
            && libc::ioctl(master.as_raw_fd(), libc::TIOCGPTN, &raw mut number) == 0
    };
    anyhow::ensure!(made, std::io::Error::last_os_error());
    Ok((master, format!("{devpts}/{number}")))
}

fn with_terminal(terminal: &str, program: &str, rest: &[&str]) -> anyhow::Result<()> {
    // The leader of a process group makes no session.
    // SAFETY: this process has one thread.
    match unsafe { libc::fork() } {
        0 => {
            rustix::process::setsid()?;
            // The first terminal that a session's leader opens controls it.
            let _terminal = File::options().read(true).write(true).open(terminal)?;
            Err(Command::new(program).args(rest).exec().into())
        }
        child => {
            let mut status = 0;
            // SAFETY: the child is this process's, and the status is valid memory.
            check(unsafe { libc::waitpid(child, &raw mut status, 0) })?;
            std::process::exit(libc::WEXITSTATUS(status))
        }
    }
}
