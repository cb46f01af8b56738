//! The program that the others leave decisions to (`judge.h`). The kernel verifies it once; in each that calls the function
//! `judge()` it takes that function's place.

use std::ffi::{CString, OsString};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};
use std::ptr::NonNull;

use libbpf_rs::btf::Btf;
use libbpf_rs::btf::types::Func;
use libbpf_rs::skel::{OpenSkel as _, Skel as _, SkelBuilder as _};
use libbpf_rs::{AsRawLibbpf as _, Link, MapCore as _, OpenObject, Program, libbpf_sys};

use crate::error::BpfError;
use crate::program;
use crate::skeleton::{ArmorSkel, ArmorSkelBuilder};

/// The program's name.
pub(crate) const JUDGE: &str = "judge_access";
/// The function whose place it takes.
const FUNCTION: &str = "judge";

/// Puts it into every loaded program that calls the function; the links are named after these. To be done before any of them is
/// attached, since the function itself refuses everything.
pub(crate) fn replace(skeleton: &ArmorSkel<'_>) -> Result<Vec<(OsString, Link)>, BpfError> {
    let callers = callers(skeleton)?;
    let Some(first) = callers.first() else { return Ok(Vec::new()) };
    let mut object = MaybeUninit::uninit();
    let judge = load(&mut object, skeleton, first.as_fd())?;
    let put = |caller: &Program<'_>| {
        let name = caller.name().to_owned();
        match put_in_place(&judge.progs.judge_access, caller.as_fd()) {
            Ok(link) => Ok((name, link)),
            Err(source) => {
                let program = format!("{JUDGE} for {}", name.to_string_lossy());
                Err(BpfError::Attach { program, source })
            }
        }
    };
    callers.iter().map(put).collect()
}

/// The loaded programs that call the function.
fn callers<'a>(skeleton: &'a ArmorSkel<'_>) -> Result<Vec<Program<'a>>, BpfError> {
    let failed = |source| BpfError::Programs { source };
    let (mut callers, mut function) = (Vec::new(), None);
    for program in skeleton.object().progs().filter(|program| program.autoload()) {
        let function = match function {
            Some(function) => function,
            None => *function.insert(function_of(program.as_fd())?),
        };
        if program::functions(program.as_fd()).map_err(failed)?.contains(&function) {
            callers.push(program);
        }
    }
    Ok(callers)
}

/// The function's type in the BTF that a program was loaded with: the same for all of an object.
fn function_of(program: BorrowedFd<'_>) -> Result<u32, BpfError> {
    let failed = |source| BpfError::Programs { source };
    let id = program::info(program).map_err(failed)?.id;
    let btf = Btf::from_prog_id(id).map_err(BpfError::load)?;
    let function = btf.type_by_name::<Func<'_>>(FUNCTION);
    let function = function.ok_or_else(|| failed(io::Error::from(io::ErrorKind::NotFound)))?;
    Ok(function.type_id().into())
}

/// Loads it with the maps of the others, for programs of the type of `caller`.
fn load<'a>(
    object: &'a mut MaybeUninit<OpenObject>,
    others: &ArmorSkel<'_>,
    caller: BorrowedFd<'_>,
) -> Result<ArmorSkel<'a>, BpfError> {
    let mut skeleton = ArmorSkelBuilder::default().open(object).map_err(BpfError::load)?;
    for mut program in skeleton.open_object_mut().progs_mut() {
        program.set_autoload(false);
    }
    for mut map in skeleton.open_object_mut().maps_mut() {
        if let Some(theirs) = others.object().maps().find(|theirs| theirs.name() == map.name()) {
            map.reuse_fd(theirs.as_fd()).map_err(BpfError::load)?;
        }
    }
    let judge = &mut skeleton.progs.judge_access;
    judge.set_autoload(true);
    judge.set_attach_target(caller.as_raw_fd(), Some(FUNCTION.to_owned())).map_err(BpfError::load)?;
    skeleton.load().map_err(BpfError::load)
}

fn put_in_place(judge: &Program<'_>, caller: BorrowedFd<'_>) -> libbpf_rs::Result<Link> {
    let function = CString::new(FUNCTION).map_err(|_| libbpf_rs::Error::from_raw_os_error(libc::EINVAL))?;
    // SAFETY: the program is loaded and borrowed, the descriptor is open, and the name is a C string.
    let link = unsafe {
        libbpf_sys::bpf_program__attach_freplace(
            judge.as_libbpf_object().as_ptr(),
            caller.as_raw_fd(),
            function.as_ptr(),
        )
    };
    // libbpf returns no link only with the error number set.
    let link = NonNull::new(link).ok_or_else(|| libbpf_rs::Error::from(io::Error::last_os_error()))?;
    // SAFETY: libbpf just made it, and nobody else has it.
    Ok(unsafe { Link::from_ptr(link) })
}
