//! Registers what the programs protect beyond what rules name (`self.h`): the agent's files, pins, process
//! and links.
//!
//! Invariant: new entries are inserted before old ones are deleted.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use libbpf_rs::query::LinkInfoIter;
use libbpf_rs::{MapCore as _, MapFlags, MapHandle};

use crate::error::BpfError;
use crate::mount_tree::kernel_device;
use crate::pins::pin_error;

/// A `Kind` is an `enum guarded_kind` of `abi.h`.
#[derive(Clone, Copy)]
enum Kind {
    File,
    Device,
    Process,
    Link,
}

/// A `Reach` is an `enum guarded_reach` of `abi.h`.
#[derive(Clone, Copy)]
enum Reach {
    Itself,
    Below,
}

/// A `Guarded` is the map `guarded`.
pub(crate) struct Guarded(pub(crate) MapHandle);

/// An `Entries` maps keys to values, as the kernel has them.
#[derive(Default)]
struct Entries(BTreeMap<Vec<u8>, u32>);

impl Entries {
    fn add(&mut self, kind: Kind, device: u32, number: u64, reach: Reach) {
        let mut key = [kind as u32, device].map(u32::to_ne_bytes).concat();
        key.extend(number.to_ne_bytes());
        let value = self.0.entry(key).or_default();
        *value = (*value).max(reach as u32);
    }

    /// Adds a file, or a directory with everything below it, and all directories above, so that none of them
    /// is moved away.
    fn add_path(&mut self, path: &Path) -> io::Result<()> {
        let path = path.canonicalize()?;
        for (at, reach) in
            path.ancestors().zip([Reach::Below].into_iter().chain(std::iter::repeat(Reach::Itself)))
        {
            let found = at.symlink_metadata()?;
            let device = kernel_device(rustix::fs::major(found.dev()), rustix::fs::minor(found.dev()));
            self.add(Kind::Device, device, 0, Reach::Below);
            self.add(Kind::File, device, found.ino(), reach);
        }
        Ok(())
    }
}

impl Guarded {
    /// Protects links from being opened by their ids, and deletes the entries of links that no longer exist:
    /// each agent attaches some of its own.
    pub(crate) fn add_links(&self, ids: impl Iterator<Item = u32>) -> Result<(), BpfError> {
        let mut entries = Entries::default();
        ids.for_each(|id| entries.add(Kind::Link, 0, id.into(), Reach::Below));
        self.insert(&entries)?;
        let present: BTreeSet<u64> = LinkInfoIter::default().map(|link| link.id.into()).collect();
        let of_links = (Kind::Link as u32).to_ne_bytes();
        let is_gone = |key: &Vec<u8>| {
            let id = key.get(8..16).and_then(|id| id.try_into().ok()).map(u64::from_ne_bytes);
            key.starts_with(&of_links) && !id.is_some_and(|id| present.contains(&id))
        };
        let gone: Vec<_> = self.0.keys().filter(is_gone).collect();
        gone.iter().try_for_each(|key| self.0.delete(key)).map_err(failed)
    }

    /// Protects a directory of pins.
    pub(crate) fn add_pins(&self, directory: &Path) -> Result<(), BpfError> {
        let mut entries = Entries::default();
        entries.add_path(directory).map_err(|source| pin_error(directory, source))?;
        self.insert(&entries)
    }

    /// Protects what belongs to an agent, and ends the protection of what belonged to an earlier one. Paths
    /// that do not exist are skipped.
    pub(crate) fn set_agent(
        &self,
        pins: Option<&Path>,
        process: u32,
        paths: &[&Path],
    ) -> Result<(), BpfError> {
        let mut entries = Entries::default();
        entries.add(Kind::Process, 0, process.into(), Reach::Below);
        for path in paths.iter().copied().chain(pins) {
            match entries.add_path(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(pin_error(path, error)),
                _ => {}
            }
        }
        self.insert(&entries)?;
        let of_links = (Kind::Link as u32).to_ne_bytes();
        let gone: Vec<_> =
            self.0.keys().filter(|key| !key.starts_with(&of_links) && !entries.0.contains_key(key)).collect();
        gone.iter().try_for_each(|key| self.0.delete(key)).map_err(failed)
    }

    fn insert(&self, entries: &Entries) -> Result<(), BpfError> {
        let insert = |(key, value): (&Vec<u8>, &u32)| self.0.update(key, &value.to_ne_bytes(), MapFlags::ANY);
        entries.0.iter().try_for_each(insert).map_err(failed)
    }
}

fn failed(source: libbpf_rs::Error) -> BpfError {
    BpfError::Map { map: "guarded", source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_guarded_with_all_below_it_and_what_is_above_it_only_itself() {
        let directory = std::env::temp_dir().canonicalize().expect("there is one");
        let mut entries = Entries::default();
        entries.add_path(&directory).expect("it is there");
        let reach_of = |path: &Path| {
            let ino = path.metadata().expect("it is there").ino().to_ne_bytes();
            let file = (Kind::File as u32).to_ne_bytes();
            entries
                .0
                .iter()
                .find(|(key, _)| key.starts_with(&file) && key.ends_with(&ino))
                .map(|(_, reach)| *reach)
        };
        assert_eq!(reach_of(&directory), Some(Reach::Below as u32));
        assert_eq!(reach_of(Path::new("/")), Some(Reach::Itself as u32));
    }
}
