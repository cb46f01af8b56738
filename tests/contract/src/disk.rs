//! Small file systems that a test can fill, in mounts of its own: nothing is left behind, whatever ends the test.

use rustix::fs::{Gid, Uid};
use rustix::io::Errno;
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use rustix::process::{getgid, getuid};
use rustix::thread::{UnshareFlags, unshare_unsafe};
use std::ffi::CString;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

/// Gives this process mounts of its own. Called first in `main`, as only a process with one thread may do it without being root.
///
/// # Errors
/// When the process is not root and may not make a user namespace either.
pub fn own_mounts() -> io::Result<()> {
    let (uid, gid) = (getuid(), getgid());
    let flags = match uid.is_root() {
        true => UnshareFlags::NEWNS,
        false => UnshareFlags::NEWNS | UnshareFlags::NEWUSER,
    };
    let explained = |error: Errno| {
        let error = io::Error::from(error);
        io::Error::new(
            error.kind(),
            format!("mounts of its own (run as root, or allow user namespaces): {error}"),
        )
    };
    // SAFETY: file descriptors stay shared.
    unsafe { unshare_unsafe(flags) }.map_err(explained)?;
    if !uid.is_root() {
        be_root(uid, gid)?;
    }
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).map_err(explained)
}

/// In the new user namespace, the caller is root.
fn be_root(uid: Uid, gid: Gid) -> io::Result<()> {
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", format!("0 {} 1", uid.as_raw()))?;
    fs::write("/proc/self/gid_map", format!("0 {} 1", gid.as_raw()))
}

/// A file system of a few hundred kilobytes.
pub struct SmallDisk {
    dir: PathBuf,
}

impl SmallDisk {
    /// Mounts one of `bytes` bytes on `dir`, which is made.
    ///
    /// # Errors
    /// When that is not permitted: [`own_mounts`] must have been called.
    pub fn mount(dir: &Path, bytes: u64) -> io::Result<Self> {
        fs::create_dir_all(dir)?;
        let size = CString::new(format!("size={bytes}"))?;
        mount("tmpfs", dir, "tmpfs", MountFlags::empty(), Some(size.as_c_str()))?;
        Ok(Self { dir: dir.to_owned() })
    }

    /// Its directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Takes all the room that is left.
    ///
    /// # Errors
    /// Any but that there is none.
    pub fn fill(&self) -> io::Result<()> {
        let mut ballast = File::options().create(true).append(true).open(self.ballast())?;
        for size in [4096, 1] {
            loop {
                match ballast.write(&[0; 4096][..size]) {
                    Ok(_) => {}
                    Err(error) if error.kind() == io::ErrorKind::StorageFull => break,
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }

    /// Gives back what [`SmallDisk::fill`] took.
    ///
    /// # Errors
    /// When nothing was taken.
    pub fn free(&self) -> io::Result<()> {
        fs::remove_file(self.ballast())
    }

    fn ballast(&self) -> PathBuf {
        self.dir.join("ballast")
    }
}
