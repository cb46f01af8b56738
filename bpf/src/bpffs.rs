//! Looks at directories of a bpf filesystem.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::error::{BpfError, pin_error};

/// `BPF_FS_MAGIC`, include/uapi/linux/magic.h.
const BPF_FS_MAGIC: u64 = 0xcafe_4a11;

/// Returns whether a directory cannot be created on a bpf filesystem because of a dot, which names there
/// cannot have, in its own name or in that of a parent that does not exist yet.
pub fn cannot_be_made(directory: &Path) -> bool {
    let missing = directory.ancestors().take_while(|ancestor| !ancestor.exists());
    missing.filter_map(Path::file_name).any(|name| name.as_encoded_bytes().contains(&b'.'))
}

/// Checks that `directory`, or the nearest parent that exists, is on a bpf filesystem.
///
/// # Errors
/// Fails with [`BpfError::NoBpfFilesystem`] if it is not, and with [`BpfError::Pin`] if that cannot be found
/// out.
pub fn require_bpffs(directory: &Path) -> Result<(), BpfError> {
    let there = directory.ancestors().find(|ancestor| ancestor.exists()).unwrap_or(Path::new("/"));
    let found = rustix::fs::statfs(there).map_err(|error| pin_error(there, error.into()))?;
    if found.f_type as u64 == BPF_FS_MAGIC {
        return Ok(());
    }
    Err(BpfError::NoBpfFilesystem { path: directory.to_owned() })
}

/// Returns whether a path is a directory. A symlink to one does not count, since it may lead anywhere.
pub(crate) fn is_directory(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| found.is_dir())
}

pub(crate) fn entries(directory: &Path) -> Result<Vec<PathBuf>, BpfError> {
    let read = || fs::read_dir(directory)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>();
    read().map_err(|source| pin_error(directory, source))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_dots_can_be_there_and_cannot_be_made() {
        let dir = tempfile::tempdir().unwrap();
        let there = dir.path().join("a.b");
        fs::create_dir(&there).unwrap();
        for (name, cannot) in [("", false), ("pins", false), ("p/q", false), ("p.q", true), ("p.q/r", true)] {
            assert_eq!(cannot_be_made(&there.join(name)), cannot, "{name}");
        }
    }
}
