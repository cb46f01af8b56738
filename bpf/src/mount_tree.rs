//! Describes a domain's own mount tree: where it is, and which of its files have several names.
//!
//! The kernel side takes every path under which that tree shows an object into account and, for a file with
//! several names, the path that the rules know. So no object escapes its rules by a bind mount or a private
//! mount namespace.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

/// A `MountTree` is a domain's own mount tree.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MountTree {
    /// Inode number of the domain's mount namespace; 0: unknown.
    pub mount_namespace: u32,
    /// Files with more than one name, one of which the rules know.
    pub linked: Vec<LinkedFile>,
}

/// A `LinkedFile` is one file with several names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkedFile {
    /// The kernel's `s_dev`: major << 20 | minor.
    pub device: u32,
    /// Inode number.
    pub inode: u64,
    /// The path that the rules know.
    pub path: PathBuf,
}

impl MountTree {
    /// Returns the mount tree of a process (`self`, `1`, ...), without linked files. Fails if
    /// `/proc/PID/ns/mnt` cannot be read.
    pub fn of_process(process: &str) -> io::Result<Self> {
        let namespace = fs::metadata(format!("/proc/{process}/ns/mnt"))?.ino();
        // Inode numbers of namespaces are 32-bit (include/linux/ns_common.h).
        Ok(Self { mount_namespace: namespace as u32, linked: Vec::new() })
    }
}

/// Returns the kernel's own number of a device (`include/linux/kdev_t.h`, 12 bits major, 20 bits minor).
pub fn kernel_device(major: u32, minor: u32) -> u32 {
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
