//! Accesses objects without opening them, and attributes. As in [`crate::access`], each method ends in one
//! kernel operation.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;

use anyhow::{Context, bail};
use rustix::fs::{CWD, FileType, Mode, OFlags, Timespec, Timestamps, UTIME_NOW, XattrFlags};
use rustix::net::{AddressFamily, SendFlags, SocketAddrUnix, SocketType};

use crate::access::{c_string, check, exec_fd, flags, inherited, offer};
use crate::uring;

pub const USAGE: &str = "
KIND of a socket is stream, dgram or seqpacket; @NAME is an abstract one
  serve PATH KIND                  binds a socket and leaves it there, in the background
  bind PATH     connect PATH KIND     sendto PATH     fd-send FD
  offer-sender SOCKET PATH         as `offer`, a datagram socket that is connected to PATH
  offer-ring SOCKET                as `offer`, an io_uring
  mknod-device PATH LIKE           a node of the device that LIKE is one of
  mq-open NAME FLAGS     mq-unlink NAME
  quota-on DEVICE PATH             has the filesystem of DEVICE keep its users' quotas in PATH
  swapon PATH      acct PATH       path-exec PATH...        fallocate PATH FLAGS
  inotify PATH     fanotify PATH     fanotify-permission PATH   whose opens wait for this process
  set-times PATH   set-times-now PATH   fd-set-times FD
  set-xattr PATH NAME    remove-xattr PATH NAME    get-xattr PATH NAME    set-acl PATH    remove-acl PATH
  uring-set-xattr PATH NAME        with credentials that were registered before
  set-flags PATH                   that no dump takes the file, by ioctl";

/// An access ACL: user::rw-, user:1000:r--, group::r--, mask::r--, other::r--
/// (include/uapi/linux/posix_acl_xattr.h).
#[rustfmt::skip]
const ACL: [u8; 44] = [
    2, 0, 0, 0,
    0x01, 0, 6, 0, 0xff, 0xff, 0xff, 0xff,  0x02, 0, 4, 0, 0xe8, 0x03, 0, 0,  0x04, 0, 4, 0, 0xff, 0xff, 0xff, 0xff,
    0x10, 0, 4, 0, 0xff, 0xff, 0xff, 0xff,  0x20, 0, 4, 0, 0xff, 0xff, 0xff, 0xff,
];
const ACL_NAME: &str = "system.posix_acl_access";
const FS_NODUMP_FL: libc::c_int = 0x40;

/// Runs a method; returns `None` if the words name none of [`USAGE`].
pub fn run(words: &[&str]) -> Option<anyhow::Result<()>> {
    Some(match *words {
        ["serve", path, kind] => serve(path, kind),
        ["bind", path] => bind(path, SocketType::STREAM).map(drop),
        ["connect", path, kind] => connect(path, kind),
        ["sendto", path] => send_to(path),
        ["fd-send", fd] => inherited(fd).and_then(send),
        ["offer-sender", socket, path] => {
            connected(path, SocketType::DGRAM).and_then(|sender| offer(socket, &sender))
        }
        ["offer-ring", socket] => uring::new().map_err(Into::into).and_then(|ring| offer(socket, &ring)),
        ["mknod-device", path, like] => make_device(path, like),
        ["mq-open", name, how] => open_queue(name, how),
        ["mq-unlink", name] => on_path(name, |name| {
            // SAFETY: the name is a C string.
            unsafe { libc::mq_unlink(name) }
        }),
        ["swapon", path] => on_path(path, |path| {
            // SAFETY: the path is a C string.
            unsafe { libc::swapon(path, 0) }
        }),
        ["acct", path] => on_path(path, |path| {
            // SAFETY: the path is a C string.
            unsafe { libc::acct(path) }
        }),
        ["quota-on", device, path] => quota_on(device, path),
        ["path-exec", program, ..] => rustix::fs::open(program, OFlags::PATH, Mode::empty())
            .map_err(Into::into)
            .and_then(|file| exec_fd(&file, &words[1..])),
        ["fallocate", path, how] => flags(how).and_then(|how| {
            let file = rustix::fs::open(path, how, Mode::empty())?;
            Ok(rustix::fs::fallocate(file, rustix::fs::FallocateFlags::empty(), 0, 1 << 16)?)
        }),
        ["inotify", path] => inotify(path),
        ["fanotify", path] => fanotify(path, libc::FAN_CLASS_NOTIF, libc::FAN_OPEN),
        ["fanotify-permission", path] => fanotify(path, libc::FAN_CLASS_CONTENT, libc::FAN_OPEN_PERM),
        ["set-times", path] => set_times(path, 1),
        ["set-times-now", path] => set_times(path, UTIME_NOW),
        ["fd-set-times", fd] => inherited(fd).and_then(|file| Ok(rustix::fs::futimens(file, &times(1))?)),
        ["set-xattr", path, name] => {
            rustix::fs::setxattr(path, name, b"x", XattrFlags::empty()).map_err(Into::into)
        }
        ["remove-xattr", path, name] => rustix::fs::removexattr(path, name).map_err(Into::into),
        ["get-xattr", path, name] => {
            rustix::fs::getxattr(path, name, &mut [0; 256][..]).map(drop).map_err(Into::into)
        }
        ["set-acl", path] => {
            rustix::fs::setxattr(path, ACL_NAME, &ACL, XattrFlags::empty()).map_err(Into::into)
        }
        ["remove-acl", path] => rustix::fs::removexattr(path, ACL_NAME).map_err(Into::into),
        ["uring-set-xattr", path, name] => c_string(path)
            .and_then(|path| Ok((path, c_string(name)?)))
            .and_then(|(path, name)| Ok(uring::set_xattr(&path, &name)?)),
        ["set-flags", path] => set_flags(path),
        _ => return None,
    })
}

fn kind_of(kind: &str) -> anyhow::Result<SocketType> {
    Ok(match kind {
        "stream" => SocketType::STREAM,
        "dgram" => SocketType::DGRAM,
        "seqpacket" => SocketType::SEQPACKET,
        _ => bail!("'{kind}' is no kind of socket"),
    })
}

fn address(path: &str) -> anyhow::Result<SocketAddrUnix> {
    Ok(match path.strip_prefix('@') {
        Some(name) => SocketAddrUnix::new_abstract_name(name.as_bytes())?,
        None => SocketAddrUnix::new(path)?,
    })
}

fn bind(path: &str, kind: SocketType) -> anyhow::Result<OwnedFd> {
    let socket = rustix::net::socket(AddressFamily::UNIX, kind, None)?;
    rustix::net::bind(&socket, &address(path)?)?;
    Ok(socket)
}

fn serve(path: &str, kind: &str) -> anyhow::Result<()> {
    let kind = kind_of(kind)?;
    let socket = bind(path, kind)?;
    if kind != SocketType::DGRAM {
        rustix::net::listen(&socket, 16)?;
    }
    // SAFETY: this process has one thread.
    match unsafe { libc::fork() } {
        0 => loop {
            std::thread::park();
        },
        child => check(child),
    }
}

fn connected(path: &str, kind: SocketType) -> anyhow::Result<OwnedFd> {
    let socket = rustix::net::socket(AddressFamily::UNIX, kind, None)?;
    rustix::net::connect(&socket, &address(path)?)?;
    Ok(socket)
}

fn connect(path: &str, kind: &str) -> anyhow::Result<()> {
    connected(path, kind_of(kind)?).map(drop)
}

fn send_to(path: &str) -> anyhow::Result<()> {
    let socket = UnixDatagram::unbound()?;
    let address = match path.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(path)?,
    };
    socket.send_to_addr(b"x", &address)?;
    Ok(())
}

fn send(socket: BorrowedFd<'_>) -> anyhow::Result<()> {
    rustix::net::send(socket, b"x", SendFlags::DONTWAIT)?;
    Ok(())
}

fn make_device(path: &str, like: &str) -> anyhow::Result<()> {
    let found = std::fs::metadata(like)?;
    let kind = FileType::from_raw_mode(found.mode());
    Ok(rustix::fs::mknodat(CWD, path, kind, Mode::from(0o666), found.rdev())?)
}

fn open_queue(name: &str, how: &str) -> anyhow::Result<()> {
    let (name, how) = (c_string(name)?, flags(how)?);
    // SAFETY: the name is a C string; without attributes the queue gets the usual ones.
    check(unsafe {
        libc::mq_open(name.as_ptr(), how.bits() as libc::c_int, 0o600, std::ptr::null::<libc::mq_attr>())
    })
}

fn on_path(path: &str, call: impl FnOnce(*const libc::c_char) -> libc::c_int) -> anyhow::Result<()> {
    let path = c_string(path)?;
    check(call(path.as_ptr()))
}

fn quota_on(device: &str, path: &str) -> anyhow::Result<()> {
    /// `QCMD(Q_QUOTAON, USRQUOTA)` and `QFMT_VFS_V1`, include/uapi/linux/quota.h.
    const QUOTAON_OF_USERS: libc::c_int = (0x80_0002_u32 << 8) as libc::c_int;
    const FORMAT: libc::c_int = 4;
    let (device, path) = (c_string(device)?, c_string(path)?);
    // SAFETY: both are C strings, which the kernel only reads.
    check(unsafe { libc::quotactl(QUOTAON_OF_USERS, device.as_ptr(), FORMAT, path.as_ptr().cast_mut()) })
}

fn inotify(path: &str) -> anyhow::Result<()> {
    use rustix::fs::inotify::{CreateFlags, WatchFlags, add_watch, init};
    add_watch(init(CreateFlags::empty())?, path, WatchFlags::ALL_EVENTS)?;
    Ok(())
}

fn fanotify(path: &str, class: u32, event: u64) -> anyhow::Result<()> {
    let path = c_string(path)?;
    // SAFETY: only numbers are passed.
    let group = unsafe { libc::fanotify_init(class, libc::O_RDONLY as u32) };
    check(group)?;
    // SAFETY: a descriptor that the kernel has just handed over.
    let group = unsafe { OwnedFd::from_raw_fd(group) };
    let mask = event | libc::FAN_EVENT_ON_CHILD;
    // SAFETY: the path is a C string.
    check(unsafe {
        libc::fanotify_mark(group.as_raw_fd(), libc::FAN_MARK_ADD, mask, libc::AT_FDCWD, path.as_ptr())
    })
}

fn times(nanoseconds: i64) -> Timestamps {
    let time = Timespec { tv_sec: 1, tv_nsec: nanoseconds as _ };
    Timestamps { last_access: time, last_modification: time }
}

fn set_times(path: &str, nanoseconds: impl Into<i64>) -> anyhow::Result<()> {
    Ok(rustix::fs::utimensat(CWD, path, &times(nanoseconds.into()), rustix::fs::AtFlags::empty())?)
}

fn set_flags(path: impl AsRef<Path>) -> anyhow::Result<()> {
    let file = File::open(path)?;
    let flags = FS_NODUMP_FL;
    // SAFETY: the request reads one int, which outlives the call.
    let done = unsafe { libc::ioctl(file.as_raw_fd(), libc::FS_IOC_SETFLAGS, &raw const flags) };
    if done < 0 { Err(io::Error::last_os_error()).context("FS_IOC_SETFLAGS") } else { Ok(()) }
}
