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

impl fmt::Display for Syscall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
