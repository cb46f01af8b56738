//! This module makes small file systems that a test can fill. They are in a mount namespace of their own, so
//! that nothing is left behind however the test ends.

use rustix::fs::{Gid, Uid};
use rustix::io::Errno;
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use rustix::process::{getgid, getuid};
use rustix::thread::{UnshareFlags, unshare_unsafe};
use std::ffi::CString;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

/// Moves this process into a mount namespace of its own. It must be called first in `main`: without root,
/// only a process with a single thread may do it.
///
/// # Errors
/// Fails if the process is not root and may not create a user namespace either.
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

/// Makes the caller root in the new user namespace.
fn be_root(uid: Uid, gid: Gid) -> io::Result<()> {
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", format!("0 {} 1", uid.as_raw()))?;
    fs::write("/proc/self/gid_map", format!("0 {} 1", gid.as_raw()))
}

/// A `SmallDisk` is a file system of a few hundred kilobytes.
pub struct SmallDisk {
    dir: PathBuf,
}

impl SmallDisk {
    /// Creates `dir` and mounts a file system of `bytes` bytes on it.
    ///
    /// # Errors
    /// Fails if mounting is not permitted: [`own_mounts`] must have been called.
    pub fn mount(dir: &Path, bytes: u64) -> io::Result<Self> {
        fs::create_dir_all(dir)?;
        let size = CString::new(format!("size={bytes}"))?;
        mount("tmpfs", dir, "tmpfs", MountFlags::empty(), Some(size.as_c_str()))?;
        Ok(Self { dir: dir.to_owned() })
    }

    /// Returns the mount point.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Fills all the space that is left.
    ///
    /// # Errors
    /// Fails with any error other than a full disk.
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

    /// Frees the space that [`SmallDisk::fill`] took. A child that another test is starting may still have the
    /// file open, and would keep the space of a file that is only removed.
    ///
    /// # Errors
    /// Fails if nothing was taken.
    pub fn free(&self) -> io::Result<()> {
        File::options().write(true).open(self.ballast())?.set_len(0)?;
        fs::remove_file(self.ballast())
    }

    fn ballast(&self) -> PathBuf {
        self.dir.join("ballast")
    }
}
