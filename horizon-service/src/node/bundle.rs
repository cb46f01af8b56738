//! Turns an accepted bundle into the kernel's live generation.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use armor_bpf::{BpfError, Generation, HOST_DOMAIN, MountTree, UNIDENTIFIED_DOMAIN};
use armor_bundle::payload::{AlreadyHeld, OnAgentStop};
use armor_bundle::{NodeIdentity, VerifiedBundle};
use armor_policy::model::Kind;
use armor_policy::{CompileError, Domain, Policy, Posture};
use jiff::Timestamp;

use crate::base::disk::DiskError;
use crate::base::report::{self, InForce, PolicyInForce};
use crate::events::alerts::{DomainNames, RuleTable};
use crate::events::history::History;
use crate::kernel::port::Kernel;
use crate::node::containers::Containers;
use crate::workloads::compiled::{self, CompiledPolicies};
use crate::workloads::container_policies::ContainerPolicies;
use crate::workloads::links::{self, Watched, Whose};
use crate::workloads::node_selector::NodeNames;
use crate::workloads::root::Root;
use crate::workloads::workload::Workload;

/// Alerts per second and rule if the bundle sets no other limit.
const ALERTS_PER_SECOND: u32 = 100;
/// Maximum number of reported notes on rules without effect.
const MAX_NOTES: usize = 32;
/// The process whose root is the host's.
pub const HOST_PROCESS: &str = "1";

/// An `EnforceError` is the reason why a compiled bundle is not live.
#[derive(Debug, thiserror::Error)]
pub enum EnforceError {
    /// The kernel does not take the rules.
    #[error("the kernel does not take the rules: {0}")]
    Kernel(#[from] BpfError),
    /// The workload is gone, or `/proc` does not show it. Without `pid: host`, the host's processes are not
    /// there.
    #[error("/proc/{process}: {error}: the mounts of the workload cannot be read")]
    MountTree {
        /// The process whose mounts were to be read.
        process: &'static str,
        /// The system's error.
        error: io::Error,
    },
    /// The names of the rules cannot be stored.
    #[error(transparent)]
    State(#[from] DiskError),
}

/// A `Host` is the machine that bundles are verified and compiled for.
#[derive(Debug, Clone)]
pub struct Host {
    /// The node's identity in Horizon.
    pub identity: NodeIdentity,
    /// Names by which policies select the node.
    pub names: NodeNames,
    /// The process whose root is the host's.
    pub process: &'static str,
}

/// A `CompiledBundle` is a bundle compiled for this node.
pub struct CompiledBundle {
    bundle: String,
    serial: u64,
    expires: Timestamp,
    process: &'static str,
    posture: Posture,
    host: Option<CompiledPolicies>,
    /// The policies that select this host.
    host_policies: Vec<Arc<Policy>>,
    host_idle: Vec<String>,
    containers: ContainerPolicies,
    /// Index of the containers whose links are resolved next.
    turn: usize,
    alerts_per_second: u32,
    on_agent_stop: OnAgentStop,
    already_held: AlreadyHeld,
    secure_sources: bool,
    /// True if the kernel enforces `live` and the names of its rules are stored.
    is_live: bool,
    live: Vec<ContainerRules>,
    /// True if there are rules for unidentified containers.
    rules_unidentified: bool,
    /// Containers whose policies do not compile for their roots, each with the error.
    not_compiled: Vec<String>,
}

/// `ContainerRules` is a container with its rules in a generation.
#[derive(Clone)]
struct ContainerRules {
    number: u32,
    workload: Arc<Workload>,
    domain: Arc<Domain>,
    tree: MountTree,
}

impl PartialEq for ContainerRules {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.domain, &other.domain)
            && (self.number, &self.workload, &self.tree) == (other.number, &other.workload, &other.tree)
    }
}

impl CompiledBundle {
    /// Compiles a bundle for this node; this may take seconds for thousands
    /// of rules. Policies for containers are compiled once as if for a container that all of them select, and
    /// again for each container that comes.
    ///
    /// # Errors
    /// Fails with [`CompileError`] if the policies cannot be compiled.
    pub fn new(bundle: &VerifiedBundle, host: &Host) -> Result<Self, CompileError> {
        let settings = &bundle.payload.settings;
        let posture = settings.posture.file;
        let hosts = bundle.policies.iter().filter(|policy| policy.kind == Kind::Host);
        let (selected, idle): (Vec<&Policy>, Vec<&Policy>) =
            hosts.partition(|policy| host.names.selected_by(policy));
        let process = host.process;
        let compiled = match selected.as_slice() {
            [] => None,
            policies => Some(compiled::build(policies, posture, &Root::of_process(process))?),
        };
        Ok(Self {
            bundle: bundle.payload.name.clone(),
            serial: bundle.payload.serial,
            expires: bundle.payload.expires,
            process,
            posture,
            host: compiled,
            host_policies: selected.into_iter().cloned().map(Arc::new).collect(),
            turn: 0,
            host_idle: idle.into_iter().map(|policy| policy.name.clone()).collect(),
            containers: ContainerPolicies::new(&bundle.policies, posture)?,
            alerts_per_second: settings.alerts_per_second.unwrap_or(ALERTS_PER_SECOND),
            on_agent_stop: settings.on_agent_stop,
            already_held: settings.already_held,
            secure_sources: settings.secure_sources,
            is_live: false,
            live: Vec::new(),
            rules_unidentified: false,
            not_compiled: Vec::new(),
        })
    }

    /// Returns the bundle's name.
    pub fn bundle(&self) -> &str {
        &self.bundle
    }

    /// Returns the facts for the report.
    pub fn in_force(&self, containers: &Containers) -> InForce {
        let (mut idle, selecting) = self.containers.idle(containers.iter().map(|(_, workload)| &**workload));
        idle.extend_from_slice(&self.host_idle);
        let ruled: Vec<report::ContainerRules> =
            containers.iter().map(|(_, workload)| self.ruling(workload)).collect();
        InForce {
            bundle: self.bundle.clone(),
            serial: self.serial,
            expires: self.expires,
            selected: self.host_policies.len() + selecting,
            policies: self.policies(&ruled),
            ruled: ruled.into(),
            notes: self.notes(),
            idle,
            for_containers: !self.containers.is_empty(),
            containers: self.live.len(),
            on_agent_stop: self.on_agent_stop,
            already_held: self.already_held,
        }
    }

    fn ruling(&self, workload: &Workload) -> report::ContainerRules {
        let policies = self.containers.selecting(workload).map(|policy| policy.name.clone()).collect();
        report::ContainerRules { id: workload.id.clone(), name: workload.name.clone(), policies }
    }

    fn policies(&self, ruled: &[report::ContainerRules]) -> Arc<[PolicyInForce]> {
        let policy = |name: &str, kind, workloads| PolicyInForce { name: name.to_owned(), kind, workloads };
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for name in ruled.iter().flat_map(|ruled| &ruled.policies) {
            *counts.entry(name).or_default() += 1;
        }
        let host = self.host_policies.iter().map(|of| policy(&of.name, Kind::Host, 1));
        let idle = self.host_idle.iter().map(|name| policy(name, Kind::Host, 0));
        let containers = self
            .containers
            .names()
            .map(|name| policy(name, Kind::Container, counts.get(name).copied().unwrap_or(0)));
        host.chain(idle).chain(containers).collect()
    }

    /// Returns the notes on rules without effect, each only once however many containers it applies to.
    fn notes(&self) -> Vec<String> {
        let mut notes: Vec<String> = self.host.iter().flat_map(|built| built.notes.clone()).collect();
        let mut places: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (note, workload) in self.containers.notes() {
            places.entry(note).or_default().push(&workload.name);
        }
        let of_containers = places.into_iter().map(|(note, names)| match names.as_slice() {
            [name] => format!("{note} (in container {name})"),
            [name, others @ ..] => format!("{note} (in container {name} and {} others)", others.len()),
            [] => note.to_owned(),
        });
        notes.extend(of_containers);
        let more = notes.len().saturating_sub(MAX_NOTES);
        notes.truncate(MAX_NOTES);
        if more > 0 {
            notes.push(format!("{more} more rules without effect"));
        }
        notes
    }

    /// Returns the paths to resolve again: the host's, and those of the containers whose turn it is.
    pub fn watched(&mut self) -> Vec<Watched> {
        let host = self.host.iter().map(|built| Watched {
            whose: Whose::Host(self.process),
            policies: self.host_policies.clone(),
            links: Arc::clone(&built.links),
        });
        let host: Vec<Watched> = host.collect();
        host.into_iter().chain(links::in_turn(self.containers.watched(), &mut self.turn)).collect()
    }

    /// Recompiles the rules whose paths have `moved`; [`Self::swap`] makes them live. Does nothing if those
    /// rules have been replaced since.
    ///
    /// # Errors
    /// Fails with [`CompileError`] if the tables cannot be built for the new targets; the old ones stay.
    pub fn follow(&mut self, moved: &Watched) -> Result<(), CompileError> {
        match &moved.whose {
            Whose::Host(process) => {
                if self.host.as_ref().is_some_and(|built| Arc::ptr_eq(&built.links, &moved.links)) {
                    let policies: Vec<&Policy> = self.host_policies.iter().map(|policy| &**policy).collect();
                    self.host = Some(compiled::build(&policies, self.posture, &Root::of_process(process))?);
                    self.is_live = false;
                }
            }
            Whose::Container(workload) => self.containers.forget(&workload.id),
        }
        Ok(())
    }

    /// Makes the bundle live for the present containers, under a new generation unless it is live already,
    /// and returns the generation's number. May be repeated after an error.
    ///
    /// # Errors
    /// After an [`EnforceError`] the previous generation stays live. The exception is
    /// [`EnforceError::State`]: the new rules are live, and only their names could not be stored.
    pub fn swap(
        &mut self,
        kernel: &mut impl Kernel,
        history: &History,
        containers: &Containers,
    ) -> Result<u32, EnforceError> {
        let ruled = self.ruled(containers);
        let rules_unidentified = containers.are_named() && self.containers.unidentified().is_some();
        if self.is_live && ruled == self.live && rules_unidentified == self.rules_unidentified {
            return Ok(kernel.generation());
        }
        self.is_live = false;
        self.rules_unidentified = rules_unidentified;
        let id = kernel.generation().max(history.last_generation()) + 1;
        self.make_live(kernel, id, &ruled)?;
        self.live = ruled;
        // Written after the swap, because a container's first instruction may be waiting for that. Events are
        // read later.
        history.store_generation(id, &self.names())?;
        self.is_live = true;
        Ok(id)
    }

    /// Returns the containers whose policies do not compile for their roots, each with the error; they keep
    /// their previous rules.
    pub fn not_compiled(&self) -> &[String] {
        &self.not_compiled
    }

    fn ruled(&mut self, containers: &Containers) -> Vec<ContainerRules> {
        self.containers.keep(containers.iter().map(|(_, workload)| &**workload));
        self.not_compiled.clear();
        let mut ruled = Vec::new();
        for (number, workload) in containers.iter() {
            match self.containers.build(workload) {
                Ok(None) => {}
                Ok(Some(CompiledPolicies { domain, linked, .. })) => {
                    // The process may not be there yet, or may have just ended. The kernel then notes its
                    // entry root when it is entered.
                    let tree = workload.process().and_then(|process| MountTree::of_process(&process).ok());
                    let tree = MountTree { linked, ..tree.unwrap_or_default() };
                    ruled.push(ContainerRules { number, workload: Arc::clone(workload), domain, tree });
                }
                Err(error) => {
                    self.not_compiled.push(format!("{}: {error}", workload.name));
                    ruled.extend(self.live.iter().find(|live| live.number == number).cloned());
                }
            }
        }
        ruled
    }

    fn make_live(
        &self,
        kernel: &mut impl Kernel,
        id: u32,
        ruled: &[ContainerRules],
    ) -> Result<(), EnforceError> {
        let process = self.process;
        let host =
            MountTree::of_process(process).map_err(|error| EnforceError::MountTree { process, error })?;
        let host_mount_namespace = host.mount_namespace;
        let mut domains = Vec::new();
        if let Some(CompiledPolicies { domain, linked, .. }) = &self.host {
            domains.push((HOST_DOMAIN, &**domain, MountTree { linked: linked.clone(), ..host }));
        }
        domains.extend(ruled.iter().map(|ruled| (ruled.number, &*ruled.domain, ruled.tree.clone())));
        domains
            .extend(self.unidentified().map(|domain| (UNIDENTIFIED_DOMAIN, &**domain, MountTree::default())));
        Ok(kernel.swap(&Generation {
            id,
            host_mount_namespace,
            domains: &domains,
            alerts_per_second: self.alerts_per_second,
            secure_sources: self.secure_sources,
        })?)
    }

    fn unidentified(&self) -> Option<&Arc<Domain>> {
        self.containers.unidentified().filter(|_| self.rules_unidentified)
    }

    fn names(&self) -> RuleTable {
        let mut table =
            RuleTable { bundle: self.bundle.clone(), serial: self.serial, ..RuleTable::default() };
        let host = self.host.iter().map(|built| (HOST_DOMAIN, &built.domain, None));
        let ruled = self.live.iter().map(|ruled| (ruled.number, &ruled.domain, Some(&ruled.workload)));
        let mut known: Vec<&Arc<Domain>> = Vec::new();
        let unidentified = self.unidentified().map(|domain| (UNIDENTIFIED_DOMAIN, domain, None));
        for (number, domain, container) in host.chain(ruled).chain(unidentified) {
            let rules = known.iter().position(|known| Arc::ptr_eq(known, domain)).unwrap_or_else(|| {
                known.push(domain);
                table.rules.push(domain.rules.clone());
                known.len() - 1
            });
            table.domains.push(DomainNames { number, rules, container: container.cloned() });
        }
        table
    }
}
