//! Finds filesystems that accept several spellings of a name. The kernel keeps the spelling by which a file
//! was opened, so a rule for one spelling does not cover the others.

use std::fs::File;
use std::path::Path;

use armor_policy::escaped_path;
use armor_policy::path::Target;

use crate::workloads::root::Root;

/// `MSDOS_SUPER_MAGIC` and `EXFAT_SUPER_MAGIC`, include/uapi/linux/magic.h.
const FOLDING: [i64; 2] = [0x4d44, 0x2011_bab0];
/// `FS_CASEFOLD_FL`, include/uapi/linux/fs.h.
const CASEFOLD: u32 = 0x4000_0000;

/// Returns what to write instead of a target below a directory that folds names. A recursive rule for that
/// directory itself needs no change.
pub fn advice(root: &Root, target: &Target) -> Option<String> {
    let (path, is_all_below) = match target {
        Target::Path(path) => (path.clone(), false),
        Target::Directory { path, recursive } => (path.clone(), *recursive),
        Target::Glob(glob) => (glob.directory(), false),
        Target::Name(_) => return None,
    };
    let path = root.resolve(&path, true);
    let directory = outermost(&path, |directory| root.find(directory).is_some_and(|found| folds(&found)))?;
    if is_all_below && directory == path {
        return None;
    }
    let directory = escaped_path(directory);
    Some(format!(
        "{} lies in {directory}, which takes names in several spellings, and this is a rule about one: write a recursive \
         matchDirectories for {directory}",
        escaped_path(&path)
    ))
}

/// Returns the outermost directory, among `path` and its ancestors, for which `folds` is true.
fn outermost(path: &Path, folds: impl Fn(&Path) -> bool) -> Option<&Path> {
    path.ancestors().filter(|directory| folds(directory)).last()
}

/// Returns whether a directory accepts several spellings of a name: any on vfat and exfat, and directories of
/// other filesystems with the flag.
fn folds(directory: &Path) -> bool {
    if !directory.is_dir() {
        return false;
    }
    let magic = rustix::fs::statfs(directory).map(|found| found.f_type);
    if magic.is_ok_and(|magic| FOLDING.contains(&magic)) {
        return true;
    }
    let flags = File::open(directory).ok().and_then(|directory| rustix::fs::ioctl_getflags(directory).ok());
    flags.is_some_and(|flags| flags.bits() & CASEFOLD != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_directory_furthest_up_that_folds_is_named() {
        let efi = |directory: &Path| directory.starts_with("/boot/efi");
        assert_eq!(outermost(Path::new("/boot/efi/EFI/debian"), efi), Some(Path::new("/boot/efi")));
        assert_eq!(outermost(Path::new("/boot/efi"), efi), Some(Path::new("/boot/efi")));
        assert_eq!(outermost(Path::new("/boot/grub"), efi), None);
        assert!(!folds(Path::new("/proc")));
    }
}
