//! This module keeps the keys that a node trusts: those pinned in a directory, and the signed changes to
//! them.
//!
//! ```text
//! <dir>/trust.d/*.pem       keys that sign bundles, one public key per file; installed with the node
//! <dir>/receipt.d/*.pem     keys that sign receipts for alerts
//! <dir>/trust-changes.json  changes by accepted bundles; written by this module, as a whole, by one rename
//! ```
//!
//! In force are the pinned keys without the removed ones and with the added ones. A pinned file that cannot
//! be used is skipped and reported; changes that cannot be read are an error, because without them a removed
//! key would be trusted again.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use armor_base::file::{self, FileError};
use armor_base::replace::write_whole;
use armor_policy::escaped_path;
use serde::{Deserialize, Serialize};

use crate::keys::{KeyError, KeyId, Malformed, PublicKey};

/// Maximum number of a role's keys, pinned or added, of files with them, and of removed ids that are
/// remembered.
pub const MAX_KEYS: usize = 256;
/// Maximum size of the recorded changes in bytes: twice [`MAX_KEYS`] keys, and ids.
const MAX_CHANGES: usize = 4 << 20;
/// Directory of the keys that sign bundles.
pub const BUNDLE_KEYS: &str = "trust.d";
/// Directory of the keys that sign receipts.
pub const RECEIPT_KEYS: &str = "receipt.d";
const CHANGES_FILE: &str = "trust-changes.json";
const CHANGES_FORMAT: &str = "horizon-armor.trust-changes/1";

/// A `TrustError` says why keys cannot be loaded or changed.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// A directory or file cannot be read or written.
    #[error("{}: {source}", escaped_path(path))]
    File {
        /// The directory or file.
        path: PathBuf,
        /// The I/O error.
        source: FileError,
    },
    /// The recorded changes are damaged, or a newer version wrote them.
    #[error(
        "{}: {reason}; put back a good copy, or remove the file to believe exactly the keys in trust.d and receipt.d again",
        escaped_path(path)
    )]
    Changes {
        /// The file.
        path: PathBuf,
        /// Description of the error.
        reason: String,
    },
    /// A pinned file contains no usable public key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// There are more pinned files than a store accepts.
    #[error("{}: more than {MAX_KEYS} files that end in .pem: remove those that are not needed", escaped_path(.0))]
    TooMany(PathBuf),
    /// A change is not possible.
    #[error("trust change not possible: {0}")]
    Change(BadChange),
}

/// A `BadChange` says why a change of keys is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadChange {
    /// A key to add is not a usable key.
    #[error("key {position} to add: {problem}")]
    Key {
        /// The key's place in the list, from 1.
        position: usize,
        /// Description of the error.
        problem: Malformed,
    },
    /// A key is both added and removed.
    #[error("{0} is both added and removed: leave it out of one of the two")]
    Both(KeyId),
    /// The threshold is 0: later bundles would need no signature.
    #[error("the threshold is 0: write how many keys must have signed later bundles, at least 1")]
    NoThreshold,
    /// Too few keys would be left: no later bundle could be accepted.
    #[error(
        "{keys} bundle keys would be left for a threshold of {threshold}: no later bundle could be accepted"
    )]
    LockedOut {
        /// Number of bundle keys that would be in force.
        keys: usize,
        /// Number of signatures that would be needed.
        threshold: u32,
    },
    /// The role would have more keys than a store accepts.
    #[error("more than {MAX_KEYS} keys in one role")]
    TooMany,
}

/// A `KeyChanges` lists keys to add to and remove from one role.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KeyChanges {
    /// Public keys to trust from then on, in PEM.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub add: Vec<String>,
    /// Ids of keys to trust no longer; ids that a node does not have are no error.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub remove: Vec<KeyId>,
}

impl KeyChanges {
    fn is_empty(&self) -> bool {
        self.add.is_empty() && self.remove.is_empty()
    }
}

/// A `TrustChanges` contains the changes of keys in a bundle.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrustChanges {
    /// Changes to the keys that sign bundles.
    #[serde(skip_serializing_if = "KeyChanges::is_empty")]
    pub bundle: KeyChanges,
    /// Changes to the keys that sign receipts.
    #[serde(skip_serializing_if = "KeyChanges::is_empty")]
    pub receipt: KeyChanges,
    /// Number of different bundle keys that must have signed a later bundle.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threshold: Option<u32>,
}

impl TrustChanges {
    /// Returns whether nothing changes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bundle.is_empty() && self.receipt.is_empty() && self.threshold.is_none()
    }

    /// Checks that some node could make these changes, whatever keys it has.
    ///
    /// # Errors
    /// Fails with the [`BadChange`] for which every node refuses them.
    pub fn check(&self) -> Result<(), BadChange> {
        RoleOverlay::default().change(&self.bundle)?;
        RoleOverlay::default().change(&self.receipt)?;
        if self.threshold == Some(0) { Err(BadChange::NoThreshold) } else { Ok(()) }
    }
}

/// An `Overlay` records what accepted bundles changed, compared with the pinned files.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Overlay {
    format: String,
    bundle: RoleOverlay,
    receipt: RoleOverlay,
    threshold: Option<u32>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RoleOverlay {
    added: BTreeMap<KeyId, String>,
    removed: BTreeSet<KeyId>,
}

impl RoleOverlay {
    fn change(&mut self, changes: &KeyChanges) -> Result<(), BadChange> {
        for (index, pem) in changes.add.iter().enumerate() {
            let key = PublicKey::from_pem(pem.as_bytes())
                .map_err(|problem| BadChange::Key { position: index + 1, problem })?;
            if changes.remove.contains(key.id()) {
                return Err(BadChange::Both(key.id().clone()));
            }
            self.removed.remove(key.id());
            self.added.insert(key.id().clone(), key.to_pem());
        }
        for id in &changes.remove {
            self.added.remove(id);
            self.removed.insert(id.clone());
        }
        if self.added.len() > MAX_KEYS || self.removed.len() > MAX_KEYS {
            Err(BadChange::TooMany)
        } else {
            Ok(())
        }
    }

    /// Returns `pinned` with the changes applied; `None` if an added key cannot be parsed or has another id.
    fn over(&self, pinned: &Keys) -> Option<Keys> {
        let mut keys: Keys = pinned
            .iter()
            .filter(|(id, _)| !self.removed.contains(id))
            .map(|(id, key)| (id.clone(), key.clone()))
            .collect();
        for (id, pem) in &self.added {
            let key = PublicKey::from_pem(pem.as_bytes()).ok().filter(|key| key.id() == id)?;
            keys.insert(id.clone(), key);
        }
        Some(keys)
    }
}

type Keys = BTreeMap<KeyId, PublicKey>;

/// A `TrustStore` contains the keys in force.
#[derive(Debug, Clone, Default)]
pub struct TrustStore {
    /// Directory of the store; `None` if the store has only keys in memory.
    dir: Option<PathBuf>,
    pinned_bundle: Keys,
    pinned_receipt: Keys,
    overlay: Overlay,
    bundle: Keys,
    receipt: Keys,
}

impl TrustStore {
    /// Loads a directory. Returns the store and an error for each pinned file that was skipped; a missing
    /// directory has no keys.
    ///
    /// # Errors
    /// Fails with [`TrustError::Changes`] if the recorded changes are damaged, and with [`TrustError::File`]
    /// if a directory cannot be listed.
    pub fn load(dir: &Path) -> Result<(Self, Vec<TrustError>), TrustError> {
        let mut problems = Vec::new();
        let mut store = Self {
            dir: Some(dir.to_owned()),
            pinned_bundle: load_pinned(&dir.join(BUNDLE_KEYS), &mut problems)?,
            pinned_receipt: load_pinned(&dir.join(RECEIPT_KEYS), &mut problems)?,
            ..Self::default()
        };
        let path = dir.join(CHANGES_FILE);
        match file::read(&path, MAX_CHANGES) {
            Err(e) if e.is_missing() => store.overlay.format = CHANGES_FORMAT.to_owned(),
            Err(source) => return Err(TrustError::File { path, source }),
            Ok(text) => {
                let damaged = |reason: String| TrustError::Changes { path: path.clone(), reason };
                store.overlay = serde_json::from_slice(&text).map_err(|e| damaged(e.to_string()))?;
                if store.overlay.format != CHANGES_FORMAT {
                    return Err(damaged(format!(
                        "the format {:?} is not {CHANGES_FORMAT}",
                        store.overlay.format
                    )));
                }
            }
        }
        match store.resolve() {
            true => Ok((store, problems)),
            false => Err(TrustError::Changes {
                path,
                reason: "an added key does not read or has another id".to_owned(),
            }),
        }
    }

    /// Makes a store of only these bundle keys; changes to it take effect but are not written to disk.
    #[must_use]
    pub fn of_bundle_keys(keys: impl IntoIterator<Item = PublicKey>) -> Self {
        let keys: Keys = keys.into_iter().map(|key| (key.id().clone(), key)).collect();
        Self { bundle: keys.clone(), pinned_bundle: keys, ..Self::default() }
    }

    /// Returns the keys that sign bundles.
    pub fn bundle_keys(&self) -> impl Iterator<Item = &PublicKey> {
        self.bundle.values()
    }

    /// Returns the keys that sign receipts.
    pub fn receipt_keys(&self) -> impl Iterator<Item = &PublicKey> {
        self.receipt.values()
    }

    /// Returns the bundle key with this id.
    #[must_use]
    pub fn bundle_key(&self, id: &KeyId) -> Option<&PublicKey> {
        self.bundle.get(id)
    }

    /// Returns the receipt key with this id.
    #[must_use]
    pub fn receipt_key(&self, id: &KeyId) -> Option<&PublicKey> {
        self.receipt.get(id)
    }

    /// Returns the number of different bundle keys that must have signed a bundle; 1 until a bundle changes
    /// it.
    #[must_use]
    pub fn threshold(&self) -> u32 {
        self.overlay.threshold.unwrap_or(1)
    }

    /// Returns the store as it would be after `changes`; nothing is written.
    pub fn changed(&self, changes: &TrustChanges) -> Result<Self, BadChange> {
        changes.check()?;
        let mut new = self.clone();
        new.overlay.bundle.change(&changes.bundle)?;
        new.overlay.receipt.change(&changes.receipt)?;
        new.overlay.threshold = changes.threshold.or(new.overlay.threshold);
        // This cannot fail: the added keys have just been parsed.
        new.resolve();
        let (keys, threshold) = (new.bundle.len(), new.threshold());
        if threshold == 0 || keys < threshold as usize {
            return Err(BadChange::LockedOut { keys, threshold });
        }
        Ok(new)
    }

    /// Makes `changes`, and writes them durably before they take effect. Making the same changes again
    /// changes nothing, so a caller that was interrupted repeats them.
    pub fn apply(&mut self, changes: &TrustChanges) -> Result<(), TrustError> {
        if changes.is_empty() {
            return Ok(());
        }
        let new = self.changed(changes).map_err(TrustError::Change)?;
        if let Some(dir) = &self.dir {
            let path = dir.join(CHANGES_FILE);
            let text = serde_json::to_vec_pretty(&new.overlay)
                .map_err(|e| TrustError::Changes { path: path.clone(), reason: e.to_string() })?;
            write_whole(&path, &text, true)
                .map_err(|error| TrustError::File { path, source: error.into() })?;
        }
        *self = new;
        Ok(())
    }

    fn resolve(&mut self) -> bool {
        let (bundle, receipt) =
            (self.overlay.bundle.over(&self.pinned_bundle), self.overlay.receipt.over(&self.pinned_receipt));
        let complete = bundle.is_some() && receipt.is_some();
        self.bundle = bundle.unwrap_or_default();
        self.receipt = receipt.unwrap_or_default();
        complete
    }
}

fn load_pinned(dir: &Path, problems: &mut Vec<TrustError>) -> Result<Keys, TrustError> {
    let mut paths: Vec<PathBuf> = Vec::new();
    for path in entries(dir)? {
        let path = path?;
        if is_named_as_key(&path) {
            if paths.len() == MAX_KEYS {
                return Err(TrustError::TooMany(dir.to_owned()));
            }
            paths.push(path);
        }
    }
    paths.sort();
    let mut keys = Keys::new();
    for path in paths {
        match PublicKey::load(&path) {
            Ok(key) => {
                keys.insert(key.id().clone(), key);
            }
            Err(e) => problems.push(e.into()),
        }
    }
    Ok(keys)
}

/// Returns the paths in a directory of pinned keys that are not read as keys because of their names, at most
/// `most`.
///
/// # Errors
/// Fails with [`TrustError::File`] if the directory cannot be listed; a missing directory is empty.
pub fn not_read(dir: &Path, most: usize) -> Result<Vec<PathBuf>, TrustError> {
    entries(dir)?.filter(|path| !path.as_ref().is_ok_and(|path| is_named_as_key(path))).take(most).collect()
}

/// Returns whether a node reads this file as a key. Other files may lie beside it: a renamed key, or a
/// README.
fn is_named_as_key(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "pem")
}

/// Returns the paths in a directory; none if it is missing.
fn entries(dir: &Path) -> Result<impl Iterator<Item = Result<PathBuf, TrustError>>, TrustError> {
    let problem = |error: std::io::Error| TrustError::File { path: dir.to_owned(), source: error.into() };
    let listed = match fs::read_dir(dir) {
        Err(e) if e.kind() == ErrorKind::NotFound => None,
        other => Some(other.map_err(problem)?),
    };
    Ok(listed.into_iter().flatten().map(move |entry| Ok(entry.map_err(problem)?.path())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::{KeyType, PrivateKey};

    fn key() -> PublicKey {
        PrivateKey::generate(KeyType::Ed25519).unwrap().public().clone()
    }

    fn pin(dir: &Path, role: &str, name: &str, pem: &str) {
        fs::create_dir_all(dir.join(role)).unwrap();
        fs::write(dir.join(role).join(name), pem).unwrap();
    }

    fn ids<'a>(keys: impl Iterator<Item = &'a PublicKey>) -> Vec<&'a KeyId> {
        keys.map(PublicKey::id).collect()
    }

    #[test]
    fn pinned_files_load_by_role_and_bad_ones_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let (good, receipt) = (key(), key());
        pin(dir.path(), "trust.d", "good.pem", &good.to_pem());
        pin(dir.path(), "trust.d", "README", "not a key");
        pin(dir.path(), "trust.d", "garbage.pem", "not a key");
        pin(dir.path(), "receipt.d", "r.pem", &receipt.to_pem());
        let private = dir.path().join("trust.d/private.pem");
        PrivateKey::generate(KeyType::Ed25519).unwrap().save_new(&private).unwrap();

        let (store, problems) = TrustStore::load(dir.path()).unwrap();
        assert_eq!(ids(store.bundle_keys()), [good.id()]);
        assert_eq!(ids(store.receipt_keys()), [receipt.id()]);
        assert!(store.receipt_key(good.id()).is_none());
        let mut problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
        problems.sort();
        assert!(problems[0].contains("garbage.pem") && problems[0].contains("no PEM"), "{problems:?}");
        assert!(problems[1].contains("private.pem") && problems[1].contains("private key"), "{problems:?}");
    }

    #[test]
    fn key_files_in_a_directory_are_bounded_and_others_are_listed() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["a.pub", "README", "b.PEM"] {
            pin(dir.path(), BUNDLE_KEYS, name, "x");
        }
        assert_eq!(not_read(&dir.path().join(BUNDLE_KEYS), 9).unwrap().len(), 3);
        assert_eq!(not_read(&dir.path().join(BUNDLE_KEYS), 2).unwrap().len(), 2);
        assert!(not_read(&dir.path().join(RECEIPT_KEYS), 9).unwrap().is_empty());
        for number in 0..=MAX_KEYS {
            pin(dir.path(), BUNDLE_KEYS, &format!("{number}.pem"), "x");
        }
        let error = TrustStore::load(dir.path()).unwrap_err().to_string();
        assert!(error.contains("trust.d: more than 256 files"), "{error}");
    }

    #[test]
    fn an_empty_directory_believes_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let (store, problems) = TrustStore::load(dir.path()).unwrap();
        assert_eq!((store.bundle_keys().count(), problems.len(), store.threshold()), (0, 0, 1));
    }

    #[test]
    fn changes_last_and_repeat_and_removed_keys_stay_removed() {
        let dir = tempfile::tempdir().unwrap();
        let (old, new) = (key(), key());
        pin(dir.path(), "trust.d", "old.pem", &old.to_pem());
        let changes = TrustChanges {
            bundle: KeyChanges { add: vec![new.to_pem()], remove: vec![old.id().clone()] },
            ..TrustChanges::default()
        };
        let (mut store, _) = TrustStore::load(dir.path()).unwrap();
        let next = dir.path().join(CHANGES_FILE).with_extension("json.new");
        rustix::fs::mkfifoat(rustix::fs::CWD, next, rustix::fs::Mode::RWXU).unwrap();
        store.apply(&changes).unwrap();
        store.apply(&changes).unwrap();
        assert_eq!(ids(store.bundle_keys()), [new.id()]);
        let (mut store, _) = TrustStore::load(dir.path()).unwrap();
        assert_eq!(ids(store.bundle_keys()), [new.id()]);

        let back = TrustChanges {
            bundle: KeyChanges { add: vec![old.to_pem()], remove: vec![] },
            threshold: Some(2),
            ..TrustChanges::default()
        };
        store.apply(&back).unwrap();
        let (store, _) = TrustStore::load(dir.path()).unwrap();
        assert_eq!((store.bundle_keys().count(), store.threshold()), (2, 2));
    }

    #[test]
    fn a_change_that_locks_out_or_contradicts_itself_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (key(), key());
        pin(dir.path(), "trust.d", "a.pem", &a.to_pem());
        let (mut store, _) = TrustStore::load(dir.path()).unwrap();
        let bundle = |add: &[&PublicKey], remove: &[&PublicKey]| KeyChanges {
            add: add.iter().map(|k| k.to_pem()).collect(),
            remove: remove.iter().map(|k| k.id().clone()).collect(),
        };
        for changes in [
            TrustChanges { bundle: bundle(&[], &[&a]), ..TrustChanges::default() },
            TrustChanges { bundle: bundle(&[&b], &[&b]), ..TrustChanges::default() },
            TrustChanges { threshold: Some(0), ..TrustChanges::default() },
            TrustChanges { threshold: Some(2), ..TrustChanges::default() },
            TrustChanges {
                bundle: KeyChanges { add: vec!["x".to_owned()], remove: vec![] },
                ..TrustChanges::default()
            },
        ] {
            assert!(matches!(store.apply(&changes), Err(TrustError::Change(_))), "{changes:?}");
        }
        assert_eq!(ids(store.bundle_keys()), [a.id()]);
        assert!(!dir.path().join(CHANGES_FILE).exists());
    }

    #[test]
    fn damaged_changes_never_bring_a_removed_key_back() {
        let dir = tempfile::tempdir().unwrap();
        pin(dir.path(), "trust.d", "a.pem", &key().to_pem());
        let other_id = format!("sha256:{}", "0".repeat(64));
        let misfiled = format!(
            r#"{{"format":"{CHANGES_FORMAT}","bundle":{{"added":{{"{other_id}":{:?}}},"removed":[]}},"receipt":{{"added":{{}},"removed":[]}},"threshold":null}}"#,
            key().to_pem()
        );
        for text in ["", "{", r#"{"format":"horizon-armor.trust-changes/2"}"#, &misfiled] {
            fs::write(dir.path().join(CHANGES_FILE), text).unwrap();
            let error = TrustStore::load(dir.path()).unwrap_err();
            assert!(
                matches!(&error, TrustError::Changes { path, .. } if path.ends_with(CHANGES_FILE)),
                "{text}: {error}"
            );
        }
    }
}
