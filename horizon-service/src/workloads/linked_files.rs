//! Finds the files with hard links and the devices that rules cover.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use armor_bpf::{DEVICE_BLOCK, DEVICE_CHARACTER, LinkedFile, kernel_device};
use armor_policy::Domain;
use armor_policy::Policy;
use armor_policy::decision::Verdict;
use armor_policy::path::{OBJECT_NONE, Section, Target, path_rules};

use crate::workloads::root::Root;

/// Finds the files with hard links and the devices that rules cover. Warns if there are more than `limit`
/// entries to search.
///
/// A pattern's or directory's files are found by walking it; an `execname` names no place to search. A device
/// node outside `/dev` counts only if a rule names the node itself: a rule for a jail's directory is about
/// the jail's nodes, not about all of `/dev/null`. Files of layers that no overlay shows yet are left out,
/// since they have no device that the kernel would know them by.
pub(super) fn linked_files(
    root: &Root,
    policies: &[&Policy],
    domain: &Domain,
    limit: usize,
) -> Vec<LinkedFile> {
    let (linked, complete) = linked_files_within(root, policies, domain, limit);
    if !complete {
        tracing::warn!(
            "more than {limit} files below the policies' directories: of those beyond, only the name a rule matches \
             is protected, not hard links that exist already"
        );
    }
    linked
}

fn linked_files_within(
    root: &Root,
    policies: &[&Policy],
    domain: &Domain,
    mut limit: usize,
) -> (Vec<LinkedFile>, bool) {
    let Some(directory) = root.directory() else { return (Vec::new(), true) };
    let outside = |path: &Path| directory.join(path.strip_prefix("/").unwrap_or(path));
    let mut found = BTreeMap::new();
    let mut pending: VecDeque<(PathBuf, bool)> = VecDeque::new();
    for rule in path_rules(policies) {
        let (path, recursive) = match &rule.target {
            Target::Path(path) => (path.clone(), false),
            Target::Directory { path, recursive } => (path.clone(), *recursive),
            Target::Glob(glob) => (glob.directory(), true),
            Target::Name(_) => continue,
        };
        let is_file = matches!(rule.target, Target::Path(_));
        let path = root.resolve(&path, !is_file || rule.section == Section::File);
        if is_file {
            note(&path, &outside(&path), domain, true, &mut found);
        } else {
            pending.push_back((path, recursive));
        }
    }
    let mut seen = BTreeSet::new();
    while let Some((directory, recursive)) = pending.pop_front() {
        // Files that the kernel generates have no hard links.
        if ["/proc", "/sys"].iter().any(|made_up| directory == Path::new(made_up))
            || !seen.insert((directory.clone(), recursive))
        {
            continue;
        }
        let Ok(entries) = fs::read_dir(outside(&directory)) else { continue };
        let of_devices = directory.starts_with("/dev");
        for entry in entries.flatten() {
            if limit == 0 {
                return (found.into_values().collect(), false);
            }
            limit -= 1;
            let path = directory.join(entry.file_name());
            match entry.file_type() {
                Ok(kind) if kind.is_dir() && recursive => pending.push_back((path, true)),
                Ok(kind) if !kind.is_dir() => note(&path, &outside(&path), domain, of_devices, &mut found),
                _ => {}
            }
        }
    }
    (found.into_values().collect(), true)
}

/// Major device numbers of terminals. Each `devpts` numbers its own, and they are reached only through it.
const TERMINALS: std::ops::RangeInclusive<u32> = 136..=143;

/// Records the object at `path` if rules cover it and it can be reached by a path unknown to them: a file,
/// socket or FIFO with hard links, or a device. Of several paths with rules, the strictest counts.
fn note(
    path: &Path,
    outside: &Path,
    domain: &Domain,
    of_devices: bool,
    found: &mut BTreeMap<(u32, u64), LinkedFile>,
) {
    let Ok(metadata) = fs::symlink_metadata(outside) else { return };
    let objects = &domain.path.objects;
    let class_of = |path: &Path| objects.class(objects.walk(path.as_os_str().as_bytes()));
    let (kind, number) = (metadata.file_type(), metadata.rdev());
    let (device, inode) = match () {
        () if class_of(path) == OBJECT_NONE || kind.is_dir() || kind.is_symlink() => return,
        () if kind.is_char_device() || kind.is_block_device() => {
            if !of_devices || TERMINALS.contains(&rustix::fs::major(number)) {
                return;
            }
            let kind = if kind.is_block_device() { DEVICE_BLOCK } else { DEVICE_CHARACTER };
            (kind, device_number(number).into())
        }
        () if metadata.nlink() > 1 => (device_number(metadata.dev()), metadata.ino()),
        () => return,
    };
    let file = LinkedFile { device, inode, path: path.to_owned() };
    let stricter =
        |other: &LinkedFile| strictness(domain, class_of(path)) > strictness(domain, class_of(&other.path));
    if found.get(&(device, inode)).is_none_or(stricter) {
        found.insert((device, inode), file);
    }
}

/// Returns how many decisions on objects of a class refuse, and how many only audit, over all subjects.
fn strictness(domain: &Domain, class: u16) -> (usize, usize) {
    let decisions = (0..domain.subject_count)
        .filter_map(|subject| Some(domain.path.vector(u16::try_from(subject).ok()?, class).0))
        .flatten();
    decisions.fold((0, 0), |(refused, audited), decision| match decision.verdict() {
        Verdict::Block => (refused + 1, audited),
        Verdict::Audit => (refused, audited + 1),
        Verdict::Allow => (refused, audited),
    })
}

/// Returns the kernel's own number of a device, from the one that `stat` gives it.
fn device_number(device: u64) -> u32 {
    kernel_device(rustix::fs::major(device), rustix::fs::minor(device))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workloads::testing::parse;
    use armor_policy::{Links, PolicySet, compile};

    #[test]
    fn files_with_several_names_are_found_up_to_a_limit() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::at(dir.path().to_owned());
        fs::create_dir_all(dir.path().join("d/e")).unwrap();
        for name in ["secret", "d/e/deep", "d/single"] {
            fs::write(dir.path().join(name), "").unwrap();
        }
        fs::hard_link(dir.path().join("secret"), dir.path().join("other")).unwrap();
        fs::hard_link(dir.path().join("d/e/deep"), dir.path().join("outside")).unwrap();
        let policies = parse(
            "  file: {matchPaths: [{path: /secret}], matchDirectories: [{dir: /d/, recursive: true}]}\n",
        );
        let all: Vec<&Policy> = policies.iter().collect();
        let domain = compile(&[PolicySet::of(&policies)], &Links::new()).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(dir.path().join("d/socket")).unwrap();
        fs::hard_link(dir.path().join("d/socket"), dir.path().join("d/the-same")).unwrap();
        let paths = |limit| {
            let (files, complete) = linked_files_within(&root, &all, &domain, limit);
            let mut paths: Vec<_> = files.into_iter().map(|file| file.path).collect();
            paths.sort();
            (paths, complete)
        };
        let (found, complete) = paths(100);
        assert!(complete && found.len() == 3 && found[..1] == [PathBuf::from("/d/e/deep")], "{found:?}");
        assert!(found[1].starts_with("/d/") && found[2] == Path::new("/secret"), "{found:?}");
        let (found, complete) = paths(1);
        assert!(!complete && found.contains(&PathBuf::from("/secret")), "{found:?}");
    }

    #[test]
    fn devices_are_found_by_their_nodes() {
        let root = Root::of_process("self");
        let found = |spec: &str| {
            let policies = parse(spec);
            let all: Vec<&Policy> = policies.iter().collect();
            let domain = compile(&[PolicySet::of(&policies)], &Links::new()).unwrap();
            let (files, complete) = linked_files_within(&root, &all, &domain, 10_000);
            assert!(complete);
            files.into_iter().map(|file| (file.device, file.inode, file.path)).collect::<Vec<_>>()
        };
        let null = (DEVICE_CHARACTER, 1 << 20 | 3, PathBuf::from("/dev/null"));
        assert_eq!(
            found("  file: {matchPaths: [{path: /dev/null}, {path: /dev/pts/ptmx}]}\n")[..1],
            std::slice::from_ref(&null)[..]
        );
        assert!(found("  file: {matchDirectories: [{dir: /dev/, recursive: true}]}\n").contains(&null));
        assert!(!found("  file: {matchPatterns: [{pattern: /dev/z*}]}\n").contains(&null));
    }

    #[test]
    fn of_two_names_the_one_that_more_is_refused_by_counts() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a"), "").unwrap();
        fs::hard_link(dir.path().join("a"), dir.path().join("z")).unwrap();
        for strict in ["a", "z"] {
            let loose = if strict == "a" { "z" } else { "a" };
            let policies = parse(&format!(
                "  file: {{matchPaths: [{{path: /{strict}}}, {{path: /{loose}, readOnly: true}}]}}\n"
            ));
            let all: Vec<&Policy> = policies.iter().collect();
            let domain = compile(&[PolicySet::of(&policies)], &Links::new()).unwrap();
            let (files, _) = linked_files_within(&Root::at(dir.path().to_owned()), &all, &domain, 10);
            assert_eq!(
                files.iter().map(|file| &file.path).collect::<Vec<_>>(),
                [&Path::new("/").join(strict)]
            );
        }
    }
}
