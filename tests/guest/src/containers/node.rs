//! Has the kernel side of a node, with the containers and control groups that a test makes.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use armor_bpf::{
    ContainerId, DomainRules, DomainSettings, Enforcer, Generation, HOST_DOMAIN, MountTree,
    UNIDENTIFIED_DOMAIN,
};
use armor_policy::{Domain, Links, PolicySet, compile};
use rustix::mount::{MountFlags, mount};

use crate::run::PROGRAMS;

pub(super) const POLICY: &str = "\
apiVersion: security.kubearmor.com/v1
kind: KubeArmorPolicy
metadata: {name: container}
spec:
  selector: {matchLabels: {app: container}}
  process: {matchDirectories: [{dir: /t/c/blocked/}]}
  file: {matchPaths: [{path: /t/c/secret}]}
";

pub(super) const BLOCKED: &str = "/t/c/blocked/true";
pub(super) const FREE: &str = "/t/c/free/true";
/// The last domain that a container can have. It has no rules here.
pub(super) const UNRULED: u32 = UNIDENTIFIED_DOMAIN - 1;

/// A `Hierarchy` is a version of control groups.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Hierarchy {
    V1,
    V2,
}

impl Hierarchy {
    pub(super) fn path(self) -> &'static str {
        match self {
            Self::V1 => "/run/cgroup-v1",
            Self::V2 => "/sys/fs/cgroup",
        }
    }
}

/// A `Node` has the kernel side, and what the tests made.
pub(super) struct Node {
    pub(super) enforcer: Enforcer,
    pub(super) domain: Domain,
    pub(super) groups: Vec<PathBuf>,
    pub(super) known: Vec<ContainerId>,
    pub(super) rules_the_host: bool,
    pub(super) rules_unidentified: bool,
    pub(super) next: u32,
}

impl Node {
    pub(super) fn new() -> anyhow::Result<Self> {
        fs::create_dir_all("/t/c/blocked")?;
        fs::create_dir_all("/t/c/free")?;
        fs::create_dir_all("/t/c/elsewhere")?;
        for program in [BLOCKED, FREE] {
            fs::copy("/usr/bin/busybox", program)?;
        }
        fs::write("/t/c/secret", "secret\n")?;
        let v1 = Hierarchy::V1.path();
        fs::create_dir_all(v1)?;
        mount("none", v1, "cgroup", MountFlags::empty(), Some(c"devices"))
            .context("a hierarchy of version 1")?;
        let domain = compiled(POLICY)?;
        let enforcer = Enforcer::attach(Some(Path::new(PROGRAMS)))?;
        let (groups, known) = (Vec::new(), Vec::new());
        let (rules_the_host, rules_unidentified) = (false, false);
        let mut node = Self { enforcer, domain, groups, known, rules_the_host, rules_unidentified, next: 1 };
        node.swap()?;
        Ok(node)
    }

    /// Makes a generation live in which every container's domain but [`UNRULED`] has the same rules, as do
    /// the host and unidentified containers if the node's flags say so. Containers have no mount tree, as if
    /// not looked at yet.
    pub(super) fn swap(&mut self) -> anyhow::Result<()> {
        let host = MountTree::of_process("1")?;
        let host_mount_namespace = host.mount_namespace;
        let rules = |number: u32, tree: MountTree| DomainRules {
            number,
            tables: &self.domain,
            tree,
            settings: DomainSettings::default(),
        };
        let mut domains: Vec<DomainRules<'_>> =
            (1..UNRULED).map(|number| rules(number, MountTree::default())).collect();
        if self.rules_unidentified {
            domains.push(rules(UNIDENTIFIED_DOMAIN, MountTree::default()));
        }
        if self.rules_the_host {
            domains.push(rules(HOST_DOMAIN, host));
        }
        let generation =
            Generation { id: self.enforcer.generation() + 1, host_mount_namespace, domains: &domains };
        Ok(self.enforcer.swap(&generation)?)
    }

    pub(super) fn id(&mut self) -> String {
        self.next += 1;
        format!("{:064x}", u64::from(self.next).wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    pub(super) fn add(&mut self, id: &str, number: u32) -> anyhow::Result<()> {
        let id = ContainerId::parse(id).context("no id")?;
        self.enforcer.add_container(id, number)?;
        self.known.push(id);
        Ok(())
    }

    pub(super) fn group(&mut self, hierarchy: Hierarchy, name: &str) -> anyhow::Result<PathBuf> {
        let path = Path::new(hierarchy.path()).join(name);
        fs::create_dir(&path).with_context(|| path.display().to_string())?;
        self.groups.push(path.clone());
        Ok(path)
    }

    /// Makes a container that the kernel side knows, and returns its group.
    pub(super) fn container(&mut self) -> anyhow::Result<PathBuf> {
        let id = self.id();
        self.add(&id, 1)?;
        self.group(Hierarchy::V2, &format!("docker-{id}.scope"))
    }

    pub(super) fn forget_all(&mut self) -> anyhow::Result<()> {
        for id in self.known.drain(..) {
            self.enforcer.remove_container(id)?;
        }
        for group in self.groups.drain(..).rev() {
            fs::remove_dir(&group).with_context(|| group.display().to_string())?;
        }
        Ok(())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let id = self.enforcer.generation() + 1;
        let nothing = Generation { id, host_mount_namespace: 0, domains: &[] };
        if let Err(error) = self.enforcer.swap(&nothing) {
            eprintln!("{error}");
        }
    }
}

pub(super) fn compiled(policy: &str) -> anyhow::Result<Domain> {
    let policies = armor_policy::parse("containers", policy)?;
    Ok(compile(&[PolicySet::of(&policies)], &Links::new())?)
}

/// Has other rules for all containers until the test ends.
pub(super) fn with_rules(
    node: &mut Node,
    spec: &str,
    test: impl FnOnce(&mut Node) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let (head, _) = POLICY.split_once("  process:").context("no process section")?;
    let before: Domain = std::mem::replace(&mut node.domain, compiled(&format!("{head}  {spec}\n"))?);
    let outcome = node.swap().and_then(|()| test(node));
    node.domain = before;
    node.swap()?;
    outcome
}
