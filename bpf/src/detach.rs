//! Ends enforcement that goes on without an agent, by removing its pins.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};

use libbpf_rs::{MapCore, MapFlags, MapHandle};

use crate::bpffs::{entries, is_directory, require_bpffs};
use crate::error::{BpfError, pin_error};
use crate::image::image_map;
use crate::pins::{is_version, remove_ours};

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pins::tests::make;
    use crate::pins::{HALF_MADE, VERSION};

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
