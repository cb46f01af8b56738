//! Enforces the accepted bundles for the containers that there are.
//!
//! Invariants:
//! - A bundle is stored before it is put in force.
//! - What the kernel does not take is reported and tried again; what was in force stays so.
//! - Of each name the bundle accepted last is in force, unless it no longer compiles after a restart. Only a
//!   signed bundle without policies ends enforcement, for bundles of its name.

use std::collections::BTreeMap;
use std::sync::Arc;

use armor_bundle::trust::TrustStore;
use armor_bundle::{SerialFloor, VerifiedBundle};
use armor_policy::CompileError;
use tokio::sync::watch;

use crate::base::disk::DiskError;
use crate::base::report::{Problem, Reporter};
use crate::devices::guard::DeviceRules;
use crate::events::history::History;
use crate::kernel::port::Kernel;
use crate::node::accepted::{AcceptedBundle, Bundles};
use crate::node::bundles::{CompiledBundles, EnforceError, Host};
use crate::node::containers::Containers;
use crate::node::keys::PinnedKeys;
use crate::node::state::State;
use crate::workloads::links::{Watched, Whose};
use crate::workloads::runtime::Workloads;

/// `Criteria` are what a bundle is judged by besides the node's identity.
#[derive(Clone, Default)]
pub struct Criteria {
    /// The pinned keys.
    pub keys: Arc<TrustStore>,
    /// The last accepted serial of each bundle name.
    pub floor: SerialFloor,
    /// The bundles that it must be compiled with.
    pub bundles: Bundles,
    /// Stored bundles that may fit then.
    pub left_out: Bundles,
}

/// An `Acceptance` is a bundle that was found acceptable.
pub struct Acceptance {
    /// The bundle's bytes, to be stored.
    pub bytes: Vec<u8>,
    /// The bundle.
    pub bundle: VerifiedBundle,
    /// The bundle, compiled for this node together with those that stay in force.
    pub compiled: CompiledBundles,
}

/// A `NodeEnforcement` holds the node's keys, state, containers and kernel side.
pub struct NodeEnforcement<K> {
    /// The pinned keys.
    pub keys: PinnedKeys,
    /// The state directory.
    pub state: State,
    /// The names of each generation's rules.
    pub history: History,
    /// The kernel side; `None` if it cannot enforce. Bundles are accepted and kept all the same.
    pub kernel: Option<K>,
    /// The reporter of all facts about the agent.
    pub reporter: Arc<Reporter>,
    /// Stored bundles that do not compile with the others, each with the error.
    pub left_out: BTreeMap<String, (Arc<AcceptedBundle>, CompileError)>,
    /// The bundles in force, compiled, for further swaps.
    pub live: Option<CompiledBundles>,
    /// The node's containers.
    pub containers: Containers,
    /// The rules for devices in force; `None` until rules were put in force, so that those of an earlier agent stay.
    pub devices: watch::Sender<Option<DeviceRules>>,
    /// Set when running tasks come under rules, which calls for a new search for their preexisting handles.
    pub labelled: bool,
}

impl<K: Kernel> NodeEnforcement<K> {
    /// Puts the stored bundles in force again, which come in the order of their acceptance, the last one first.
    /// Where they do not compile together, those accepted last that do are in force.
    pub fn restore(&mut self, stored: Vec<VerifiedBundle>, host: &Host) {
        // Each is dropped with its text as soon as it was read.
        let accepted =
            |bundle: VerifiedBundle| (bundle.payload.name.clone(), Arc::new(AcceptedBundle::new(&bundle)));
        let bundles: Vec<_> = stored.into_iter().map(accepted).collect();
        let mut compiled = None;
        if !bundles.is_empty() {
            let all = CompiledBundles::new(bundles.iter().cloned().collect(), host);
            compiled = all.ok().or_else(|| self.compile_fitting(bundles, host));
        }
        self.report_left_out();
        let live = self.kernel.as_ref().map_or(0, Kernel::generation);
        match compiled {
            Some(compiled) => self.enforce(compiled),
            None if live != 0 => {
                let reason = format!(
                    "generation {live} of an earlier agent is in force, but its bundles are no longer in the state directory; the \
                     next accepted bundle replaces it"
                );
                self.reporter.problem(Problem::Swap, Some(reason));
            }
            None => {}
        }
    }

    /// Compiles those of the bundles that fit with all that come before them, and leaves out the others.
    fn compile_fitting(
        &mut self,
        bundles: Vec<(String, Arc<AcceptedBundle>)>,
        host: &Host,
    ) -> Option<CompiledBundles> {
        let (mut compiled, mut fitting) = (None, Bundles::new());
        for (name, bundle) in bundles {
            fitting.insert(name.clone(), Arc::clone(&bundle));
            match CompiledBundles::new(fitting.clone(), host) {
                Ok(all) => compiled = Some(all),
                Err(error) => {
                    fitting.remove(&name);
                    self.left_out.insert(name, (bundle, error));
                }
            }
        }
        compiled
    }

    fn report_left_out(&self) {
        let left_out = self.left_out.iter().map(|(name, (_, error))| (name, error.to_string()));
        let damaged = self.state.damaged().iter().map(|(name, error)| (name, error.clone()));
        let reasons: Vec<String> = left_out
            .chain(damaged)
            .map(|(name, error)| format!("the stored bundle {name} cannot be put in force: {error}"))
            .collect();
        self.reporter.problem(Problem::LeftOut, (!reasons.is_empty()).then(|| reasons.join("; ")));
    }

    /// Makes bundles live.
    fn enforce(&mut self, compiled: CompiledBundles) {
        self.live = Some(compiled);
        self.put_in_force();
    }

    /// Stores a bundle, changes keys as it says, and makes it live.
    ///
    /// # Errors
    /// Fails with [`DiskError`] if the bundle cannot be stored; what is in force stays.
    pub fn accept(&mut self, accepted: Acceptance) -> Result<(), DiskError> {
        let Acceptance { bytes, bundle, compiled } = accepted;
        self.state.store(&bytes, &bundle)?;
        let before = self.live.iter().flat_map(|live| live.bundles().keys());
        for name in before.chain([&bundle.payload.name]) {
            if !compiled.bundles().contains_key(name) {
                self.state.forget(name);
            }
        }
        self.keys.change(&mut self.state);
        self.left_out.remove(&bundle.payload.name);
        self.left_out.retain(|name, _| !compiled.bundles().contains_key(name));
        self.report_left_out();
        self.enforce(compiled);
        Ok(())
    }

    /// Reads the pinned keys again, and returns whether those for bundles differ.
    pub fn reload_keys(&mut self) -> bool {
        self.keys.reload(&mut self.state)
    }

    /// Returns what bundles are judged by.
    pub fn criteria(&self) -> Criteria {
        Criteria {
            keys: Arc::clone(self.keys.store()),
            floor: self.state.floor(),
            bundles: self.live.as_ref().map(|live| live.bundles().clone()).unwrap_or_default(),
            left_out: self
                .left_out
                .iter()
                .map(|(name, (bundle, _))| (name.clone(), Arc::clone(bundle)))
                .collect(),
        }
    }

    /// Retries a swap or container update that failed.
    pub fn enforce_again(&mut self) {
        let failed = [Problem::Swap, Problem::Containers];
        if self.reporter.read(|facts| failed.iter().any(|problem| facts.problems.contains_key(problem))) {
            self.put_in_force();
        }
    }

    /// Applies the runtime's list of containers.
    pub fn follow(&mut self, workloads: &Workloads) {
        if self.containers.update(workloads) {
            self.put_in_force();
        }
    }

    /// Labels the tasks of containers that were entered before they were known. If the runtime `answers`,
    /// also releases containers that stay unidentified.
    pub fn look_for_unidentified(&mut self, answers: bool) {
        let Some(kernel) = &mut self.kernel else { return };
        match self.containers.look_for_unidentified(kernel, answers) {
            Ok(0) => {}
            Ok(tasks) => self.have_labelled(tasks),
            Err(error) => tracing::error!("containers that are not named yet: {error}"),
        }
    }

    /// Returns the paths to resolve again, with the results on which the rules in force are based.
    pub fn watched_links(&mut self) -> Vec<Watched> {
        self.live.as_mut().map(CompiledBundles::watched).unwrap_or_default()
    }

    /// Recompiles the rules whose paths have `moved`, and puts them in force.
    pub fn follow_links(&mut self, moved: &[(Watched, Vec<String>)]) {
        let Some(live) = &mut self.live else { return };
        for (watched, paths) in moved {
            let of = match &watched.whose {
                Whose::Host(_) => "the host",
                Whose::Container(workload) => workload.name.as_str(),
            };
            tracing::warn!(of, ?paths, "links on the way of rules' paths were switched, and are followed");
            if let Err(error) = live.follow(watched) {
                tracing::error!(of, "switched links are not followed: {error}");
            }
        }
        if !moved.is_empty() {
            self.put_in_force();
        }
    }

    fn have_labelled(&mut self, tasks: usize) {
        tracing::info!(tasks, "of containers are under their rules from here on");
        self.labelled = true;
    }

    /// Makes the kernel enforce the accepted bundles for the present containers. A failure is reported and
    /// retried later.
    fn put_in_force(&mut self) {
        if let Some(live) = &mut self.live {
            let (before, outcome) = match &mut self.kernel {
                Some(kernel) => {
                    let before = kernel.generation();
                    (before, Some(live.swap(kernel, &self.history, &self.containers)))
                }
                None => (0, None),
            };
            let facts = live.in_force(&self.containers);
            let noted = self
                .reporter
                .read(|facts| facts.in_force.as_ref().map(|before| before.notes.clone()).unwrap_or_default());
            for note in facts.notes.iter().filter(|note| !noted.contains(note)) {
                tracing::warn!("{note}");
            }
            let bundles: Vec<String> =
                facts.bundles.iter().map(|bundle| format!("{} {}", bundle.name, bundle.serial)).collect();
            let bundles = bundles.join(", ");
            if let Some(Ok(_) | Err(EnforceError::State(_))) = &outcome {
                let rules = Some(live.device_rules());
                self.devices.send_if_modified(|devices| {
                    let differ = *devices != rules;
                    *devices = rules;
                    differ
                });
            }
            match outcome {
                Some(Ok(generation)) => {
                    if generation != before {
                        let policies = facts.bundles.iter().map(|bundle| bundle.selected).sum::<usize>();
                        let containers = facts.containers;
                        tracing::info!(bundles, generation, policies, containers, "in force");
                    }
                    self.reporter.problem(Problem::Swap, None);
                }
                Some(Err(error)) => {
                    let reason = match &error {
                        EnforceError::State(error) => {
                            format!("in force, but the names of its rules are not kept: {error}")
                        }
                        error => format!("accepted, but not in force: {error}"),
                    };
                    if self.reporter.problem(Problem::Swap, Some(reason.clone())) {
                        tracing::error!(bundles, "{reason}");
                    }
                }
                None => {}
            }
            self.reporter.change(|all| all.in_force = Some(facts));
        }
        self.apply_containers();
    }

    /// Registers the containers with the kernel and stores them; called after each change of rules or
    /// containers.
    fn apply_containers(&mut self) {
        let mut problems: Vec<String> =
            self.live.iter().flat_map(|live| live.not_compiled().iter().cloned()).collect();
        if let Some(kernel) = &mut self.kernel {
            match self.containers.apply(kernel) {
                Ok(0) => {}
                Ok(tasks) => self.have_labelled(tasks),
                Err(error) => problems.push(error.to_string()),
            }
        }
        if let Err(error) = self.state.store_containers(self.containers.to_remember()) {
            problems.push(error.to_string());
        }
        let problem = (!problems.is_empty()).then(|| format!("containers: {}", problems.join("; ")));
        if self.reporter.problem(Problem::Containers, problem.clone())
            && let Some(problem) = problem
        {
            tracing::error!("{problem}");
        }
    }
}
