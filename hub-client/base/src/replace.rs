//! This module replaces files as a whole.
//!
//! Invariant: at every moment, and after a crash, a file is the old or the new one.

use std::fs::{self, File};
use std::io::{self, Write as _};
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
    fn a_file_that_cannot_be_replaced_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        write_whole(&path, b"old", true).unwrap();
        fs::create_dir(dir.path().join("a.new")).unwrap();
        assert!(write_whole(&path, b"new", true).is_err());
        assert_eq!(fs::read(&path).unwrap(), b"old");
    }
}
