//! Registers what the programs protect beyond what rules name (the programs' `guard/`): the agent's files,
//! pins, process and links.
//!
//! Invariant: new entries are inserted before old ones are deleted.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use libbpf_rs::query::LinkInfoIter;
use libbpf_rs::{MapCore as _, MapFlags, MapHandle};

use crate::contract::{self, guarded_key, guarded_kind, guarded_reach, guarded_slots};
use crate::error::{BpfError, pin_error};
use crate::mount_tree::kernel_device;

/// A `Guarded` holds the maps of what is guarded.
pub(crate) struct Guarded {
    /// The map `guarded`.
    pub(crate) entries: MapHandle,
    /// The map `guarded_devices`. A slot stays set when its last device goes, which costs time alone.
    pub(crate) devices: MapHandle,
}

/// An `Entries` maps keys to values, as the kernel has them: bytes of a [`guarded_key`] to a [`guarded_reach`].
#[derive(Default)]
struct Entries(BTreeMap<Vec<u8>, u32>);

impl Entries {
    fn add(&mut self, kind: guarded_kind, device: u32, number: u64, reach: guarded_reach) {
        let key = guarded_key { kind: kind.0, device, number };
        let value = self.0.entry(contract::bytes(&key).to_vec()).or_default();
        *value = (*value).max(reach.0);
    }

    /// Adds a file, or a directory with everything below it, and all directories above, so that none of them
    /// is moved away.
    fn add_path(&mut self, path: &Path) -> io::Result<()> {
        let path = path.canonicalize()?;
        for (at, reach) in path.ancestors().zip(
            [guarded_reach::GUARDED_BELOW]
                .into_iter()
                .chain(std::iter::repeat(guarded_reach::GUARDED_ITSELF)),
        ) {
            let found = at.symlink_metadata()?;
            let device = kernel_device(rustix::fs::major(found.dev()), rustix::fs::minor(found.dev()));
            self.add(guarded_kind::GUARDED_DEVICE, device, 0, guarded_reach::GUARDED_BELOW);
            self.add(guarded_kind::GUARDED_FILE, device, found.ino(), reach);
        }
        Ok(())
    }
}

impl Guarded {
    /// Protects links from being opened by their ids, and deletes the entries of links that no longer exist:
    /// each agent attaches some of its own.
    pub(crate) fn add_links(&self, ids: impl Iterator<Item = u32>) -> Result<(), BpfError> {
        let mut entries = Entries::default();
        ids.for_each(|id| {
            entries.add(guarded_kind::GUARDED_LINK, 0, id.into(), guarded_reach::GUARDED_BELOW)
        });
        self.insert(&entries)?;
        let present: BTreeSet<u64> = LinkInfoIter::default().map(|link| link.id.into()).collect();
        let is_gone = |key: &Vec<u8>| link_of(key).is_some_and(|id| !present.contains(&id));
        let gone: Vec<_> = self.entries.keys().filter(is_gone).collect();
        gone.iter().try_for_each(|key| self.entries.delete(key)).map_err(failed)
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
        entries.add(guarded_kind::GUARDED_PROCESS, 0, process.into(), guarded_reach::GUARDED_BELOW);
        for path in paths.iter().copied().chain(pins) {
            match entries.add_path(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(pin_error(path, error)),
                _ => {}
            }
        }
        self.insert(&entries)?;
        let is_gone = |key: &Vec<u8>| link_of(key).is_none() && !entries.0.contains_key(key);
        let gone: Vec<_> = self.entries.keys().filter(is_gone).collect();
        gone.iter().try_for_each(|key| self.entries.delete(key)).map_err(failed)
    }

    fn insert(&self, entries: &Entries) -> Result<(), BpfError> {
        for (key, value) in &entries.0 {
            if let Some(slot) = slot_of_device(key) {
                self.devices
                    .update(&slot.to_ne_bytes(), &1u32.to_ne_bytes(), MapFlags::ANY)
                    .map_err(|source| BpfError::Map { map: "guarded_devices", source })?;
            }
            self.entries.update(key, &value.to_ne_bytes(), MapFlags::ANY).map_err(failed)?;
        }
        Ok(())
    }
}

/// Returns the slot in `guarded_devices` of the key of a device; `None` for keys of other kinds.
fn slot_of_device(key: &[u8]) -> Option<u32> {
    let key: guarded_key = contract::read(key)?;
    let slot = (key.device ^ key.device >> 20) & (guarded_slots::GUARDED_SLOTS.0 - 1);
    (key.kind == guarded_kind::GUARDED_DEVICE.0).then_some(slot)
}

/// Returns the id in the key of a link; `None` for keys of other kinds.
fn link_of(key: &[u8]) -> Option<u64> {
    let key: guarded_key = contract::read(key)?;
    (key.kind == guarded_kind::GUARDED_LINK.0).then_some(key.number)
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
            let number = path.metadata().expect("it is there").ino();
            let is_that =
                |key: &guarded_key| key.kind == guarded_kind::GUARDED_FILE.0 && key.number == number;
            let mut found =
                entries.0.iter().filter(|(key, _)| contract::read(key).is_some_and(|key| is_that(&key)));
            found.next().map(|(_, reach)| *reach)
        };
        assert_eq!(reach_of(&directory), Some(guarded_reach::GUARDED_BELOW.0));
        assert_eq!(reach_of(Path::new("/")), Some(guarded_reach::GUARDED_ITSELF.0));
    }
}
