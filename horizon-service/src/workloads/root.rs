//! Opens a workload's root directory for this process: that of a running process, or the layers of a
//! container that does not run yet.
//!
//! Symlinks are followed by hand, because `canonicalize` would follow absolute ones into this process's own
//! root.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::fs::{self, Metadata};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Maximum number of symlinks followed in one path; the kernel's own limit (`MAXSYMLINKS`).
const MAX_SYMLINKS: u32 = 40;
/// Directories that are symlinks to those below `/usr` in most images, and real directories in others.
const MERGED: [&str; 5] = ["/bin", "/sbin", "/lib", "/lib32", "/lib64"];

/// A `Root` is a workload's root directory.
pub struct Root(Kind);

enum Kind {
    /// The root's path in this process.
    Directory(PathBuf),
    Layers(Layers),
    Unknown,
}

impl Root {
    /// Returns the root of `process`, which is `self` or a pid.
    pub fn of_process(process: &str) -> Self {
        if process == "self" {
            Self::at("/".into())
        } else {
            Self::at(format!("/proc/{process}/root").into())
        }
    }

    /// Returns the host's root, or this process's own if that of the host's first process is not accessible.
    pub fn of_host() -> Self {
        let first = Path::new("/proc/1/root");
        Self::at(if first.join(".").is_dir() { first } else { Path::new("/") }.to_owned())
    }

    /// Returns the root that this process can reach as `directory`.
    pub fn at(directory: PathBuf) -> Self {
        Self(Kind::Directory(directory))
    }

    /// Returns the root that an overlay of the host directories `layers`, uppermost first, shows. If a layer
    /// is missing, nothing is known of the root; it is then assumed to have the usual symlinks, and their
    /// directories to exist.
    pub fn of_layers(layers: &[PathBuf]) -> Self {
        Self::overlay(&Self::of_host(), layers)
    }

    fn overlay(host: &Self, layers: &[PathBuf]) -> Self {
        let reach = |layer: &PathBuf| {
            let reached = host.find(&host.resolve(layer.to_str()?, true))?;
            fs::symlink_metadata(&reached).ok()?.is_dir().then_some(reached)
        };
        match layers.iter().map(reach).collect::<Option<Vec<_>>>() {
            Some(layers) if !layers.is_empty() => Self(Kind::Layers(Layers::new(layers))),
            _ => Self(Kind::Unknown),
        }
    }

    /// Returns the root's directory, if it is a single one.
    pub fn directory(&self) -> Option<&Path> {
        match &self.0 {
            Kind::Directory(directory) => Some(directory),
            Kind::Layers(_) | Kind::Unknown => None,
        }
    }

    /// Returns this process's path for the root's `path`, no directory of which may be a symlink.
    pub fn find(&self, path: &Path) -> Option<PathBuf> {
        match &self.0 {
            Kind::Directory(root) => Some(root.join(path.strip_prefix("/").unwrap_or(path))),
            Kind::Layers(layers) => layers.find(path),
            Kind::Unknown => None,
        }
    }

    /// Returns whether `path`, no directory of which may be a symlink, is a directory.
    pub fn is_dir(&self, path: &Path) -> bool {
        self.find(path).and_then(|found| fs::symlink_metadata(found).ok()).is_some_and(|found| found.is_dir())
    }

    /// Resolves the symlinks in `path` within the root. Components that do not exist stay as they are.
    pub fn resolve(&self, path: &str, follow_last: bool) -> PathBuf {
        if let Kind::Unknown = self.0 {
            let links = MERGED.iter().any(|dir| Path::new(path).starts_with(dir));
            return if links { format!("/usr{path}").into() } else { path.into() };
        }
        let mut left: VecDeque<String> = path.split('/').map(str::to_owned).collect();
        let mut resolved = PathBuf::from("/");
        let mut followed = 0;
        while let Some(name) = left.pop_front() {
            match name.as_str() {
                "" | "." => continue,
                ".." => {
                    resolved.pop();
                    continue;
                }
                _ => {}
            }
            resolved.push(&name);
            if (left.is_empty() && !follow_last) || followed == MAX_SYMLINKS {
                continue;
            }
            // A target that is not UTF-8 cannot be in a policy either.
            let Some(target) = self
                .find(&resolved)
                .and_then(|found| fs::read_link(found).ok())
                .and_then(|target| target.into_os_string().into_string().ok())
            else {
                continue;
            };
            followed += 1;
            resolved.pop();
            if target.starts_with('/') {
                resolved = PathBuf::from("/");
            }
            for part in target.split('/').rev() {
                left.push_front(part.to_owned());
            }
        }
        resolved
    }
}

/// `Layers` merges the layers of an overlay as the kernel does (Documentation/filesystems/overlayfs.rst). An
/// entry is that of the uppermost layer. A directory merges those of several layers, down to the first that
/// is opaque. A character device 0:0 is no entry, and hides those below. A directory renamed while the
/// container ran (`redirect`) is seen without its lower layers.
struct Layers {
    layers: Vec<PathBuf>,
    /// For each directory, the indices of its layers. Thousands of rules ask for the same few directories.
    known: RefCell<HashMap<PathBuf, Arc<[usize]>>>,
}

impl Layers {
    fn new(layers: Vec<PathBuf>) -> Self {
        let all = (0..layers.len()).collect();
        Self { layers, known: RefCell::new(HashMap::from([(PathBuf::from("/"), all)])) }
    }

    fn find(&self, path: &Path) -> Option<PathBuf> {
        let (Some(parent), Some(_)) = (path.parent(), path.file_name()) else {
            return self.layers.first().cloned();
        };
        let layers = self.made_of(parent);
        let (at, found) = self.entries(&layers, path).next()?;
        (!is_whiteout(&found)).then(|| self.place(at, path))
    }

    fn place(&self, layer: usize, path: &Path) -> PathBuf {
        self.layers[layer].join(path.strip_prefix("/").unwrap_or(path))
    }

    /// Returns the entries that `layers` have at `path`, uppermost first.
    fn entries<'a>(
        &'a self,
        layers: &'a [usize],
        path: &'a Path,
    ) -> impl Iterator<Item = (usize, Metadata)> + 'a {
        layers.iter().filter_map(move |at| Some((*at, fs::symlink_metadata(self.place(*at, path)).ok()?)))
    }

    /// Returns the layers that the directory `path` is merged from, or none if it is no directory.
    fn made_of(&self, path: &Path) -> Arc<[usize]> {
        if let Some(known) = self.known.borrow().get(path) {
            return Arc::clone(known);
        }
        let mut own = Vec::new();
        if let Some(parent) = path.parent() {
            let layers = self.made_of(parent);
            for (at, found) in self.entries(&layers, path) {
                if !found.is_dir() {
                    break;
                }
                own.push(at);
                if is_opaque(&self.place(at, path)) {
                    break;
                }
            }
        }
        let own: Arc<[usize]> = own.into();
        self.known.borrow_mut().insert(path.to_owned(), Arc::clone(&own));
        own
    }
}

fn is_whiteout(found: &Metadata) -> bool {
    found.file_type().is_char_device() && found.rdev() == 0
}

/// Returns whether a directory hides those of lower layers. Overlays mounted by root use the first attribute,
/// those in a user namespace the second.
fn is_opaque(directory: &Path) -> bool {
    ["trusted.overlay.opaque", "user.overlay.opaque"].iter().any(|name| {
        let mut value = [0; 1];
        rustix::fs::lgetxattr(directory, *name, &mut value[..])
            .is_ok_and(|length| length == 1 && value == *b"y")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{FileType, Mode, XattrFlags, lsetxattr, mknodat};
    use std::os::unix::fs::symlink;

    /// Creates layers in a host directory, uppermost first, each with its files and symlinks (`from -> to`).
    fn layers(dir: &Path, contents: &[&[&str]]) -> Vec<PathBuf> {
        let make = |(number, entries): (usize, &&[&str])| {
            let layer = dir.join(number.to_string());
            fs::create_dir(&layer).unwrap();
            for entry in *entries {
                let (path, target) = entry.split_once(" -> ").unwrap_or((entry, ""));
                let path = layer.join(path.trim_start_matches('/'));
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                match target {
                    "" => fs::write(path, "").unwrap(),
                    _ => symlink(target, path).unwrap(),
                }
            }
            layer
        };
        contents.iter().enumerate().map(make).collect()
    }

    #[test]
    fn an_overlays_entries_are_the_uppermost_layers() {
        let dir = tempfile::tempdir().unwrap();
        let made = layers(
            dir.path(),
            &[
                &["/etc/alternatives/awk -> /usr/bin/gawk"],
                &[
                    "/bin -> usr/bin",
                    "/etc/alternatives/awk -> /usr/bin/mawk",
                    "/etc/alternatives/vi -> /usr/bin/vim",
                ],
                &["/bin/sh", "/usr/bin/sh -> dash", "/usr/bin/dash"],
            ],
        );
        let root = Root::overlay(&Root::of_process("self"), &made);
        for (path, resolved) in [
            ("/bin/sh", "/usr/bin/dash"),
            ("/etc/alternatives/awk", "/usr/bin/gawk"),
            ("/etc/alternatives/vi", "/usr/bin/vim"),
            ("/no/such", "/no/such"),
            ("/bin/../bin/no", "/usr/bin/no"),
        ] {
            assert_eq!(root.resolve(path, true), Path::new(resolved), "{path}");
        }
        assert_eq!(root.resolve("/bin/sh", false), Path::new("/usr/bin/sh"));
        assert!(root.is_dir(Path::new("/usr/bin")) && !root.is_dir(Path::new("/bin")));
        assert!(root.is_dir(Path::new("/")) && root.directory().is_none());
    }

    #[test]
    fn what_an_upper_layer_hides_is_not_there() {
        let dir = tempfile::tempdir().unwrap();
        let made = layers(
            dir.path(),
            &[
                &["/opaque/new", "/file"],
                &["/opaque/a -> /A", "/bin -> usr/bin", "/lib/a -> /A", "/file/x -> /X", "/kept/a -> /A"],
            ],
        );
        let upper = fs::File::open(&made[0]).unwrap();
        for gone in ["bin", "lib"] {
            if let Err(error) = mknodat(&upper, gone, FileType::CharacterDevice, Mode::empty(), 0) {
                eprintln!("left out: whiteouts cannot be made here: {error}");
                return;
            }
        }
        let opaque = made[0].join("opaque");
        lsetxattr(&opaque, "trusted.overlay.opaque", b"y", XattrFlags::empty()).unwrap();
        let root = Root::overlay(&Root::of_process("self"), &made);
        for path in ["/opaque/a", "/bin", "/lib/a", "/file/x"] {
            assert_eq!(root.resolve(path, true), Path::new(path));
        }
        assert_eq!(root.resolve("/kept/a", true), Path::new("/A"));
    }

    #[test]
    fn an_unknown_root_has_the_usual_links() {
        for layers in [&[][..], &["/no/such/layer".into()][..]] {
            let root = Root::of_layers(layers);
            for (path, resolved) in [
                ("/bin/sh", "/usr/bin/sh"),
                ("/lib64", "/usr/lib64"),
                ("/library/x", "/library/x"),
                ("/usr/bin/sh", "/usr/bin/sh"),
            ] {
                assert_eq!(root.resolve(path, true), Path::new(resolved));
            }
        }
    }
}
