//! `spool.floor`: the small file that outlives the database, so that no number is ever given twice.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use armor_hub_client::batch::Mark;
use serde::{Deserialize, Serialize};

use super::SpoolError;

/// What outlives the database: numbers reserved, and how far receipts reach.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Floor {
    pub(super) reserved: u64,
    pub(super) receipted: Mark,
    #[serde(default)]
    pub(super) receipt_serial: u64,
}

impl Floor {
    /// The floor of `dir`, the zero one if there is none. One that does not read is as good as none: the database has
    /// the same numbers. The second value says so.
    pub(super) fn read(dir: &Path) -> Result<(Self, Option<String>), SpoolError> {
        let path = dir.join("spool.floor");
        match fs::read(&path) {
            Ok(bytes) => Ok(match serde_json::from_slice(&bytes) {
                Ok(floor) => (floor, None),
                Err(error) => (Self::default(), Some(format!("{}: ignored: {error}", path.display()))),
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok((Self::default(), None)),
            Err(error) => Err(SpoolError::Io { path, error }),
        }
    }

    /// Replaces the file atomically and durably.
    pub(super) fn write(&self, dir: &Path) -> Result<(), SpoolError> {
        let path = dir.join("spool.floor");
        let write = || -> io::Result<()> {
            let fresh = dir.join("spool.floor.new");
            let mut file = File::create(&fresh)?;
            file.write_all(&serde_json::to_vec(self)?)?;
            file.sync_all()?;
            fs::rename(&fresh, &path)?;
            File::open(dir)?.sync_all()
        };
        write().map_err(|error| SpoolError::Io { path: path.clone(), error })
    }
}
