//! Attaches the program for system calls to those calls that rules in force name, and to no other.
//!
//! Invariant: a call is attached to before the first generation that names it is live, and detached from only after the
//! first that does not.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use armor_policy::escaped_path;
use armor_policy::syscall::{Base, Syscall};

use crate::bpffs::entries;
use crate::contract::{call_base, call_cookie};
use crate::error::{BpfError, pin_error};
use crate::image::Generation;
use crate::raw;

/// The program, which is loaded once and attached to each call with the call's number.
pub(super) const PROGRAM: &str = "syscall_enter";
/// Prefix of the names of the links' pins. The cookie and the function's name follow.
const LINK: &str = "syscall-";

/// What the names of the functions that carry calls out begin with, for programs of 64 and 32 bits
/// (`arch/x86/include/asm/syscall_wrapper.h`, `arch/arm64/include/asm/syscall_wrapper.h`, `sys_ia32.c`, `sys32.c`).
#[cfg(target_arch = "x86_64")]
const WRAPPERS: [&str; 6] = [
    "__x64_sys_",
    "__x64_compat_sys_",
    "__ia32_sys_",
    "__ia32_compat_sys_",
    "__ia32_sys_ia32_",
    "__ia32_compat_sys_ia32_",
];
#[cfg(target_arch = "aarch64")]
const WRAPPERS: [&str; 3] = ["__arm64_sys_", "__arm64_compat_sys_", "__arm64_compat_sys_aarch32_"];

/// How those begin that have the registers of a program of 32 bits; one of x32 has them as one of 64 bits.
#[cfg(target_arch = "x86_64")]
const COMPAT: &str = "__ia32_";
#[cfg(target_arch = "aarch64")]
const COMPAT: &str = "__arm64_compat_";

/// Calls whose function has another name, or several: that of programs of 64 bits first.
const FUNCTIONS: [(&str, &[&str]); 18] = [
    ("stat", &["newstat", "stat", "stat64"]),
    ("lstat", &["newlstat", "lstat", "lstat64"]),
    ("fstat", &["newfstat", "fstat", "fstat64"]),
    ("newfstatat", &["newfstatat", "fstatat64"]),
    ("uname", &["newuname", "uname", "olduname"]),
    ("sendfile", &["sendfile64", "sendfile"]),
    ("umount2", &["umount", "oldumount"]),
    ("fadvise64", &["fadvise64", "fadvise64_64"]),
    ("mmap", &["mmap", "mmap_pgoff", "old_mmap", "mmap2"]),
    ("lseek", &["lseek", "llseek"]),
    ("getrlimit", &["getrlimit", "old_getrlimit"]),
    ("wait4", &["wait4", "waitpid"]),
    ("select", &["select", "old_select"]),
    ("statfs", &["statfs", "statfs64"]),
    ("fstatfs", &["fstatfs", "fstatfs64"]),
    ("truncate", &["truncate", "truncate64"]),
    ("ftruncate", &["ftruncate", "ftruncate64"]),
    ("fcntl", &["fcntl", "fcntl64"]),
];
/// What the names of the functions end in that stand for calls which are configured out (`kernel/sys_ni.c`).
const NOT_IMPLEMENTED: &str = "sys_ni_syscall";
/// What the names of a call's twins for programs of 32 bits end in.
const TWINS: [&str; 5] = ["", "16", "32", "_time32", "_time64"];

/// A `Syscalls` is the program with its links.
pub(super) struct Syscalls {
    program: OwnedFd,
    /// Directory of the links' pins, if the programs are pinned.
    pins: Option<PathBuf>,
    /// The links by their names. They are kept beside their pins, as those of other programs on demand.
    links: BTreeMap<String, OwnedFd>,
    /// The functions of this kernel, once they were needed.
    functions: Option<Vec<Function>>,
}

/// A `Function` carries out a call.
struct Function {
    name: String,
    address: u64,
    call: Syscall,
}

impl Function {
    /// Returns the cookie by which the program knows the call.
    fn cookie(&self) -> u64 {
        cookie(&self.name, self.call)
    }

    /// Returns the name of its link, and of that link's pin behind [`LINK`].
    fn link(&self) -> String {
        link(&self.name, self.call)
    }
}

/// Returns the cookie for a function that carries out a call (`enum call_cookie`).
fn cookie(function: &str, call: Syscall) -> u64 {
    let compat = function.starts_with(COMPAT);
    let narrow = compat || function.contains("_compat_");
    // A mask of 64 bits is two arguments in a program of 32 bits.
    let behind = u64::from(compat && call.name() == "fanotify_mark");
    let argument = |number: u8| u64::from(number) + 1 + behind;
    let base = |base: Base| match base {
        Base::WorkingDirectory => u64::from(call_base::BASE_WORKING_DIRECTORY.0),
        Base::Descriptor(number) => argument(number),
        Base::Nothing => u64::from(call_base::BASE_NOTHING.0),
    };
    let flags = [(call_cookie::COOKIE_COMPAT, compat), (call_cookie::COOKIE_NARROW, narrow)];
    let flags = flags.map(|(bit, is_set)| u64::from(is_set) << bit.0);
    let places = [call_cookie::COOKIE_PATH, call_cookie::COOKIE_SECOND_PATH];
    let paths =
        places.iter().zip(call.paths()).map(|(bit, of)| (argument(of.path) | base(of.base) << 4) << bit.0);
    paths.chain(flags).fold(call.number() as u64, |cookie, bits| cookie | bits)
}

/// Returns the name of the link to a function. The cookie is in it: a link that another agent made with another one is no such link.
fn link(function: &str, call: Syscall) -> String {
    format!("{:x}-{function}", cookie(function, call))
}

/// Returns whether a pin is one of such a link.
pub(crate) fn is_syscall_link(pin: &OsStr) -> bool {
    pin.as_encoded_bytes().starts_with(LINK.as_bytes())
}

impl Syscalls {
    pub(super) fn new(program: OwnedFd, pins: Option<&Path>) -> Self {
        Self { program, pins: pins.map(|pins| pins.join("links")), links: BTreeMap::new(), functions: None }
    }

    /// Opens the pinned program of a version, and its pinned links.
    pub(super) fn pinned(pins: &Path) -> Result<Self, BpfError> {
        let open = |path: &Path| raw::pinned(path).map_err(|source| pin_error(path, source));
        let mut all = Self::new(open(&pins.join("programs").join(PROGRAM))?, Some(pins));
        for pin in entries(&pins.join("links"))? {
            let name = pin.file_name().filter(|name| is_syscall_link(name)).and_then(OsStr::to_str);
            if let Some(link) = name.and_then(|name| name.strip_prefix(LINK)) {
                all.links.insert(link.to_owned(), open(&pin)?);
            }
        }
        Ok(all)
    }

    /// Attaches to the calls that a generation needs, and returns the ids of the new links. A call that cannot be
    /// reported is an error in the log: rules that refuse something must not wait for it.
    pub(super) fn attach_for(&mut self, generation: &Generation<'_>) -> Vec<u32> {
        let needed = needed(generation);
        if needed.is_empty() {
            return Vec::new();
        }
        let functions = match self.functions.take().map_or_else(functions, Ok) {
            Ok(functions) => functions,
            Err(error) => {
                tracing::error!("system calls that rules name are not reported: {error}");
                return Vec::new();
            }
        };
        let mut ids = Vec::new();
        for function in functions.iter().filter(|function| needed.contains(&function.call.number())) {
            match self.attach(function) {
                Ok(id) => ids.extend(id),
                Err(error) => tracing::error!("{} is not reported: {error}", function.name),
            }
        }
        self.functions = Some(functions);
        ids
    }

    /// Attaches to a function, and returns its link's id; `None` if it is attached already.
    fn attach(&mut self, function: &Function) -> io::Result<Option<u32>> {
        let name = function.link();
        let pin = self.pins.as_ref().map(|pins| pins.join(format!("{LINK}{name}")));
        let link = match self.links.remove(&name) {
            Some(link) if pin.as_ref().is_none_or(|pin| pin.exists()) => {
                self.links.insert(name, link);
                return Ok(None);
            }
            Some(link) => link,
            None => raw::kprobe(self.program.as_fd(), function.address, function.cookie())?,
        };
        if let Some(pin) = pin
            && let Err(error) = raw::pin(link.as_fd(), &pin)
        {
            tracing::error!("{}: {error}: it ends with the agent", escaped_path(&pin));
        }
        let link = self.links.entry(name).or_insert(link);
        raw::link_id(link.as_fd()).map(Some)
    }

    /// Detaches from the calls that the live generation does not need. Returns whether there were any; what cannot be
    /// detached costs time alone, and is tried again at the next swap.
    pub(super) fn detach_beyond(&mut self, live: &Generation<'_>) -> bool {
        if self.links.is_empty() {
            return false;
        }
        let needed = needed(live);
        let links_of = |call: Syscall| names(call).map(move |function| link(&function, call));
        let names: BTreeSet<String> =
            Syscall::all().filter(|call| needed.contains(&call.number())).flat_map(links_of).collect();
        let unneeded: Vec<String> =
            self.links.keys().filter(|function| !names.contains(*function)).cloned().collect();
        for function in &unneeded {
            let pin = self.pins.as_ref().map(|pins| pins.join(format!("{LINK}{function}")));
            if let Some(pin) = pin.filter(|pin| pin.exists())
                && let Err(error) = fs::remove_file(&pin)
            {
                tracing::warn!(
                    "{}: {error}: a call that no rules name is not detached from",
                    escaped_path(&pin)
                );
                continue;
            }
            self.links.remove(function);
        }
        !unneeded.is_empty()
    }
}

/// Returns the numbers of the calls that rules of the generation name.
fn needed(generation: &Generation<'_>) -> BTreeSet<usize> {
    let mut tables: Vec<_> = generation.domains.iter().map(|domain| &domain.tables.syscalls).collect();
    tables.dedup_by(|a, b| std::ptr::eq(*a, *b));
    Syscall::all()
        .filter(|call| tables.iter().any(|table| table.reports(*call)))
        .map(Syscall::number)
        .collect()
}

/// Returns the functions of this kernel that carry out calls. Calls that it does not have are left out: all of them may
/// share one function. Of several names of a function the first is taken.
fn functions() -> io::Result<Vec<Function>> {
    let wanted: BTreeMap<String, Syscall> =
        Syscall::all().flat_map(|call| names(call).map(move |name| (name, call))).collect();
    let (mut found, mut missing) = (BTreeMap::new(), BTreeSet::new());
    for line in BufReader::new(File::open("/proc/kallsyms")?).lines() {
        let line = line?;
        let mut words = line.split_whitespace();
        // A module's symbol has the module's name behind it.
        let (Some(address), Some(_), Some(name), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            continue;
        };
        let is_missing = name.ends_with(NOT_IMPLEMENTED);
        let call = wanted.get(name);
        if !is_missing && call.is_none() {
            continue;
        }
        let address = u64::from_str_radix(address, 16).map_err(io::Error::other)?;
        if address == 0 {
            return Err(io::Error::other(
                "/proc/kallsyms hides its addresses: set kernel.kptr_restrict to 1",
            ));
        }
        match call {
            Some(&call) if !is_missing => {
                found.entry(address).or_insert_with(|| Function { name: name.to_owned(), address, call });
            }
            _ => {
                missing.insert(address);
            }
        }
    }
    found.retain(|address, _| !missing.contains(address));
    Ok(found.into_values().collect())
}

/// Returns the names that the functions of a call can have.
fn names(call: Syscall) -> impl Iterator<Item = String> {
    let own = [call.name()];
    let known = FUNCTIONS.iter().find(|(name, _)| *name == call.name()).map(|(_, functions)| *functions);
    let bases: Vec<&str> = known.map_or_else(|| own.to_vec(), <[&str]>::to_vec);
    bases.into_iter().flat_map(|base| {
        TWINS
            .iter()
            .flat_map(move |twin| WRAPPERS.iter().map(move |wrapper| format!("{wrapper}{base}{twin}")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_with_other_functions_are_calls() {
        for (name, functions) in FUNCTIONS {
            assert!(Syscall::from_name(name).is_some(), "{name}");
            assert!(!functions.is_empty());
        }
    }

    #[test]
    fn this_kernel_has_the_functions_of_its_calls() {
        let found: BTreeSet<Syscall> = functions().unwrap().iter().map(|function| function.call).collect();
        for name in ["openat", "unlinkat", "execve", "ptrace", "newfstatat", "umount2", "fstat"] {
            assert!(found.contains(&Syscall::from_name(name).unwrap()), "{name}");
        }
    }
}
