//! Opens the control group that all processes are in, for programs that see the packets of all of them.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::thread;

use rustix::fs::{Access, AtFlags, Mode, OFlags, accessat, openat, statfs};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Where the unified hierarchy usually is mounted: alone, or beside the old ones.
const MOUNTS: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];
/// The namespace of control groups whose root is that of all.
const NAMESPACE: &str = "/proc/1/ns/cgroup";
/// The file that every control group has but the root.
const EVENTS: &str = "cgroup.events";
/// `CGROUP2_SUPER_MAGIC`, include/uapi/linux/magic.h.
const CGROUP2_MAGIC: u64 = 0x6367_7270;

/// Opens the root of the unified hierarchy. Where it is not mounted, or only from the agent's own group on as in a container,
/// it is mounted for the purpose, and nowhere to be seen.
pub(crate) fn open() -> io::Result<OwnedFd> {
    match MOUNTS.iter().map(Path::new).find(|mount| is_root(mount)) {
        Some(mount) => Ok(File::open(mount)?.into()),
        None => mount_root(),
    }
}

/// Returns whether a directory is the root itself, which no events are about.
fn is_root(directory: &Path) -> bool {
    statfs(directory).is_ok_and(|found| found.f_type as u64 == CGROUP2_MAGIC)
        && !directory.join(EVENTS).exists()
}

fn mount_root() -> io::Result<OwnedFd> {
    // The namespace is the thread's own, and ends with it.
    let opened = thread::spawn(|| {
        let namespace = File::open(NAMESPACE)?;
        if namespace.metadata()?.ino() != fs::metadata("/proc/thread-self/ns/cgroup")?.ino() {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::ControlGroup))?;
        }
        let context = fsopen("cgroup2", FsOpenFlags::FSOPEN_CLOEXEC)?;
        fsconfig_create(context.as_fd())?;
        let mount = fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?;
        let root = openat(&mount, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        if accessat(&root, EVENTS, Access::EXISTS, AtFlags::empty()).is_ok() {
            return Err(io::Error::other(
                "the root control group cannot be seen from here: run it with the host's processes (pid: host)",
            ));
        }
        Ok(root)
    });
    opened.join().unwrap_or_else(|_| Err(io::Error::other("the thread that mounts cgroup2 failed")))
}
