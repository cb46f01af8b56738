//! Accesses other processes, and the kernel's bpf(2) objects by their ids and pins. As in `access`, the exit
//! status is an errno.

use std::ffi::CString;
use std::fs;
use std::io::{self, Read as _};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::ptr;

use anyhow::{Context as _, bail};

use crate::bpf::{self, Kind};

pub const USAGE: &str = "\
  rmdir-32 PATH      as a program of 32 bits does it, where this program could be one
  ptrace PID         vm-read PID         pidfd-getfd PID FD      kcmp PID      process-madvise PID
  setns PID          joins PID's mount namespace by a pidfd
  pass-for FILE      names FILE as this process's own program
  leave-tree FIFO    for a byte from FIFO goes to a new mount namespace, and ends with it
  namespaces-open    opens every mount namespace that can be had from the own one
  prlimit PID        gives PID's own limit of open files back to it
  ioprio PID         has PID's disk accesses wait for everybody else's
  trace PROGRAM...   starts it with PTRACE_TRACEME, and lets it go on
  bpf-id map|program|link NAME|ANY     a descriptor, for writing, of the first one that has the name, or at all
  bpf-pin PATH NEW   a descriptor of what is pinned at PATH, pinned again at NEW";

/// Runs a method; returns `None` if the words name none of these.
pub fn run(words: &[&str]) -> Option<anyhow::Result<()>> {
    Some(match words {
        ["rmdir-32", path] => rmdir_32(path),
        ["ptrace", pid] => ptrace_attach(pid),
        ["vm-read", pid] => vm_read(pid),
        ["pidfd-getfd", pid, fd] => pidfd_getfd(pid, fd),
        ["kcmp", pid] => kcmp(pid),
        ["process-madvise", pid] => process_madvise(pid),
        ["setns", pid] => setns(pid),
        ["pass-for", file] => pass_for(file),
        ["leave-tree", fifo] => leave_tree(fifo),
        ["namespaces-open"] => open_namespaces(),
        ["prlimit", pid] => prlimit(pid),
        ["ioprio", pid] => ioprio(pid),
        ["trace", program @ ..] if !program.is_empty() => trace(program),
        ["bpf-id", kind, name] => bpf_id(kind, name),
        ["bpf-pin", path, new] => bpf_pin(path, new),
        _ => return None,
    })
}

/// Makes the call by the numbers of i386, from memory that a program of 32 bits could have.
#[cfg(target_arch = "x86_64")]
fn rmdir_32(path: &str) -> anyhow::Result<()> {
    const RMDIR: i32 = 40;
    let path = CString::new(path)?;
    let length = path.as_bytes_with_nul().len();
    // SAFETY: a new mapping, placed by the kernel, that is larger than the path; the call reads nothing else. The kernel
    // changes no register but that of the result.
    unsafe {
        let low = libc::mmap(
            ptr::null_mut(),
            length,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_32BIT,
            -1,
            0,
        );
        check(low as i64)?;
        ptr::copy_nonoverlapping(path.as_ptr(), low.cast(), length);
        let mut result = RMDIR;
        std::arch::asm!(
            "xchg rbx, {path}", "int 0x80", "xchg rbx, {path}", path = inout(reg) low as u64 => _, inout("eax") result,
            out("r8") _, out("r9") _, out("r10") _, out("r11") _
        );
        if result < 0 { Err(io::Error::from_raw_os_error(-result).into()) } else { Ok(()) }
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn rmdir_32(path: &str) -> anyhow::Result<()> {
    Ok(fs::remove_dir(path)?)
}

fn check(result: i64) -> anyhow::Result<i64> {
    if result < 0 { Err(io::Error::last_os_error().into()) } else { Ok(result) }
}

/// Makes another file this process's program, by `PR_SET_MM_EXE_FILE`. The old program's file must not be
/// mapped then, so memory of the same content takes its place.
fn pass_for(file: &str) -> anyhow::Result<()> {
    let own = fs::read_link("/proc/self/exe")?;
    let file = fs::File::open(file)?;
    let mut mappings = Vec::new();
    for line in fs::read_to_string("/proc/self/maps")?.lines() {
        let mut words = line.split_whitespace();
        let (range, rights) = (words.next().context("no range")?, words.next().context("no rights")?);
        if line.ends_with(own.to_str().context("no UTF-8")?) {
            let (start, end) = range.split_once('-').context("no range")?;
            let (start, end) = (usize::from_str_radix(start, 16)?, usize::from_str_radix(end, 16)?);
            let bit = |letter, bit| if rights.contains(letter) { bit } else { 0 };
            let rights = bit('r', libc::PROT_READ) | bit('w', libc::PROT_WRITE) | bit('x', libc::PROT_EXEC);
            mappings.push((start, end - start, rights));
        }
    }
    let nowhere = ptr::null_mut();
    let anonymous = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    for (start, length, rights) in mappings {
        // SAFETY: a new mapping gets the bytes of one of this process's mappings, which it then replaces with
        // the same rights. Meanwhile only this stack changes.
        let moved = unsafe {
            let copy = libc::mmap(nowhere, length, libc::PROT_READ | libc::PROT_WRITE, anonymous, -1, 0);
            if copy == libc::MAP_FAILED {
                return Err(io::Error::last_os_error().into());
            }
            ptr::copy_nonoverlapping(start as *const u8, copy.cast(), length);
            libc::mprotect(copy, length, rights);
            libc::mremap(copy, length, length, libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED, start)
        };
        if moved == libc::MAP_FAILED {
            return Err(io::Error::last_os_error().into());
        }
    }
    // SAFETY: only numbers are passed.
    check(unsafe { libc::prctl(libc::PR_SET_MM, libc::PR_SET_MM_EXE_FILE, file.as_raw_fd(), 0, 0) }.into())
        .map(drop)
}

fn leave_tree(fifo: &str) -> anyhow::Result<()> {
    let mut fifo = fs::File::open(fifo)?;
    fifo.read_exact(&mut [0])?;
    // SAFETY: only numbers are passed.
    check(unsafe { libc::unshare(libc::CLONE_NEWNS) }.into())?;
    Ok(io::copy(&mut fifo, &mut io::sink()).map(drop)?)
}

/// Opens mount namespaces by `NS_MNT_GET_NEXT` and `NS_MNT_GET_PREV` (include/uapi/linux/nsfs.h, since 6.12),
/// starting from this process's own. The first refusal is the result.
fn open_namespaces() -> anyhow::Result<()> {
    for request in [0x8010_b70b_u32, 0x8010_b70c] {
        let mut at = OwnedFd::from(fs::File::open("/proc/self/ns/mnt")?);
        loop {
            let mut said = [0_u64; 2];
            // SAFETY: the kernel writes what it says of the namespace to `said`, which has the size that the
            // request names.
            let next = unsafe { libc::ioctl(at.as_raw_fd(), request as _, said.as_mut_ptr()) };
            match check(next.into()) {
                // SAFETY: the kernel just made this descriptor for us alone.
                Ok(_) => at = unsafe { OwnedFd::from_raw_fd(next) },
                Err(error)
                    if error.downcast_ref().and_then(io::Error::raw_os_error) == Some(libc::ENOENT) =>
                {
                    break;
                }
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}

fn pidfd(pid: &str) -> anyhow::Result<OwnedFd> {
    // SAFETY: the call reads no memory.
    let fd = check(unsafe { libc::syscall(libc::SYS_pidfd_open, pid.parse::<i32>()?, 0) })?;
    // SAFETY: the kernel just made this descriptor for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(i32::try_from(fd)?) })
}

fn ptrace_attach(pid: &str) -> anyhow::Result<()> {
    let pid: i32 = pid.parse()?;
    let nothing = ptr::null_mut::<libc::c_void>();
    // SAFETY: the call attaches to another process and leaves its memory alone. That process is detached when
    // this one ends.
    check(unsafe { libc::ptrace(libc::PTRACE_SEIZE, pid, nothing, nothing) }).map(drop)
}

fn vm_read(pid: &str) -> anyhow::Result<()> {
    let mut byte = [0_u8];
    let local = libc::iovec { iov_base: byte.as_mut_ptr().cast(), iov_len: 1 };
    let remote = libc::iovec { iov_base: ptr::null_mut(), iov_len: 1 };
    // SAFETY: both vectors have one element, and the local one a byte of this process's.
    let read = unsafe { libc::process_vm_readv(pid.parse()?, &local, 1, &remote, 1, 0) };
    match check(read as i64) {
        // The access was permitted, and found nothing at address 0.
        Err(error) if is_fault(&error) => Ok(()),
        other => other.map(drop),
    }
}

fn is_fault(error: &anyhow::Error) -> bool {
    error.downcast_ref().and_then(io::Error::raw_os_error) == Some(libc::EFAULT)
}

fn pidfd_getfd(pid: &str, fd: &str) -> anyhow::Result<()> {
    getfd(pid, fd).map(drop)
}

/// Takes a copy of another process's descriptor.
pub fn getfd(pid: &str, fd: &str) -> anyhow::Result<OwnedFd> {
    let process = pidfd(pid)?;
    // SAFETY: the call reads no memory.
    let taken =
        check(unsafe { libc::syscall(libc::SYS_pidfd_getfd, process.as_raw_fd(), fd.parse::<i32>()?, 0) })?;
    // SAFETY: the kernel just made it.
    Ok(unsafe { OwnedFd::from_raw_fd(taken as i32) })
}

fn kcmp(pid: &str) -> anyhow::Result<()> {
    const KCMP_VM: i32 = 1;
    // SAFETY: the call reads no memory.
    check(unsafe { libc::syscall(libc::SYS_kcmp, std::process::id(), pid.parse::<i32>()?, KCMP_VM, 0, 0) })
        .map(drop)
}

fn process_madvise(pid: &str) -> anyhow::Result<()> {
    const MADV_COLD: i32 = 20;
    let process = pidfd(pid)?;
    let none = libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 };
    // SAFETY: one vector, of no bytes.
    let advised =
        unsafe { libc::syscall(libc::SYS_process_madvise, process.as_raw_fd(), &none, 1, MADV_COLD, 0) };
    check(advised).map(drop)
}

fn setns(pid: &str) -> anyhow::Result<()> {
    let process = pidfd(pid)?;
    // SAFETY: this process has one thread, and does nothing after it.
    check(unsafe { libc::setns(process.as_raw_fd(), libc::CLONE_NEWNS) }.into()).map(drop)
}

fn ioprio(pid: &str) -> anyhow::Result<()> {
    // include/uapi/linux/ioprio.h: IOPRIO_WHO_PROCESS, and IOPRIO_CLASS_IDLE above IOPRIO_CLASS_SHIFT.
    const WHO_PROCESS: i32 = 1;
    const IDLE: i32 = 3 << 13;
    let pid: i32 = pid.parse()?;
    // SAFETY: only numbers are passed.
    check(unsafe { libc::syscall(libc::SYS_ioprio_set, WHO_PROCESS, pid, IDLE) }).map(drop)
}

fn prlimit(pid: &str) -> anyhow::Result<()> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    let pid = pid.parse()?;
    // SAFETY: the structure has room for the limit.
    check(unsafe { libc::prlimit(pid, libc::RLIMIT_NOFILE, ptr::null(), &mut limit) }.into())?;
    // SAFETY: the structure holds the limit.
    check(unsafe { libc::prlimit(pid, libc::RLIMIT_NOFILE, &limit, ptr::null_mut()) }.into()).map(drop)
}

/// Starts a program with PTRACE_TRACEME, and lets it go on. The child exits with the errno if it could not be
/// traced or started.
fn trace(program: &[&str]) -> anyhow::Result<()> {
    let words = program.iter().map(|word| CString::new(*word)).collect::<Result<Vec<_>, _>>()?;
    let mut argv: Vec<_> = words.iter().map(|word| word.as_ptr()).collect();
    argv.push(ptr::null());
    let environment = [ptr::null::<libc::c_char>()];
    let nothing = ptr::null_mut::<libc::c_void>();
    // SAFETY: this process has one thread; the child makes only system calls, on memory that was allocated
    // before.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: as above; both arrays end in a null pointer.
        unsafe {
            if libc::ptrace(libc::PTRACE_TRACEME, 0, nothing, nothing) == 0 {
                libc::execve(argv[0], argv.as_ptr(), environment.as_ptr());
            }
            libc::_exit(*libc::__errno_location());
        }
    }
    check(child.into())?;
    let mut status = 0;
    // SAFETY: the child is this process's own, and the status is valid memory.
    check(unsafe { libc::waitpid(child, &mut status, 0) }.into())?;
    if libc::WIFSTOPPED(status) {
        // SAFETY: the child stopped at the beginning of the program, which shows that it was started; its end
        // is waited for.
        unsafe {
            check(libc::ptrace(libc::PTRACE_DETACH, child, nothing, nothing))?;
            check(libc::waitpid(child, &mut status, 0).into())?;
        }
        return Ok(());
    }
    Err(io::Error::from_raw_os_error(libc::WEXITSTATUS(status)).into())
}

fn bpf_id(kind: &str, name: &str) -> anyhow::Result<()> {
    let kind = match kind {
        "map" => Kind::Map,
        "program" => Kind::Program,
        "link" => Kind::Link,
        _ => bail!("'{kind}' is no kind of bpf(2)'s objects"),
    };
    let mut id = 0;
    let mut refused = None;
    while let Some(next) = bpf::next_id(kind, id)? {
        id = next;
        match bpf::by_id(kind, id, false) {
            Ok(_) if name == "ANY" => return Ok(()),
            Ok(object) if bpf::name(&object)? == name => return Ok(()),
            Ok(_) => {}
            Err(error) => refused = Some(error),
        }
    }
    match refused {
        Some(error) => Err(error.into()),
        None => bail!("there is no such object"),
    }
}

fn bpf_pin(path: &str, new: &str) -> anyhow::Result<()> {
    let object = bpf::pinned(path).with_context(|| format!("descriptor of {path}"))?;
    bpf::pin(&object, new)?;
    Ok(fs::remove_file(new)?)
}
