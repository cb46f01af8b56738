//! Holds the attached programs and their maps.

mod generation;
mod load;
mod on_demand;
mod syscalls;
mod tasks;

use std::io::{self, ErrorKind, Read as _};
use std::path::{Path, PathBuf};

use libbpf_rs::{Link, MapCore, MapFlags, MapHandle};

use crate::counters::Counters;
use crate::error::BpfError;
use crate::event::Events;
use crate::guard::Guarded;
use crate::iterator::{Iterator, SETTLE, position};
use crate::leftover::{self, Leftover};
use crate::pins::{self, VERSION};
use crate::skipped::Attached;
use on_demand::OnDemand;
use syscalls::Syscalls;

pub(crate) use load::open;
pub(crate) use on_demand::is_on_demand;
pub(crate) use syscalls::is_syscall_link;
pub use tasks::{Labelled, Labeller, exempt_from_pinned};

/// Bytes read from an iterator at a time: 32 KiB, the size of the kernel's own buffer. No record is longer.
const ITERATOR_CHUNK: usize = 32 * 1024;
/// An `Enforcer` holds the loaded and attached programs and their maps.
pub struct Enforcer {
    live: MapHandle,
    host_ruled: MapHandle,
    labels: MapHandle,
    containers: MapHandle,
    entrances: MapHandle,
    bounding_sets: MapHandle,
    linked_files: MapHandle,
    undecided: MapHandle,
    guarded: Guarded,
    events: MapHandle,
    counters: MapHandle,
    attached: Attached,
    on_demand: Vec<OnDemand>,
    syscalls: Syscalls,
    /// The attached [`ITERATORS`](crate::iterator::ITERATORS), in the same order.
    iterators: Vec<Iterator>,
    /// Number of the live generation, which an agent that takes over reads from the live image.
    generation: u32,
    /// Links of programs that end with this process; empty if pins hold the programs. They are dropped in
    /// order: those to the hooks first, then the judge's.
    links: Vec<Link>,
    /// Directory below which everything is pinned; `None` if nothing is.
    directory: Option<PathBuf>,
    took_over: bool,
    verified_instructions: Vec<(String, u32)>,
}

impl Enforcer {
    /// Registers the links of this process's iterators and the pin directory as guarded. The links of the
    /// hooks are registered when they are made.
    fn guard_itself(&self) -> Result<(), BpfError> {
        let ids = self.iterators.iter().map(Iterator::id).collect::<Result<Vec<_>, _>>();
        self.guarded.add_links(ids.map_err(|source| BpfError::Iterator { source })?.into_iter())?;
        self.directory.as_deref().map_or(Ok(()), |directory| self.guarded.add_pins(directory))
    }

    /// Protects this process and the given files or whole directories from the tasks of containers: they
    /// cannot end, stop or trace the process, nor write, remove or move the files. What an earlier process
    /// registered is no longer protected. A path that does not exist is skipped.
    pub fn guard_agent(&self, paths: &[&Path]) -> Result<(), BpfError> {
        self.guarded.set_agent(self.directory.as_deref(), std::process::id(), paths)
    }

    /// Returns whether the programs were already running.
    pub fn took_over(&self) -> bool {
        self.took_over
    }

    /// Returns the number of the live generation; 0 if there is none, or only that of [`prove`](Self::prove).
    pub fn generation(&self) -> u32 {
        self.generation
    }

    /// Opens the reading end of the ring buffer, where unread events wait as long as they fit.
    pub fn events(&self) -> Result<Events, BpfError> {
        let map =
            MapHandle::try_from(&self.events).map_err(|source| BpfError::Map { map: "events", source })?;
        Events::new(map)
    }

    /// Puts those events into the ring buffer that wait until the kernel knows whether a path existed
    /// (`path/undecided.bpf.h`). The reader of the ring buffer must call this every second.
    pub fn settle(&self) -> Result<(), BpfError> {
        let list = self.undecided.lookup(&0u32.to_ne_bytes(), MapFlags::ANY);
        let list = list.map_err(|source| BpfError::Map { map: "undecided", source })?;
        match list {
            Some(list) if leading_u32(&list) > 0 => self.iterate(position(SETTLE), |_| None),
            _ => Ok(()),
        }
    }

    /// Runs one of [`ITERATORS`](crate::iterator::ITERATORS) to its end. `take` gets the bytes read so far and
    /// returns how many it has taken, `None` if there are too few.
    fn iterate(&self, which: usize, mut take: impl FnMut(&[u8]) -> Option<usize>) -> Result<(), BpfError> {
        let failed = |source| BpfError::Iterator { source };
        let iterator =
            self.iterators.get(which).ok_or_else(|| failed(io::Error::from(ErrorKind::NotFound)))?;
        let mut iterator = iterator.start().map_err(failed)?;
        let (mut buffer, mut chunk) = (Vec::new(), vec![0; ITERATOR_CHUNK]);
        loop {
            let read = match iterator.read(&mut chunk) {
                Ok(0) => return Ok(()),
                Ok(read) => read,
                // EAGAIN: the kernel went through very many objects and has written nothing so far.
                Err(error) if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock) => {
                    continue;
                }
                Err(error) => return Err(failed(error)),
            };
            buffer.extend_from_slice(&chunk[..read]);
            let mut at = 0;
            while let Some(length) = take(&buffer[at..]) {
                at += length;
            }
            buffer.drain(..at);
        }
    }

    /// Returns what other versions, whose programs have ended, have left unreported.
    pub fn leftovers(&self) -> Result<Vec<Leftover>, BpfError> {
        self.directory.as_deref().map_or(Ok(Vec::new()), leftover::leftovers)
    }

    /// Returns the counts since the programs were loaded, including those under earlier agents.
    pub fn counters(&self) -> Result<Counters, BpfError> {
        Ok(Counters { skipped: self.attached.skipped()?, ..Counters::read(&self.counters)? })
    }

    /// Sets all counters to 0. Call it only while no program counts anything.
    pub(crate) fn reset_counters(&self) -> Result<(), BpfError> {
        let failed = |source| BpfError::Map { map: "counters", source };
        let zeros = vec![vec![0; size_of::<u64>()]; libbpf_rs::num_possible_cpus().map_err(failed)?];
        (0..self.counters.max_entries())
            .try_for_each(|which| self.counters.update_percpu(&which.to_ne_bytes(), &zeros, MapFlags::ANY))
            .map_err(failed)
    }

    /// Ends these programs, but not those of other versions.
    pub fn unload(self) -> Result<(), BpfError> {
        let pins = self.directory.map(|directory| directory.join(VERSION));
        drop((self.on_demand, self.syscalls, self.links));
        pins.filter(|pins| pins.is_dir()).map_or(Ok(()), |pins| pins::remove(&pins))
    }

    /// Returns how many instructions the verifier processed for each program; empty if the programs were
    /// already running.
    pub fn verified_instructions(&self) -> &[(String, u32)] {
        &self.verified_instructions
    }
}

fn leading_u32(key: &[u8]) -> u32 {
    key.get(..4).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_ne_bytes)
}
