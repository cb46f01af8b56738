//! Loads the judge, the program that decides for the others (`core/judge.bpf.h`). The kernel verifies it once;
//! in each program that calls the function `judge()`, it replaces that function.

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

/// The judge's name.
pub(crate) const JUDGE: &str = "judge_access";
/// The function that it replaces.
const FUNCTION: &str = "judge";

/// A `Function` is the BTF type id of that function in the programs of one object.
pub(crate) struct Function(u32);

impl Function {
    /// Looks up the function in the BTF that a program was loaded with, which is the same for all programs of
    /// an object.
    pub(crate) fn of(program: BorrowedFd<'_>) -> Result<Self, BpfError> {
        let failed = |source| BpfError::Programs { source };
        let id = program::info(program).map_err(failed)?.id;
        let btf = Btf::from_prog_id(id).map_err(BpfError::load)?;
        let function = btf.type_by_name::<Func<'_>>(FUNCTION);
        let function = function.ok_or_else(|| failed(io::Error::from(io::ErrorKind::NotFound)))?;
        Ok(Self(function.type_id().into()))
    }

    /// Returns whether a loaded program calls it.
    pub(crate) fn is_called_by(&self, program: BorrowedFd<'_>) -> Result<bool, BpfError> {
        let functions = program::functions(program).map_err(|source| BpfError::Programs { source })?;
        Ok(functions.contains(&self.0))
    }
}

/// Loads the judge with the maps of the other programs.
pub(crate) fn load<'a>(
    object: &'a mut MaybeUninit<OpenObject>,
    others: &ArmorSkel<'_>,
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
    if let Some(caller) = callers(others)?.first() {
        let caller = caller.as_fd().as_raw_fd();
        judge.set_attach_target(caller, Some(FUNCTION.to_owned())).map_err(BpfError::load)?;
    }
    skeleton.load().map_err(BpfError::load)
}

/// Puts the judge into every loaded program that calls the function, and returns the links, named after these
/// programs. Call it before any of them is attached, since the function itself refuses everything.
pub(crate) fn replace(
    judge: &ArmorSkel<'_>,
    others: &ArmorSkel<'_>,
) -> Result<Vec<(OsString, Link)>, BpfError> {
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
    callers(others)?.iter().map(put).collect()
}

/// Returns the loaded programs that call the function.
fn callers<'a>(others: &'a ArmorSkel<'_>) -> Result<Vec<Program<'a>>, BpfError> {
    let (mut callers, mut function) = (Vec::new(), None);
    for program in others.object().progs().filter(|program| program.autoload()) {
        let function = match &function {
            Some(function) => function,
            None => function.insert(Function::of(program.as_fd())?),
        };
        if function.is_called_by(program.as_fd())? {
            callers.push(program);
        }
    }
    Ok(callers)
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
    // SAFETY: libbpf just made it, and nothing else uses it.
    Ok(unsafe { Link::from_ptr(link) })
}
