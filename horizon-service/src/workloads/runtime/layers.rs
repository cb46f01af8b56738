//! Reads the layers of a container's root from Docker's own files.
//!
//! ```text
//! <root>/image/overlay2/layerdb/mounts/<container>/mount-id   the name of its own layer
//! <root>/overlay2/<layer>/diff                                content of a layer
//! <root>/overlay2/<layer>/lower                               the layers below: `l/<short name>`, separated by colons
//! <root>/overlay2/l/<short name>                              a symlink to `../<layer>/diff`
//! ```
//!
//! These files are internal to Docker, unchanged since its version 1.10. If they differ, no layers are found,
//! and the runtime's answer is waited for.

use std::fs;
use std::path::{Path, PathBuf};

use armor_base::file;

use crate::workloads::root::Root;

/// Maximum size of one of the files, in bytes. Docker stacks up to 128 layers and names each in a few dozen.
const MAX_FILE: usize = 64 << 10;
/// The storage driver whose files these are.
const DRIVER: &str = "overlay2";

/// A `LayerStore` finds the layers that a Docker keeps.
#[derive(Default)]
pub(super) struct LayerStore {
    /// Docker's directory on the host; `None` if its storage driver is another.
    dir: Option<PathBuf>,
}

impl LayerStore {
    /// Returns the store of a Docker with this directory and storage driver.
    pub(super) fn new(dir: Option<&str>, driver: Option<&str>) -> Self {
        Self { dir: dir.filter(|_| driver == Some(DRIVER)).map(PathBuf::from) }
    }

    /// Returns the layers of a container, uppermost first, as an inspection names them.
    pub(super) fn of(&self, id: &str) -> Option<Vec<PathBuf>> {
        self.on(&Root::of_host(), id)
    }

    fn on(&self, host: &Root, id: &str) -> Option<Vec<PathBuf>> {
        let dir = self.dir.as_ref()?;
        // Symlinks in the path of Docker's directory are the host's.
        let reach = |path: &Path| {
            let parent = host.resolve(path.parent()?.to_str()?, true);
            host.find(&parent.join(path.file_name()?))
        };
        let read = |path: &Path| String::from_utf8(file::read(&reach(path)?, MAX_FILE).ok()?).ok();
        let mount = read(&dir.join("image").join(DRIVER).join("layerdb/mounts").join(id).join("mount-id"))?;
        if mount.is_empty() || !mount.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return None;
        }
        let store = dir.join(DRIVER);
        let mut layers = vec![store.join(&mount).join("diff")];
        for short in read(&store.join(&mount).join("lower"))?.split(':') {
            let link = fs::read_link(reach(&store.join(short))?).ok()?;
            layers.push(store.join(link.strip_prefix("..").ok()?));
        }
        Some(layers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn layers_are_found_where_docker_keeps_them() {
        let dir = tempfile::tempdir().unwrap();
        let docker = dir.path().join("data");
        let mounts = docker.join("image/overlay2/layerdb/mounts");
        for (id, mount) in [("a1", "own"), ("b2", "../../x"), ("c3", "gone")] {
            fs::create_dir_all(mounts.join(id)).unwrap();
            fs::write(mounts.join(id).join("mount-id"), mount).unwrap();
        }
        fs::create_dir_all(docker.join("overlay2/l")).unwrap();
        fs::create_dir_all(docker.join("overlay2/own")).unwrap();
        fs::write(docker.join("overlay2/own/lower"), "l/AAA:l/BBB").unwrap();
        symlink("../own-init/diff", docker.join("overlay2/l/AAA")).unwrap();
        symlink("../base/diff", docker.join("overlay2/l/BBB")).unwrap();
        fs::create_dir_all(dir.path().join("var/lib")).unwrap();
        symlink("/data", dir.path().join("var/lib/docker")).unwrap();

        let host = Root::at(dir.path().to_owned());
        let store = LayerStore::new(Some("/var/lib/docker"), Some("overlay2"));
        let expected = ["own/diff", "own-init/diff", "base/diff"];
        let expected = expected.map(|layer| Path::new("/var/lib/docker/overlay2").join(layer));
        assert_eq!(store.on(&host, "a1").unwrap(), expected);
        for unknown in ["b2", "c3", "d4"] {
            assert_eq!(store.on(&host, unknown), None, "{unknown}");
        }
        assert_eq!(LayerStore::new(Some("/var/lib/docker"), Some("btrfs")).on(&host, "a1"), None);
        assert_eq!(LayerStore::default().of("a1"), None);
    }
}
