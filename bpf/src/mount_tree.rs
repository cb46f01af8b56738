//! Where a domain's own mount tree is, and which files there have several names.
//!
//! The kernel side counts every name under which that tree shows an object, and the rules' name of a file with several
//! names. So a bind mount or a private mount namespace gives nothing a name that its rules do not know.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

/// A domain's own mount tree.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MountTree {
    /// Inode number of the domain's mount namespace; 0: not known.
    pub mount_namespace: u32,
    /// Files with more than one name of which rules know one.
    pub linked: Vec<LinkedFile>,
}

/// One file with several names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkedFile {
    /// The kernel's `s_dev`: major << 20 | minor.
    pub device: u32,
    /// Inode number.
    pub inode: u64,
    /// The name that the rules know.
    pub path: PathBuf,
}

impl MountTree {
    /// That of a process (`self`, `1`, ...), without linked files. Errors as reading `/proc/PID/ns/mnt`.
    pub fn of_process(process: &str) -> io::Result<Self> {
        let namespace = fs::metadata(format!("/proc/{process}/ns/mnt"))?.ino();
        // Inode numbers of namespaces are 32-bit (include/linux/ns_common.h).
        Ok(Self { mount_namespace: namespace as u32, linked: Vec::new() })
    }
}

/// The kernel's own number of a device (`include/linux/kdev_t.h`, 12 bits major, 20 bits minor).
pub(crate) fn kernel_device(major: u32, minor: u32) -> u32 {
    major << 20 | minor
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_in_a_mount_namespace() {
        assert_ne!(MountTree::of_process("self").expect("/proc is mounted").mount_namespace, 0);
    }
}
