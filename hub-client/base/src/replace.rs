//! This module replaces files as a whole.
//!
//! Invariant: at every moment, and after a crash, a file is the old or the new one.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, fchown};
use std::path::Path;

/// Replaces a file as a whole; if `durably`, it is on disk on return. The new file has a shared lock while
/// the returned handle lives.
///
/// # Errors
/// Fails if the file, or its directory, cannot be written. The old file is then still there, except where only
/// the last step, writing the directory to disk, failed.
pub fn write_whole(path: &Path, content: &[u8], durably: bool) -> io::Result<File> {
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    // Remove whatever is there, because opening a pipe would wait for a reader.
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = File::create_new(&new)?;
    file.lock_shared()?;
    file.write_all(content)?;
    if durably {
        file.sync_all()?;
    }
    fs::rename(&new, path)?;
    match path.parent() {
        Some(dir) if durably => sync_dir(dir)?,
        _ => {}
    }
    Ok(file)
}

/// Replaces a file of the user's as a whole and durably. Of a symbolic link the target is replaced. Owner, group and
/// permissions stay; nothing beside the file is touched.
///
/// # Errors
/// Fails if the file is missing, if a file of its name with `.hzn-armor-new` behind it is there, or if the new file cannot be
/// written or cannot have the old one's owner and permissions. The old file is then still there.
pub fn rewrite(path: &Path, content: &[u8]) -> io::Result<()> {
    let path = fs::canonicalize(path)?;
    let old = fs::metadata(&path)?;
    let mut new = path.as_os_str().to_owned();
    new.push(".hzn-armor-new");
    let mut file = File::create_new(&new)?;
    let written = (|| {
        let made = file.metadata()?;
        if (made.uid(), made.gid()) != (old.uid(), old.gid()) {
            fchown(&file, Some(old.uid()), Some(old.gid()))?;
        }
        file.set_permissions(old.permissions())?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&new, &path)
    })();
    if written.is_err() {
        // The first error is the one to report.
        let _ = fs::remove_file(&new);
    }
    written?;
    path.parent().map_or(Ok(()), sync_dir)
}

/// Writes a directory's names to disk.
///
/// # Errors
/// Fails if the directory cannot be opened or written.
pub fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_whatever_is_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.json");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            dir.path().join("a.json.new"),
            rustix::fs::FileType::Fifo,
            0o600.into(),
            0,
        )
        .unwrap();
        for (content, durably) in [("one", true), ("two", false)] {
            write_whole(&path, content.as_bytes(), durably).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), content);
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_rewritten_file_keeps_its_name_and_permissions() {
        use std::os::unix::fs::{PermissionsExt as _, symlink};
        let dir = tempfile::tempdir().unwrap();
        let (path, link) = (dir.path().join("a.yaml"), dir.path().join("link.yaml"));
        fs::write(&path, "old").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        symlink("a.yaml", &link).unwrap();
        rewrite(&link, b"new").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "new");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);

        let other = dir.path().join("a.yaml.hzn-armor-new");
        fs::write(&other, "another's").unwrap();
        assert_eq!(rewrite(&path, b"newer").unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read_to_string(&other).unwrap(), "another's");
        assert_eq!(fs::read_to_string(&path).unwrap(), "new");
    }

    #[test]
    fn a_file_that_cannot_be_replaced_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        write_whole(&path, b"old", true).unwrap();
        fs::create_dir(dir.path().join("a.new")).unwrap();
        assert!(write_whole(&path, b"new", true).is_err());
        assert_eq!(fs::read(&path).unwrap(), b"old");
    }
}
