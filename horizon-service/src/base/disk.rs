//! Reads and replaces the agent's own files.
//!
//! Invariants:
//! - A file is replaced as a whole: after a crash it is the old or the new one.
//! - Whatever is in a file's place is named and never waited for.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use armor_base::file::{self, FileError};
use armor_base::replace::write_whole;
use armor_policy::escaped_path;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Maximum size of a file here, in bytes: many times what a node with the maximum number of containers
/// writes.
pub(crate) const MAX_FILE: usize = 64 << 20;

/// A `DiskError` is a failure to use one of the agent's own files.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// A file or directory cannot be read or written.
    #[error("{}: {error}", escaped_path(path))]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The system's error.
        error: io::Error,
    },
    /// A file is damaged, half-written or of a newer version.
    #[error("{}: {reason}", escaped_path(path))]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The problem with the file.
        reason: String,
    },
}

/// Makes a directory, and those above it, for its owner alone.
pub(crate) fn make_dir(path: &Path) -> Result<(), DiskError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|error| DiskError::Io { path: path.to_owned(), error })
}

/// Keeps one unreadable file for inspection. The problem itself is reported elsewhere.
pub(crate) fn move_aside(path: &Path) {
    let mut aside = path.as_os_str().to_owned();
    aside.push(".damaged");
    if let Err(error) = fs::rename(path, &aside) {
        tracing::warn!("{}: {error}", escaped_path(path));
    }
}

/// Reads a file of the state directory, of at most `limit` bytes; returns `None` if there is none.
pub(crate) fn read_file(path: &Path, limit: usize) -> Result<Option<Vec<u8>>, DiskError> {
    match file::read(path, limit) {
        Err(error) if error.is_missing() => Ok(None),
        read => read.map(Some).map_err(|error| unusable(path, error)),
    }
}

/// Turns a file error into a state error, with a remedy if something else is in the file's place.
pub(crate) fn unusable(path: &Path, error: FileError) -> DiskError {
    let reason = match error {
        FileError::Io(error) => return DiskError::Io { path: path.to_owned(), error },
        FileError::NotRegular(kind) => format!("a {kind}, not a regular file"),
        FileError::TooLarge(limit) => format!("more than the {limit} bytes that the agent may have written"),
    };
    let reason = format!("{reason}: remove it, the agent makes its own");
    DiskError::Unreadable { path: path.to_owned(), reason }
}

pub(crate) fn read_json<T: DeserializeOwned>(
    path: &Path,
    format: impl Fn(&T) -> &String,
    expected: &str,
) -> Result<Option<T>, DiskError> {
    let unreadable = |reason: String| DiskError::Unreadable { path: path.to_owned(), reason };
    let Some(text) = read_file(path, MAX_FILE)? else { return Ok(None) };
    let value: T = serde_json::from_slice(&text).map_err(|e| unreadable(e.to_string()))?;
    if format(&value) != expected {
        return Err(unreadable(format!("the format {:?} is not {expected}", format(&value))));
    }
    Ok(Some(value))
}

pub(crate) fn to_json<T: Serialize>(path: &Path, value: &T) -> Result<Vec<u8>, DiskError> {
    serde_json::to_vec(value)
        .map_err(|e| DiskError::Unreadable { path: path.to_owned(), reason: e.to_string() })
}

/// Replaces a file as a whole and durably.
pub(crate) fn replace(path: &Path, content: &[u8]) -> Result<(), DiskError> {
    write_whole(path, content, true).map(drop).map_err(|error| DiskError::Io { path: path.to_owned(), error })
}
