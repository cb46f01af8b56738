//! Defines capabilities by name, and what a rule for one says.

use std::fmt;

/// The names in the order of the numbers, without `CAP_` (`include/uapi/linux/capability.h`).
const NAMES: [&str; Capability::COUNT] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// A `Capability` is one of the capabilities that capabilities(7) names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Capability(u8);

impl Capability {
    /// Number of capabilities (`CAP_LAST_CAP` of Linux 5.9 to 7.2, plus one).
    pub const COUNT: usize = 41;

    /// Returns the capability of a name, in any case and with or without `CAP_`.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        let upper = name.to_ascii_uppercase();
        let bare = upper.strip_prefix("CAP_").unwrap_or(&upper);
        Self::all().find(|capability| capability.bare_name() == bare)
    }

    /// Returns all capabilities in the order of their numbers.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..Self::COUNT as u8).map(Self)
    }

    /// Returns the kernel's number.
    #[must_use]
    pub const fn number(self) -> usize {
        self.0 as usize
    }

    /// Returns the name as policies write it, in lower case and without `CAP_`.
    pub(super) fn name(self) -> String {
        self.bare_name().to_ascii_lowercase()
    }

    const fn bare_name(self) -> &'static str {
        NAMES[self.0 as usize]
    }
}

impl fmt::Display for Capability {
    /// Writes the name as in capabilities(7), such as `CAP_NET_RAW`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CAP_{}", self.bare_name())
    }
}

/// A `CapabilityRule` is a rule of the section `capabilities`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CapabilityRule {
    /// The capability whose use the rule decides.
    pub capability: Capability,
}
