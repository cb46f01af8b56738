//! Knows which arguments of system calls are paths.

use super::model::Syscall;

/// A `PathArgument` says where a call has a path; arguments count from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathArgument {
    /// The argument with the path.
    pub path: u8,
    /// Where a relative path begins.
    pub base: Base,
}

/// A `Base` says where a relative path begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Base {
    /// At the working directory.
    WorkingDirectory,
    /// At the descriptor in this argument, which is named itself if there is no text.
    Descriptor(u8),
    /// Nowhere: what is relative is no path.
    Nothing,
}

const fn at(path: u8) -> PathArgument {
    PathArgument { path, base: Base::WorkingDirectory }
}

const fn below(descriptor: u8, path: u8) -> PathArgument {
    PathArgument { path, base: Base::Descriptor(descriptor) }
}

const FIRST: [PathArgument; 1] = [at(0)];
const SECOND: [PathArgument; 1] = [at(1)];
const BOTH: [PathArgument; 2] = [at(0), at(1)];
const BELOW: [PathArgument; 1] = [below(0, 1)];
const BOTH_BELOW: [PathArgument; 2] = [below(0, 1), below(2, 3)];

/// The calls that take paths, by the places of these (`include/linux/syscalls.h`). What a symbolic link shall lead to is no path
/// that the call uses.
const CALLS: [(&[PathArgument], &[&str]); 8] = [
    (
        &FIRST,
        &[
            "open",
            "stat",
            "lstat",
            "access",
            "truncate",
            "chdir",
            "mkdir",
            "rmdir",
            "creat",
            "unlink",
            "readlink",
            "chmod",
            "chown",
            "lchown",
            "utime",
            "mknod",
            "uselib",
            "statfs",
            "chroot",
            "acct",
            "umount2",
            "swapon",
            "swapoff",
            "setxattr",
            "lsetxattr",
            "getxattr",
            "lgetxattr",
            "listxattr",
            "llistxattr",
            "removexattr",
            "lremovexattr",
            "utimes",
            "execve",
        ],
    ),
    (&SECOND, &["symlink", "inotify_add_watch", "quotactl"]),
    (&BOTH, &["rename", "link", "pivot_root"]),
    // What is mounted may be a name of no file.
    (&[PathArgument { path: 0, base: Base::Nothing }, at(1)], &["mount"]),
    (
        &BELOW,
        &[
            "openat",
            "mkdirat",
            "mknodat",
            "fchownat",
            "futimesat",
            "newfstatat",
            "unlinkat",
            "readlinkat",
            "fchmodat",
            "faccessat",
            "utimensat",
            "name_to_handle_at",
            "execveat",
            "statx",
            "open_tree",
            "fspick",
            "openat2",
            "faccessat2",
            "mount_setattr",
            "fchmodat2",
            "setxattrat",
            "getxattrat",
            "listxattrat",
            "removexattrat",
            "open_tree_attr",
            "file_getattr",
            "file_setattr",
        ],
    ),
    (&BOTH_BELOW, &["renameat", "linkat", "renameat2", "move_mount"]),
    (&[below(1, 2)], &["symlinkat"]),
    (&[below(3, 4)], &["fanotify_mark"]),
];

impl Syscall {
    /// Returns where the call has paths: nowhere, in one place or in two.
    #[must_use]
    pub fn paths(self) -> &'static [PathArgument] {
        let known = CALLS.iter().find(|(_, names)| names.contains(&self.name()));
        known.map_or(&[], |(places, _)| places)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_calls_with_paths_are_calls() {
        for name in CALLS.iter().flat_map(|(_, names)| *names) {
            assert!(Syscall::from_name(name).is_some_and(|call| !call.paths().is_empty()), "{name}");
        }
        assert!(Syscall::from_name("getppid").unwrap().paths().is_empty());
    }
}
