//! One `openat` through io_uring: a ring of one entry, one submission, one completion.

use std::ffi::{CStr, c_void};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::fs::{CWD, OFlags};
use rustix::io::{Errno, Result};
use rustix::io_uring::{
    IORING_OFF_CQ_RING, IORING_OFF_SQ_RING, IORING_OFF_SQES, IoringEnterFlags, IoringOp, IoringSqeFlags,
    addr_or_splice_off_in_union, io_uring_cqe, io_uring_enter, io_uring_params, io_uring_ptr, io_uring_setup,
    io_uring_sqe, op_flags_union,
};
use rustix::mm::{MapFlags, ProtFlags, mmap};

/// Opens a path with `IORING_OP_OPENAT`, asking for a worker thread of the kernel to do it.
pub fn open(path: &CStr, flags: OFlags) -> Result<OwnedFd> {
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

    let name = path.as_ptr().cast::<c_void>().cast_mut();
    let sqe = io_uring_sqe {
        opcode: IoringOp::Openat,
        flags: IoringSqeFlags::ASYNC,
        fd: CWD.as_raw_fd(),
        addr_or_splice_off_in: addr_or_splice_off_in_union { addr: io_uring_ptr::new(name) },
        op_flags: op_flags_union { open_flags: flags },
        ..Default::default()
    };
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
    if result < 0 {
        return Err(Errno::from_raw_os_error(-result));
    }
    // SAFETY: a descriptor that the completion has just handed over.
    Ok(unsafe { OwnedFd::from_raw_fd(result) })
}
