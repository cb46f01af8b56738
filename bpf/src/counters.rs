//! What the programs have counted, exactly and whatever became of the events.

use libbpf_rs::{MapCore as _, MapFlags, MapHandle};

use crate::error::BpfError;

/// What happened since the programs were loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Counters {
    /// Accesses refused.
    pub blocked: u64,
    /// Accesses permitted with an alert.
    pub audited: u64,
    /// Events that the ring took.
    pub reported: u64,
    /// Events that the ring had no room for.
    pub dropped: u64,
    /// Events past their rule's rate.
    pub suppressed: u64,
    /// Objects whose path could not be told.
    pub unresolved: u64,
    /// First programs of containers that had not been named.
    pub unidentified: u64,
    /// Programs by which containers were entered, the first ones and those of `docker exec`.
    pub entered: u64,
    /// Times that the kernel did not run a program, and so permitted what that might have refused.
    pub skipped: u64,
}

impl Counters {
    /// All but `skipped`, which the kernel counts itself.
    pub(crate) fn read(map: &MapHandle) -> Result<Self, BpfError> {
        let read = |which: u32| {
            let values = map
                .lookup_percpu(&which.to_ne_bytes(), MapFlags::ANY)
                .map_err(|source| BpfError::Map { map: "counters", source })?;
            Ok(values
                .iter()
                .flatten()
                .filter_map(|value| Some(u64::from_ne_bytes(value.get(..8)?.try_into().ok()?)))
                .sum())
        };
        Ok(Counters {
            blocked: read(0)?,
            audited: read(1)?,
            reported: read(2)?,
            dropped: read(3)?,
            suppressed: read(4)?,
            unresolved: read(5)?,
            unidentified: read(6)?,
            entered: read(7)?,
            skipped: 0,
        })
    }
}
