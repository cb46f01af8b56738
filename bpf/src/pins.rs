//! Keeps enforcement running when the agent ends, by pins in a directory on a bpf filesystem.
//!
//! ```text
//! DIRECTORY/<abi>-<object>/links/      the link of each program of a hook, named after the program
//! DIRECTORY/<abi>-<object>/judges/     for each program that calls judge(), the link of its replacement
//! DIRECTORY/<abi>-<object>/programs/   each iterator program, which has no link while no agent runs
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

use std::cell::Cell;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use armor_policy::escaped_path;
use libbpf_rs::skel::{OpenSkel, Skel};
use libbpf_rs::{Link, MapCore, MapFlags, MapHandle, Program, RingBufferBuilder};

use crate::counters::Counters;
use crate::enforcer::{ITERATORS, SETTLE};
use crate::error::BpfError;
use crate::event::Events;
use crate::image::image_map;
use crate::iterator::{Iterator, pinned_program};
use crate::judge::Function;
use crate::skeleton::{ArmorSkel, OpenArmorSkel};

/// Name of this version. It stands for exactly one object.
pub(crate) const VERSION: &str = concat!(env!("ARMOR_ABI_HASH"), "-", env!("ARMOR_OBJECT_HASH"));
/// Prefix of the versions whose events and counters this one can read.
const SAME_ABI: &str = concat!(env!("ARMOR_ABI_HASH"), "-");
/// Prefix of a version that is still being made, or whose maker was killed.
const HALF_MADE: &str = "new-";
/// Digits of each of the two hashes in a version's name.
const HASH_DIGITS: usize = 16;
/// Maximum number of versions that are set aside at a time.
const MAX_ASIDE: usize = 16;
/// `BPF_FS_MAGIC`, include/uapi/linux/magic.h.
const BPF_FS_MAGIC: u64 = 0xcafe_4a11;
/// Maps that say which task and which container is in which domain. A new version goes on using them, as long
/// as type, key size and value size are the same.
const LABELS: [&str; 3] = ["labels", "containers", "entrances"];

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
    for directory in ["maps", "programs", "judges", "links"] {
        let directory = new.join(directory);
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
        if ITERATORS.iter().any(|iterator| program.name() == *iterator) {
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
    let complete = directory.join(VERSION);
    fs::rename(&new, &complete).map_err(|source| pin_error(&complete, source))
}

/// Returns whether everything that enforces is pinned in a version's directory: the links of these programs,
/// a judge's link for each of them that calls it, and the iterators.
pub(crate) fn are_whole(pins: &Path, programs: &[OsString]) -> Result<bool, BpfError> {
    let mut function = None;
    for name in programs {
        let path = pins.join("links").join(name);
        if !path.exists() {
            return Ok(false);
        }
        let open = || Program::fd_from_id(Link::open(&path)?.info()?.prog_id);
        let program = open().map_err(|source| pin_error(&path, io::Error::other(source)))?;
        let function = match &function {
            Some(function) => function,
            None => function.insert(Function::of(program.as_fd())?),
        };
        if function.is_called_by(program.as_fd())? && !pins.join("judges").join(name).exists() {
            return Ok(false);
        }
    }
    Ok(ITERATORS.iter().all(|iterator| pins.join("programs").join(iterator).exists()))
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
            tracing::warn!("{}: removed with what was not told of it yet", escaped_path(&lowest));
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
        let run = || io::copy(&mut Iterator::of(pinned_program(&pin)?.as_fd())?.start()?, &mut io::sink());
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
        if name_begins(&self.version, SAME_ABI) { self.map(name) } else { Ok(None) }
    }

    fn map(&self, name: &'static str) -> Result<Option<MapHandle>, BpfError> {
        let path = self.version.join("maps").join(name);
        let open = || MapHandle::from_pinned_path(&path);
        path.exists().then(open).transpose().map_err(|source| BpfError::Map { map: name, source })
    }
}

/// A `Detached` says what [`detach`] did.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Detached {
    /// True if programs were pinned.
    pub ended: bool,
    /// Entries that are not ours. If there are any, the directory stays too.
    pub left: Vec<PathBuf>,
}

/// Ends enforcement: removes all our pins below a directory, and the directory itself if nothing is left in
/// it.
///
/// # Errors
/// Fails with [`BpfError::NoBpfFilesystem`] or [`BpfError::NotDirectory`] before anything is removed, and
/// with [`BpfError::Pin`] or [`BpfError::Map`] if something cannot be removed.
pub fn detach(directory: &Path) -> Result<Detached, BpfError> {
    match fs::symlink_metadata(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Detached::default()),
        _ if !directory.is_dir() => return Err(BpfError::NotDirectory { path: directory.to_owned() }),
        _ => {}
    }
    require_bpffs(directory)?;
    remove_versions(directory)
}

fn remove_versions(directory: &Path) -> Result<Detached, BpfError> {
    let mut done = Detached::default();
    for entry in entries(directory)? {
        if is_version(&entry) {
            lift(&entry)?;
            done.ended |= is_attached(&entry);
            done.left.extend(remove_ours(&entry)?);
        } else {
            done.left.push(entry);
        }
    }
    if done.left.is_empty() {
        fs::remove_dir(directory).map_err(|source| pin_error(directory, source))?;
    }
    Ok(done)
}

/// Returns whether programs are pinned below a directory, and so enforce without an agent.
pub fn is_pinned(directory: &Path) -> bool {
    require_bpffs(directory).is_ok() && has_attached(directory)
}

fn has_attached(directory: &Path) -> bool {
    let is_ours = |entry: &PathBuf| is_version(entry) && is_attached(entry);
    entries(directory).is_ok_and(|entries| entries.iter().any(is_ours))
}

/// Returns whether links are pinned in a version's directory.
fn is_attached(version: &Path) -> bool {
    let links = version.join("links");
    is_directory(&links) && entries(&links).is_ok_and(|links| links.iter().any(|link| !is_directory(link)))
}

/// Returns whether a directory cannot be created on a bpf filesystem because of a dot, which names there
/// cannot have, in its own name or in that of a parent that does not exist yet.
pub fn cannot_be_made(directory: &Path) -> bool {
    let missing = directory.ancestors().take_while(|ancestor| !ancestor.exists());
    missing.filter_map(Path::file_name).any(|name| name.as_encoded_bytes().contains(&b'.'))
}

/// Checks that `directory`, or the nearest parent that exists, is on a bpf filesystem.
///
/// # Errors
/// Fails with [`BpfError::NoBpfFilesystem`] if it is not, and with [`BpfError::Pin`] if that cannot be found
/// out.
pub fn require_bpffs(directory: &Path) -> Result<(), BpfError> {
    let there = directory.ancestors().find(|ancestor| ancestor.exists()).unwrap_or(Path::new("/"));
    let found = rustix::fs::statfs(there).map_err(|error| pin_error(there, error.into()))?;
    if found.f_type as u64 == BPF_FS_MAGIC {
        return Ok(());
    }
    Err(BpfError::NoBpfFilesystem { path: directory.to_owned() })
}

/// Makes a generation without rules live, since programs whose last pin is gone run on until the kernel ends
/// them.
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

/// Removes a version, and warns of entries that are not ours.
pub(crate) fn remove(version: &Path) -> Result<(), BpfError> {
    remove_ours(version).map(|left| {
        left.iter().for_each(|path| tracing::warn!("{}: not the agent's, left there", escaped_path(path)));
    })
}

/// Removes a version, and returns the entries that no agent made. Links go first: without them the programs
/// end, and the rest is no longer needed. A program that ran on without its judge would refuse everything.
fn remove_ours(version: &Path) -> Result<Vec<PathBuf>, BpfError> {
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

/// Returns whether a path is a directory. A symlink to one does not count, since it may lead anywhere.
fn is_directory(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| found.is_dir())
}

/// Returns the versions other than this one, including incomplete ones.
fn other_versions(directory: &Path) -> Result<Vec<PathBuf>, BpfError> {
    Ok(entries(directory)?
        .into_iter()
        .filter(|entry| is_version(entry) && !entry.ends_with(VERSION))
        .collect())
}

/// Returns whether a directory is named as [`pin`] names those that it makes: two hashes, perhaps with the
/// prefix of an incomplete one.
fn is_version(path: &Path) -> bool {
    let is_hash =
        |text: &str| text.len() == HASH_DIGITS && text.bytes().all(|digit| digit.is_ascii_hexdigit());
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let version = name.strip_prefix(HALF_MADE).unwrap_or(name);
    version.split_once('-').is_some_and(|(abi, object)| is_hash(abi) && is_hash(object)) && is_directory(path)
}

fn name_begins(version: &Path, with: &str) -> bool {
    version.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(with.as_bytes()))
}

pub(crate) fn entries(directory: &Path) -> Result<Vec<PathBuf>, BpfError> {
    let read = || fs::read_dir(directory)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>();
    read().map_err(|source| pin_error(directory, source))
}

pub(crate) fn pin_error(path: &Path, source: io::Error) -> BpfError {
    BpfError::Pin { path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Creates files that stand for pins. `maps/live` is left out, since only a real pin works there.
    fn make(directory: &Path, files: &[&str]) {
        for file in files {
            let path = directory.join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
    }

    #[test]
    fn only_what_is_named_as_a_version_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let pins = dir.path().join("pins");
        let half_made = format!("{HALF_MADE}{VERSION}");
        make(&pins, &[&format!("{VERSION}/links/file_open"), &format!("{VERSION}/maps/labels")]);
        make(&pins, &["0123456789abcdef-0123456789abcdef/links/old", &format!("{half_made}/maps/live2")]);
        assert!(has_attached(&pins) && !is_pinned(&pins), "it is on no bpf filesystem");
        let others =
            ["cilium/links/theirs", "abc-def/links/theirs", "file", "0123456789abcdef-0123456789abcdeg/x"];
        make(&pins, &others);
        let mut done = remove_versions(&pins).unwrap();
        done.left.sort();
        let mut left: Vec<PathBuf> =
            others.iter().map(|path| pins.join(Path::new(path).iter().next().unwrap())).collect();
        left.sort();
        assert_eq!(done, Detached { ended: true, left });
        for other in others {
            assert!(pins.join(other).is_file(), "{other}");
        }
        assert_eq!(entries(&pins).unwrap().len(), others.len());
        assert!(!has_attached(&pins) && !remove_versions(&pins).unwrap().ended);
    }

    #[test]
    fn nothing_is_attached_by_directories_alone() {
        let dir = tempfile::tempdir().unwrap();
        let pins = dir.path().join("pins");
        for directory in ["links", "links/mine", "maps"] {
            fs::create_dir_all(pins.join(VERSION).join(directory)).unwrap();
        }
        assert!(!has_attached(&pins));
        let left = vec![pins.join(VERSION).join("links/mine")];
        make(&pins, &[&format!("{VERSION}/links/file_open")]);
        assert_eq!(remove_versions(&pins).unwrap(), Detached { ended: true, left: left.clone() });
        assert_eq!(remove_versions(&pins).unwrap(), Detached { ended: false, left }, "it ended before");
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

    #[test]
    fn what_is_no_directory_is_no_place_for_pins() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("file"), "").unwrap();
        std::os::unix::fs::symlink("nowhere", at("dangling")).unwrap();
        for name in ["file", "dangling", "file/below"] {
            let error = detach(&at(name)).unwrap_err();
            assert!(matches!(error, BpfError::NotDirectory { .. }), "{name}: {error}");
        }
        assert_eq!(detach(&at("missing")).unwrap(), Detached::default());
    }

    #[test]
    fn names_with_dots_can_be_there_and_cannot_be_made() {
        let dir = tempfile::tempdir().unwrap();
        let there = dir.path().join("a.b");
        fs::create_dir(&there).unwrap();
        for (name, cannot) in [("", false), ("pins", false), ("p/q", false), ("p.q", true), ("p.q/r", true)] {
            assert_eq!(cannot_be_made(&there.join(name)), cannot, "{name}");
        }
    }

    #[test]
    fn what_somebody_put_into_a_version_is_left_and_named() {
        let dir = tempfile::tempdir().unwrap();
        let version = dir.path().join(VERSION);
        make(&version, &["links/file_open", "links/mine/file", "maps/labels", "notes"]);
        std::os::unix::fs::symlink("/", version.join("etc")).unwrap();
        let mut left = remove_versions(dir.path()).unwrap().left;
        left.sort();
        assert_eq!(left, ["etc", "links/mine", "notes"].map(|name| version.join(name)));
        assert!(version.join("links/mine/file").is_file() && !version.join("maps").exists());
    }

    #[test]
    fn nothing_is_left_of_what_is_all_ours() {
        let dir = tempfile::tempdir().unwrap();
        let pins = dir.path().join("pins");
        make(&pins, &[&format!("{VERSION}/links/file_open"), &format!("{VERSION}/maps/labels")]);
        assert_eq!(remove_versions(&pins).unwrap(), Detached { ended: true, left: Vec::new() });
        assert!(!pins.exists());
    }

    #[test]
    fn a_directory_elsewhere_is_refused_and_stays_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let pins = dir.path().join("a/b");
        let refused = |result: Result<(), BpfError>| {
            let said = result.unwrap_err().to_string();
            assert!(said.contains("a/b") && said.contains("no bpf filesystem"), "{said}");
        };
        refused(require_bpffs(&pins));
        assert!(!dir.path().join("a").exists());
        make(&pins, &[&format!("{VERSION}/links/file_open")]);
        refused(detach(&pins).map(|_| ()));
        assert!(pins.join(VERSION).join("links/file_open").is_file());
    }
}
