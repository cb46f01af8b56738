//! This module reads files that a user names: only regular files, and only up to a size limit.
//!
//! Invariants:
//! - No name makes the reader wait (a pipe without a writer, a terminal) or read without end (`/dev/zero`).
//! - Reading a name has no side effect: opening a device can have one, for instance on a watchdog. So the
//!   file type is checked before the file is opened, and again on the open file, in case it was replaced in
//!   between.

use std::fs::{self, File, FileType, Metadata, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

/// Maximum number of links followed in a row, as in Linux.
const MAX_LINKS: usize = 40;

/// A `FileError` says why a file cannot be read. It does not contain the file's name; the caller knows it.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The system cannot read or write the file.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The file is a directory, pipe, socket, device or link.
    #[error("a {0}, not a regular file: put the content into one")]
    NotRegular(&'static str),
    /// The file exceeds the size limit.
    #[error("more than the {0} bytes that such a file may have")]
    TooLarge(usize),
}

impl FileError {
    /// Returns whether the file does not exist.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Io(error) if error.kind() == io::ErrorKind::NotFound)
    }
}

/// A `Links` says what to do with a name that is a symbolic link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Links {
    /// The link's target is read.
    Follow,
    /// The link is refused as not regular.
    Refuse,
}

/// Opens a regular file for reading; reading it never waits.
///
/// # Errors
/// Fails with [`FileError::Io`] or [`FileError::NotRegular`].
pub fn open(path: &Path, links: Links) -> Result<File, FileError> {
    let (found, no_links) = match links {
        Links::Follow => (fs::metadata(path)?, OFlags::empty()),
        Links::Refuse => (fs::symlink_metadata(path)?, OFlags::NOFOLLOW),
    };
    expect_regular(&found)?;
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY | no_links;
    let file = OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(path)?;
    expect_regular(&file.metadata()?)?;
    Ok(file)
}

/// Opens a regular file, or a link's target, for overwriting, and creates it if it is missing. Writing never
/// waits.
///
/// # Errors
/// Fails with [`FileError::Io`] or [`FileError::NotRegular`]; nothing was written.
pub fn open_or_make(path: &Path) -> Result<File, FileError> {
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        found => expect_regular(&found?)?,
    }
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = options.custom_flags(flags.bits().cast_signed()).open(path)?;
    expect_regular(&file.metadata()?)?;
    Ok(file)
}

/// Returns the content of a regular file, or of a link's target.
///
/// # Errors
/// Fails if the file cannot be read, is not regular, or has more than `limit` bytes.
pub fn read(path: &Path, limit: usize) -> Result<Vec<u8>, FileError> {
    let content = read_start(open(path, Links::Follow)?, limit.saturating_add(1))?;
    if content.len() > limit { Err(FileError::TooLarge(limit)) } else { Ok(content) }
}

/// Returns the first bytes of an open file, at most `most`.
///
/// # Errors
/// Fails if the system cannot read the file.
pub fn read_start(file: File, most: usize) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    file.take(most as u64).read_to_end(&mut content)?;
    Ok(content)
}

/// Returns whether two names mean the same file: by another spelling, a symbolic link or a hard link. This
/// includes a file that does not exist yet and that writing to either name would create.
#[must_use]
pub fn is_same(one: &Path, other: &Path) -> bool {
    let id = |path: &Path| fs::metadata(path).ok().map(|meta| (meta.dev(), meta.ino()));
    match (id(one), id(other)) {
        (None, None) => to_be_made(one).is_some_and(|place| to_be_made(other) == Some(place)),
        (one, other) => one == other,
    }
}

/// Returns the path at which writing to `path` would create a file: dangling links are followed, and the
/// directory is canonical.
fn to_be_made(path: &Path) -> Option<PathBuf> {
    let mut path = path.to_owned();
    for _ in 0..MAX_LINKS {
        let directory =
            path.parent().filter(|directory| !directory.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let Ok(target) = fs::read_link(&path) else {
            // A directory that does not exist has no links in its path.
            let directory = directory.canonicalize().or_else(|_| std::path::absolute(directory)).ok()?;
            return Some(directory.join(path.file_name()?));
        };
        path = directory.join(target);
    }
    None
}

/// Name that [`other_kind`] returns for a directory.
pub const FOLDER: &str = "directory";

/// Returns the name of a directory entry's type, for messages; `None` for a regular file.
#[must_use]
pub fn other_kind(kind: FileType) -> Option<&'static str> {
    let named = [
        (kind.is_dir(), FOLDER),
        (kind.is_symlink(), "symbolic link"),
        (kind.is_fifo(), "pipe (FIFO)"),
        (kind.is_socket(), "socket"),
        (kind.is_char_device() || kind.is_block_device(), "device"),
    ];
    named.into_iter().find_map(|(is, name)| is.then_some(name))
}

fn expect_regular(meta: &Metadata) -> Result<(), FileError> {
    other_kind(meta.file_type()).map_or(Ok(()), |kind| Err(FileError::NotRegular(kind)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    #[test]
    fn only_regular_files_within_the_limit_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("file"), "12345").unwrap();
        assert_eq!(read(&at("file"), 5).unwrap(), b"12345");
        assert!(matches!(read(&at("file"), 4), Err(FileError::TooLarge(4))));
        rustix::fs::mkfifoat(rustix::fs::CWD, at("pipe"), rustix::fs::Mode::RWXU).unwrap();
        let _listener = UnixListener::bind(at("socket")).unwrap();
        symlink("/dev/zero", at("zero")).unwrap();
        for (name, kind) in [("pipe", "pipe (FIFO)"), ("socket", "socket"), ("zero", "device"), (".", FOLDER)]
        {
            let error = read(&at(name), 5).unwrap_err();
            assert!(matches!(error, FileError::NotRegular(found) if found == kind), "{name}: {error}");
            let error = open_or_make(&at(name)).unwrap_err();
            assert!(matches!(error, FileError::NotRegular(found) if found == kind), "{name}: {error}");
        }
        open_or_make(&at("made")).unwrap();
        open_or_make(&at("file")).unwrap();
        assert_eq!((read(&at("made"), 5).unwrap().len(), read(&at("file"), 5).unwrap().len()), (0, 5));
        assert!(read(&at("missing"), 5).unwrap_err().is_missing());
    }

    #[test]
    fn links_are_followed_only_where_that_is_wanted() {
        let dir = tempfile::tempdir().unwrap();
        let (file, link) = (dir.path().join("file"), dir.path().join("link"));
        fs::write(&file, "1").unwrap();
        symlink("file", &link).unwrap();
        assert_eq!(read(&link, 1).unwrap(), b"1");
        assert!(matches!(open(&link, Links::Refuse), Err(FileError::NotRegular("symbolic link"))));
        assert!(open(&file, Links::Refuse).is_ok());
    }

    #[test]
    fn one_file_is_known_by_all_its_names() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for name in ["one", "two"] {
            fs::write(at(name), "same content").unwrap();
        }
        fs::hard_link(at("one"), at("hard")).unwrap();
        symlink("one", at("soft")).unwrap();
        for name in ["one", "hard", "soft", "./one"] {
            assert!(is_same(&at("one"), &at(name)), "{name}");
        }
        assert!(!is_same(&at("one"), &at("two")));
        assert!(!is_same(&at("missing"), &at("one")));
        symlink("missing", at("dangling")).unwrap();
        symlink(".", at("here")).unwrap();
        for name in ["missing", "dangling", "./missing", "here/missing"] {
            assert!(is_same(&at("missing"), &at(name)), "{name}");
        }
        assert!(!is_same(&at("missing"), &at("other")));
        symlink("loop", at("loop")).unwrap();
        assert!(!is_same(&at("missing"), &at("loop")));
    }
}
