//! This module writes collected alerts to a file of JSON lines, which agrees with the ledger after any crash,
//! or to standard output.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use armor_console as console;
use armor_policy::escaped_path;

use super::ledger::{Ledger, LedgerError};

/// An `OutputConfig` says where the collector writes alerts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OutputConfig {
    /// Appends to this file. Each alert is written exactly once, even if the collector crashes.
    File(PathBuf),
    /// Prints the alerts. An alert can be printed twice if the collector ends during the write.
    Stdout,
}

/// An `OutputError` says why alerts cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// Another collector writes to the file.
    #[error("{}: in use by another collector", escaped_path(.0))]
    InUse(PathBuf),
    /// The file cannot be opened or written.
    #[error("{}: {error}", escaped_path(path))]
    Io {
        /// The file.
        path: PathBuf,
        /// The I/O error.
        error: io::Error,
    },
    /// The file is a pipe, socket or device, whose content can be neither read back nor cut off.
    #[error("{}: no regular file, so no alert could stand there exactly once; name one, or none for standard output", escaped_path(.0))]
    NotRegular(PathBuf),
    /// Standard output takes no more.
    #[error("{0}")]
    Stdout(#[source] io::Error),
    /// The ledger fails.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

pub(super) enum Output {
    File {
        path: PathBuf,
        file: File,
        inode: u64,
        /// Length recorded in the ledger.
        length: u64,
        /// Length with the lines appended since.
        pending: u64,
    },
    Stdout,
}

impl Output {
    /// Opens the output. If the file is longer than the ledger says, the rest was written just before a crash
    /// and is cut off; those alerts will come again. A file that the ledger does not know is appended to.
    pub(super) fn open(config: &OutputConfig, ledger: &mut Ledger) -> Result<Self, OutputError> {
        let OutputConfig::File(path) = config else { return Ok(Self::Stdout) };
        let io = |error| OutputError::Io { path: path.clone(), error };
        let file = open(path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(OutputError::InUse(path.clone())),
            Err(TryLockError::Error(error)) => return Err(io(error)),
        }
        let metadata = file.metadata().map_err(io)?;
        let (inode, mut length) = (metadata.ino(), metadata.len());
        match ledger.output_length(inode)? {
            Some(known) if known < length => {
                tracing::info!(file = %escaped_path(path), bytes = length - known, "cutting off what was not accounted for");
                file.set_len(known).and_then(|()| file.sync_all()).map_err(io)?;
                length = known;
            }
            Some(known) if known > length => {
                tracing::warn!(file = %escaped_path(path), known, length, "the output was shortened by somebody else");
                ledger.set_output_length(inode, length)?;
            }
            Some(_) => {}
            None => {
                sync_parent(path).map_err(io)?;
                ledger.set_output_length(inode, length)?;
            }
        }
        Ok(Self::File { path: path.clone(), file, inode, length, pending: length })
    }

    /// Writes the lines durably, and returns the file's inode and its new length. The ledger must record them
    /// before [`Self::commit`]; otherwise the next append overwrites these lines.
    pub(super) fn append<'l>(
        &mut self,
        lines: impl Iterator<Item = &'l [u8]>,
    ) -> Result<Option<(u64, u64)>, OutputError> {
        let text: Vec<u8> = lines.flat_map(|line| line.iter().chain(b"\n")).copied().collect();
        match self {
            Self::Stdout => {
                let mut stdout = console::stdout();
                stdout.write_all(&text).and_then(|()| stdout.flush()).map_err(OutputError::Stdout)?;
                Ok(None)
            }
            Self::File { path, file, inode, length, pending } => {
                let io = |error| OutputError::Io { path: path.clone(), error };
                if *pending != *length {
                    file.set_len(*length).map_err(io)?;
                }
                *pending = *length + text.len() as u64;
                file.write_all(&text).and_then(|()| file.sync_data()).map_err(io)?;
                Ok(Some((*inode, *pending)))
            }
        }
    }

    /// Confirms that the ledger has recorded the appended lines.
    pub(super) fn commit(&mut self) {
        if let Self::File { length, pending, .. } = self {
            *length = *pending;
        }
    }
}

/// Opens the file, and creates it if it is missing. Files that would block the open are refused first.
fn open(path: &Path) -> Result<File, OutputError> {
    let io = |error| OutputError::Io { path: path.to_owned(), error };
    match std::fs::metadata(path) {
        Ok(meta) if !meta.is_file() => return Err(OutputError::NotRegular(path.to_owned())),
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io(error)),
        _ => {}
    }
    OpenOptions::new().create(true).append(true).open(path).map_err(io)
}

fn sync_parent(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(parent)?.sync_all()
}
