//! Stores the accepted bundles: a directory of each name, with the bundle accepted last and the one before.
//!
//! Invariants:
//! - A `current` exists at every moment once a bundle of the name was accepted.
//! - A bundle counts as damaged while its `current` cannot be read: until one is stored again, also by a later
//!   agent.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use armor_base::name::check_name;
use armor_base::replace::sync_dir;
use armor_bundle::{MAX_BUNDLE, SerialFloor, VerifiedBundle, reopen};
use armor_policy::escaped_path;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::base::disk::{DiskError, make_dir, move_aside, read_file, replace, to_json};

const BUNDLE_FORMAT: &str = "horizon-armor.stored-bundle/1";
/// Maximum size of [`StoredHead`] as JSON, in bytes.
const MAX_HEAD: usize = 4 << 10;

/// `StoredHead` is the first line of a stored bundle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct StoredHead {
    format: String,
    digest: String,
    accepted: Timestamp,
}

/// `StoredBundles` are the bundles on disk.
pub struct StoredBundles {
    dir: PathBuf,
    /// Names of the bundles whose `current` is readable, and so may become `previous`.
    current_reads: BTreeSet<String>,
    /// Names whose `current` cannot be read, each with the reason.
    damaged: BTreeMap<String, String>,
}

impl StoredBundles {
    /// Reads the bundles in a directory, of each name the one accepted last that is readable, ordered by the time
    /// of acceptance, the last one first. Adds what is unreadable to `problems`, and moves it aside. `accepted`
    /// names the bundles that there should be.
    ///
    /// # Errors
    /// Fails with [`DiskError::Io`] if the directory cannot be listed.
    pub fn open(
        dir: PathBuf,
        accepted: &SerialFloor,
        problems: &mut Vec<DiskError>,
    ) -> Result<(Self, Vec<VerifiedBundle>), DiskError> {
        problems.extend(move_unnamed(&dir));
        let (mut stored, mut bundles) =
            (Vec::new(), Self { dir, current_reads: BTreeSet::new(), damaged: BTreeMap::new() });
        for name in names(&bundles.dir)? {
            // The previous one is read, and in memory, only if it is needed.
            for file in ["current", "previous"] {
                let path = bundles.dir.join(&name).join(file);
                match read_bundle(&path, &name) {
                    Ok(None) if file == "current" && accepted.contains_key(&name) => {
                        let problem = DiskError::Unreadable { path, reason: "it is missing".to_owned() };
                        bundles.damaged.insert(name.clone(), problem.to_string());
                    }
                    Ok(None) => {}
                    Ok(Some(found)) => {
                        if file == "current" {
                            bundles.current_reads.insert(name.clone());
                        }
                        stored.push(found);
                        break;
                    }
                    Err(problem) => {
                        move_aside(&path);
                        bundles.damaged.insert(name.clone(), problem.to_string());
                        problems.push(problem);
                    }
                }
            }
        }
        stored.sort_by_key(|(_, accepted)| Reverse(*accepted));
        Ok((bundles, stored.into_iter().map(|(bundle, _)| bundle).collect()))
    }

    /// Returns the names of which the bundle accepted last cannot be read, each with the reason.
    pub fn damaged(&self) -> &BTreeMap<String, String> {
        &self.damaged
    }

    /// Stores a bundle durably as the one accepted last of its name.
    ///
    /// # Errors
    /// Fails with [`DiskError::Io`] if a file cannot be written. The bundle accepted before stays.
    pub fn store(&mut self, bytes: &[u8], bundle: &VerifiedBundle) -> Result<(), DiskError> {
        let name = &bundle.payload.name;
        let dir = self.dir.join(name);
        make_dir(&dir)?;
        sync_dir(&self.dir).map_err(|error| DiskError::Io { path: self.dir.clone(), error })?;
        let (current, previous) = (dir.join("current"), dir.join("previous"));
        let (format, digest) = (BUNDLE_FORMAT.to_owned(), bundle.digest.clone());
        let head = StoredHead { format, digest, accepted: Timestamp::now() };
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
        Ok(())
    }

    /// Removes the bundle of a name.
    pub fn forget(&mut self, name: &str) {
        let dir = self.dir.join(name);
        // The previous one first: without the current one it would be in force again.
        let _ = fs::remove_file(dir.join("previous"));
        if let Err(error) = fs::remove_dir_all(&dir) {
            tracing::warn!("{}: {error}: the bundle comes back with the next start", escaped_path(&dir));
        }
        self.current_reads.remove(name);
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
