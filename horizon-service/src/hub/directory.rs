//! Finds bundles in a directory of the machine, in addition to a hub or without one.
//!
//! Invariants:
//! - The directory is only read. Removing a file ends no enforcement.
//! - Only regular files count, up to [`MAX_FILES`] of them. Anything else is logged once. Unless it is a
//!   directory it is also a problem, because it may have been meant as a bundle. A file whose name begins
//!   with a dot is still being written, as by rsync and editors.
//! - A file is read when it is new and whenever it changed: written, replaced, or touched.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::{self, Metadata};
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use armor_base::file::{self, FileError, Links};
use armor_policy::escaped_path;

/// Maximum number of files that are read.
pub const MAX_FILES: usize = 100;
/// Maximum number of ignored entries that are named.
const MAX_LEFT_OUT: usize = 10;

/// A `Stamp` differs after every change of a file: device, inode, size, and the times of the last change of
/// content and inode.
type Stamp = (u64, u64, u64, [i64; 4]);

/// A `Directory` is the directory of bundles and what was already read there.
pub struct Directory {
    path: PathBuf,
    seen: HashMap<PathBuf, Stamp>,
    left_out: BTreeSet<PathBuf>,
}

/// A `Listing` is the content of the directory.
#[derive(Debug, Default)]
pub struct Listing {
    /// The files to read, in the order in which they were written.
    pub files: Vec<Found>,
    /// Entries that are neither files nor directories, at most [`MAX_LEFT_OUT`].
    pub left_out: Vec<String>,
}

/// `Found` is a file to read.
#[derive(Debug)]
pub struct Found {
    /// The file.
    pub path: PathBuf,
    /// True if it is new, or changed since it was last read.
    pub is_fresh: bool,
    stamp: Stamp,
}

/// A `DirectoryError` is the reason why a file, or all of them, cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// The system refuses to read it.
    #[error("{}: {error}", escaped_path(path))]
    Io {
        /// The directory, or a file in it.
        path: PathBuf,
        /// The cause.
        error: FileError,
    },
    /// There are more than [`MAX_FILES`] files. None is read, since it is not clear which should be.
    #[error(
        "{}: more than {MAX_FILES} files: remove those that are no bundles, and old ones",
        escaped_path(path)
    )]
    TooMany {
        /// The directory.
        path: PathBuf,
    },
}

impl Directory {
    /// Creates a list of the directory at `path`, which need not exist.
    pub fn new(path: PathBuf) -> Self {
        Self { path, seen: HashMap::new(), left_out: BTreeSet::new() }
    }

    /// Returns the directory's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Lists the files that changed, or all with `again`. A file that is being written may be listed several
    /// times.
    ///
    /// # Errors
    /// Fails with [`DirectoryError`] if the directory cannot be read or has too many files. A missing
    /// directory is empty.
    pub fn list(&mut self, again: bool) -> Result<Listing, DirectoryError> {
        let failed = |error: io::Error| DirectoryError::Io { path: self.path.clone(), error: error.into() };
        let entries = match fs::read_dir(&self.path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                self.seen.clear();
                self.left_out.clear();
                return Ok(Listing::default());
            }
            Err(error) => return Err(failed(error)),
        };
        let mut files = HashMap::new();
        let mut others = BTreeMap::new();
        for entry in entries {
            let entry = entry.map_err(failed)?;
            // The metadata of the entry itself, not of a symlink's target; a file that is already gone is
            // skipped.
            let Ok(meta) = entry.metadata() else { continue };
            if entry.file_name().as_encoded_bytes().starts_with(b".") {
                continue;
            }
            if let Some(kind) = file::other_kind(meta.file_type()) {
                // Keep those with the first names.
                others.insert(entry.path(), kind);
                if others.len() > MAX_LEFT_OUT {
                    others.pop_last();
                }
                continue;
            }
            if files.len() == MAX_FILES {
                return Err(DirectoryError::TooMany { path: self.path.clone() });
            }
            files.insert(entry.path(), stamp(&meta));
        }
        for (path, kind) in others.iter().filter(|(path, _)| !self.left_out.contains(*path)) {
            tracing::warn!(file = %escaped_path(path), kind, "left out: only regular files are bundles");
        }
        self.left_out = others.keys().cloned().collect();
        self.seen.retain(|path, _| files.contains_key(path));
        let mut files: Vec<Found> = files
            .into_iter()
            .map(|(path, stamp)| Found { is_fresh: self.seen.get(&path) != Some(&stamp), path, stamp })
            .filter(|file| again || file.is_fresh)
            .collect();
        files.sort_by(|a, b| (a.stamp.3, &a.path).cmp(&(b.stamp.3, &b.path)));
        let left_out = others
            .iter()
            .filter(|(_, kind)| **kind != file::FOLDER)
            .map(|(path, kind)| format!("{}: left out: {}", escaped_path(path), FileError::NotRegular(kind)));
        Ok(Listing { files, left_out: left_out.collect() })
    }

    /// Records that this version of the file was read.
    pub fn looked_at(&mut self, file: &Found) {
        self.seen.insert(file.path.clone(), file.stamp);
    }
}

impl Found {
    /// Returns the file's content, but at most `limit` bytes and one more, which shows that it is too large.
    ///
    /// # Errors
    /// Fails with [`DirectoryError::Io`] if the file cannot be read.
    pub fn read(&self, limit: usize) -> Result<Vec<u8>, DirectoryError> {
        // The regular file may have been replaced by something else.
        file::open(&self.path, Links::Refuse)
            .and_then(|file| Ok(file::read_start(file, limit.saturating_add(1))?))
            .map_err(|error| DirectoryError::Io { path: self.path.clone(), error })
    }
}

fn stamp(meta: &Metadata) -> Stamp {
    (meta.dev(), meta.ino(), meta.size(), [meta.mtime(), meta.mtime_nsec(), meta.ctime(), meta.ctime_nsec()])
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::Mode;
    use std::ffi::OsStr;
    use std::fs::File;
    use std::os::unix::ffi::OsStrExt as _;

    fn names(directory: &mut Directory, again: bool) -> Vec<String> {
        let found = directory.list(again).unwrap().files;
        for file in &found {
            directory.looked_at(file);
        }
        found.iter().map(|file| file.path.file_name().unwrap().to_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn a_file_is_read_when_new_or_changed() {
        let dir = tempfile::tempdir().unwrap();
        let mut directory = Directory::new(dir.path().join("bundles"));
        assert!(names(&mut directory, true).is_empty(), "no directory, no files");
        fs::create_dir(dir.path().join("bundles")).unwrap();
        let file = |name: &str| dir.path().join("bundles").join(name);
        for name in ["b", "a"] {
            fs::write(file(name), "1").unwrap();
            // The file written first comes first.
            let later = fs::metadata(file(name)).unwrap().modified().unwrap();
            File::open(file(name))
                .unwrap()
                .set_modified(later + std::time::Duration::from_secs(if name == "a" { 2 } else { 1 }))
                .unwrap();
        }
        assert_eq!(names(&mut directory, false), ["b", "a"]);
        assert!(names(&mut directory, false).is_empty());
        assert_eq!(names(&mut directory, true), ["b", "a"]);
        assert!(!directory.list(true).unwrap().files[0].is_fresh);

        fs::write(file("a"), "12").unwrap();
        assert_eq!(names(&mut directory, false), ["a"]);
        // The same size and time, but another file.
        let kept = fs::metadata(file("b")).unwrap().modified().unwrap();
        fs::write(file(".b"), "2").unwrap();
        File::open(file(".b")).unwrap().set_modified(kept).unwrap();
        assert!(names(&mut directory, false).is_empty());
        fs::rename(file(".b"), file("b")).unwrap();
        assert_eq!(names(&mut directory, false), ["b"]);

        fs::remove_file(file("a")).unwrap();
        assert!(names(&mut directory, false).is_empty());
        fs::write(file("a"), "12").unwrap();
        assert_eq!(names(&mut directory, false), ["a"]);
    }

    #[test]
    fn only_regular_files_of_bounded_number_and_size_count() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("directory")).unwrap();
        std::os::unix::fs::symlink("/etc/hostname", dir.path().join("link")).unwrap();
        let pipe = OsStr::from_bytes(b"pipe\xff\x1b[31m");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            dir.path().join(pipe),
            rustix::fs::FileType::Fifo,
            Mode::RUSR,
            0,
        )
        .unwrap();
        fs::write(dir.path().join("file"), "content").unwrap();
        let mut directory = Directory::new(dir.path().to_owned());
        assert_eq!(names(&mut directory, false), ["file"]);
        let Listing { files: found, left_out } = directory.list(true).unwrap();
        for (line, said) in left_out
            .iter()
            .zip(["/link: left out: a symbolic link", r"/pipe\xff\x1b[31m: left out: a pipe (FIFO)"])
        {
            assert!(line.contains(said), "{left_out:?}");
        }
        assert_eq!(left_out.len(), 2, "a directory is no problem: {left_out:?}");
        assert_eq!((found[0].read(7).unwrap().len(), found[0].read(3).unwrap().len()), (7, 4));
        for other in [OsStr::new("link"), pipe] {
            fs::rename(dir.path().join(other), &found[0].path).unwrap();
            let error = found[0].read(7).unwrap_err().to_string();
            assert!(error.contains(found[0].path.to_str().unwrap()), "{error}");
        }
        for number in 0..=MAX_FILES {
            fs::write(dir.path().join(number.to_string()), "").unwrap();
        }
        assert!(directory.list(false).unwrap_err().to_string().contains("more than 100 files"));
    }
}
