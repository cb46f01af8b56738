//! Defines the errors of the spool, and the reasons why a receipt does not fit it.

use std::io;
use std::path::{Path, PathBuf};

use armor_alerts::batch::{BatchError, Digest};
use armor_policy::escaped_path;
use rusqlite::ErrorCode;

/// A `SpoolError` is a failure of the spool.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// The database was written by a newer version of the agent.
    #[error(
        "{}: schema version {found}, this agent reads up to {known}: run the newer agent, or move the file away",
        escaped_path(path)
    )]
    Newer {
        /// The database.
        path: PathBuf,
        /// Schema version of the database.
        found: i64,
        /// Newest version that this agent reads.
        known: i64,
    },
    /// Another process has the database open.
    #[error("{}: in use by another process: only one agent may run on a node", escaped_path(path))]
    InUse {
        /// The database.
        path: PathBuf,
    },
    /// The database was unreadable. It was moved aside and a new one begun; the call can be repeated.
    #[error(
        "{}: damaged ({error}); moved to {}, a fresh spool goes on from the next free number",
        escaped_path(path),
        escaped_path(moved_to)
    )]
    Damaged {
        /// The database.
        path: PathBuf,
        /// New path of the damaged database.
        moved_to: PathBuf,
        /// SQLite's error.
        error: rusqlite::Error,
    },
    /// The alerts could not be written, because the disk is full or failing. They are counted and recorded as
    /// lost. The text stays the same while the disk fails in the same way, so that it is reported once.
    #[error("{}: alerts cannot be written, they are only counted: {error}", escaped_path(path))]
    Unwritten {
        /// The file that could not be written.
        path: PathBuf,
        /// Number of alerts of this call.
        count: u64,
        /// The cause.
        error: Box<SpoolError>,
    },
    /// A file of the spool cannot be read or written.
    #[error("{}: {error}", escaped_path(path))]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's error.
        error: io::Error,
    },
    /// SQLite failed, mostly because of a full or failing disk.
    #[error("{}: {error}", escaped_path(path))]
    Sqlite {
        /// The database.
        path: PathBuf,
        /// SQLite's error.
        error: rusqlite::Error,
    },
    /// A batch cannot be sealed.
    #[error("batch: {0}")]
    Batch(#[from] BatchError),
    /// An alert cannot be written as JSON.
    #[error("alert: {0}")]
    Alert(#[from] serde_json::Error),
}

/// A `Mismatch` is the reason why a properly signed receipt does not fit this spool.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Mismatch {
    /// It covers numbers that were never sent: this node's state went back, or its key is used twice.
    #[error(
        "receipt up to {up_to}, but only {sent} was sent: this node's state is older than what the collector has"
    )]
    BeyondSent {
        /// Last number that the receipt covers.
        up_to: u64,
        /// Highest number in any batch.
        sent: u64,
    },
    /// No batch ends where the receipt does.
    #[error("receipt up to {up_to}, where no batch ends")]
    NoBoundary {
        /// Last number that the receipt covers.
        up_to: u64,
    },
    /// The collector's chain differs from this spool's.
    #[error(
        "receipt up to {up_to} has chain {theirs}, the spool has {ours}: the collector took other alerts for ours"
    )]
    Chain {
        /// Last number that the receipt covers.
        up_to: u64,
        /// Chain in the receipt.
        theirs: Digest,
        /// Chain in the spool.
        ours: Digest,
    },
}

/// A `TxError` ends a transaction.
pub(super) enum TxError {
    Sqlite(rusqlite::Error),
    Spool(SpoolError),
}

impl From<rusqlite::Error> for TxError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

impl From<BatchError> for TxError {
    fn from(error: BatchError) -> Self {
        Self::Spool(error.into())
    }
}

impl From<serde_json::Error> for TxError {
    fn from(error: serde_json::Error) -> Self {
        Self::Spool(error.into())
    }
}

/// Returns whether the database itself is at fault: it is unreadable, or was not written by this program.
pub(super) fn is_damage(error: &rusqlite::Error) -> bool {
    use rusqlite::Error;
    match error {
        Error::SqliteFailure(failure, _) => {
            matches!(
                failure.code,
                ErrorCode::DatabaseCorrupt
                    | ErrorCode::NotADatabase
                    | ErrorCode::Unknown
                    | ErrorCode::ConstraintViolation
            )
        }
        Error::SqlInputError { .. }
        | Error::QueryReturnedNoRows
        | Error::InvalidColumnType(..)
        | Error::FromSqlConversionFailure(..)
        | Error::IntegralValueOutOfRange(..) => true,
        _ => false,
    }
}

pub(super) fn sqlite(path: &Path, error: rusqlite::Error) -> SpoolError {
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            SpoolError::InUse { path: path.to_path_buf() }
        }
        _ => SpoolError::Sqlite { path: path.to_path_buf(), error },
    }
}
