//! Runs one operation through io_uring, with a ring of one entry, one submission and one completion.

use std::ffi::{CStr, c_char, c_void};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::fs::{CWD, OFlags};
use rustix::io::{Errno, Result};
use rustix::io_uring::{
    IORING_OFF_CQ_RING, IORING_OFF_SQ_RING, IORING_OFF_SQES, IoringEnterFlags, IoringOp, IoringRegisterOp,
    IoringSqeFlags, addr_or_splice_off_in_union, addr3_or_cmd_union, addr3_struct, io_uring_cqe,
    io_uring_enter, io_uring_params, io_uring_ptr, io_uring_register, io_uring_setup, io_uring_sqe,
    len_union, off_or_addr2_union, op_flags_union,
};
use rustix::mm::{MapFlags, ProtFlags, mmap};

/// Makes a ring to which nothing was submitted.
pub fn new() -> Result<OwnedFd> {
    // SAFETY: the parameter block is a zeroed one.
    unsafe { io_uring_setup(1, &mut io_uring_params::default()) }
}

/// Opens a path with `IORING_OP_OPENAT`, and asks the kernel to do it in a worker thread.
pub fn open(path: &CStr, flags: OFlags) -> Result<OwnedFd> {
    let result = submit(|_| {
        Ok(io_uring_sqe {
            opcode: IoringOp::Openat,
            flags: IoringSqeFlags::ASYNC,
            fd: CWD.as_raw_fd(),
            addr_or_splice_off_in: addr(path.as_ptr()),
            op_flags: op_flags_union { open_flags: flags },
            ..Default::default()
        })
    })?;
    // SAFETY: a descriptor that the completion has just handed over.
    Ok(unsafe { OwnedFd::from_raw_fd(result) })
}

/// Sets an extended attribute with `IORING_OP_SETXATTR`, under credentials that the task registered and then
/// changed.
pub fn set_xattr(path: &CStr, name: &CStr) -> Result<()> {
    let value = c"x";
    submit(|ring| {
        // SAFETY: this registers the task's own credentials and reads no memory.
        let personality =
            unsafe { io_uring_register(ring, IoringRegisterOp::RegisterPersonality, ptr::null(), 0) }?;
        // SAFETY: only a number is passed. Whatever the group, the task has other credentials from here on.
        unsafe { libc::setfsgid(1) };
        let mut addr3 = addr3_struct::default();
        addr3.addr3 = path.as_ptr() as u64;
        Ok(io_uring_sqe {
            opcode: IoringOp::Setxattr,
            addr_or_splice_off_in: addr(name.as_ptr()),
            off_or_addr2: off_or_addr2_union { addr2: io_uring_ptr::new(value.as_ptr().cast_mut().cast()) },
            len: len_union { len: 1 },
            addr3_or_cmd: addr3_or_cmd_union { addr3 },
            personality: personality as u16,
            ..Default::default()
        })
    })
    .map(drop)
}

/// Makes a socket with `IORING_OP_SOCKET`.
pub fn socket(family: i32, kind: i32, protocol: i32) -> Result<OwnedFd> {
    let result = submit(|_| {
        Ok(io_uring_sqe {
            opcode: IoringOp::Socket,
            fd: family,
            off_or_addr2: off_or_addr2_union { off: kind as u64 },
            len: len_union { len: protocol as u32 },
            ..Default::default()
        })
    })?;
    // SAFETY: a descriptor that the completion has just handed over.
    Ok(unsafe { OwnedFd::from_raw_fd(result) })
}

/// Connects a socket with `IORING_OP_CONNECT`. The address is as long as `length` says.
pub fn connect(fd: i32, address: *const c_void, length: u32) -> Result<()> {
    submit(|_| {
        Ok(io_uring_sqe {
            opcode: IoringOp::Connect,
            fd,
            addr_or_splice_off_in: addr(address.cast()),
            off_or_addr2: off_or_addr2_union { off: length.into() },
            ..Default::default()
        })
    })
    .map(drop)
}

/// Sends over a connected socket with `IORING_OP_SEND`.
pub fn send(fd: i32, data: &[u8]) -> Result<i32> {
    submit(|_| {
        Ok(io_uring_sqe {
            opcode: IoringOp::Send,
            fd,
            addr_or_splice_off_in: addr(data.as_ptr().cast()),
            len: len_union { len: data.len() as u32 },
            ..Default::default()
        })
    })
}

fn addr(text: *const c_char) -> addr_or_splice_off_in_union {
    addr_or_splice_off_in_union { addr: io_uring_ptr::new(text.cast_mut().cast()) }
}

/// Submits what `entry` makes for the ring, waits, and returns its result.
fn submit(entry: impl FnOnce(&OwnedFd) -> Result<io_uring_sqe>) -> Result<i32> {
    let mut params = io_uring_params::default();
    // SAFETY: `params` is a zeroed parameter block; the ring is only used below, as its offsets say.
    let ring = unsafe { io_uring_setup(1, &mut params) }?;
    let map = |size: usize, offset: u64| {
        // SAFETY: a new mapping, placed by the kernel; it lives until the process ends.
        unsafe {
            mmap(ptr::null_mut(), size, ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED, &ring, offset)
        }
    };
    let sq_size = (params.sq_off.array + params.sq_entries * 4) as usize;
    let cq_size = params.cq_off.cqes as usize + params.cq_entries as usize * size_of::<io_uring_cqe>();
    let sq = map(sq_size, IORING_OFF_SQ_RING)?;
    let cq = map(cq_size, IORING_OFF_CQ_RING)?;
    let sqes =
        map(params.sq_entries as usize * size_of::<io_uring_sqe>(), IORING_OFF_SQES)?.cast::<io_uring_sqe>();
    let sqe = entry(&ring)?;
    // SAFETY: the offsets are the kernel's own, within the mapped sizes; nothing else writes the rings.
    let result = unsafe {
        sqes.write(sqe);
        let at = |base: *mut c_void, offset: u32| base.cast::<u8>().add(offset as usize).cast::<u32>();
        at(sq, params.sq_off.array).write(0);
        AtomicU32::from_ptr(at(sq, params.sq_off.tail)).store(1, Ordering::Release);
        io_uring_enter(&ring, 1, 1, IoringEnterFlags::GETEVENTS)?;
        if AtomicU32::from_ptr(at(cq, params.cq_off.tail)).load(Ordering::Acquire) == 0 {
            return Err(Errno::AGAIN);
        }
        let head = at(cq, params.cq_off.head).read() & (params.cq_entries - 1);
        cq.cast::<u8>().add(params.cq_off.cqes as usize).cast::<io_uring_cqe>().add(head as usize).read().res
    };
    if result < 0 { Err(Errno::from_raw_os_error(-result)) } else { Ok(result) }
}
