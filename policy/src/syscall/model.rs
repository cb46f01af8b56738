//! Defines system calls by name.

use super::names::NAMES;
use std::fmt;

/// A `Syscall` is a system call of x86-64 or arm64.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Syscall(u16);

impl Syscall {
    /// Number of calls that have a name here.
    pub const COUNT: usize = NAMES.len();

    /// Returns the call of a name, in any case and with or without `SYS_`.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        let lower = name.to_ascii_lowercase();
        let bare = lower.strip_prefix("sys_").unwrap_or(&lower);
        Self::all().find(|call| call.name() == bare)
    }

    /// Returns all calls in the order of their numbers.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..Self::COUNT as u16).map(Self)
    }

    /// Returns the call's number in the table; the kernel's own numbers differ between architectures.
    #[must_use]
    pub const fn number(self) -> usize {
        self.0 as usize
    }

    /// Returns the name as policies write it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        NAMES[self.0 as usize]
    }
}

/// A `SyscallRule` says which calls are meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyscallRule {
    /// The call.
    pub call: Syscall,
    /// The paths with which it is meant; `None` for all calls.
    pub path: Option<CallPath>,
}

/// A `CallPath` is a path that a call names, and perhaps all below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallPath {
    /// The path, without a last `/`; empty for the root.
    pub path: String,
    /// Means everything below it too, at any depth.
    pub recursive: bool,
}

impl SyscallRule {
    /// Returns whether the rule is obviously about all that `other` is about.
    pub(crate) fn covers(&self, other: &Self) -> bool {
        let has_path = |of: &CallPath| {
            other.path.as_ref().is_some_and(|path| of.holds(&path.path) && (of.recursive || of == path))
        };
        self.call == other.call && self.path.as_ref().is_none_or(has_path)
    }
}

impl CallPath {
    /// Returns whether a path, which has no last `/`, is meant.
    #[must_use]
    pub fn holds(&self, path: &str) -> bool {
        path.strip_prefix(&self.path)
            .is_some_and(|rest| rest.is_empty() || (self.recursive && rest.starts_with('/')))
    }
}

impl fmt::Display for Syscall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
