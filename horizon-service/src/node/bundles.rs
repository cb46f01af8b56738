//! Turns the accepted bundles into the kernel's live generation.
//!
//! Invariants:
//! - The accepted bundles that compile together are in force, one of each name. While the agent runs, what is in
//!   force of one does not depend on when the others came.
//! - A bundle that cannot be compiled with the others is not accepted, and changes nothing for them.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use armor_bpf::{
    BpfError, DomainRules, DomainSettings, Generation, HOST_DOMAIN, MountTree, UNIDENTIFIED_DOMAIN,
};
use armor_bundle::NodeIdentity;
use armor_bundle::payload::OnAgentStop;
use armor_policy::model::Kind;
use armor_policy::{CompileError, Domain};

use crate::base::disk::DiskError;
use crate::base::report::{self, BundleInForce, InForce, PolicyInForce, PolicyName};
use crate::devices::guard::DeviceRules;
use crate::events::alerts::{DomainNames, RuleTable};
use crate::events::history::History;
use crate::kernel::port::Kernel;
use crate::node::accepted::{AcceptedBundle, Bundles, with_policies};
use crate::node::containers::Containers;
use crate::workloads::bundled_policies::BundledPolicy;
use crate::workloads::compiled::{self, CompiledPolicies};
use crate::workloads::container_policies::ContainerPolicies;
use crate::workloads::links::{self, Watched, Whose};
use crate::workloads::node_selector::NodeNames;
use crate::workloads::root::Root;
use crate::workloads::workload::Workload;

/// Maximum number of reported notes on rules without effect.
const MAX_NOTES: usize = 32;
/// The process whose root is the host's.
pub const HOST_PROCESS: &str = "1";

/// An `EnforceError` is the reason why compiled bundles are not live.
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

/// `CompiledBundles` are the accepted bundles, compiled together for this node.
pub struct CompiledBundles {
    bundles: Bundles,
    process: &'static str,
    host: Option<CompiledPolicies>,
    /// The policies that select this host.
    host_policies: Vec<BundledPolicy>,
    /// The policies for other hosts.
    host_idle: Vec<BundledPolicy>,
    containers: ContainerPolicies,
    /// Index of the containers whose links are resolved next.
    turn: usize,
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
    settings: DomainSettings,
}

impl PartialEq for ContainerRules {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.domain, &other.domain)
            && (self.number, &self.workload, &self.tree) == (other.number, &other.workload, &other.tree)
    }
}

impl CompiledBundles {
    /// Compiles bundles for this node; this may take seconds for thousands of rules. Policies for containers are
    /// compiled once as if for a container that all of them select, and again for each container that comes.
    ///
    /// # Errors
    /// Fails with [`CompileError`] if the policies cannot be compiled together.
    pub fn new(bundles: Bundles, host: &Host) -> Result<Self, CompileError> {
        let all: Vec<BundledPolicy> = bundles.values().flat_map(|bundle| &bundle.policies).cloned().collect();
        let hosts = all.iter().filter(|bundled| bundled.policy.kind == Kind::Host).cloned();
        let (selected, idle): (Vec<BundledPolicy>, Vec<BundledPolicy>) =
            hosts.partition(|bundled| host.names.selected_by(&bundled.policy));
        let process = host.process;
        let compiled = match selected.as_slice() {
            [] => None,
            policies => Some(compiled::build(policies, &Root::of_process(process))?),
        };
        Ok(Self {
            bundles,
            process,
            host: compiled,
            host_policies: selected,
            host_idle: idle,
            containers: ContainerPolicies::new(&all)?,
            turn: 0,
            is_live: false,
            live: Vec::new(),
            rules_unidentified: false,
            not_compiled: Vec::new(),
        })
    }

    /// Returns the bundles.
    pub fn bundles(&self) -> &Bundles {
        &self.bundles
    }

    /// Returns whether enforcement ends when the agent is stopped in an orderly way: if all bundles that have
    /// policies ask for that.
    pub fn are_lifted_on_stop(&self) -> bool {
        let lifts = |bundle: &AcceptedBundle| bundle.on_agent_stop == OnAgentStop::Lift;
        self.bundles.values().any(|bundle| lifts(bundle))
            && with_policies(&self.bundles).all(|(_, bundle)| lifts(bundle))
    }

    /// Returns the rules for devices, which need no generation.
    pub fn device_rules(&self) -> DeviceRules {
        let bundle = |(name, bundle): (&String, &Arc<AcceptedBundle>)| {
            (name.clone(), (bundle.serial, bundle.already_held))
        };
        DeviceRules {
            domain: self.host.as_ref().map(|host| Arc::clone(&host.domain)),
            bundles: with_policies(&self.bundles).map(bundle).collect(),
            alerts_per_second: self.host.as_ref().map_or(0, |host| host.settings.alerts_per_second),
        }
    }

    /// Returns the facts for the report.
    pub fn in_force(&self, containers: &Containers) -> InForce {
        let policies = self.policies(containers);
        let ruled: Vec<report::ContainerPolicyNames> =
            containers.iter().map(|(_, workload)| self.ruling(workload)).collect();
        let bundle = |(name, bundle): (&String, &Arc<AcceptedBundle>)| {
            let own = || policies.iter().filter(|policy| policy.name.bundle == *name);
            let idle = own().filter(|policy| policy.workloads == 0);
            BundleInForce {
                name: name.clone(),
                serial: bundle.serial,
                expires: bundle.expires,
                selected: own().filter(|policy| policy.workloads > 0).count(),
                idle: idle.map(|policy| policy.name.policy.clone()).collect(),
                for_containers: own().any(|policy| policy.kind == Kind::Container),
                already_held: bundle.already_held,
            }
        };
        InForce {
            bundles: self.bundles.iter().map(bundle).collect(),
            containers: self.live.len(),
            ruled: ruled.into(),
            notes: self.notes(),
            policies: policies.into(),
        }
    }

    fn ruling(&self, workload: &Workload) -> report::ContainerPolicyNames {
        let policies = self.containers.selecting(workload).map(|bundled| name(bundled).to_string()).collect();
        report::ContainerPolicyNames { id: workload.id.clone(), name: workload.name.clone(), policies }
    }

    fn policies(&self, containers: &Containers) -> Vec<PolicyInForce> {
        let policy = |of: &BundledPolicy, kind, workloads| PolicyInForce { name: name(of), kind, workloads };
        let host = self.host_policies.iter().map(|of| policy(of, Kind::Host, 1));
        let idle = self.host_idle.iter().map(|of| policy(of, Kind::Host, 0));
        let counts = self.containers.counts(containers.iter().map(|(_, workload)| &**workload));
        host.chain(idle).chain(counts.map(|(of, count)| policy(of, Kind::Container, count))).collect()
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
            policies: self.host_policies.iter().map(|bundled| Arc::clone(&bundled.policy)).collect(),
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
                    self.host = Some(compiled::build(&self.host_policies, &Root::of_process(process))?);
                    self.is_live = false;
                }
            }
            Whose::Container(workload) => self.containers.forget(&workload.id),
        }
        Ok(())
    }

    /// Makes the bundles live for the present containers, under a new generation unless it is live already,
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
        history.store_generation(id, &self.rule_table())?;
        self.is_live = true;
        Ok(id)
    }

    /// Returns the containers whose policies do not compile for their roots, each with the error. They keep the
    /// rules that they have of these bundles, or else have those that no link leads on.
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
                Ok(Some(CompiledPolicies { domain, linked, settings, .. })) => {
                    // The process may not be there yet, or may have just ended. The kernel then notes its
                    // entry root when it is entered.
                    let tree = workload.process().and_then(|process| MountTree::of_process(&process).ok());
                    let tree = MountTree { linked, ..tree.unwrap_or_default() };
                    ruled.push(ContainerRules {
                        number,
                        workload: Arc::clone(workload),
                        domain,
                        tree,
                        settings,
                    });
                }
                Err(error) => {
                    self.not_compiled.push(format!("{}: {error}", workload.name));
                    let before = self.live.iter().find(|live| live.number == number).cloned();
                    ruled.extend(before.or_else(|| self.without_links(number, workload)));
                }
            }
        }
        ruled
    }

    /// Returns the rules of a container whose policies do not compile for its root, and that has none so far.
    fn without_links(&self, number: u32, workload: &Arc<Workload>) -> Option<ContainerRules> {
        let CompiledPolicies { domain, settings, .. } = self.containers.build_without_links(workload)?;
        let tree = workload.process().and_then(|process| MountTree::of_process(&process).ok());
        let (workload, tree) = (Arc::clone(workload), tree.unwrap_or_default());
        Some(ContainerRules { number, workload, domain, tree, settings })
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
        if let Some(CompiledPolicies { domain, linked, settings, .. }) = &self.host {
            let tree = MountTree { linked: linked.clone(), ..host };
            domains.push(DomainRules { number: HOST_DOMAIN, tables: domain, tree, settings: *settings });
        }
        domains.extend(ruled.iter().map(|ruled| DomainRules {
            number: ruled.number,
            tables: &ruled.domain,
            tree: ruled.tree.clone(),
            settings: ruled.settings,
        }));
        domains.extend(self.unidentified().map(|(domain, settings)| DomainRules {
            number: UNIDENTIFIED_DOMAIN,
            tables: domain,
            tree: MountTree::default(),
            settings: *settings,
        }));
        Ok(kernel.swap(&Generation { id, host_mount_namespace, domains: &domains })?)
    }

    fn unidentified(&self) -> Option<&(Arc<Domain>, DomainSettings)> {
        self.containers.unidentified().filter(|_| self.rules_unidentified)
    }

    fn rule_table(&self) -> RuleTable {
        let bundles =
            with_policies(&self.bundles).map(|(name, bundle)| (name.clone(), bundle.serial)).collect();
        let mut table = RuleTable { bundles, ..RuleTable::default() };
        let host = self.host.iter().map(|built| (HOST_DOMAIN, &built.domain, None));
        let ruled = self.live.iter().map(|ruled| (ruled.number, &ruled.domain, Some(&ruled.workload)));
        let mut known: Vec<&Arc<Domain>> = Vec::new();
        let unidentified = self.unidentified().map(|(domain, _)| (UNIDENTIFIED_DOMAIN, domain, None));
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

fn name(bundled: &BundledPolicy) -> PolicyName {
    PolicyName { bundle: bundled.settings.bundle.clone(), policy: bundled.policy.name.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workloads::testing::host_policy;
    use armor_bundle::payload::AlreadyHeld;
    use jiff::Timestamp;

    #[test]
    fn one_bundle_that_keeps_enforcement_keeps_it_for_all() {
        let policy = BundledPolicy {
            policy: Arc::new(host_policy("kubearmor.io/hostname: elsewhere")),
            settings: Arc::default(),
        };
        let host = Host { identity: NodeIdentity::default(), names: NodeNames::default(), process: "self" };
        let lifted = |bundles: &[(&str, usize, OnAgentStop)]| {
            let bundle = |(name, policies, on_agent_stop): &(&str, usize, OnAgentStop)| {
                let accepted = AcceptedBundle {
                    serial: 1,
                    expires: Timestamp::MAX,
                    on_agent_stop: *on_agent_stop,
                    already_held: AlreadyHeld::Report,
                    policies: vec![policy.clone(); *policies],
                };
                ((*name).to_owned(), Arc::new(accepted))
            };
            CompiledBundles::new(bundles.iter().map(bundle).collect(), &host).unwrap().are_lifted_on_stop()
        };
        use OnAgentStop::{Keep, Lift};
        assert!(!lifted(&[]));
        assert!(lifted(&[("a", 1, Lift)]) && !lifted(&[("a", 1, Keep)]));
        assert!(!lifted(&[("a", 1, Lift), ("b", 1, Keep)]));
        assert!(lifted(&[("a", 1, Lift), ("b", 0, Keep)]), "b has no policies");
        assert!(!lifted(&[("a", 0, Keep)]) && lifted(&[("a", 0, Lift)]));
    }
}
