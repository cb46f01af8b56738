//! Reads and writes `spool.floor`, the small file that outlives the database, so that no number is ever given
//! twice.

use std::io;
use std::path::Path;

use armor_alerts::batch::Mark;
use armor_base::file::{self, FileError};
use armor_base::replace::write_whole;
use armor_policy::escaped_path;
use serde::{Deserialize, Serialize};

use super::SpoolError;

/// Maximum size of the file, in bytes: many times what is written.
const MAX_FILE: usize = 64 << 10;

/// A `Floor` is what outlives the database: reserved numbers, and how far receipts reach.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Floor {
    pub(super) reserved: u64,
    pub(super) receipted: Mark,
    #[serde(default)]
    pub(super) receipt_serial: u64,
}

impl Floor {
    /// Reads the floor of `dir`, the zero floor if there is none. An unreadable floor counts as none, because
    /// the database has the same numbers; the second value is then the reason.
    pub(super) fn read(dir: &Path) -> Result<(Self, Option<String>), SpoolError> {
        let path = dir.join("spool.floor");
        let ignored = |error: &dyn std::fmt::Display| {
            (Self::default(), Some(format!("{}: ignored: {error}", escaped_path(&path))))
        };
        match file::read(&path, MAX_FILE) {
            Ok(bytes) => {
                Ok(serde_json::from_slice(&bytes).map_or_else(|error| ignored(&error), |floor| (floor, None)))
            }
            Err(error) if error.is_missing() => Ok((Self::default(), None)),
            Err(FileError::Io(error)) => Err(SpoolError::Io { path, error }),
            Err(error) => Ok(ignored(&error)),
        }
    }

    /// Replaces the file atomically and durably.
    pub(super) fn write(&self, dir: &Path) -> Result<(), SpoolError> {
        let path = dir.join("spool.floor");
        let bytes = serde_json::to_vec(self).map_err(io::Error::from);
        let written = bytes.and_then(|bytes| write_whole(&path, &bytes, true));
        written.map(drop).map_err(|error| SpoolError::Io { path, error })
    }
}
