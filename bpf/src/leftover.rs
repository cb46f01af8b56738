//! Reads what an ended version of the programs has left: events and counters that nobody has reported.

use std::cell::Cell;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use libbpf_rs::{MapHandle, RingBufferBuilder};

use crate::counters::Counters;
use crate::error::BpfError;
use crate::event::Events;
use crate::iterator::{Iterator, SETTLE};
use crate::pins::{has_same_abi, other_versions, remove};
use crate::raw;

/// Returns what other versions, whose programs have ended, have left unreported.
pub(crate) fn leftovers(directory: &Path) -> Result<Vec<Leftover>, BpfError> {
    let ended = other_versions(directory)?.into_iter().filter(|version| !version.join("links").exists());
    Ok(ended.map(|version| Leftover { version }).collect())
}

/// A `Leftover` is what another version has left: events that nobody read, and counters.
pub struct Leftover {
    version: PathBuf,
}

impl Leftover {
    /// Opens the reading end of its ring buffer; `None` if this version cannot read its events.
    pub fn events(&self) -> Result<Option<Events>, BpfError> {
        self.settle()?;
        self.readable("events")?.map(Events::new).transpose()
    }

    /// Runs the version's own iterator, which puts undecided events into its ring buffer.
    fn settle(&self) -> Result<(), BpfError> {
        let pin = self.version.join("programs").join(SETTLE);
        if !pin.exists() {
            return Ok(());
        }
        let run = || io::copy(&mut Iterator::of(raw::pinned(&pin)?.as_fd())?.start()?, &mut io::sink());
        run().map(drop).map_err(|source| BpfError::Iterator { source })
    }

    /// Returns what its programs counted; `None` if this version cannot read that.
    pub fn counters(&self) -> Result<Option<Counters>, BpfError> {
        self.readable("counters")?.map(|map| Counters::read(&map)).transpose()
    }

    /// Takes the unread events out of its ring buffer and returns their number.
    pub fn discard_events(&self) -> Result<u64, BpfError> {
        let failed = |source| BpfError::Map { map: "events", source };
        let Some(ring) = self.map("events")? else { return Ok(0) };
        let count = Rc::new(Cell::new(0));
        let counting = Rc::clone(&count);
        let mut builder = RingBufferBuilder::new();
        let each = move |_: &[u8]| {
            counting.set(counting.get() + 1);
            0
        };
        builder.add(&ring, each).map_err(failed)?;
        builder.build().and_then(|ring| ring.consume()).map_err(failed)?;
        Ok(count.get())
    }

    /// Removes the version. Call it only once everything has been reported.
    pub fn remove(self) -> Result<(), BpfError> {
        remove(&self.version)
    }

    fn readable(&self, name: &'static str) -> Result<Option<MapHandle>, BpfError> {
        if has_same_abi(&self.version) { self.map(name) } else { Ok(None) }
    }

    fn map(&self, name: &'static str) -> Result<Option<MapHandle>, BpfError> {
        let path = self.version.join("maps").join(name);
        let open = || MapHandle::from_pinned_path(&path);
        path.exists().then(open).transpose().map_err(|source| BpfError::Map { map: name, source })
    }
}
