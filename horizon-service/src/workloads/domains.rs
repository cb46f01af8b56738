//! Compiles policies into a domain of the kernel: selects policies, resolves their paths in the workload's
//! own root, and finds the files with hard links.
//!
//! Nothing here changes anything; all of it may be repeated at any time.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use armor_bpf::{DEVICE_BLOCK, DEVICE_CHARACTER, LinkedFile};
use armor_hub_client::bundle::NodeIdentity;
use armor_hub_client::bundle::constraint::Properties;
use armor_hub_client::file;
use armor_policy::model::{Kind, Section, Target};
use armor_policy::names::{ARCH, HOSTNAME, HOSTNAME_REGEX, NODE_ID, NODE_ORG, NODE_PROPERTIES, Names, OS};
use armor_policy::tables::{Domain, OBJECT_NONE, Verdict};
use armor_policy::{CompileError, CompileOptions, Policy, Posture, compile, literal_paths};
use serde_json::Value;

use crate::hub::horizon::horizon_arch;
use crate::workloads::effect::without_effect;
use crate::workloads::links::{Links, Watched, Whose};
use crate::workloads::root::Root;
use crate::workloads::workload::{Selector, Workload};

/// Maximum number of host directory entries searched for files with hard links.
const MAX_ENTRIES: usize = 100_000;
/// Maximum number of entries for a container; lower, because other containers wait meanwhile.
const MAX_CONTAINER_ENTRIES: usize = 10_000;
/// Maximum size of `/etc/hostname`, in bytes.
const MAX_HOSTNAME: usize = 4 << 10;

/// `NodeNames` are the names by which policies select this node.
#[derive(Debug, Clone, Default)]
pub struct NodeNames {
    /// The host's name.
    pub hostname: String,
    /// The node's id in Horizon.
    pub id: String,
    /// The node's organisation.
    pub org: String,
    /// The architecture, as Horizon names it.
    pub arch: String,
    /// The node's built-in properties.
    pub properties: Properties,
}

impl NodeNames {
    /// Returns the names of this host, which Horizon knows as `node`.
    pub fn of(node: &NodeIdentity) -> Self {
        Self {
            hostname: Self::hostname(),
            id: node.id.clone(),
            org: node.org.clone(),
            arch: if node.arch.is_empty() { horizon_arch().to_owned() } else { node.arch.clone() },
            properties: node.properties.clone(),
        }
    }

    /// Returns the host's name as process 1 sees it, which may differ from that of the agent's container.
    pub fn hostname() -> String {
        let own = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let uts = |process: &str| fs::read_link(format!("/proc/{process}/ns/uts")).ok();
        if uts("1").is_none() || uts("1") == uts("self") {
            return own;
        }
        let host = file::read(Path::new("/proc/1/root/etc/hostname"), MAX_HOSTNAME).unwrap_or_default();
        let host = String::from_utf8(host).unwrap_or_default();
        if host.trim().is_empty() { own } else { host.trim().to_owned() }
    }

    /// Returns whether a policy is for this host.
    pub fn selected_by(&self, policy: &Policy) -> bool {
        policy.kind == Kind::Host
            && policy.selector.labels.iter().all(|(key, value)| self.carries(key, value))
    }

    fn carries(&self, key: &str, value: &str) -> bool {
        if HOSTNAME_REGEX.contains(&key) {
            return Names::hostname_regex(value).is_ok_and(|names| names.matches(&self.hostname));
        }
        let Ok(names) = Names::exact(value) else { return false };
        let is = |name: &String| !name.is_empty() && names.matches(name);
        match key {
            _ if HOSTNAME.contains(&key) => names.matches(&self.hostname) || is(&self.id),
            NODE_ID => is(&self.id),
            NODE_ORG => is(&self.org),
            ARCH => is(&self.arch),
            OS => names.matches("linux"),
            "openhorizon.arch" => is(&self.arch),
            _ if NODE_PROPERTIES.contains(&key) => {
                self.properties.get(key).is_some_and(|property| match property {
                    Value::String(text) => is(text),
                    other => names.matches(&other.to_string()),
                })
            }
            _ => false,
        }
    }
}

/// `CompiledPolicies` are policies compiled for a root.
#[derive(Clone)]
pub struct CompiledPolicies {
    /// The tables.
    pub domain: Arc<Domain>,
    /// Files and devices under rules that can be reached by other paths.
    pub linked: Vec<LinkedFile>,
    /// The targets of the rules' paths.
    pub links: Links,
    /// Notes on rules without effect in that root, and what to write instead.
    pub notes: Vec<String>,
}

/// Compiles `policies` for the tree below `root`.
///
/// # Errors
/// Fails with [`CompileError`] if the policies cannot be compiled.
pub fn build(policies: &[&Policy], posture: Posture, root: &Root) -> Result<CompiledPolicies, CompileError> {
    let links = links(std::slice::from_ref(root), policies);
    let domain = compile(policies, &CompileOptions { posture, links: links.clone() })?;
    warn_of_flags(policies);
    let linked = linked_files(root, policies, &domain, MAX_ENTRIES);
    let notes = without_effect(root, policies);
    Ok(CompiledPolicies { domain: Arc::new(domain), linked, links: Arc::new(links), notes })
}

/// Warns if `readOnly` cannot protect a file's flags and project id on this kernel.
fn warn_of_flags(policies: &[&Policy]) {
    let mut rules = policies.iter().flat_map(|policy| &policy.rules);
    if !armor_bpf::sees_file_attributes() && rules.any(|rule| rule.read_only) {
        tracing::warn!("flags and project ids of files are {}", crate::cli::probe::FLAGS_UNSEEN);
    }
}

/// `ContainerPolicies` holds a bundle's policies for containers and the tables compiled from them.
pub struct ContainerPolicies {
    policies: Vec<(Arc<Policy>, Selector)>,
    posture: Posture,
    /// The result of [`Self::unidentified`].
    unidentified: Option<Arc<Domain>>,
    /// By container id, the container at the last call of [`Self::build`] and its tables.
    built: BTreeMap<String, (Arc<Workload>, Option<CompiledPolicies>)>,
    compiled: Vec<Compiled>,
}

/// `Compiled` is a set of policies, compiled for all roots in which their paths have the same targets.
struct Compiled {
    policies: Vec<usize>,
    links: Links,
    domain: Arc<Domain>,
}

impl ContainerPolicies {
    /// Takes the container policies among `policies`, which may be for hosts too.
    ///
    /// # Errors
    /// Fails with [`CompileError`] if they cannot be compiled together, as for a container that all of them
    /// select. If they can, any subset can.
    pub fn new(policies: &[Policy], posture: Posture) -> Result<Self, CompileError> {
        let ours: Vec<&Policy> = policies.iter().filter(|policy| policy.kind == Kind::Container).collect();
        let mut unidentified = None;
        if !ours.is_empty() {
            let mut options = CompileOptions { posture, links: links(&[Root::of_layers(&[])], &ours) };
            compile(&ours, &options)?;
            options.posture = Posture::Allow;
            unidentified = Some(Arc::new(compile(&ours, &options)?));
            warn_of_flags(&ours);
        }
        // The selector of a parsed policy is always valid.
        let selectable = |policy: &&Policy| Some((Arc::new((*policy).clone()), Selector::new(policy).ok()?));
        let policies = ours.iter().filter_map(selectable).collect();
        Ok(Self { policies, posture, unidentified, built: BTreeMap::new(), compiled: Vec::new() })
    }

    /// Returns whether there are no policies for containers.
    pub fn is_empty(&self) -> bool {
        self.policies.is_empty()
    }

    /// Returns the tables for unidentified containers. Any policy may apply to these, so the tables hold all
    /// of them, but permit what an allow-list leaves out.
    pub fn unidentified(&self) -> Option<&Arc<Domain>> {
        self.unidentified.as_ref()
    }

    /// Returns the names of the policies that select none of `workloads`, and the number of the others.
    pub fn idle<'a>(&self, workloads: impl Iterator<Item = &'a Workload> + Clone) -> (Vec<String>, usize) {
        let is_idle = |(_, selector): &&(Arc<Policy>, Selector)| {
            !workloads.clone().any(|workload| selector.selects(workload))
        };
        let idle: Vec<String> =
            self.policies.iter().filter(is_idle).map(|(policy, _)| policy.name.clone()).collect();
        let selecting = self.policies.len() - idle.len();
        (idle, selecting)
    }

    /// Returns the tables for a container, or `None` if no policy selects it.
    ///
    /// # Errors
    /// Fails with [`CompileError`] if its policies cannot be compiled.
    pub fn build(&mut self, workload: &Arc<Workload>) -> Result<Option<CompiledPolicies>, CompileError> {
        if let Some((as_it_was, built)) = self.built.get(&workload.id)
            && as_it_was == workload
        {
            return Ok(built.clone());
        }
        let built = self.build_anew(workload)?;
        self.built.insert(workload.id.clone(), (Arc::clone(workload), built.clone()));
        Ok(built)
    }

    fn build_anew(&mut self, workload: &Workload) -> Result<Option<CompiledPolicies>, CompileError> {
        let selected: Vec<usize> =
            (0..self.policies.len()).filter(|at| self.policies[*at].1.selects(workload)).collect();
        if selected.is_empty() {
            return Ok(None);
        }
        let policies: Vec<&Policy> = selected.iter().map(|at| &*self.policies[*at].0).collect();
        let root = workload.root();
        let links = Arc::new(links(&workload.roots(), &policies));
        let known = self.compiled.iter().find(|known| known.policies == selected && known.links == links);
        let domain = match known {
            Some(known) => Arc::clone(&known.domain),
            None => {
                let options = CompileOptions { posture: self.posture, links: BTreeMap::clone(&links) };
                let domain = Arc::new(compile(&policies, &options)?);
                let (policies, links, domain_too) =
                    (selected.clone(), Arc::clone(&links), Arc::clone(&domain));
                self.compiled.push(Compiled { policies, links, domain: domain_too });
                domain
            }
        };
        let linked = linked_files(&root, &policies, &domain, MAX_CONTAINER_ENTRIES);
        let notes = without_effect(&root, &policies);
        Ok(Some(CompiledPolicies { domain, linked, links, notes }))
    }

    /// Returns the names of all policies.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.policies.iter().map(|(policy, _)| policy.name.as_str())
    }

    /// Returns the policies that select a container.
    pub fn selecting<'a>(&'a self, workload: &'a Workload) -> impl Iterator<Item = &'a Arc<Policy>> {
        self.policies.iter().filter(|(_, selector)| selector.selects(workload)).map(|(policy, _)| policy)
    }

    /// Returns the notes on rules without effect, each with its container.
    pub fn notes(&self) -> impl Iterator<Item = (&str, &Workload)> {
        self.built.values().flat_map(|(workload, built)| {
            let notes = built.iter().flat_map(|built| &built.notes);
            notes.map(|note| (note.as_str(), &**workload))
        })
    }

    /// Returns the paths to resolve again in each container.
    pub fn watched(&self) -> Vec<Watched> {
        let watch = |(workload, built): &(Arc<Workload>, Option<CompiledPolicies>)| {
            let links = Arc::clone(&built.as_ref()?.links);
            let policies = self.selecting(workload).cloned().collect();
            Some(Watched { whose: Whose::Container(Arc::clone(workload)), policies, links })
        };
        self.built.values().filter_map(watch).collect()
    }

    /// Discards the tables of a container, so that they are compiled again.
    pub fn forget(&mut self, id: &str) {
        self.built.remove(id);
    }

    /// Discards the tables of containers that are gone.
    pub fn keep<'a>(&mut self, present: impl Iterator<Item = &'a Workload>) {
        let present: BTreeSet<&str> = present.map(|workload| workload.id.as_str()).collect();
        self.built.retain(|id, _| present.contains(id.as_str()));
        let built = &self.built;
        let is_used = |domain: &Arc<Domain>| {
            built
                .values()
                .any(|(_, built)| built.as_ref().is_some_and(|built| Arc::ptr_eq(&built.domain, domain)))
        };
        self.compiled.retain(|known| is_used(&known.domain));
    }
}

/// Resolves the paths of `policies` for [`CompileOptions::links`]. A program that is itself a symlink is not
/// followed, because a rule for `/bin/wget` would then cover all of `/bin/busybox`. A source, any directory
/// and any path of a `file` rule are followed.
pub(crate) fn links(roots: &[Root], policies: &[&Policy]) -> BTreeMap<String, Vec<String>> {
    let mut followed = BTreeSet::new();
    for rule in policies.iter().flat_map(|policy| &policy.rules) {
        followed.extend(rule.sources.iter().map(String::as_str));
        if let (Section::File, Target::Path(path)) = (rule.section, &rule.target) {
            followed.insert(path);
        }
    }
    let resolve = |root: &Root, path: &String| {
        let mut to = root.resolve(path, followed.contains(path.as_str()));
        let end = root.resolve(path, true);
        if root.is_dir(&end) {
            to = end;
        }
        to.into_os_string().into_string().ok().filter(|to| to != path)
    };
    let resolve_in_all = |path: String| {
        let mut ends: Vec<String> = roots.iter().filter_map(|root| resolve(root, &path)).collect();
        ends.sort_unstable();
        ends.dedup();
        (!ends.is_empty()).then_some((path, ends))
    };
    literal_paths(policies).into_iter().filter_map(resolve_in_all).collect()
}

/// Finds the files with hard links and the devices that rules cover. Warns if there are more than `limit`
/// entries to search.
///
/// A pattern's or directory's files are found by walking it; an `execname` names no place to search. A device
/// node outside `/dev` counts only if a rule names the node itself: a rule for a jail's directory is about
/// the jail's nodes, not about all of `/dev/null`. Files of layers that no overlay shows yet are left out,
/// since they have no device that the kernel would know them by.
fn linked_files(root: &Root, policies: &[&Policy], domain: &Domain, limit: usize) -> Vec<LinkedFile> {
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
    for rule in policies.iter().flat_map(|policy| &policy.rules) {
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
    let class_of = |path: &Path| domain.objects.class(domain.objects.walk(path.as_os_str().as_bytes()));
    let (kind, number) = (metadata.file_type(), metadata.rdev());
    let (device, inode) = match () {
        () if class_of(path) == OBJECT_NONE || kind.is_dir() || kind.is_symlink() => return,
        () if kind.is_char_device() || kind.is_block_device() => {
            if !of_devices || TERMINALS.contains(&rustix::fs::major(number)) {
                return;
            }
            let kind = if kind.is_block_device() { DEVICE_BLOCK } else { DEVICE_CHARACTER };
            (kind, kernel_device(number).into())
        }
        () if metadata.nlink() > 1 => (kernel_device(metadata.dev()), metadata.ino()),
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
        .filter_map(|subject| Some(domain.vector(u16::try_from(subject).ok()?, class).0))
        .flatten();
    decisions.fold((0, 0), |(refused, told), decision| match decision.verdict() {
        Verdict::Block => (refused + 1, told),
        Verdict::Audit => (refused, told + 1),
        Verdict::Allow => (refused, told),
    })
}

/// Returns the kernel's own `dev_t` (`include/linux/kdev_t.h`, 12 bits major, 20 bits minor) of a device
/// number from `stat`.
fn kernel_device(device: u64) -> u32 {
    rustix::fs::major(device) << 20 | rustix::fs::minor(device)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn parse(spec: &str) -> Vec<Policy> {
        let text = format!(
            "apiVersion: security.kubearmor.com/v1\nkind: KubeArmorPolicy\nmetadata: {{name: p}}\nspec:\n  selector: \
             {{matchLabels: {{app: x}}}}\n{spec}"
        );
        armor_policy::parse("p.yaml", &text).unwrap_or_else(|e| panic!("{e}"))
    }

    fn host_policy(selector: &str) -> Policy {
        let text = format!(
            "apiVersion: security.kubearmor.com/v1\nkind: KubeArmorHostPolicy\nmetadata: {{name: h}}\nspec:\n  nodeSelector: \
             {{matchLabels: {{{selector}}}}}\n  process: {{matchPaths: [{{path: /x}}]}}\n"
        );
        armor_policy::parse("h.yaml", &text).unwrap_or_else(|e| panic!("{e}")).remove(0)
    }

    #[test]
    fn a_host_policy_is_for_the_nodes_it_names() {
        let node = NodeNames {
            hostname: "gw-7".into(),
            id: "node1".into(),
            org: "myorg".into(),
            arch: "arm64".into(),
            properties: [
                ("openhorizon.cpu".to_owned(), 4.into()),
                ("openhorizon.hardwareId".to_owned(), "hw".into()),
            ]
            .into(),
        };
        for (selector, yes) in [
            ("kubearmor.io/hostname: gw-7", true),
            ("kubearmor.io/hostname: node1", true),
            ("kubearmor.io/hostname: '*'", true),
            ("kubearmor.io/hostname: 'other, gw-7'", true),
            ("kubernetes.io/hostname: gw-7", true),
            ("kubearmor.io/hostname: gw-70", false),
            ("kubearmor.io/hostname: gw", false),
            ("kubearmor.io/hostnamereg: gw-*", true),
            ("kubearmor.io/hostnamereg: 'gw-[0-9]'", true),
            ("kubearmor.io/hostnamereg: w-*", false),
            ("horizon.node.id: node1", true),
            ("horizon.node.id: gw-7", false),
            ("horizon.node.org: myorg", true),
            ("kubernetes.io/arch: 'amd64, arm64'", true),
            ("kubernetes.io/arch: amd64", false),
            ("openhorizon.arch: arm64", true),
            ("kubernetes.io/os: linux", true),
            ("kubernetes.io/os: windows", false),
            ("openhorizon.cpu: '4'", true),
            ("openhorizon.cpu: '2'", false),
            ("openhorizon.hardwareId: hw", true),
            ("openhorizon.memory: '*'", false),
            ("purpose: security", false),
            ("kubernetes.io/arch: arm64, horizon.node.id: node2", false),
        ] {
            assert_eq!(node.selected_by(&host_policy(selector)), yes, "{selector}");
        }
        let nobody = NodeNames { hostname: "gw-7".into(), ..NodeNames::default() };
        assert!(!nobody.selected_by(&host_policy("horizon.node.id: '*'")));
    }

    #[test]
    fn containers_with_the_same_policies_and_links_share_tables() {
        let text = "apiVersion: security.kubearmor.com/v1\nkind: KubeArmorPolicy\nmetadata: {name: NAME}\nspec:\n  selector: \
                    {matchLabels: {app: NAME}}\n  process: {matchPaths: [{path: /bin/x}]}\n";
        let policies: Vec<Policy> = ["web", "db"]
            .iter()
            .flat_map(|name| armor_policy::parse("p", &text.replace("NAME", name)).unwrap())
            .chain([host_policy("kubearmor.io/hostname: '*'")])
            .collect();
        let mut containers = ContainerPolicies::new(&policies, Posture::Audit).unwrap();
        let workload = |app: &str| {
            let labels = [("app".to_owned(), app.to_owned())].into();
            Arc::new(Workload { id: app.to_owned(), labels, ..Workload::default() })
        };
        let (web, web_too, db, other) = (workload("web"), workload("web"), workload("db"), workload("other"));
        let web_too = Arc::new(Workload { id: "w2".to_owned(), ..Workload::clone(&web_too) });
        assert_eq!(containers.idle([&*web, &*other].into_iter()), (vec!["db".to_owned()], 1));
        let mut domain = |workload| containers.build(workload).unwrap().map(|built| built.domain);
        let (first, second) = (domain(&web).unwrap(), domain(&web_too).unwrap());
        assert!(Arc::ptr_eq(&first, &second));
        assert!(!Arc::ptr_eq(&first, &domain(&db).unwrap()));
        assert!(domain(&other).is_none());
        drop((first, second));
        containers.keep([&*web].into_iter());
        assert_eq!((containers.compiled.len(), containers.built.len()), (1, 1), "the others are gone");
    }

    #[test]
    fn links_resolve_inside_the_root_and_programs_stay_themselves() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::at(dir.path().to_owned());
        fs::create_dir_all(dir.path().join("usr/bin")).unwrap();
        fs::write(dir.path().join("usr/bin/dash"), "").unwrap();
        symlink("usr/bin", dir.path().join("bin")).unwrap();
        symlink("/usr/bin/dash", dir.path().join("usr/bin/sh")).unwrap();
        symlink("/loop", dir.path().join("loop")).unwrap();
        let policies = parse(
            "  process: {matchPaths: [{path: /bin/sh}, {path: /bin/wget, fromSource: [{path: /bin/sh2}]}], \
             matchDirectories: [{dir: /bin/}]}\n  file: {matchPaths: [{path: /usr/bin/sh}, {path: /loop}, {path: /no/such}]}\n",
        );
        let all: Vec<&Policy> = policies.iter().collect();
        let found = links(std::slice::from_ref(&root), &all);
        let expected = [
            ("/bin", "/usr/bin"),
            ("/bin/sh", "/usr/bin/sh"),
            ("/bin/sh2", "/usr/bin/sh2"),
            ("/bin/wget", "/usr/bin/wget"),
            ("/usr/bin/sh", "/usr/bin/dash"),
        ];
        assert_eq!(found, expected.map(|(from, to)| (from.to_owned(), vec![to.to_owned()])).into());
        let sourced = parse("  process: {matchPaths: [{path: /x, fromSource: [{path: /bin/sh}]}]}\n");
        assert_eq!(links(std::slice::from_ref(&root), &[&sourced[0]])["/bin/sh"], ["/usr/bin/dash"]);
        assert_eq!(root.resolve("/bin/../../etc/x", true), Path::new("/etc/x"));
    }

    #[test]
    fn a_symlink_of_the_image_keeps_its_target_after_changes() {
        let dir = tempfile::tempdir().unwrap();
        let (upper, image) = (dir.path().join("upper"), dir.path().join("image"));
        fs::create_dir_all(image.join("usr/bin")).unwrap();
        fs::write(image.join("usr/bin/wget"), "").unwrap();
        symlink("usr/bin", image.join("bin")).unwrap();
        fs::create_dir(&upper).unwrap();
        let workload = Workload { layers: vec![upper.clone(), image], ..Workload::default() };
        let policies = parse("  process: {matchPaths: [{path: /bin/wget}]}\n");
        let found = || links(&workload.roots(), &[&policies[0]]).remove("/bin/wget");
        assert_eq!(found(), Some(vec!["/usr/bin/wget".to_owned()]));
        fs::create_dir(upper.join("bin")).unwrap();
        assert_eq!(found(), Some(vec!["/usr/bin/wget".to_owned()]), "in its place is a directory");
        fs::remove_dir(upper.join("bin")).unwrap();
        symlink("/opt", upper.join("bin")).unwrap();
        assert_eq!(found(), Some(vec!["/opt/wget".to_owned(), "/usr/bin/wget".to_owned()]));
    }

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
        let domain = compile(&all, &CompileOptions::default()).unwrap();
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
            let domain = compile(&all, &CompileOptions::default()).unwrap();
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
            let domain = compile(&all, &CompileOptions::default()).unwrap();
            let (files, _) = linked_files_within(&Root::at(dir.path().to_owned()), &all, &domain, 10);
            assert_eq!(
                files.iter().map(|file| &file.path).collect::<Vec<_>>(),
                [&Path::new("/").join(strict)]
            );
        }
    }
}
