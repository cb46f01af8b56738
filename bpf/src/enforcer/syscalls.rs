//! Attaches the program for system calls to those calls that rules in force name, and to no other.
//!
//! Invariant: a call is attached to before the first generation that names it is live, and detached from only after the
//! first that does not.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use armor_policy::escaped_path;
use armor_policy::syscall::Syscall;

use crate::bpffs::entries;
use crate::error::{BpfError, pin_error};
use crate::image::Generation;
use crate::raw;

/// The program, which is loaded once and attached to each call with the call's number.
pub(super) const PROGRAM: &str = "syscall_enter";
/// Prefix of the names of the links' pins. The function's name follows.
const LINK: &str = "syscall-";

/// What the names of the functions that carry calls out begin with, for programs of 64 and 32 bits
/// (`arch/x86/include/asm/syscall_wrapper.h`, `arch/arm64/include/asm/syscall_wrapper.h`).
#[cfg(target_arch = "x86_64")]
const WRAPPERS: [&str; 4] = ["__x64_sys_", "__x64_compat_sys_", "__ia32_sys_", "__ia32_compat_sys_"];
#[cfg(target_arch = "aarch64")]
const WRAPPERS: [&str; 2] = ["__arm64_sys_", "__arm64_compat_sys_"];

/// Calls whose function has another name, or several: that of programs of 64 bits first.
const FUNCTIONS: [(&str, &[&str]); 16] = [
    ("stat", &["newstat", "stat", "stat64"]),
    ("lstat", &["newlstat", "lstat", "lstat64"]),
    ("fstat", &["newfstat", "fstat", "fstat64"]),
    ("newfstatat", &["newfstatat", "fstatat64"]),
    ("uname", &["newuname", "uname", "olduname"]),
    ("sendfile", &["sendfile64", "sendfile"]),
    ("umount2", &["umount", "oldumount"]),
    ("fadvise64", &["fadvise64", "fadvise64_64"]),
    ("mmap", &["mmap", "mmap_pgoff", "old_mmap"]),
    ("select", &["select", "old_select"]),
    ("getdents", &["getdents"]),
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
    /// The links by the names of the functions that they are attached to. They are kept beside their pins, as those of
    /// other programs on demand.
    links: BTreeMap<String, OwnedFd>,
}

/// Returns whether a pin is one of such a link.
pub(crate) fn is_syscall_link(pin: &OsStr) -> bool {
    pin.as_encoded_bytes().starts_with(LINK.as_bytes())
}

impl Syscalls {
    pub(super) fn new(program: OwnedFd, pins: Option<&Path>) -> Self {
        Self { program, pins: pins.map(|pins| pins.join("links")), links: BTreeMap::new() }
    }

    /// Opens the pinned program of a version, and its pinned links.
    pub(super) fn pinned(pins: &Path) -> Result<Self, BpfError> {
        let open = |path: &Path| raw::pinned(path).map_err(|source| pin_error(path, source));
        let mut all = Self::new(open(&pins.join("programs").join(PROGRAM))?, Some(pins));
        for pin in entries(&pins.join("links"))? {
            let name = pin.file_name().filter(|name| is_syscall_link(name)).and_then(OsStr::to_str);
            if let Some(function) = name.and_then(|name| name.strip_prefix(LINK)) {
                all.links.insert(function.to_owned(), open(&pin)?);
            }
        }
        Ok(all)
    }

    pub(super) fn program(&self) -> BorrowedFd<'_> {
        self.program.as_fd()
    }

    /// Attaches to the calls that a generation needs, and appends the ids of the new links to `ids`, also where it fails
    /// behind them.
    pub(super) fn attach_for(
        &mut self,
        generation: &Generation<'_>,
        ids: &mut Vec<u32>,
    ) -> Result<(), BpfError> {
        let needed = needed(generation);
        let known = |function: &String| self.links.contains_key(function) && self.is_kept(function);
        if needed.is_empty() {
            return Ok(());
        }
        let functions = functions(&needed).map_err(|source| failed("/proc/kallsyms", source))?;
        let missing: Vec<_> = functions.into_iter().filter(|(function, _)| !known(function)).collect();
        for (function, call) in missing {
            let error = |source| failed(&function, source);
            let link = match self.links.remove(&function) {
                Some(link) => link,
                None => raw::kprobe(self.program.as_fd(), &function, call as u64).map_err(error)?,
            };
            ids.push(raw::link_id(link.as_fd()).map_err(error)?);
            if let Some(pin) = self.pin(&function)
                && let Err(error) = raw::pin(link.as_fd(), &pin)
            {
                tracing::error!("{}: {error}: it ends with the agent", escaped_path(&pin));
            }
            self.links.insert(function, link);
        }
        Ok(())
    }

    /// Detaches from the calls that the live generation does not need. Returns whether there were any; what cannot be
    /// detached costs time alone, and is tried again at the next swap.
    pub(super) fn detach_beyond(&mut self, live: &Generation<'_>) -> io::Result<bool> {
        let needed = needed(live);
        let functions = if needed.is_empty() { BTreeMap::new() } else { functions(&needed)? };
        let unneeded: Vec<String> =
            self.links.keys().filter(|function| !functions.contains_key(*function)).cloned().collect();
        for function in &unneeded {
            if let Some(pin) = self.pin(function).filter(|pin| pin.exists()) {
                fs::remove_file(pin)?;
            }
            self.links.remove(function);
        }
        Ok(!unneeded.is_empty())
    }

    fn pin(&self, function: &str) -> Option<PathBuf> {
        self.pins.as_ref().map(|pins| pins.join(format!("{LINK}{function}")))
    }

    fn is_kept(&self, function: &str) -> bool {
        self.pin(function).is_none_or(|pin| pin.exists())
    }
}

fn failed(function: &str, source: io::Error) -> BpfError {
    BpfError::Attach { program: format!("{PROGRAM} at {function}"), source: source.into() }
}

/// Returns the calls that rules of the generation name.
fn needed(generation: &Generation<'_>) -> BTreeSet<Syscall> {
    let mut tables: Vec<_> = generation.domains.iter().map(|domain| &domain.tables.syscalls).collect();
    tables.dedup_by(|a, b| std::ptr::eq(*a, *b));
    tables.retain(|table| !table.rows.is_empty());
    Syscall::all().filter(|call| tables.iter().any(|table| table.decides(call.number()))).collect()
}

/// Returns the functions that carry out some calls on this kernel, each with its call's number. Calls that the kernel
/// does not have are left out: all of them may share one function. Of several names of a function the first is taken.
fn functions(calls: &BTreeSet<Syscall>) -> io::Result<BTreeMap<String, usize>> {
    let wanted: BTreeMap<String, usize> =
        calls.iter().flat_map(|call| names(*call).map(|name| (name, call.number()))).collect();
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
        if name.ends_with(NOT_IMPLEMENTED) {
            missing.insert(address.to_owned());
        } else if let Some(call) = wanted.get(name) {
            found.entry(address.to_owned()).or_insert_with(|| (name.to_owned(), *call));
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
        let all = Syscall::all().collect();
        let found: BTreeSet<usize> = functions(&all).unwrap().into_values().collect();
        for name in ["openat", "unlinkat", "execve", "ptrace", "newfstatat", "umount2", "fstat"] {
            assert!(found.contains(&Syscall::from_name(name).unwrap().number()), "{name}");
        }
    }
}
