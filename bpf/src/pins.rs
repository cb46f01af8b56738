//! The pin directory, on a bpf filesystem: what keeps enforcement when the agent ends.
//!
//! ```text
//! DIRECTORY/<abi>-<object>/links/      a link for each program of a hook, named after it
//! DIRECTORY/<abi>-<object>/programs/   each iterator, which has no link while no agent runs
//! DIRECTORY/<abi>-<object>/maps/       every map
//! ```
//!
//! Invariants:
//! - `DIRECTORY/<version>` exists only complete: pins are made beside it and renamed into place (bpffs knows no dots in
//!   names). Its name is made of hashes of `abi.h` and of the object (`build.rs`), so an agent takes over exactly what it would
//!   have loaded.
//! - The programs of another version are ended only after this version's first generation is live: until then both enforce,
//!   under the same labels.
//! - The maps of a version that is ended stay until what is in its ring and its counters was told.

use std::cell::Cell;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use libbpf_rs::skel::{OpenSkel, Skel};
use libbpf_rs::{Link, MapCore, MapFlags, MapHandle, RingBufferBuilder};

use crate::counters::Counters;
use crate::enforcer::ITERATORS;
use crate::error::BpfError;
use crate::event::Events;
use crate::image::image_map;
use crate::skeleton::{ArmorSkel, OpenArmorSkel};

/// What is pinned belongs to exactly one object.
pub(crate) const VERSION: &str = concat!(env!("ARMOR_ABI_HASH"), "-", env!("ARMOR_OBJECT_HASH"));
/// What a version's name begins with whose events and counters this one can read.
const SAME_ABI: &str = concat!(env!("ARMOR_ABI_HASH"), "-");
/// What the name of one begins with that is still being made, or whose maker was killed.
const HALF_MADE: &str = "new-";
/// Who is in which domain. A new version goes on with it, as long as keys and values have the same size.
const LABELS: [&str; 3] = ["labels", "containers", "entrances"];

/// Pins every map and link below `directory/VERSION`, which appears complete or not at all.
pub(crate) fn pin(
    skeleton: &mut ArmorSkel<'_>,
    links: &mut [(OsString, Link)],
    directory: &Path,
) -> Result<(), BpfError> {
    let new = directory.join(format!("{HALF_MADE}{VERSION}"));
    if new.is_dir() {
        remove(&new)?;
    }
    for folder in ["maps", "programs", "links"] {
        let folder = new.join(folder);
        fs::create_dir_all(&folder).map_err(|source| pin_error(&folder, source))?;
    }
    for map in skeleton.object().maps() {
        // libbpf's own maps of .rodata and .bss hold nothing that another process needs.
        if map.name().as_encoded_bytes().contains(&b'.') {
            continue;
        }
        let path = new.join("maps").join(map.name());
        let mut map =
            MapHandle::try_from(&map).map_err(|source| pin_error(&path, io::Error::other(source)))?;
        map.pin(&path).map_err(|source| pin_error(&path, io::Error::other(source)))?;
    }
    for mut program in skeleton.object_mut().progs_mut() {
        if ITERATORS.iter().any(|iterator| program.name() == *iterator) {
            let path = new.join("programs").join(program.name());
            program.pin(&path).map_err(|source| pin_error(&path, io::Error::other(source)))?;
        }
    }
    for (name, link) in links {
        let path = new.join("links").join(name);
        link.pin(&path).map_err(|source| pin_error(&path, io::Error::other(source)))?;
    }
    let complete = directory.join(VERSION);
    fs::rename(&new, &complete).map_err(|source| pin_error(&complete, source))
}

/// Has the object use the labels of another version instead of making its own: a task that was put into a domain stays there.
pub(crate) fn go_on_with_labels(skeleton: &mut OpenArmorSkel<'_>, directory: &Path) -> Result<(), BpfError> {
    for version in other_versions(directory)? {
        if name_begins(&version, HALF_MADE) {
            continue;
        }
        for mut map in skeleton.open_object_mut().maps_mut() {
            let path = version.join("maps").join(map.name());
            if !LABELS.iter().any(|name| map.name() == *name) || !path.exists() {
                continue;
            }
            let failed = |source| pin_error(&path, io::Error::other(source));
            let pinned = MapHandle::from_pinned_path(&path).map_err(failed)?;
            let alike = (pinned.map_type(), pinned.key_size(), pinned.value_size())
                == (map.map_type(), map.key_size(), map.value_size());
            if alike {
                map.reuse_fd(pinned.as_fd()).map_err(failed)?;
            }
        }
    }
    Ok(())
}

/// Ends the programs of other versions.
pub(crate) fn end_other_versions(directory: &Path) -> Result<(), BpfError> {
    other_versions(directory)?.iter().try_for_each(|version| remove_folder(&version.join("links")))
}

/// What other versions, whose programs are ended, have left to be told.
pub(crate) fn leftovers(directory: &Path) -> Result<Vec<Leftover>, BpfError> {
    let ended = other_versions(directory)?.into_iter().filter(|version| !version.join("links").exists());
    Ok(ended.map(|version| Leftover { version }).collect())
}

/// What another version has left: events that nobody read, and counters.
pub struct Leftover {
    version: PathBuf,
}

impl Leftover {
    /// The reading end of its ring; `None` where this version cannot read what is in it.
    pub fn events(&self) -> Result<Option<Events>, BpfError> {
        self.readable("events")?.map(Events::new).transpose()
    }

    /// What its programs counted; `None` where this version cannot read that.
    pub fn counters(&self) -> Result<Option<Counters>, BpfError> {
        self.readable("counters")?.map(|map| Counters::read(&map)).transpose()
    }

    /// How many events nobody read, and takes them out of the ring.
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

    /// Removes it: all was told.
    pub fn remove(self) -> Result<(), BpfError> {
        remove(&self.version)
    }

    fn readable(&self, name: &'static str) -> Result<Option<MapHandle>, BpfError> {
        if name_begins(&self.version, SAME_ABI) { self.map(name) } else { Ok(None) }
    }

    fn map(&self, name: &'static str) -> Result<Option<MapHandle>, BpfError> {
        let path = self.version.join("maps").join(name);
        let open = || MapHandle::from_pinned_path(&path);
        path.exists().then(open).transpose().map_err(|source| BpfError::Map { map: name, source })
    }
}

/// Ends enforcement: removes all that is pinned below a directory. False when nothing was.
pub fn detach(directory: &Path) -> Result<bool, BpfError> {
    if !directory.is_dir() {
        return Ok(false);
    }
    let pins = entries(directory)?;
    for entry in &pins {
        lift(entry)?;
        remove(entry)?;
    }
    fs::remove_dir(directory).map_err(|source| pin_error(directory, source))?;
    Ok(!pins.is_empty())
}

/// Makes a generation without rules live: programs whose last pin is gone run on until the kernel gets round to them.
fn lift(version: &Path) -> Result<(), BpfError> {
    let pin = version.join("maps").join("live");
    if !pin.exists() {
        return Ok(());
    }
    let nothing = || {
        let (live, image) = (MapHandle::from_pinned_path(&pin)?, image_map(&[0])?);
        live.update(&0u32.to_ne_bytes(), &image.as_fd().as_raw_fd().to_ne_bytes(), MapFlags::ANY)
    };
    nothing().map_err(|source| BpfError::Map { map: "live", source })
}

/// Removes a version. Links first: without them the programs end, and then nobody needs the maps.
pub(crate) fn remove(version: &Path) -> Result<(), BpfError> {
    for folder in ["links", "programs", "maps"] {
        remove_folder(&version.join(folder))?;
    }
    fs::remove_dir(version).map_err(|source| pin_error(version, source))
}

fn remove_folder(folder: &Path) -> Result<(), BpfError> {
    if !folder.is_dir() {
        return Ok(());
    }
    for pin in entries(folder)? {
        fs::remove_file(&pin).map_err(|source| pin_error(&pin, source))?;
    }
    fs::remove_dir(folder).map_err(|source| pin_error(folder, source))
}

/// Versions that are not this one, those half made among them.
fn other_versions(directory: &Path) -> Result<Vec<PathBuf>, BpfError> {
    Ok(entries(directory)?.into_iter().filter(|entry| !entry.ends_with(VERSION)).collect())
}

fn name_begins(version: &Path, with: &str) -> bool {
    version.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(with.as_bytes()))
}

fn entries(directory: &Path) -> Result<Vec<PathBuf>, BpfError> {
    let read = || fs::read_dir(directory)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>();
    read().map_err(|source| pin_error(directory, source))
}

pub(crate) fn pin_error(path: &Path, source: io::Error) -> BpfError {
    BpfError::Pin { path: path.to_owned(), source }
}
