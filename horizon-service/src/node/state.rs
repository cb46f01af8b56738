//! Stores what the node must remember in the state directory: bundles, their floor, and containers.
//!
//! ```text
//! <state>/lock                 locked by the running agent (`base::lock`)
//! <state>/node.key             the node's Ed25519 key (`delivery::node_key`)
//! <state>/floor.json           last accepted serial and digest by bundle name; key changes not applied yet
//! <state>/bundles/<name>/      of each name: `current`, the bundle accepted last (a line of JSON, then its bytes),
//!                              and `previous`, the one before
//! <state>/generations/<n>.json names of the rules of generation n (`events::history`)
//! <state>/containers.json      known containers and the numbers of their domains
//! <state>/counters.json        totals already reported (`events::history`)
//! <state>/services.json        Horizon services that containers belong to (`workloads::services`)
//! <state>/spool/               the spool (`delivery::spool`)
//! ```
//!
//! Invariants:
//! - Every file is replaced as a whole: after a crash it is the old or the new one.
//! - A bundle is written before the floor, and the floor keeps the bundle's key changes until they are
//!   applied. So an interrupted acceptance is completed at the next start and never left half done.
//! - An unreadable file is reported and moved aside, and the rest is kept. A damaged current bundle falls
//!   back to the previous one of its name, a damaged floor to the serials of the stored bundles.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use armor_base::name::check_name;
use armor_base::replace::sync_dir;
use armor_bundle::trust::TrustChanges;
use armor_bundle::{Accepted, MAX_BUNDLE, SerialFloor, VerifiedBundle, reopen};
use armor_policy::escaped_path;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::base::disk::{DiskError, read_file, read_json, replace, to_json};
use crate::workloads::workload::Workload;

const FLOOR_FORMAT: &str = "horizon-armor.floor/1";
const BUNDLE_FORMAT: &str = "horizon-armor.stored-bundle/1";
const CONTAINERS_FORMAT: &str = "horizon-armor.containers/1";
/// Maximum size of [`StoredHead`] as JSON, in bytes.
const MAX_HEAD: usize = 4 << 10;

/// `StoredHead` is the first line of a stored bundle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct StoredHead {
    format: String,
    digest: String,
    accepted: Timestamp,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Floor {
    format: String,
    bundles: SerialFloor,
    /// Key changes of accepted bundles that are not applied yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pending_trust: Vec<TrustChanges>,
}

#[derive(Serialize, Deserialize)]
struct ContainersFile {
    format: String,
    containers: Vec<(u32, Arc<Workload>)>,
}

/// `State` is the state directory, without what has modules of its own.
pub struct State {
    dir: PathBuf,
    floor: Floor,
    /// Names of the bundles whose `current` is readable, and so may become `previous`.
    current_reads: BTreeSet<String>,
    /// Names whose `current` was not readable, each with the reason.
    damaged: BTreeMap<String, String>,
}

impl State {
    /// Opens the directory, creating it if needed, and reads the bundles accepted last, one of each name, ordered
    /// by the time of acceptance, the last one first. Unreadable files are moved aside and returned as problems.
    ///
    /// # Errors
    /// Fails with [`DiskError::Io`] if the directory cannot be used at all.
    pub fn open(dir: &Path) -> Result<(Self, Vec<VerifiedBundle>, Vec<DiskError>), DiskError> {
        for part in ["", "bundles", "generations", "spool"] {
            make_dir(&dir.join(part))?;
        }
        let mut problems = Vec::new();
        problems.extend(move_unnamed(&dir.join("bundles")));
        let (mut stored, mut damaged) = (Vec::new(), BTreeMap::new());
        let mut current_reads = BTreeSet::new();
        for name in names(&dir.join("bundles"))? {
            // The previous one is read, and in memory, only if it is needed.
            for file in ["current", "previous"] {
                let path = dir.join("bundles").join(&name).join(file);
                match read_bundle(&path, &name) {
                    Ok(None) => {}
                    Ok(Some(found)) => {
                        if file == "current" {
                            current_reads.insert(name.clone());
                        }
                        stored.push(found);
                        break;
                    }
                    Err(problem) => {
                        move_aside(&path);
                        damaged.insert(name.clone(), problem.to_string());
                        problems.push(problem);
                    }
                }
            }
        }
        stored.sort_by_key(|(_, accepted)| Reverse(*accepted));
        let path = dir.join("floor.json");
        let floor = match read_json::<Floor>(&path, |floor| &floor.format, FLOOR_FORMAT) {
            Ok(floor) => floor.unwrap_or_default(),
            Err(problem) => {
                move_aside(&path);
                problems.push(problem);
                Floor::default()
            }
        };
        let mut state = Self { dir: dir.to_owned(), floor, current_reads, damaged };
        // The agent ended while it was accepting a bundle above the floor, or the floor was lost.
        for (bundle, _) in &stored {
            let known = state.floor.bundles.get(&bundle.payload.name).map_or(0, |accepted| accepted.serial);
            if bundle.payload.serial > known {
                state.raise_floor(bundle)?;
            }
        }
        Ok((state, stored.into_iter().map(|(bundle, _)| bundle).collect(), problems))
    }

    /// Returns what serials are judged by: the last accepted serial of each bundle name. Where that bundle could
    /// not be read again, it is acceptable once more.
    pub fn floor(&self) -> SerialFloor {
        let mut floor = self.floor.bundles.clone();
        for name in self.damaged.keys() {
            if let Some(accepted) = floor.get_mut(name) {
                *accepted = Accepted { serial: accepted.serial.saturating_sub(1), digest: String::new() };
            }
        }
        floor
    }

    /// Returns the names of which the bundle accepted last cannot be read, each with the reason.
    pub fn damaged(&self) -> &BTreeMap<String, String> {
        &self.damaged
    }

    /// Stores an accepted bundle durably; from now on it is in force after a restart.
    ///
    /// # Errors
    /// Fails with [`DiskError::Io`] if a file cannot be written. After a restart the previous bundle is in
    /// force then, or this one if only the floor failed.
    pub fn store(
        &mut self,
        bytes: &[u8],
        bundle: &VerifiedBundle,
        accepted: Timestamp,
    ) -> Result<(), DiskError> {
        let name = &bundle.payload.name;
        let bundles = self.dir.join("bundles");
        let dir = bundles.join(name);
        make_dir(&dir)?;
        sync_dir(&bundles).map_err(|error| DiskError::Io { path: bundles, error })?;
        let (current, previous) = (dir.join("current"), dir.join("previous"));
        let head = StoredHead { format: BUNDLE_FORMAT.to_owned(), digest: bundle.digest.clone(), accepted };
        let mut content = to_json(&current, &head)?;
        content.push(b'\n');
        content.extend_from_slice(bytes);
        if self.current_reads.contains(name) {
            // Link and rename, so that a current file exists at every moment.
            let link = dir.join("previous.new");
            let _ = fs::remove_file(&link);
            fs::hard_link(&current, &link)
                .and_then(|()| fs::rename(&link, &previous))
                .map_err(|error| DiskError::Io { path: previous, error })?;
        }
        replace(&current, &content)?;
        self.current_reads.insert(name.clone());
        self.damaged.remove(name);
        self.raise_floor(bundle)
    }

    /// Removes the bundle of a name. Its serial stays.
    pub fn forget(&mut self, name: &str) {
        let dir = self.dir.join("bundles").join(name);
        // The previous one first: without the current one it would be in force again.
        let _ = fs::remove_file(dir.join("previous"));
        if let Err(error) = fs::remove_dir_all(&dir) {
            tracing::warn!("{}: {error}: the bundle comes back with the next start", escaped_path(&dir));
        }
        self.current_reads.remove(name);
    }

    /// Raises the floor to a bundle and adds its key changes.
    fn raise_floor(&mut self, bundle: &VerifiedBundle) -> Result<(), DiskError> {
        let accepted = Accepted { serial: bundle.payload.serial, digest: bundle.digest.clone() };
        let mut floor = self.floor.clone();
        floor.bundles.insert(bundle.payload.name.clone(), accepted);
        if !bundle.payload.trust.is_empty() {
            floor.pending_trust.push(bundle.payload.trust.clone());
        }
        self.write_floor(floor)
    }

    /// Returns the key changes of accepted bundles that are not applied yet, in order.
    pub fn pending_trust(&self) -> &[TrustChanges] {
        &self.floor.pending_trust
    }

    /// Records that all key changes are applied.
    ///
    /// # Errors
    /// Fails with [`DiskError::Io`] if the floor cannot be written. They will be applied again, which
    /// changes nothing.
    pub fn trust_is_changed(&mut self) -> Result<(), DiskError> {
        self.write_floor(Floor { pending_trust: Vec::new(), ..self.floor.clone() })
    }

    /// Writes a floor, which counts only once it is on disk.
    fn write_floor(&mut self, mut floor: Floor) -> Result<(), DiskError> {
        floor.format = FLOOR_FORMAT.to_owned();
        let path = self.dir.join("floor.json");
        replace(&path, &to_json(&path, &floor)?)?;
        self.floor = floor;
        Ok(())
    }

    /// Stores the known containers, each with its domain's number.
    ///
    /// # Errors
    /// Fails with [`DiskError::Io`] if the file cannot be written.
    pub fn store_containers(&self, containers: Vec<(u32, Arc<Workload>)>) -> Result<(), DiskError> {
        let path = self.containers_file();
        let file = ContainersFile { format: CONTAINERS_FORMAT.to_owned(), containers };
        replace(&path, &to_json(&path, &file)?)
    }

    /// Returns the stored containers, or none if the file is unreadable.
    pub fn containers(&self) -> Vec<(u32, Arc<Workload>)> {
        let path = self.containers_file();
        let file = read_json::<ContainersFile>(&path, |file| &file.format, CONTAINERS_FORMAT);
        file.unwrap_or_else(|error| {
            tracing::warn!("{error}: containers are under their policies once the runtime names them");
            None
        })
        .map(|file| file.containers)
        .unwrap_or_default()
    }

    fn containers_file(&self) -> PathBuf {
        self.dir.join("containers.json")
    }
}

/// Returns the names of the stored bundles. Other files do not count.
fn names(bundles: &Path) -> Result<Vec<String>, DiskError> {
    let unusable = |error| DiskError::Io { path: bundles.to_owned(), error };
    let mut names = Vec::new();
    for entry in fs::read_dir(bundles).map_err(unusable)? {
        let entry = entry.map_err(unusable)?;
        if entry.file_type().map_err(unusable)?.is_dir() {
            names.extend(entry.file_name().into_string().ok().filter(|name| check_name(name).is_ok()));
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// Moves the bundle that earlier versions stored in `bundles/` itself to the directory of its name. A previous
/// bundle of another name was replaced, and is left where it is. Returns what cannot be read or moved.
fn move_unnamed(bundles: &Path) -> Vec<DiskError> {
    let mut problems = Vec::new();
    let mut moved = None;
    for file in ["current", "previous"] {
        let path = bundles.join(file);
        if !fs::symlink_metadata(&path).is_ok_and(|metadata| !metadata.is_dir()) {
            continue;
        }
        match parse_bundle(&path) {
            Ok(Some((bundle, _))) if moved.as_ref().is_none_or(|moved| *moved == bundle.payload.name) => {
                let dir = bundles.join(&bundle.payload.name);
                let done = make_dir(&dir).and_then(|()| {
                    fs::rename(&path, dir.join(file)).map_err(|error| DiskError::Io { path, error })
                });
                problems.extend(done.err());
                moved = Some(bundle.payload.name);
            }
            Ok(_) => {}
            Err(problem) => {
                move_aside(&path);
                problems.push(problem);
            }
        }
    }
    problems
}

/// Reads a stored bundle, which must have this name, with the time of its acceptance. Returns `None` if there is
/// no file.
fn read_bundle(path: &Path, name: &str) -> Result<Option<(VerifiedBundle, Timestamp)>, DiskError> {
    match parse_bundle(path)? {
        Some((bundle, _)) if bundle.payload.name != name => Err(DiskError::Unreadable {
            path: path.to_owned(),
            reason: format!("it holds the bundle {}", bundle.payload.name),
        }),
        read => Ok(read),
    }
}

fn parse_bundle(path: &Path) -> Result<Option<(VerifiedBundle, Timestamp)>, DiskError> {
    let unreadable = |reason: String| DiskError::Unreadable { path: path.to_owned(), reason };
    let Some(content) = read_file(path, MAX_HEAD + MAX_BUNDLE)? else { return Ok(None) };
    let end = content
        .iter()
        .position(|byte| *byte == b'\n')
        .ok_or_else(|| unreadable("half-written".to_owned()))?;
    let head: StoredHead = serde_json::from_slice(&content[..end]).map_err(|e| unreadable(e.to_string()))?;
    if head.format != BUNDLE_FORMAT {
        return Err(unreadable(format!("the format {:?} is not {BUNDLE_FORMAT}", head.format)));
    }
    let bundle = reopen(&content[end + 1..], &head.digest).map_err(|e| unreadable(e.to_string()))?;
    Ok(Some((bundle, head.accepted)))
}

/// Keeps one unreadable file for inspection. The problem itself is reported elsewhere.
fn move_aside(path: &Path) {
    let mut aside = path.as_os_str().to_owned();
    aside.push(".damaged");
    if let Err(error) = fs::rename(path, &aside) {
        tracing::warn!("{}: {error}", escaped_path(path));
    }
}

fn make_dir(path: &Path) -> Result<(), DiskError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|error| DiskError::Io { path: path.to_owned(), error })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::alerts::RuleTable;
    use crate::events::history::{History, ReportedTotals};
    use armor_bundle::dsse::Envelope;
    use serde_json::json;

    /// Makes a bundle in an unsigned envelope; a stored bundle is not verified again.
    fn bundle(name: &str, serial: u64, changes: &serde_json::Value) -> (Vec<u8>, VerifiedBundle) {
        let payload = json!({
            "format": "horizon-armor.bundle/1", "name": name, "serial": serial, "created": "2026-01-01T00:00:00Z",
            "expires": "2099-01-01T00:00:00Z", "target": {"org": "myorg"}, "policies": [], "trust": changes,
        });
        let envelope = Envelope::new(payload.to_string().as_bytes());
        let digest =
            armor_bundle::SignedBundle::open(&serde_json::to_vec(&envelope).unwrap(), None).unwrap().digest();
        let bytes = serde_json::to_vec(&envelope).unwrap();
        let verified = reopen(&bytes, &digest).unwrap();
        (bytes, verified)
    }

    fn store_named(state: &mut State, name: &str, serial: u64) {
        let (bytes, bundle) = bundle(name, serial, &json!({}));
        state.store(&bytes, &bundle, Timestamp::now()).unwrap();
    }

    fn store(state: &mut State, serial: u64) {
        store_named(state, "edge", serial);
    }

    fn serial(stored: Vec<VerifiedBundle>) -> Option<u64> {
        assert!(stored.len() < 2);
        stored.first().map(|bundle| bundle.payload.serial)
    }

    #[test]
    fn bundles_of_several_names_are_stored_side_by_side() {
        let dir = tempfile::tempdir().unwrap();
        let (mut state, ..) = State::open(dir.path()).unwrap();
        for (name, serial) in [("fleet", 7), ("edge", 1), ("current", 3), ("edge", 2), ("gone", 9)] {
            store_named(&mut state, name, serial);
        }
        state.forget("gone");
        // One that is damaged falls back by itself.
        fs::write(dir.path().join("bundles/edge/current"), "").unwrap();
        // Neither a file beside nor one under another's name is a bundle.
        fs::write(dir.path().join("bundles/note"), "").unwrap();
        fs::create_dir(dir.path().join("bundles/other")).unwrap();
        let fleet = dir.path().join("bundles/fleet/current");
        fs::copy(&fleet, dir.path().join("bundles/other/current")).unwrap();
        let (state, stored, problems) = State::open(dir.path()).unwrap();
        let mut found: Vec<_> =
            stored.iter().map(|bundle| (bundle.payload.name.as_str(), bundle.payload.serial)).collect();
        found.sort_unstable();
        assert_eq!(found, [("current", 3), ("edge", 1), ("fleet", 7)]);
        let floor = state.floor();
        let floor: Vec<_> = floor.iter().map(|(name, of)| (name.as_str(), of.serial)).collect();
        assert_eq!(floor, [("current", 3), ("edge", 1), ("fleet", 7), ("gone", 9)], "edge 2 may come again");
        assert_eq!(state.damaged().keys().collect::<Vec<_>>(), ["edge", "other"]);
        let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
        assert!(problems.len() == 2 && problems[0].contains("edge/current"), "{problems:?}");
        assert!(problems[1].ends_with("it holds the bundle fleet"), "{problems:?}");
    }

    #[test]
    fn the_one_bundle_of_an_earlier_version_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let (mut state, ..) = State::open(dir.path()).unwrap();
        store(&mut state, 1);
        store(&mut state, 2);
        let (old, new) = (dir.path().join("bundles"), dir.path().join("bundles/edge"));
        for file in ["current", "previous"] {
            fs::rename(new.join(file), old.join(file)).unwrap();
        }
        fs::remove_dir(&new).unwrap();
        for _ in 0..2 {
            let (_, stored, problems) = State::open(dir.path()).unwrap();
            assert_eq!((serial(stored), problems.len()), (Some(2), 0));
            assert!(new.join("previous").exists() && !old.join("current").exists());
        }
        // A damaged one falls back, and one that another name had replaced does not come back.
        fs::rename(new.join("previous"), old.join("previous")).unwrap();
        fs::rename(new.join("current"), old.join("current")).unwrap();
        fs::write(old.join("current"), "").unwrap();
        let (mut state, stored, problems) = State::open(dir.path()).unwrap();
        assert_eq!((serial(stored), problems.len()), (Some(1), 1));
        assert!(old.join("current.damaged").exists());
        store_named(&mut state, "other", 1);
        fs::rename(new.join("previous"), old.join("previous")).unwrap();
        fs::rename(old.join("other/current"), old.join("current")).unwrap();
        fs::remove_dir(&new).unwrap();
        let (_, stored, problems) = State::open(dir.path()).unwrap();
        assert_eq!((stored[0].payload.name.as_str(), stored.len(), problems.len()), ("other", 1, 0));
    }

    #[test]
    fn the_last_accepted_bundle_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let (mut state, stored, problems) = State::open(dir.path()).unwrap();
        assert!(stored.is_empty() && problems.is_empty());
        store(&mut state, 1);
        store(&mut state, 2);
        let (state, stored, problems) = State::open(dir.path()).unwrap();
        assert_eq!((serial(stored), problems.len(), state.floor()["edge"].serial), (Some(2), 0, 2));
        assert!(dir.path().join("bundles/edge/previous").exists());
    }

    #[test]
    fn an_unreadable_bundle_falls_back_to_the_previous_one() {
        for damage in [&b""[..], b"{\"format\"", b"{\"format\":\"horizon-armor.stored-bundle/2\",\"digest\":\"\",\"accepted\":\"2026-01-01T00:00:00Z\"}\nx"]
        {
            let dir = tempfile::tempdir().unwrap();
            let (mut state, ..) = State::open(dir.path()).unwrap();
            store(&mut state, 1);
            store(&mut state, 2);
            let current = dir.path().join("bundles/edge/current");
            fs::write(&current, damage).unwrap();
            let (mut state, stored, problems) = State::open(dir.path()).unwrap();
            assert_eq!((serial(stored), state.floor()["edge"].serial), (Some(1), 1), "2 may come again");
            assert!(problems[0].to_string().contains("bundles/edge/current"), "{}", problems[0]);
            // The damaged bundle never replaces the readable previous one.
            store(&mut state, 3);
            let (_, stored, problems) = State::open(dir.path()).unwrap();
            assert_eq!((serial(stored), problems.len()), (Some(3), 0));
            fs::remove_file(&current).unwrap();
            assert_eq!(serial(State::open(dir.path()).unwrap().1), Some(1));
        }
    }

    #[test]
    fn a_stored_bundle_whose_bytes_changed_is_not_in_force() {
        let dir = tempfile::tempdir().unwrap();
        let (mut state, ..) = State::open(dir.path()).unwrap();
        store(&mut state, 1);
        let current = dir.path().join("bundles/edge/current");
        let mut content = fs::read(&current).unwrap();
        let place = content.len() / 2;
        content[place] ^= 1;
        fs::write(&current, content).unwrap();
        let (_, stored, problems) = State::open(dir.path()).unwrap();
        assert!(stored.is_empty() && problems.len() == 1);
    }

    #[test]
    fn a_damaged_floor_is_that_of_the_stored_bundles() {
        for damage in ["", "{", r#"{"format":"horizon-armor.floor/9","bundles":{}}"#] {
            let dir = tempfile::tempdir().unwrap();
            let (mut state, ..) = State::open(dir.path()).unwrap();
            store(&mut state, 1);
            store(&mut state, 5);
            fs::write(dir.path().join("floor.json"), damage).unwrap();
            let (state, stored, problems) = State::open(dir.path()).unwrap();
            assert_eq!((serial(stored), state.floor()["edge"].serial), (Some(5), 5));
            assert!(problems[0].to_string().contains("floor.json"));
            assert!(dir.path().join("floor.json.damaged").exists());
        }
    }

    #[test]
    fn an_acceptance_that_was_interrupted_is_completed_with_its_key_changes() {
        let dir = tempfile::tempdir().unwrap();
        let (mut state, ..) = State::open(dir.path()).unwrap();
        store(&mut state, 1);
        let floor = fs::read(dir.path().join("floor.json")).unwrap();
        let (bytes, next) = bundle("edge", 2, &json!({"threshold": 1}));
        state.store(&bytes, &next, Timestamp::now()).unwrap();
        // As after a power failure between the bundle and the floor.
        fs::write(dir.path().join("floor.json"), floor).unwrap();
        let (mut state, stored, _) = State::open(dir.path()).unwrap();
        assert_eq!((serial(stored), state.floor()["edge"].serial), (Some(2), 2));
        assert_eq!(state.pending_trust().len(), 1);
        state.trust_is_changed().unwrap();
        assert!(State::open(dir.path()).unwrap().0.pending_trust().is_empty());
    }

    #[test]
    fn what_is_no_regular_file_is_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        drop(State::open(dir.path()).unwrap());
        fs::create_dir(dir.path().join("bundles/edge")).unwrap();
        let pipe = |name: &str| {
            let _ = fs::remove_file(dir.path().join(name));
            rustix::fs::mkfifoat(rustix::fs::CWD, dir.path().join(name), rustix::fs::Mode::RWXU).unwrap();
        };
        for name in
            ["bundles/edge/current", "floor.json", "containers.json", "counters.json", "generations/1.json"]
        {
            pipe(name);
            pipe(&format!("{name}.new"));
        }
        let (state, stored, problems) = State::open(dir.path()).unwrap();
        let history = History::new(dir.path());
        assert!(stored.is_empty() && problems.len() == 2, "{problems:?}");
        assert!(problems[0].to_string().ends_with("remove it, the agent makes its own"), "{}", problems[0]);
        assert!(state.containers().is_empty() && history.generation(1).is_none());
        assert_eq!(history.reported(), ReportedTotals::default());
        state.store_containers(Vec::new()).unwrap();
        history.store_generation(1, &RuleTable::default()).unwrap();
        let mut reported = history.reported();
        reported.dropped = 2;
        history.store_reported(&reported).unwrap();
        assert_eq!((history.reported().dropped, history.generation(1)), (2, Some(RuleTable::default())));
        let large = fs::File::create(dir.path().join("counters.json")).unwrap();
        large.set_len(1 << 40).unwrap();
        assert_eq!(history.reported(), ReportedTotals::default());
    }
}
