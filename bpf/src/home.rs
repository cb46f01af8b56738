//! Where a domain's own root shows its filesystems, and which files have several names.
//!
//! The kernel side names an object by its place in the mount tree and by its place here; the stricter decision holds. So
//! a bind mount or a private mount namespace gives nothing a name that its rules do not know.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

/// A domain's view of the filesystems.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Home {
    /// Inode number of the domain's mount namespace; 0: any.
    pub mount_namespace: u32,
    /// Each filesystem once, where its root is mounted first.
    pub filesystems: Vec<Filesystem>,
    /// Files with more than one name of which rules know one.
    pub linked: Vec<LinkedFile>,
}

/// One filesystem, by the mount that shows its root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filesystem {
    /// The kernel's `s_dev`: major << 20 | minor.
    pub device: u32,
    /// The first field of `/proc/PID/mountinfo`.
    pub mount_id: u32,
    /// Where it is mounted.
    pub mount_point: PathBuf,
}

/// One file with several names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkedFile {
    /// As in [`Filesystem`].
    pub device: u32,
    /// Inode number.
    pub inode: u64,
    /// The name that the rules know.
    pub path: PathBuf,
}

impl Home {
    /// The view of a process (`self`, `1`, ...), without linked files. Errors as reading `/proc/PID/mountinfo`.
    pub fn of_process(process: &str) -> io::Result<Self> {
        let mounts = fs::read(format!("/proc/{process}/mountinfo"))?;
        let namespace = fs::metadata(format!("/proc/{process}/ns/mnt"))?.ino();
        // Inode numbers of namespaces are 32-bit (include/linux/ns_common.h).
        Ok(Self { mount_namespace: namespace as u32, filesystems: filesystems(&mounts), linked: Vec::new() })
    }
}

/// The kernel's encoding of a device number as `stat` gives it.
pub(crate) fn kernel_device(major: u32, minor: u32) -> u32 {
    major << 20 | minor
}

impl LinkedFile {
    /// The file behind `path`, if it is one with several names.
    pub fn at(path: PathBuf) -> io::Result<Option<Self>> {
        let found = fs::symlink_metadata(&path)?;
        let device = kernel_device(rustix::fs::major(found.dev()), rustix::fs::minor(found.dev()));
        Ok((found.is_file() && found.nlink() > 1).then_some(Self { device, inode: found.ino(), path }))
    }
}

/// proc_pid_mountinfo(5). Lines that do not read as such are passed over: they name no filesystem.
fn filesystems(mountinfo: &[u8]) -> Vec<Filesystem> {
    let mut seen: Vec<Filesystem> = Vec::new();
    for line in mountinfo.split(|&byte| byte == b'\n') {
        let Some(found) = filesystem(line) else { continue };
        if !seen.iter().any(|other| other.device == found.device) {
            seen.push(found);
        }
    }
    seen
}

fn filesystem(line: &[u8]) -> Option<Filesystem> {
    let mut fields = line.split(|&byte| byte == b' ');
    let number = |field: &[u8]| std::str::from_utf8(field).ok()?.parse::<u32>().ok();
    let mount_id = number(fields.next()?)?;
    let mut device = fields.nth(1)?.split(|&byte| byte == b':');
    let device = kernel_device(number(device.next()?)?, number(device.next()?)?);
    let root = fields.next()?;
    let mount_point = PathBuf::from(std::ffi::OsString::from_vec(unescape(fields.next()?)));
    (root == b"/").then_some(Filesystem { device, mount_id, mount_point })
}

/// Space, tab, newline and backslash stand as `\040` and the like.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, tail)) = rest.split_first() {
        let octal = tail
            .get(..3)
            .filter(|_| byte == b'\\')
            .and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        plain.push(octal.unwrap_or(byte));
        rest = if octal.is_some() { &tail[3..] } else { tail };
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filesystem_counts_where_its_root_is_mounted_first() {
        let text = b"22 1 254:1 / / rw - ext4 /dev/vda1 rw\n\
            23 22 0:21 / /proc rw - proc proc rw\n\
            30 22 254:1 /srv /mnt/bind rw - ext4 /dev/vda1 rw\n\
            31 22 254:1 / /mnt/again rw - ext4 /dev/vda1 rw\n\
            32 22 8:1 / /mnt/a\\040b rw - ext4 /dev/sda1 rw\n\
            nonsense\n";
        let found = filesystems(text);
        let shown: Vec<_> =
            found.iter().map(|f| (f.device, f.mount_id, f.mount_point.to_str().expect("UTF-8"))).collect();
        assert_eq!(shown, [(254 << 20 | 1, 22, "/"), (21, 23, "/proc"), (8 << 20 | 1, 32, "/mnt/a b")]);
    }

    #[test]
    fn this_process_has_a_root() {
        let home = Home::of_process("self").expect("/proc is mounted");
        assert_ne!(home.mount_namespace, 0);
        assert!(home.filesystems.iter().any(|filesystem| filesystem.mount_point.to_str() == Some("/proc")));
    }
}
