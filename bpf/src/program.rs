//! Reads the kernel's information about a loaded program.

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};

use libbpf_rs::libbpf_sys::{bpf_func_info, bpf_obj_get_info_by_fd, bpf_prog_info};

/// Returns everything that needs no buffers.
pub(crate) fn info(program: BorrowedFd<'_>) -> io::Result<bpf_prog_info> {
    let mut info = bpf_prog_info::default();
    fill(program, &mut info)?;
    Ok(info)
}

/// Returns the type ids of the program's functions, in the BTF that it was loaded with.
pub(crate) fn functions(program: BorrowedFd<'_>) -> io::Result<Vec<u32>> {
    let count = info(program)?.nr_func_info;
    let mut functions = vec![bpf_func_info::default(); count as usize];
    let mut info = bpf_prog_info {
        nr_func_info: count,
        func_info_rec_size: size_of::<bpf_func_info>() as u32,
        func_info: functions.as_mut_ptr() as u64,
        ..Default::default()
    };
    fill(program, &mut info)?;
    functions.truncate(info.nr_func_info as usize);
    Ok(functions.into_iter().map(|function| function.type_id).collect())
}

fn fill(program: BorrowedFd<'_>, info: &mut bpf_prog_info) -> io::Result<()> {
    let mut length = size_of_val(info) as u32;
    // SAFETY: the kernel writes at most `length` bytes to `info`, which is as long and outlives the call. The
    // buffers whose addresses `info` has, if any, are as long as it says and outlive the call too.
    let failed =
        unsafe { bpf_obj_get_info_by_fd(program.as_raw_fd(), (&raw mut *info).cast(), &raw mut length) };
    if failed == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
