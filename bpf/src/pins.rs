//! Keeps enforcement running when the agent ends, by pins in a directory on a bpf filesystem.
//!
//! ```text
//! DIRECTORY/<abi>-<object>/links/      the link of each attached program of a hook, named after the program; `syscall-` and
//!                                      the function, for each function that the one for system calls is attached to
//! DIRECTORY/<abi>-<object>/judges/     for each program that calls judge(), the link of its replacement
//! DIRECTORY/<abi>-<object>/programs/   each program that is not always attached: iterators, and those on demand
//! DIRECTORY/<abi>-<object>/maps/       every map
//! ```
//!
//! Invariants:
//! - `DIRECTORY/<version>` exists only complete: pins are made in a directory beside it, which is then
//!   renamed (bpffs allows no dots in names). Its name consists of hashes of `core/contract.h` and of the
//!   object (`build.rs`), so an agent takes over exactly what it would have loaded.
//! - The programs of another version are ended only after this version's first generation is live. Until then
//!   both enforce, with the same labels.
//! - The maps of an ended version stay until the events in its ring buffer and its counters are reported.
//! - A version that lacks a pin is not taken over: it enforces less than it seems to, or, without a judge,
//!   refuses everything.
//! - An entry with any other name is somebody else's, and stays as it is.
//! - Nothing is created on any other filesystem.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use armor_policy::escaped_path;
use libbpf_rs::skel::{OpenSkel, Skel};
use libbpf_rs::{Link, MapCore, MapFlags, MapHandle};

use crate::bpffs::{entries, is_directory};
use crate::enforcer::is_on_demand;
use crate::error::{BpfError, pin_error};
use crate::iterator::ITERATORS;
use crate::skeleton::{ArmorSkel, OpenArmorSkel};

/// Name of this version. It stands for exactly one object.
pub(crate) const VERSION: &str = concat!(env!("ARMOR_ABI_HASH"), "-", env!("ARMOR_OBJECT_HASH"));
/// Prefix of the versions whose events and counters this one can read.
const SAME_ABI: &str = concat!(env!("ARMOR_ABI_HASH"), "-");
/// Prefix of a version that is still being made, or whose maker was killed.
pub(crate) const HALF_MADE: &str = "new-";
/// Digits of each of the two hashes in a version's name.
const HASH_DIGITS: usize = 16;
/// Maximum number of versions that are set aside at a time.
const MAX_ASIDE: usize = 16;
/// The directories of a version.
const PARTS: [&str; 4] = ["maps", "programs", "judges", "links"];
/// The map with the digest of the pins' names.
const PINNED: &str = "pinned";
/// Maps that say which task and which container is in which domain. A new version goes on using them, as long
/// as type, key size and value size are the same.
const LABELS: [&str; 4] = ["labels", "containers", "entrances", "bounding_sets"];

/// Pins every map, link and iterator below `directory/VERSION`, which appears complete or not at all.
pub(crate) fn pin(
    skeleton: &mut ArmorSkel<'_>,
    links: &mut [(OsString, Link)],
    judges: &mut [(OsString, Link)],
    directory: &Path,
) -> Result<(), BpfError> {
    let new = directory.join(format!("{HALF_MADE}{VERSION}"));
    if new.is_dir() {
        remove(&new)?;
    }
    for part in PARTS {
        let directory = new.join(part);
        fs::create_dir_all(&directory).map_err(|source| pin_error(&directory, source))?;
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
        if ITERATORS.iter().any(|iterator| program.name() == *iterator) || is_on_demand(program.name()) {
            let path = new.join("programs").join(program.name());
            program.pin(&path).map_err(|source| pin_error(&path, io::Error::other(source)))?;
        }
    }
    for (directory, links) in [("judges", judges), ("links", links)] {
        for (name, link) in links {
            let path = new.join(directory).join(name);
            link.pin(&path).map_err(|source| pin_error(&path, io::Error::other(source)))?;
        }
    }
    seal(&new)?;
    let complete = directory.join(VERSION);
    fs::rename(&new, &complete).map_err(|source| pin_error(&complete, source))
}

/// Notes which pins there are below a version's directory.
pub(crate) fn seal(pins: &Path) -> Result<(), BpfError> {
    let digest = digest(pins)?.to_ne_bytes();
    let noted = MapHandle::from_pinned_path(pins.join("maps").join(PINNED))
        .and_then(|map| map.update(&0u32.to_ne_bytes(), &digest, MapFlags::ANY));
    noted.map_err(|source| BpfError::Map { map: PINNED, source })
}

/// Returns whether all pins that [`seal`] noted are still there, and no others.
pub(crate) fn are_whole(pins: &Path) -> Result<bool, BpfError> {
    let path = pins.join("maps").join(PINNED);
    if !path.exists() || PARTS.iter().any(|part| !is_directory(&pins.join(part))) {
        return Ok(false);
    }
    let noted =
        MapHandle::from_pinned_path(&path).and_then(|map| map.lookup(&0u32.to_ne_bytes(), MapFlags::ANY));
    let noted = noted.map_err(|source| BpfError::Map { map: PINNED, source })?;
    Ok(noted == Some(digest(pins)?.to_ne_bytes().to_vec()))
}

/// Returns a digest of the names of all pins.
fn digest(pins: &Path) -> Result<u64, BpfError> {
    let mut hasher = DefaultHasher::new();
    for part in PARTS {
        let entries = entries(&pins.join(part))?;
        let mut names: Vec<&OsStr> = entries.iter().filter_map(|pin| pin.file_name()).collect();
        names.sort_unstable();
        names.hash(&mut hasher);
    }
    Ok(hasher.finish())
}

/// Renames this version's directory to that of another version, whose labels the next one goes on using.
/// Versions that were set aside before stay until they are reported; if there are too many, the lowest is
/// removed.
pub(crate) fn set_aside(directory: &Path) -> Result<(), BpfError> {
    let named = |number: usize| directory.join(format!("{SAME_ABI}{number:0HASH_DIGITS$x}"));
    let aside = match (0..MAX_ASIDE).map(named).find(|version| !version.is_dir()) {
        Some(free) => free,
        None => {
            let lowest = named(0);
            tracing::warn!("{}: removed with what was not reported of it yet", escaped_path(&lowest));
            remove(&lowest)?;
            lowest
        }
    };
    fs::rename(directory.join(VERSION), &aside).map_err(|source| pin_error(&aside, source))
}

/// Makes the object use the labels of another version instead of its own, so that tasks stay in their
/// domains.
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
    other_versions(directory)?
        .iter()
        .try_for_each(|version| remove_directory(&version.join("links")).map(drop))
}

/// Removes a version, and warns of entries that are not ours.
pub(crate) fn remove(version: &Path) -> Result<(), BpfError> {
    remove_ours(version).map(|left| {
        left.iter().for_each(|path| tracing::warn!("{}: not the agent's, left there", escaped_path(path)));
    })
}

/// Removes a version, and returns the entries that no agent made. Links go first: without them the programs
/// end, and the rest is no longer needed. A program that ran on without its judge would refuse everything.
pub(crate) fn remove_ours(version: &Path) -> Result<Vec<PathBuf>, BpfError> {
    let mut left = remove_directory(&version.join("links"))?;
    for directory in ["judges", "programs", "maps"] {
        left.extend(remove_directory(&version.join(directory))?);
    }
    for entry in entries(version)? {
        if !left.iter().any(|known| known.starts_with(&entry)) {
            left.push(entry);
        }
    }
    if left.is_empty() {
        fs::remove_dir(version).map_err(|source| pin_error(version, source))?;
    }
    Ok(left)
}

/// Removes a directory of pins, and returns the subdirectories in it, which are not ours.
fn remove_directory(directory: &Path) -> Result<Vec<PathBuf>, BpfError> {
    if !is_directory(directory) {
        return Ok(Vec::new());
    }
    let mut left = Vec::new();
    for pin in entries(directory)? {
        if is_directory(&pin) {
            left.push(pin);
        } else {
            fs::remove_file(&pin).map_err(|source| pin_error(&pin, source))?;
        }
    }
    if left.is_empty() {
        fs::remove_dir(directory).map_err(|source| pin_error(directory, source))?;
    }
    Ok(left)
}

/// Returns the versions other than this one, including incomplete ones.
pub(crate) fn other_versions(directory: &Path) -> Result<Vec<PathBuf>, BpfError> {
    Ok(entries(directory)?
        .into_iter()
        .filter(|entry| is_version(entry) && !entry.ends_with(VERSION))
        .collect())
}

/// Returns whether a directory is named as [`pin`] names those that it makes: two hashes, perhaps with the
/// prefix of an incomplete one.
pub(crate) fn is_version(path: &Path) -> bool {
    let is_hash =
        |text: &str| text.len() == HASH_DIGITS && text.bytes().all(|digit| digit.is_ascii_hexdigit());
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let version = name.strip_prefix(HALF_MADE).unwrap_or(name);
    version.split_once('-').is_some_and(|(abi, object)| is_hash(abi) && is_hash(object)) && is_directory(path)
}

/// Returns whether this version can read the events and counters of another one.
pub(crate) fn has_same_abi(version: &Path) -> bool {
    name_begins(version, SAME_ABI)
}

fn name_begins(version: &Path, with: &str) -> bool {
    version.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(with.as_bytes()))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Creates files that stand for pins. `maps/live` is left out, since only a real pin works there.
    pub(crate) fn make(directory: &Path, files: &[&str]) {
        for file in files {
            let path = directory.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
    }

    #[test]
    fn what_is_set_aside_stays_beside_what_was_before() {
        let dir = tempfile::tempdir().unwrap();
        let set_aside = |number: usize| {
            make(dir.path(), &[&format!("{VERSION}/maps/{number}")]);
            super::set_aside(dir.path()).unwrap();
        };
        let kept = || {
            let maps = other_versions(dir.path()).unwrap().into_iter().map(|version| version.join("maps"));
            let mut kept: Vec<usize> = maps
                .flat_map(|maps| entries(&maps).unwrap())
                .map(|map| map.file_name().unwrap().to_str().unwrap().parse().unwrap())
                .collect();
            kept.sort_unstable();
            kept
        };
        (0..MAX_ASIDE).for_each(set_aside);
        assert_eq!(kept(), (0..MAX_ASIDE).collect::<Vec<_>>());
        set_aside(MAX_ASIDE);
        assert_eq!(kept(), (1..=MAX_ASIDE).collect::<Vec<_>>(), "the lowest went");
    }
}
