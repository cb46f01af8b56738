//! Wraps those calls of libbpf that libbpf-rs has no safe form of.

use std::ffi::{CString, c_int};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::path::Path;
use std::ptr;

use libbpf_rs::libbpf_sys;

/// Attaches a program that needs no options and returns its link. `target` is what it is attached to, if its kind needs that.
pub(crate) fn link_create(
    program: BorrowedFd<'_>,
    target: Option<BorrowedFd<'_>>,
    kind: libbpf_sys::bpf_attach_type,
) -> io::Result<OwnedFd> {
    let target = target.map_or(0, |target| target.as_raw_fd());
    // SAFETY: without options the call reads no memory of ours.
    descriptor(unsafe { libbpf_sys::bpf_link_create(program.as_raw_fd(), target, kind, ptr::null()) })
}

/// Attaches a program to the entry of the kernel function at `address`, which gives it `cookie`, and returns its link.
///
/// # Errors
/// Fails if the kernel has no kprobes (`CONFIG_KPROBE_EVENTS`), or no function there.
pub(crate) fn kprobe(program: BorrowedFd<'_>, address: u64, cookie: u64) -> io::Result<OwnedFd> {
    const PMU: &str = "/sys/bus/event_source/devices/kprobe/type";
    let kind = std::fs::read_to_string(PMU).map_err(|error| io::Error::other(format!("{PMU}: {error}")))?;
    let kind = kind.trim().parse().map_err(io::Error::other)?;
    let mut event = libbpf_sys::perf_event_attr {
        type_: kind,
        size: size_of::<libbpf_sys::perf_event_attr>() as u32,
        ..Default::default()
    };
    event.__bindgen_anon_4.kprobe_addr = address;
    let (every_process, processor, group) = (-1, 0, -1);
    // SAFETY: the structure says how large it is, and has no pointer to memory of ours.
    let event = unsafe {
        libc::syscall(
            libc::SYS_perf_event_open,
            &raw const event,
            every_process,
            processor,
            group,
            libbpf_sys::PERF_FLAG_FD_CLOEXEC,
        )
    };
    if event < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just made this descriptor for us alone.
    let event = unsafe { OwnedFd::from_raw_fd(event as c_int) };
    let mut options = libbpf_sys::bpf_link_create_opts {
        sz: size_of::<libbpf_sys::bpf_link_create_opts>() as _,
        ..Default::default()
    };
    options.__bindgen_anon_1.perf_event.bpf_cookie = cookie;
    // SAFETY: the options say how large they are.
    descriptor(unsafe {
        libbpf_sys::bpf_link_create(
            program.as_raw_fd(),
            event.as_raw_fd(),
            libbpf_sys::BPF_PERF_EVENT,
            &raw const options,
        )
    })
}

/// Returns a link's id.
pub(crate) fn link_id(link: BorrowedFd<'_>) -> io::Result<u32> {
    let mut info = MaybeUninit::<libbpf_sys::bpf_link_info>::zeroed();
    let mut length = size_of::<libbpf_sys::bpf_link_info>() as u32;
    // SAFETY: the kernel writes at most `length` bytes.
    let result = unsafe {
        libbpf_sys::bpf_obj_get_info_by_fd(link.as_raw_fd(), info.as_mut_ptr().cast(), &mut length)
    };
    check(result)?;
    // SAFETY: it was all zeros, which is a valid value, before the kernel wrote into it.
    Ok(unsafe { info.assume_init() }.id)
}

/// Starts a run of an iterator's link.
pub(crate) fn iter_create(link: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    // SAFETY: the descriptor is open as long as it is borrowed.
    descriptor(unsafe { libbpf_sys::bpf_iter_create(link.as_raw_fd()) })
}

/// Pins a program, map or link.
pub(crate) fn pin(object: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_encoded_bytes())?;
    // SAFETY: the path is a C string.
    check(unsafe { libbpf_sys::bpf_obj_pin(object.as_raw_fd(), path.as_ptr()) }).map(drop)
}

/// Opens a pinned program or link.
pub(crate) fn pinned(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_encoded_bytes())?;
    // SAFETY: the path is a C string.
    descriptor(unsafe { libbpf_sys::bpf_obj_get(path.as_ptr()) })
}

/// Turns libbpf's result, which is a negated error number on failure, into an `io::Result`.
fn check(result: c_int) -> io::Result<c_int> {
    if result < 0 { Err(io::Error::from_raw_os_error(-result)) } else { Ok(result) }
}

fn descriptor(result: c_int) -> io::Result<OwnedFd> {
    let fd = check(result)?;
    // SAFETY: the kernel just made this descriptor for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
