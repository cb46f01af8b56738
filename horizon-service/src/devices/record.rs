//! Keeps on disk what must be known of devices until rules for them end: what the agent has changed, and what it has seen.
//!
//! Invariant: what was there before a change is on disk before the change is made. All of it ends with the boot, after which
//! the kernel has its own settings again.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::base::disk::{DiskError, move_aside, read_json, replace, to_json};
use crate::devices::sysfs::Authorization;

/// Name of the file in the state directory.
const FILE: &str = "devices.json";
/// The file that has another content after each boot.
const BOOT: &str = "/proc/sys/kernel/random/boot_id";
const FORMAT: &str = "horizon-armor.devices/1";

/// A `Seen` is a device that was decided on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// The number of its directory.
    pub id: u64,
    /// True if it is unauthorised because of the rules.
    pub held: bool,
    /// True if it is still to be decided on: it was there before the rules, or could not be read.
    pub pending: bool,
}

/// `Before` is how controllers authorised new devices before the agent had them authorise none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Before {
    /// That of controllers that are made later.
    pub later: Authorization,
    /// That of each controller.
    pub controllers: BTreeMap<String, Authorization>,
}

/// A `Record` is the content of the file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    format: String,
    /// The boot that it is about.
    boot: String,
    /// Set while new devices start unauthorised.
    pub before: Option<Before>,
    /// The devices that are there, by name.
    pub devices: BTreeMap<String, Seen>,
    /// Name and serial of the bundles under which they were decided on.
    pub bundles: BTreeMap<String, u64>,
}

/// A `RecordFile` is where the record is kept.
pub struct RecordFile {
    path: PathBuf,
    boot: String,
    /// What is on disk.
    stored: Option<Record>,
}

impl RecordFile {
    /// Reads the record of a state directory, if there is one of this boot.
    pub fn open(state_dir: &Path) -> (Self, Option<Record>) {
        let path = state_dir.join(FILE);
        let boot = std::fs::read_to_string(BOOT).unwrap_or_default();
        let read = read_json::<Record>(&path, |record| &record.format, FORMAT).unwrap_or_else(|error| {
            tracing::error!(
                "{error}: moved aside; controllers get the kernel's defaults when rules for devices end"
            );
            move_aside(&path);
            None
        });
        let record = read.filter(|record| record.boot == boot && !boot.is_empty());
        (Self { path, boot, stored: record.clone() }, record)
    }

    /// Stores the record durably, or removes it if there is none.
    ///
    /// # Errors
    /// Fails with [`DiskError::Io`] if the file cannot be written or removed.
    pub fn store(&mut self, record: Option<&Record>) -> Result<(), DiskError> {
        let record = record.map(|record| Record {
            format: FORMAT.to_owned(),
            boot: self.boot.clone(),
            ..record.clone()
        });
        if record == self.stored {
            return Ok(());
        }
        match &record {
            Some(record) => replace(&self.path, &to_json(&self.path, record)?)?,
            None => std::fs::remove_file(&self.path)
                .map_err(|error| DiskError::Io { path: self.path.clone(), error })?,
        }
        self.stored = record;
        Ok(())
    }
}
