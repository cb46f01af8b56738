//! Reads the programs' counters, which are exact even where events are lost.

use libbpf_rs::{MapCore as _, MapFlags, MapHandle};

use crate::contract::counter;
use crate::error::BpfError;

/// A `Counters` says what happened since the programs were loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Counters {
    /// Number of refused accesses.
    pub blocked: u64,
    /// Number of accesses permitted with an alert.
    pub audited: u64,
    /// Number of events put into the ring buffer.
    pub reported: u64,
    /// Number of events that the ring buffer had no room for.
    pub dropped: u64,
    /// Number of events beyond their rule's rate.
    pub suppressed: u64,
    /// Number of objects whose path could not be found out.
    pub unresolved: u64,
    /// Number of first programs of unidentified containers.
    pub unidentified: u64,
    /// Number of programs by which containers were entered: the first ones and those of `docker exec`.
    pub entered: u64,
    /// Number of times that the kernel did not run a program, and so permitted what it might have refused.
    pub skipped: u64,
}

impl Counters {
    /// Reads all counters but `skipped`, which the kernel counts itself.
    pub(crate) fn read(map: &MapHandle) -> Result<Self, BpfError> {
        let read = |which: counter| {
            let values = map
                .lookup_percpu(&which.0.to_ne_bytes(), MapFlags::ANY)
                .map_err(|source| BpfError::Map { map: "counters", source })?;
            Ok(values
                .iter()
                .flatten()
                .filter_map(|value| Some(u64::from_ne_bytes(value.get(..8)?.try_into().ok()?)))
                .sum())
        };
        Ok(Counters {
            blocked: read(counter::COUNT_BLOCKED)?,
            audited: read(counter::COUNT_AUDITED)?,
            reported: read(counter::COUNT_REPORTED)?,
            dropped: read(counter::COUNT_DROPPED)?,
            suppressed: read(counter::COUNT_SUPPRESSED)?,
            unresolved: read(counter::COUNT_UNRESOLVED)?,
            unidentified: read(counter::COUNT_UNIDENTIFIED)?,
            entered: read(counter::COUNT_ENTERED)?,
            skipped: 0,
        })
    }
}
