//! Makes accesses that a shell cannot make. Each ends in one kernel operation, whose errno is the exit
//! status.

use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::ptr;

use anyhow::{Context, bail};
use rustix::fs::{AtFlags, CWD, MemfdFlags, Mode, OFlags, RenameFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::mm::{MapFlags, MprotectFlags, ProtFlags};
use rustix::mount::{MountFlags, MoveMountFlags, OpenTreeFlags};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketType,
};

use crate::{arguments, capabilities, executable, other, resolver, sockets, unopened};

const USAGE: &str = "\
do METHOD...: FLAGS is a comma list of read, write, rdwr, ioctl (neither to read nor to write), exec (as the kernel opens programs),
append, trunc, creat, excl, path, directory, tmpfile
  open PATH FLAGS                  openat2 PATH FLAGS             uring-open PATH FLAGS
  handle-open PATH FLAGS           by a file handle instead of a name
  uncached-open PATH FLAGS         the same through a detached copy of the mount, when the kernel has forgotten the name
  uncached-exec PATH...     uncached-set-times PATH   the same through the mount itself
  path-reopen PATH FLAGS           O_PATH first, then through /proc/self/fd
  tree-open FOLDER NAME FLAGS      NAME below a detached copy of FOLDER's mount
  new-mount-open TYPE NAME FLAGS   NAME in a new mount of that type, which is attached nowhere
  move-mount A B                   the mount at A to B        tree-attach A B   a copy of A's mount onto B
  bind-as-shared A B               a bind mount, with the flag of a change of propagation
  deep-make FOLDER DEPTH LENGTH    directories in each other with names of LENGTH, a file `leaf` in the last
  deep-open FOLDER DEPTH LENGTH FLAGS   goes there directory by directory and opens `leaf`
  truncate PATH      exchange A B      mknod PATH
  exec PATH...       thread-exec PATH...     memfd-exec PATH...     handle-exec PATH
  ring-exec PATH...                by a task that has an io_uring
  map-exec PATH      mprotect-exec PATH      memfd-map-exec
  fd-truncate FD     fd-chmod FD     fd-chown FD     fd-link FD PATH     fd-exec FD [WORD...]
  fd-map-exec FD     fd-map-write FD     fd-mprotect-write FD
  hold-mapping PATH FLAG           maps PATH shared and writable, makes the file FLAG, and stays
  offer SOCKET PATH FLAGS          serves PATH's descriptor once, in the background
  receive SOCKET FD WAY...         takes it as FD, then does WAY
  thread WAY...                    does WAY on a second thread
  as UID COMMAND...                runs COMMAND as that user, without any capability
  root-exec ROOT FOLDER PROGRAM...     starts PROGRAM of FOLDER, with ROOT as the root
  shared-root-exec PROGRAM...      starts PROGRAM with a root that this process could still change
  supervised-exec FILTERS PROGRAM...   starts PROGRAM under a seccomp filter that has a listener, and FILTERS more
  dead-names PATH COUNT            gives PATH as many other names, removes them, and stays, so that the kernel remembers them
  fake-mounts FOLDER   fills 16-byte objects of the kernel with pointers to a fake mount, by links in FOLDER, a tmpfs
  prepare PROCS FIFO PATH [PROGRAM]   holds PATH; a child enters that control group and a mount namespace of its own, gives
                                   up its capabilities, tries to start PROGRAM, waits at FIFO, and opens PATH
  is-secure                        whether this program was started as if it were setuid
";

/// Runs one method. The exit status is its errno; 0 is success, 120 is a misuse or a fault of the method
/// itself.
pub fn main(args: &[String]) -> ExitCode {
    let Err(error) = run(args) else { return ExitCode::SUCCESS };
    eprintln!("{}: {error:#}", args.join(" "));
    let errno = error
        .chain()
        .find_map(|cause| match cause.downcast_ref::<Errno>() {
            Some(errno) => Some(errno.raw_os_error()),
            None => cause.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error),
        })
        .and_then(|errno| u8::try_from(errno).ok());
    ExitCode::from(errno.unwrap_or(120))
}

fn run(args: &[String]) -> anyhow::Result<()> {
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["open", path, how] => read(rustix::fs::open(*path, flags(how)?, Mode::from(0o644))?, how),
        ["openat2", path, how] => {
            let resolve = ResolveFlags::NO_MAGICLINKS;
            read(rustix::fs::openat2(CWD, *path, flags(how)?, Mode::empty(), resolve)?, how)
        }
        ["uring-open", path, how] => read(crate::uring::open(&c_string(path)?, flags(how)?)?, how),
        ["handle-open", path, how] => read(open_by_handle(path, flags(how)?)?, how),
        ["uncached-open", path, how] => read(open_uncached(path, flags(how)?, true)?, how),
        ["uncached-exec", program] => exec_fd(&open_uncached(program, OFlags::PATH, true)?, &words[1..]),
        ["uncached-set-times", path] => {
            let time = rustix::fs::Timespec { tv_sec: 1, tv_nsec: 0 };
            let times = rustix::fs::Timestamps { last_access: time, last_modification: time };
            let file = open_uncached(path, OFlags::PATH, false)?;
            Ok(rustix::fs::utimensat(CWD, proc_name(&file), &times, AtFlags::empty())?)
        }
        ["root-exec", root, directory, program, ..] => {
            let directory = rustix::fs::open(*directory, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())?;
            rustix::process::chroot(*root)?;
            exec_at(directory.as_fd(), program, &words[3..], 0)
        }
        ["shared-root-exec", program, ..] => shared_root_exec(program, &words[1..]),
        ["supervised-exec", filters, program, ..] => {
            let _listener = listen_to_calls()?;
            (0..filters.parse()?).try_for_each(|_| filter_calls(&[ALLOW_CALL], 0).map(drop))?;
            Ok(exec(program, &words[2..])?)
        }
        ["dead-names", path, count] => dead_names(path, count.parse()?),
        ["fake-mounts", directory] => fake_mounts(directory),
        ["path-reopen", path, how] => {
            let name = rustix::fs::open(*path, OFlags::PATH, Mode::empty())?;
            read(rustix::fs::open(proc_name(&name), flags(how)?, Mode::empty())?, how)
        }
        ["tree-open", directory, name, how] => {
            let tree = rustix::mount::open_tree(CWD, *directory, OpenTreeFlags::OPEN_TREE_CLONE)?;
            read(rustix::fs::openat(tree, *name, flags(how)?, Mode::empty())?, how)
        }
        ["new-mount-open", kind, name, how] => {
            use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};
            let context = rustix::mount::fsopen(*kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
            rustix::mount::fsconfig_create(context.as_fd())?;
            let mount = rustix::mount::fsmount(
                context.as_fd(),
                FsMountFlags::FSMOUNT_CLOEXEC,
                MountAttrFlags::empty(),
            )?;
            read(rustix::fs::openat(mount, *name, flags(how)?, Mode::empty())?, how)
        }
        ["move-mount", from, to] => {
            Ok(rustix::mount::move_mount(CWD, *from, CWD, *to, MoveMountFlags::empty())?)
        }
        ["bind-as-shared", from, to] => {
            let flags = MountFlags::BIND.union(MountFlags::from_bits_retain(libc::MS_SHARED as u32));
            Ok(rustix::mount::mount(*from, *to, "", flags, None)?)
        }
        ["tree-attach", from, to] => {
            let tree = rustix::mount::open_tree(CWD, *from, OpenTreeFlags::OPEN_TREE_CLONE)?;
            Ok(rustix::mount::move_mount(tree, "", CWD, *to, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?)
        }
        ["deep-make", directory, depth, length] => {
            descend(directory, depth.parse()?, length.parse()?, true)?;
            Ok(std::fs::write("leaf", "leaf\n")?)
        }
        ["deep-open", directory, depth, length, how] => {
            descend(directory, depth.parse()?, length.parse()?, false)?;
            read(rustix::fs::open("leaf", flags(how)?, Mode::from(0o644))?, how)
        }
        ["truncate", path] => {
            let path = c_string(path)?;
            // SAFETY: the path is a C string.
            check(unsafe { libc::truncate(path.as_ptr(), 0) })
        }
        ["exchange", a, b] => Ok(rustix::fs::renameat_with(CWD, *a, CWD, *b, RenameFlags::EXCHANGE)?),
        ["mknod", path] => {
            Ok(rustix::fs::mknodat(CWD, *path, rustix::fs::FileType::RegularFile, Mode::from(0o644), 0)?)
        }
        ["exec", program, ..] => Ok(exec(program, &words[1..])?),
        ["ring-exec", program, ..] => {
            let _ring = crate::uring::new()?;
            Ok(exec(program, &words[1..])?)
        }
        ["thread-exec", program, ..] => {
            let (program, words) = ((*program).to_owned(), args[1..].to_vec());
            let thread = std::thread::spawn(move || {
                exec(&program, &words.iter().map(String::as_str).collect::<Vec<_>>())
            });
            Ok(thread.join().map_err(|_| anyhow::anyhow!("the thread panicked"))??)
        }
        ["memfd-exec", program, ..] => {
            let memory = rustix::fs::memfd_create("case", MemfdFlags::empty())?;
            File::from(memory.try_clone()?).write_all(&std::fs::read(program)?)?;
            exec_fd(&memory, &words[1..])
        }
        ["memfd-map-exec"] => {
            let memory = rustix::fs::memfd_create("case", MemfdFlags::empty())?;
            rustix::fs::ftruncate(&memory, PAGE as u64)?;
            map_exec(&memory)
        }
        ["handle-exec", program] => exec_fd(&open_by_handle(program, OFlags::RDONLY)?, &words[1..]),
        ["map-exec", path] => map_exec(&File::open(path)?),
        ["mprotect-exec", path] => {
            let address = map(&File::open(path)?, ProtFlags::READ, MapFlags::PRIVATE)?;
            // SAFETY: the page was mapped above and nothing runs or reads it.
            Ok(unsafe { rustix::mm::mprotect(address, PAGE, MprotectFlags::READ | MprotectFlags::EXEC) }?)
        }
        ["fd-truncate", fd] => Ok(rustix::fs::ftruncate(inherited(fd)?, 0)?),
        ["fd-chmod", fd] => Ok(rustix::fs::fchmod(inherited(fd)?, Mode::from(0o777))?),
        ["fd-chown", fd] => {
            Ok(rustix::fs::fchown(inherited(fd)?, Some(rustix::fs::Uid::from_raw(1000)), None)?)
        }
        ["fd-link", fd, path] => {
            Ok(rustix::fs::linkat(CWD, proc_name(&inherited(fd)?), CWD, *path, AtFlags::SYMLINK_FOLLOW)?)
        }
        ["is-secure"] => {
            // SAFETY: it reads what the kernel gave this process at its start.
            let secure = unsafe { libc::getauxval(libc::AT_SECURE) } != 0;
            if secure { Ok(()) } else { Err(io::Error::from_raw_os_error(libc::EPERM).into()) }
        }
        ["fd-exec", fd] => exec_fd(&inherited(fd)?, &words[1..]),
        ["fd-exec", fd, words @ ..] => exec_fd(&inherited(fd)?, words),
        ["fd-map-exec", fd] => map_exec(&inherited(fd)?),
        ["fd-map-write", fd] => {
            map(&inherited(fd)?, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED).map(drop)
        }
        ["fd-mprotect-write", fd] => {
            let address = map(&inherited(fd)?, ProtFlags::READ, MapFlags::SHARED)?;
            // SAFETY: the page was mapped above and nothing reads or writes it.
            Ok(unsafe { rustix::mm::mprotect(address, PAGE, MprotectFlags::READ | MprotectFlags::WRITE) }?)
        }
        ["hold-mapping", path, flag] => hold_mapping(path, flag),
        ["offer", socket, path, how] => offer(socket, &rustix::fs::open(*path, flags(how)?, Mode::empty())?),
        ["receive", socket, fd, ..] => {
            let received = receive(socket)?;
            // SAFETY: the case names a number that nothing in this process uses.
            check(unsafe { libc::dup2(received.as_raw_fd(), fd.parse()?) })?;
            run(&args[3..])
        }
        ["thread", _, ..] => {
            let args = args[1..].to_vec();
            std::thread::spawn(move || run(&args))
                .join()
                .map_err(|_| anyhow::anyhow!("the thread panicked"))?
        }
        ["as", uid, command, rest @ ..] => {
            let uid = uid.parse()?;
            // As root, and with a user and a group given, `exec` drops the supplementary groups too.
            Err(Command::new(command).args(rest).uid(uid).gid(uid).exec().into())
        }
        ["prepare", procs, fifo, path, program @ ..] => prepare(procs, fifo, path, program),
        words => {
            let methods = [
                unopened::run,
                other::run,
                capabilities::run,
                sockets::run,
                resolver::run,
                executable::run,
                arguments::run,
            ];
            match methods.iter().find_map(|run| run(words)) {
                Some(done) => done,
                None => bail!(
                    "not an access method\n{USAGE}{}\n{}{}{}{}{}{}",
                    unopened::USAGE,
                    other::USAGE,
                    capabilities::USAGE,
                    sockets::USAGE,
                    resolver::USAGE,
                    executable::USAGE,
                    arguments::USAGE
                ),
            }
        }
    }
}

pub(crate) fn flags(how: &str) -> anyhow::Result<OFlags> {
    how.split(',').try_fold(OFlags::CLOEXEC, |flags, word| {
        Ok(flags
            | match word {
                "read" => OFlags::RDONLY,
                "write" => OFlags::WRONLY,
                "rdwr" => OFlags::RDWR,
                "ioctl" => OFlags::from_bits_retain(libc::O_ACCMODE as u32),
                "exec" => OFlags::from_bits_retain(0x20),
                "append" => OFlags::WRONLY | OFlags::APPEND,
                "trunc" => OFlags::TRUNC,
                "creat" => OFlags::CREATE,
                "excl" => OFlags::EXCL,
                "path" => OFlags::PATH,
                "directory" => OFlags::DIRECTORY,
                "tmpfile" => OFlags::TMPFILE | OFlags::RDWR,
                _ => bail!("'{word}' is no open flag"),
            })
    })
}

/// Copies a file that was opened for reading to standard output.
fn read(file: OwnedFd, how: &str) -> anyhow::Result<()> {
    if how == "read" {
        io::copy(&mut File::from(file).take(1 << 20), &mut io::stdout())?;
    }
    Ok(())
}

pub(crate) fn c_string(text: &str) -> anyhow::Result<CString> {
    CString::new(text).context("a NUL in an argument")
}

pub(crate) fn check(result: libc::c_int) -> anyhow::Result<()> {
    if result < 0 { Err(io::Error::last_os_error().into()) } else { Ok(()) }
}

fn proc_name(fd: &impl AsFd) -> String {
    format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd())
}

/// Returns a descriptor that the case's shell opened.
pub(crate) fn inherited(fd: &str) -> anyhow::Result<BorrowedFd<'static>> {
    let fd = fd.parse()?;
    // SAFETY: `fcntl` reads no memory; a number that is no descriptor is refused here.
    check(unsafe { libc::fcntl(fd, libc::F_GETFD) }).with_context(|| format!("descriptor {fd}"))?;
    // SAFETY: it is open, as was just seen, and nothing in this process closes it.
    Ok(unsafe { BorrowedFd::borrow_raw(fd) })
}

/// Fills 16-byte objects of the kernel, the targets of links on a tmpfs, with a pointer to what looks like a
/// mount of the kernel's own: its `mnt_ns` lies in `cpu_all_bits`, which is all ones. Every eighth object is
/// freed again, so that the next ones lie among the others.
fn fake_mounts(directory: &str) -> anyhow::Result<()> {
    const LINKS: usize = 1 << 14;
    // Between `struct vfsmount` in `struct mount` and `mnt_ns`, on 7.2, which has the hole's layout. Elsewhere the
    // pointers pass for no mount.
    const NAMESPACE: u64 = 200;
    let symbols = std::fs::read_to_string("/proc/kallsyms")?;
    let line = symbols.lines().find(|line| line.ends_with(" cpu_all_bits")).context("no cpu_all_bits")?;
    let ones = u64::from_str_radix(line.split(' ').next().unwrap_or_default(), 16)?;
    let mount = (0..64)
        .map(|word| (ones + word * 8 - NAMESPACE).to_le_bytes())
        .find(|bytes| !bytes.contains(&0))
        .context("every address has a byte that a link cannot hold")?;
    let target = OsStr::from_bytes(&mount);
    let link = |number: usize| Path::new(directory).join(number.to_string());
    (0..LINKS).try_for_each(|number| std::os::unix::fs::symlink(target, link(number)))?;
    (0..LINKS).step_by(8).try_for_each(|number| std::fs::remove_file(link(number)))?;
    Ok(())
}

/// Goes `depth` directories down, one `chdir` each, so that no path given to the kernel is long.
fn descend(directory: &str, depth: usize, length: usize, make: bool) -> anyhow::Result<()> {
    std::env::set_current_dir(directory)?;
    let name = "d".repeat(length);
    for _ in 0..depth {
        if make {
            std::fs::create_dir(&name)?;
        }
        std::env::set_current_dir(&name)?;
    }
    Ok(())
}

const PAGE: usize = 4096;

fn map(fd: &impl AsFd, protection: ProtFlags, flags: MapFlags) -> anyhow::Result<*mut std::ffi::c_void> {
    // SAFETY: a new mapping, placed by the kernel and left to the process's end.
    Ok(unsafe { rustix::mm::mmap(ptr::null_mut(), PAGE, protection, flags, fd, 0) }?)
}

fn map_exec(fd: &impl AsFd) -> anyhow::Result<()> {
    map(fd, ProtFlags::READ | ProtFlags::EXEC, MapFlags::PRIVATE).map(drop)
}

fn hold_mapping(path: &str, flag: &str) -> anyhow::Result<()> {
    let file = File::options().read(true).write(true).open(path)?;
    map(&file, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED)?;
    drop(file);
    File::create(flag)?;
    loop {
        std::thread::park();
    }
}

/// Replaces this process with the program, with the words as arguments; returns only on an error.
fn exec(program: &str, words: &[&str]) -> io::Result<()> {
    Err(Command::new(program).args(words.iter().skip(1)).exec())
}

pub(crate) fn exec_fd(fd: &impl AsFd, words: &[&str]) -> anyhow::Result<()> {
    exec_at(fd.as_fd(), "", words, libc::AT_EMPTY_PATH)
}

/// Starts a program below a directory, or the file itself, with an empty environment.
fn exec_at(directory: BorrowedFd<'_>, name: &str, words: &[&str], flags: i32) -> anyhow::Result<()> {
    let words = words.iter().map(|word| c_string(word)).collect::<Result<Vec<_>, _>>()?;
    let mut argv: Vec<_> = words.iter().map(|word| word.as_ptr()).collect();
    argv.push(ptr::null());
    let (environment, name) = ([ptr::null::<libc::c_char>()], c_string(name)?);
    // SAFETY: both arrays end in a null pointer and their strings outlive the call.
    check(unsafe {
        libc::syscall(
            libc::SYS_execveat,
            directory.as_raw_fd(),
            name.as_ptr(),
            argv.as_ptr(),
            environment.as_ptr(),
            flags,
        )
    } as i32)
}

/// Opens a file by `name_to_handle_at` and `open_by_handle_at`, so that the open names no path.
#[repr(C)]
struct Handle {
    bytes: u32,
    kind: i32,
    data: [u8; 128],
}

fn handle_of(path: &str) -> anyhow::Result<Handle> {
    let mut handle = Handle { bytes: 128, kind: 0, data: [0; 128] };
    let (name, mut mount) = (c_string(path)?, 0i32);
    let pointer = &raw mut handle;
    // SAFETY: the handle says how much room it has, and the path is a C string.
    let named = unsafe {
        libc::syscall(libc::SYS_name_to_handle_at, libc::AT_FDCWD, name.as_ptr(), pointer, &mut mount, 0)
    };
    check(named as i32).context("name_to_handle_at")?;
    Ok(handle)
}

/// Opens a handle of the filesystem that `directory` is in.
fn open_handle(directory: BorrowedFd<'_>, mut handle: Handle, flags: OFlags) -> anyhow::Result<OwnedFd> {
    let handle = &raw mut handle;
    // SAFETY: the handle was filled in by the kernel.
    let fd =
        unsafe { libc::syscall(libc::SYS_open_by_handle_at, directory.as_raw_fd(), handle, flags.bits()) };
    check(fd as i32)?;
    // SAFETY: a descriptor that the kernel has just handed over.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

fn parent(path: &str) -> anyhow::Result<&std::path::Path> {
    std::path::Path::new(path).parent().context("no directory")
}

fn open_by_handle(path: &str, flags: OFlags) -> anyhow::Result<OwnedFd> {
    let directory = rustix::fs::open(parent(path)?, OFlags::RDONLY, Mode::empty())?;
    open_handle(directory.as_fd(), handle_of(path)?, flags)
}

/// Opens a file by a handle, after the kernel has dropped every name that nobody uses.
fn open_uncached(path: &str, flags: OFlags, detached: bool) -> anyhow::Result<OwnedFd> {
    let directory = if detached {
        let tree = rustix::mount::open_tree(CWD, parent(path)?, OpenTreeFlags::OPEN_TREE_CLONE)?;
        rustix::fs::openat(tree, ".", OFlags::RDONLY, Mode::empty())?
    } else {
        rustix::fs::open(parent(path)?, OFlags::RDONLY, Mode::empty())?
    };
    let handle = handle_of(path)?;
    rustix::fs::sync();
    // A name that was used since the last time is kept once.
    for _ in 0..3 {
        std::fs::write("/proc/sys/vm/drop_caches", "3")?;
    }
    open_handle(directory.as_fd(), handle, flags)
}

/// Starts a program in a child that shares the filesystem root with this process.
fn shared_root_exec(program: &str, words: &[&str]) -> anyhow::Result<()> {
    // SAFETY: like fork(), as no memory is shared; the child starts a program or ends.
    let child = unsafe { libc::syscall(libc::SYS_clone, libc::CLONE_FS | libc::SIGCHLD, 0, 0, 0, 0) };
    if child == 0 {
        let error = exec(program, words).err().and_then(|error| error.raw_os_error());
        std::process::exit(error.unwrap_or(120));
    }
    check(child as i32)?;
    let mut status = 0;
    // SAFETY: the child is this process's own, and the status outlives the call.
    check(unsafe { libc::waitpid(child as i32, &mut status, 0) })?;
    std::process::exit(libc::WEXITSTATUS(status))
}

const fn statement(code: u32, jt: u8, jf: u8, k: u32) -> libc::sock_filter {
    libc::sock_filter { code: code as u16, jt, jf, k }
}

const ALLOW_CALL: libc::sock_filter = statement(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW);

/// Installs a seccomp filter that asks a listener about acct(2), and returns the listener.
fn listen_to_calls() -> anyhow::Result<OwnedFd> {
    let filter = [
        statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, libc::SYS_acct as u32),
        statement(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_USER_NOTIF),
        ALLOW_CALL,
    ];
    let listener = filter_calls(&filter, libc::SECCOMP_FILTER_FLAG_NEW_LISTENER)?;
    // SAFETY: a descriptor that the kernel has just handed over.
    Ok(unsafe { OwnedFd::from_raw_fd(listener) })
}

/// Installs a seccomp filter, and returns what the kernel does.
fn filter_calls(filter: &[libc::sock_filter], filter_flags: u64) -> anyhow::Result<i32> {
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_ptr().cast_mut() };
    // SAFETY: only numbers are passed.
    check(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) })?;
    // SAFETY: the kernel copies the filter, which lives until then.
    let answer = unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, filter_flags, &raw const program)
    };
    check(answer as i32)?;
    Ok(answer as i32)
}

/// Gives a file `count` other names, and removes them while a process that stays behind holds them.
fn dead_names(path: &str, count: u32) -> anyhow::Result<()> {
    let mut held = Vec::new();
    for number in 0..count {
        let name = format!("{path}.{number}");
        rustix::fs::link(path, &name)?;
        held.push(rustix::fs::open(&name, OFlags::PATH, Mode::empty())?);
        rustix::fs::unlink(&name)?;
    }
    // SAFETY: this process has one thread.
    if unsafe { libc::fork() } == 0 {
        loop {
            std::thread::park();
        }
    }
    Ok(())
}

fn socket(path: &str) -> anyhow::Result<(OwnedFd, SocketAddrUnix)> {
    let socket = rustix::net::socket(AddressFamily::UNIX, SocketType::STREAM, None)?;
    Ok((socket, SocketAddrUnix::new(path)?))
}

/// Binds a socket, then leaves a process behind that sends the descriptor to the first client.
pub(crate) fn offer(path: &str, file: &OwnedFd) -> anyhow::Result<()> {
    let (listener, address) = socket(path)?;
    rustix::net::bind(&listener, &address)?;
    rustix::net::listen(&listener, 1)?;
    // SAFETY: this process has one thread.
    match unsafe { libc::fork() } {
        0 => {
            let peer = rustix::net::accept(&listener)?;
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut ancillary = SendAncillaryBuffer::new(&mut space);
            let fds = [file.as_fd()];
            ancillary.push(SendAncillaryMessage::ScmRights(&fds));
            rustix::net::sendmsg(peer, &[IoSlice::new(b"x")], &mut ancillary, SendFlags::empty())?;
            Ok(())
        }
        child => check(child),
    }
}

/// Does what a runtime's process does that prepares a container and waits for its start.
fn prepare(procs: &str, fifo: &str, path: &str, program: &[&str]) -> anyhow::Result<()> {
    let _held = File::open(path)?;
    // SAFETY: this process has one thread.
    match unsafe { libc::fork() } {
        0 => {
            std::fs::write(procs, "0")?;
            // SAFETY: nothing here relies on a path that another mount namespace would change.
            unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNS) }?;
            // With capabilities it might pass for the agent's own container.
            let none = rustix::thread::CapabilitySet::empty();
            let sets = rustix::thread::CapabilitySets { effective: none, permitted: none, inheritable: none };
            rustix::thread::set_capabilities(None, sets)?;
            if let [program] = program {
                // Returns only if the program is refused.
                let _refused = Command::new(program).exec();
            }
            std::fs::read(fifo)?;
            File::open(path)?;
            Ok(())
        }
        child => {
            let mut status = 0;
            // SAFETY: the child is this process's, and the status is valid memory.
            check(unsafe { libc::waitpid(child, &raw mut status, 0) })?;
            match libc::WEXITSTATUS(status) {
                0 => Ok(()),
                errno => Err(io::Error::from_raw_os_error(errno).into()),
            }
        }
    }
}

/// Receives one descriptor. The kernel drops a descriptor that the receiver may not have, and marks the
/// message as truncated.
fn receive(path: &str) -> anyhow::Result<OwnedFd> {
    let (socket, address) = socket(path)?;
    rustix::net::connect(&socket, &address)?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let answer =
        rustix::net::recvmsg(&socket, &mut [IoSliceMut::new(&mut byte)], &mut ancillary, RecvFlags::empty())?;
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(mut fds) = message
            && let Some(fd) = fds.next()
        {
            return Ok(fd);
        }
    }
    if answer.flags.contains(ReturnFlags::CTRUNC) {
        return Err(Errno::ACCESS.into());
    }
    bail!("no descriptor came")
}
