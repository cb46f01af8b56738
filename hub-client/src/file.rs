//! Files that somebody names, read: regular ones alone, and no more of them than a bound.
//!
//! Invariants:
//! - No name makes the reader wait (a pipe that nobody writes to, a terminal) or read without end (`/dev/zero`).
//! - No name has an effect by being read: to open a device can be one, of a watchdog for instance. So what a name stands for is
//!   looked at before it is opened, and once more in what was opened, in case that it was replaced in between.

use std::fs::{self, File, FileType, Metadata, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

/// As many links in a row as Linux follows.
const MAX_LINKS: usize = 40;

/// Why a file is not read. The caller knows its name.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The system does not let it be read, or written.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// A directory, pipe, socket, device or link.
    #[error("a {0}, not a regular file: put the content into one")]
    NotRegular(&'static str),
    /// More than anybody needs there.
    #[error("more than the {0} bytes that such a file may have")]
    TooLarge(usize),
}

impl FileError {
    /// Whether there is no such file.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Io(error) if error.kind() == io::ErrorKind::NotFound)
    }
}

/// What becomes of a name that is a symbolic link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Links {
    /// What it leads to is read.
    Follow,
    /// It is no regular file.
    Refuse,
}

/// Opens a regular file to read; reading it never waits.
///
/// # Errors
/// [`FileError::Io`] and [`FileError::NotRegular`].
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

/// Opens a regular file, or what a link leads to, to write over what it has; one that is not there is made. Writing it never waits.
///
/// # Errors
/// [`FileError::Io`] and [`FileError::NotRegular`]; nothing was written.
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

/// The content of a regular file, or of what a link leads to, if it has no more than `limit` bytes.
///
/// # Errors
/// [`FileError`].
pub fn read(path: &Path, limit: usize) -> Result<Vec<u8>, FileError> {
    let content = read_start(open(path, Links::Follow)?, limit.saturating_add(1))?;
    if content.len() > limit { Err(FileError::TooLarge(limit)) } else { Ok(content) }
}

/// The first bytes of an open file, at most `most`.
///
/// # Errors
/// What the system says.
pub fn read_start(file: File, most: usize) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    file.take(most as u64).read_to_end(&mut content)?;
    Ok(content)
}

/// Whether two names stand for one file: by another spelling, a symbolic link or a hard link. Also for a file that writing to
/// one of them would only make.
#[must_use]
pub fn is_same(one: &Path, other: &Path) -> bool {
    let id = |path: &Path| fs::metadata(path).ok().map(|meta| (meta.dev(), meta.ino()));
    match (id(one), id(other)) {
        (None, None) => to_be_made(one).is_some_and(|place| to_be_made(other) == Some(place)),
        (one, other) => one == other,
    }
}

/// Where a file would be made that is not there yet: at the end of links that lead nowhere, in a directory by its one name.
fn to_be_made(path: &Path) -> Option<PathBuf> {
    let mut path = path.to_owned();
    for _ in 0..MAX_LINKS {
        let directory =
            path.parent().filter(|directory| !directory.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let Ok(target) = fs::read_link(&path) else {
            // A directory that is not there yet has no links in its name.
            let directory = directory.canonicalize().or_else(|_| std::path::absolute(directory)).ok()?;
            return Some(directory.join(path.file_name()?));
        };
        path = directory.join(target);
    }
    None
}

/// What [`other_kind`] calls a directory.
pub const FOLDER: &str = "directory";

/// What a directory entry is, for people; `None` for a regular file.
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
