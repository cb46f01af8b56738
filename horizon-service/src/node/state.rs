//! Stores what the node must remember in the state directory: bundles, their floor, and containers.
//!
//! ```text
//! <state>/lock                 locked by the running agent (`base::lock`)
//! <state>/node.key             the node's Ed25519 key (`delivery::node_key`)
//! <state>/floor.json           last accepted serial and digest by bundle name; key changes not applied yet
//! <state>/bundles/<name>/      of each name: `current`, the bundle accepted last (a line of JSON, then its bytes),
//!                              and `previous`, the one before (`node::stored_bundles`)
//! <state>/generations/<n>.json names of the rules of generation n (`events::history`)
//! <state>/containers.json      known containers and the numbers of their domains
//! <state>/devices.json         USB devices and what was changed for them, until the boot ends (`devices::record`)
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

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use armor_bundle::trust::TrustChanges;
use armor_bundle::{Accepted, SerialFloor, VerifiedBundle};
use serde::{Deserialize, Serialize};

use crate::base::disk::{DiskError, make_dir, move_aside, read_json, replace, to_json};
use crate::node::stored_bundles::StoredBundles;
use crate::workloads::workload::Workload;

const FLOOR_FORMAT: &str = "horizon-armor.floor/1";
const CONTAINERS_FORMAT: &str = "horizon-armor.containers/1";

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
    bundles: StoredBundles,
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
        let path = dir.join("floor.json");
        let floor = match read_json::<Floor>(&path, |floor| &floor.format, FLOOR_FORMAT) {
            Ok(floor) => floor.unwrap_or_default(),
            Err(problem) => {
                move_aside(&path);
                problems.push(problem);
                Floor::default()
            }
        };
        let (bundles, stored) = StoredBundles::open(dir.join("bundles"), &floor.bundles, &mut problems)?;
        let mut state = Self { dir: dir.to_owned(), floor, bundles };
        // The agent ended while it was accepting a bundle above the floor, or the floor was lost.
        for bundle in &stored {
            let known = state.floor.bundles.get(&bundle.payload.name).map_or(0, |accepted| accepted.serial);
            if bundle.payload.serial > known {
                state.raise_floor(bundle)?;
            }
        }
        Ok((state, stored, problems))
    }

    /// Returns what serials are judged by: the last accepted serial of each bundle name. Where that bundle could
    /// not be read again, it is acceptable once more.
    pub fn floor(&self) -> SerialFloor {
        let mut floor = self.floor.bundles.clone();
        for name in self.damaged().keys() {
            if let Some(accepted) = floor.get_mut(name) {
                *accepted = Accepted { serial: accepted.serial.saturating_sub(1), digest: String::new() };
            }
        }
        floor
    }

    /// Returns the names of which the bundle accepted last cannot be read, each with the reason.
    pub fn damaged(&self) -> &BTreeMap<String, String> {
        self.bundles.damaged()
    }

    /// Stores an accepted bundle durably; from now on it is in force after a restart.
    ///
    /// # Errors
    /// Fails with [`DiskError::Io`] if a file cannot be written. After a restart the previous bundle is in
    /// force then, or this one if only the floor failed.
    pub fn store(&mut self, bytes: &[u8], bundle: &VerifiedBundle) -> Result<(), DiskError> {
        self.bundles.store(bytes, bundle)?;
        self.raise_floor(bundle)
    }

    /// Removes the bundle of a name. Its serial stays.
    pub fn forget(&mut self, name: &str) {
        self.bundles.forget(name);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::alerts::RuleTable;
    use crate::events::history::{History, ReportedTotals};
    use armor_bundle::dsse::Envelope;
    use armor_bundle::reopen;
    use serde_json::json;
    use std::fs;

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
        state.store(&bytes, &bundle).unwrap();
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
            let (state, stored, problems) = State::open(dir.path()).unwrap();
            assert_eq!((serial(stored), state.floor()["edge"].serial), (Some(1), 1), "2 may come again");
            assert!(problems[0].to_string().contains("bundles/edge/current"), "{}", problems[0]);
            // It is said until another one is stored, also by the next agent.
            drop(state);
            let (mut state, stored, problems) = State::open(dir.path()).unwrap();
            assert_eq!((serial(stored), state.floor()["edge"].serial, problems.len()), (Some(1), 1, 0));
            assert!(state.damaged()["edge"].ends_with("it is missing"), "{:?}", state.damaged());
            // The damaged bundle never replaces the readable previous one.
            store(&mut state, 3);
            assert!(state.damaged().is_empty());
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
        state.store(&bytes, &next).unwrap();
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
