//! Takes bundles from the hub or a directory and puts them in force: verifies, compiles and stores them,
//! changes keys, swaps, acknowledges and reports.
//!
//! Invariants:
//! - A bundle is judged alike wherever it comes from. Files are only read; nothing is acknowledged there.
//! - A refused bundle changes nothing but the report. It is acknowledged, so that it is not fetched again and
//!   again.
//! - A bundle is acknowledged only after it is on disk. The same object may come again.
//! - Deleting an object ends no enforcement. Only a signed bundle without policies does, for bundles of its
//!   name.
//! - One bundle is in force: the one accepted last.
//! - At the start, and when the pinned keys change, acknowledged objects and known files are checked once
//!   more, so that a key put on the node later still makes its bundle acceptable.

use std::cell::{Cell, RefCell};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use armor_hub_client::bundle::{MAX_BUNDLE, NodeIdentity, Refusal, VerifiedBundle, verify};
use armor_hub_client::keys::{KeyId, PublicKey};
use armor_hub_client::mms::{MetaData, MmsError};
use armor_hub_client::trust::{TrustError, TrustStore};
use armor_policy::escaped_path;
use jiff::Timestamp;
use tokio::sync::watch;

use crate::base::backoff::{Backoff, spread};
use crate::base::disk::DiskError;
use crate::base::report::{Offline, Problem, Reporter};
use crate::events::history::History;
use crate::hub::Hub;
use crate::hub::directory::{Directory, Listing};
use crate::kernel::port::Kernel;
use crate::node::bundle::{CompiledBundle, EnforceError};
use crate::node::containers::Containers;
use crate::node::state::{State, Stored};
use crate::workloads::links::{Watched, Whose};
use crate::workloads::node_selector::NodeNames;
use crate::workloads::runtime::Workloads;

/// First wait after a failure.
const BACKOFF: Duration = Duration::from_secs(1);
/// Longest wait after failures.
const BACKOFF_LIMIT: Duration = Duration::from_secs(60);

/// An `IntakeError` is the reason why a pass ended early; the next pass starts from the beginning.
#[derive(Debug, thiserror::Error)]
pub enum IntakeError {
    /// A request to the hub failed.
    #[error(transparent)]
    Mms(#[from] MmsError),
    /// The state directory could not be written.
    #[error(transparent)]
    State(#[from] DiskError),
    /// The blocking task that verifies and compiles a bundle was ended.
    #[error("a bundle could not be looked at: {0}")]
    Task(#[from] tokio::task::JoinError),
}

/// A `NodeEnforcement` holds the node's identity, keys, state and kernel side for the intake.
pub struct NodeEnforcement<K> {
    /// The node's identity in Horizon.
    pub node: NodeIdentity,
    /// Names by which policies select the node.
    pub names: NodeNames,
    /// The process whose root is the host's.
    pub process: &'static str,
    /// Directory of the pinned keys.
    pub trust_dir: PathBuf,
    /// The state directory.
    pub state: Rc<RefCell<State>>,
    /// The names of each generation's rules.
    pub history: History,
    /// The kernel side; `None` if it cannot enforce. Bundles are accepted and kept all the same.
    pub kernel: Option<K>,
    /// The reporter of all facts about the agent.
    pub reporter: Rc<Reporter>,
    /// The bundle in force, compiled, for further swaps.
    pub live: Option<CompiledBundle>,
    /// The node's containers.
    pub containers: Containers,
    /// Set when running tasks come under rules, which calls for a new search for their preexisting handles.
    pub labelled: Rc<Cell<bool>>,
}

impl<K: Kernel> NodeEnforcement<K> {
    /// Puts the stored bundle in force again.
    pub fn restore(&mut self, stored: Option<&Stored>) {
        let Some(Stored { bundle, .. }) = stored else {
            let live = self.kernel.as_ref().map_or(0, Kernel::generation);
            if live != 0 {
                let reason = format!(
                    "generation {live} of an earlier agent is in force, but its bundle is no longer in the state directory; the \
                     next accepted bundle replaces it"
                );
                self.reporter.problem(Problem::Swap, Some(reason));
            }
            return;
        };
        match CompiledBundle::new(bundle, &self.names, self.process) {
            Ok(prepared) => self.enforce(prepared),
            Err(error) => {
                let reason =
                    format!("the stored bundle {} cannot be put in force: {error}", bundle.payload.name);
                self.reporter.problem(Problem::Swap, Some(reason));
            }
        }
    }

    /// Makes a bundle live.
    fn enforce(&mut self, prepared: CompiledBundle) {
        self.live = Some(prepared);
        self.put_in_force();
    }

    /// Retries a swap or container update that failed.
    fn enforce_again(&mut self) {
        let problems = self.reporter.facts().problems;
        if problems.contains_key(&Problem::Swap) || problems.contains_key(&Problem::Containers) {
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
        self.live.as_mut().map(CompiledBundle::watched).unwrap_or_default()
    }

    /// Recompiles the rules whose paths have `moved`, and puts them in force.
    pub fn follow_links(&mut self, moved: &[(Watched, Vec<String>)]) {
        let Some(prepared) = &mut self.live else { return };
        for (watched, paths) in moved {
            let of = match &watched.whose {
                Whose::Host(_) => "the host",
                Whose::Container(workload) => workload.name.as_str(),
            };
            tracing::warn!(of, ?paths, "links on the way of rules' paths were switched, and are followed");
            if let Err(error) = prepared.follow(watched) {
                tracing::error!(of, "switched links are not followed: {error}");
            }
        }
        if !moved.is_empty() {
            self.put_in_force();
        }
    }

    fn have_labelled(&self, tasks: usize) {
        tracing::info!(tasks, "of containers are under their rules from here on");
        self.labelled.set(true);
    }

    /// Makes the kernel enforce the accepted bundle for the present containers. A failure is reported and
    /// retried later.
    fn put_in_force(&mut self) {
        if let Some(prepared) = &mut self.live {
            let (before, outcome) = match &mut self.kernel {
                Some(kernel) => {
                    let before = kernel.generation();
                    (before, Some(prepared.swap(kernel, &self.history, &self.containers)))
                }
                None => (0, None),
            };
            let facts = prepared.in_force(&self.containers);
            let noted = self.reporter.facts().in_force.map(|before| before.notes).unwrap_or_default();
            for note in facts.notes.iter().filter(|note| !noted.contains(note)) {
                tracing::warn!("{note}");
            }
            let (bundle, serial) = (&facts.bundle, facts.serial);
            match outcome {
                Some(Ok(generation)) => {
                    if generation != before {
                        let (policies, containers) = (facts.selected, facts.containers);
                        tracing::info!(bundle, serial, generation, policies, containers, "in force");
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
                        tracing::error!(bundle, serial, "{reason}");
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
            self.live.iter().flat_map(|prepared| prepared.not_compiled().iter().cloned()).collect();
        if let Some(kernel) = &mut self.kernel {
            match self.containers.apply(kernel) {
                Ok(0) => {}
                Ok(tasks) => self.have_labelled(tasks),
                Err(error) => problems.push(error.to_string()),
            }
        }
        if let Err(error) = self.state.borrow().store_containers(self.containers.to_remember()) {
            problems.push(error.to_string());
        }
        let problem = (!problems.is_empty()).then(|| format!("containers: {}", problems.join("; ")));
        if self.reporter.problem(Problem::Containers, problem.clone())
            && let Some(problem) = problem
        {
            tracing::error!("{problem}");
        }
    }

    fn keep(&mut self, bytes: &[u8], bundle: &VerifiedBundle) -> Result<bool, DiskError> {
        let mut state = self.state.borrow_mut();
        let lifts_another = bundle.policies.is_empty()
            && self.live.as_ref().is_some_and(|live| live.bundle() != bundle.payload.name);
        if lifts_another {
            state.accept(bundle)?;
        } else {
            state.store(bytes, bundle, Timestamp::now())?;
        }
        Ok(!lifts_another)
    }
}

/// A `BundleIntake` takes bundles from the hub and from the directory.
pub struct BundleIntake<K> {
    /// The hub, if there is one.
    hub: Option<Arc<Hub>>,
    directory: Directory,
    site: Rc<RefCell<NodeEnforcement<K>>>,
    reporter: Rc<Reporter>,
    trust: TrustStore,
    receipt_keys: watch::Sender<Vec<PublicKey>>,
    /// Check acknowledged objects too.
    objects_again: bool,
    /// Check all files.
    files_again: bool,
    /// End of the last pass that the hub, or ESS, answered.
    reached: Option<Timestamp>,
}

/// An `Outcome` is the result of judging a bundle.
enum Outcome {
    Accepted(Box<VerifiedBundle>, Box<CompiledBundle>),
    Refused(&'static str, String),
    NothingToDo,
}

impl<K: Kernel> BundleIntake<K> {
    /// Creates an intake for `site`, which others may change while it waits. Collectors' keys go to
    /// `receipt_keys`.
    pub fn new(
        hub: Option<Arc<Hub>>,
        directory: Directory,
        site: Rc<RefCell<NodeEnforcement<K>>>,
        receipt_keys: watch::Sender<Vec<PublicKey>>,
    ) -> Self {
        let reporter = Rc::clone(&site.borrow().reporter);
        let mut intake = Self {
            hub,
            directory,
            site,
            reporter,
            trust: TrustStore::default(),
            receipt_keys,
            objects_again: true,
            files_again: true,
            reached: None,
        };
        intake.reload_trust();
        intake
    }

    /// Runs passes until the future is dropped.
    pub async fn run(&mut self, poll: Duration) {
        let mut backoff = Backoff::new(BACKOFF, BACKOFF_LIMIT);
        loop {
            let outcome = self.pass().await;
            let wait = match &outcome {
                Ok(()) => {
                    backoff.reset();
                    poll
                }
                Err(error) => {
                    tracing::warn!(%error, failures = backoff.failures(), "bundles not looked at");
                    backoff.wait()
                }
            };
            self.note_reachable(outcome.err());
            tokio::time::sleep(spread(wait)).await;
        }
    }

    fn note_reachable(&mut self, error: Option<IntakeError>) {
        if error.is_none() {
            self.reached = Some(Timestamp::now());
        }
        self.reporter.change(|facts| match error {
            Some(IntakeError::Mms(error)) => {
                let since = Offline::since(facts.offline.take(), self.reached);
                facts.offline = Some(Offline { since, reason: error.to_string() });
            }
            Some(error) => {
                facts.problems.insert(Problem::Intake, error.to_string());
            }
            None => {
                facts.offline = None;
                facts.problems.remove(&Problem::Intake);
            }
        });
    }

    /// Runs one pass over files and objects.
    ///
    /// # Errors
    /// Fails with [`IntakeError`]; what was done stays done, and the next pass does the rest.
    pub async fn pass(&mut self) -> Result<(), IntakeError> {
        self.reload_trust();
        self.site.borrow_mut().enforce_again();
        self.take_files().await?;
        self.take_objects().await
    }

    async fn take_files(&mut self) -> Result<(), IntakeError> {
        let mut problems = Vec::new();
        if self.hub.is_none() && !self.directory.path().is_dir() {
            problems.push(format!(
                "no bundle can come: there is no hub, and no directory {}",
                escaped_path(self.directory.path())
            ));
        }
        let Listing { files, left_out } = self.directory.list(self.files_again).unwrap_or_else(|error| {
            problems.push(error.to_string());
            Listing::default()
        });
        problems.extend(left_out);
        for file in files {
            match file.read(MAX_BUNDLE) {
                Ok(bytes) => {
                    self.process(&escaped_path(&file.path), bytes, None, file.is_fresh).await?;
                    self.directory.looked_at(&file);
                }
                // Do not stop other files; this one is retried with every pass.
                Err(error) => problems.push(error.to_string()),
            }
        }
        self.files_again = false;
        let text = problems.join("; ");
        self.reporter.problem(Problem::Directory, (!text.is_empty()).then_some(text));
        Ok(())
    }

    async fn take_objects(&mut self) -> Result<(), IntakeError> {
        let Some(hub) = self.hub.clone() else { return Ok(()) };
        let mut objects = hub.bundles(false).await?;
        let fresh: Vec<String> = objects.iter().map(|object| object.object_id.clone()).collect();
        if self.objects_again {
            objects = hub.bundles(true).await?;
        }
        // Objects are processed in the order in which they were published.
        objects.sort_by_key(|object| object.instance_id);
        for object in objects {
            if object.deleted {
                tracing::info!(object = object.object_id, "deleted at the hub; what is in force stays");
                pass_over_delay(hub.deleted(&object).await)?;
            } else {
                let is_fresh = fresh.contains(&object.object_id);
                self.take(&hub, &object, is_fresh).await?;
            }
        }
        self.objects_again = false;
        Ok(())
    }

    async fn take(&mut self, hub: &Hub, object: &MetaData, is_fresh: bool) -> Result<(), IntakeError> {
        let id = &object.object_id;
        match hub.data(object, MAX_BUNDLE as u64).await {
            Ok(bytes) => self.process(id, bytes, Some(object.clone()), is_fresh).await?,
            // Replaced or deleted meanwhile; the next pass lists it anew.
            Err(MmsError::UnknownObject { .. }) => return Ok(()),
            Err(error @ MmsError::TooLarge { .. }) => {
                let code = Refusal::TooLarge { size: MAX_BUNDLE, max: MAX_BUNDLE }.code();
                self.refuse(id, code, &error.to_string(), is_fresh);
            }
            Err(error) if error.is_transient() => return Err(error.into()),
            // Do not stop other objects; this one is retried with every pass.
            Err(error) => {
                tracing::warn!(object = id, %error, "cannot be fetched");
                return Ok(());
            }
        }
        if !is_fresh {
            return Ok(());
        }
        match pass_over_delay(hub.received(object).await) {
            // Deleted or replaced meanwhile; the next pass lists it anew.
            Err(MmsError::UnknownObject { .. } | MmsError::Rejected { status: 400, .. }) => Ok(()),
            other => Ok(other?),
        }
    }

    /// Judges a bundle and acts on the outcome. After success the bundle may be acknowledged.
    async fn process(
        &mut self,
        name: &str,
        bytes: Vec<u8>,
        meta: Option<MetaData>,
        is_fresh: bool,
    ) -> Result<(), IntakeError> {
        let (bytes, outcome) = self.judge(bytes, meta).await?;
        match outcome {
            Outcome::NothingToDo => {}
            Outcome::Refused(code, reason) => self.refuse(name, code, &reason, is_fresh),
            Outcome::Accepted(bundle, prepared) => {
                tracing::info!(
                    object = name,
                    bundle = bundle.payload.name,
                    serial = bundle.payload.serial,
                    "accepted"
                );
                let is_next = self.site.borrow_mut().keep(&bytes, &bundle)?;
                self.change_trust();
                if is_next {
                    self.site.borrow_mut().enforce(*prepared);
                }
                self.reporter.change(|facts| {
                    facts.refused.retain(|refused| refused.object != name);
                    facts.problems.remove(&Problem::State);
                });
            }
        }
        Ok(())
    }

    /// Verifies and compiles a bundle on a blocking thread, beside everything else.
    async fn judge(&self, bytes: Vec<u8>, meta: Option<MetaData>) -> Result<(Vec<u8>, Outcome), IntakeError> {
        let (trust, node, names, process, floor) = {
            let site = self.site.borrow();
            let floor = site.state.borrow().floor().clone();
            (self.trust.clone(), site.node.clone(), site.names.clone(), site.process, floor)
        };
        let among_others = meta.is_some() && self.hub.as_deref().is_some_and(Hub::shows_those_of_others);
        let judged = tokio::task::spawn_blocking(move || {
            let bundle = match verify(&bytes, meta.as_ref(), &trust, &node, &floor, Timestamp::now()) {
                Ok(bundle) => bundle,
                Err(Refusal::AlreadyAccepted { .. }) => return (bytes, Outcome::NothingToDo),
                Err(Refusal::WrongTarget(_)) if among_others => return (bytes, Outcome::NothingToDo),
                Err(refusal) => return (bytes, Outcome::Refused(refusal.code(), refusal.to_string())),
            };
            match CompiledBundle::new(&bundle, &names, process) {
                Ok(prepared) => (bytes, Outcome::Accepted(Box::new(bundle), Box::new(prepared))),
                Err(error) => (bytes, Outcome::Refused("does-not-compile", error.to_string())),
            }
        });
        Ok(judged.await?)
    }

    /// Reports a refused bundle. If it is not fresh, its refusal was reported before.
    fn refuse(&self, name: &str, code: &str, reason: &str, is_fresh: bool) {
        if is_fresh {
            tracing::warn!(object = name, code, reason, "bundle refused; what is in force stays");
            self.reporter.change(|facts| facts.refuse(name, code, reason));
        }
    }

    /// Reads the pinned keys again, because an operator may add and remove files at any time.
    fn reload_trust(&mut self) {
        let loaded = TrustStore::load(&self.site.borrow().trust_dir);
        let store = match loaded {
            Ok((store, problems)) => {
                let text = problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
                self.reporter.problem(Problem::Trust, (!text.is_empty()).then_some(text));
                store
            }
            Err(error) => return self.trust_failed(&error),
        };
        let ids =
            |store: &TrustStore| -> Vec<KeyId> { store.bundle_keys().map(|key| key.id().clone()).collect() };
        if ids(&store) != ids(&self.trust) {
            (self.objects_again, self.files_again) = (true, true);
        }
        self.trust = store;
        self.change_trust();
    }

    /// Applies the key changes of accepted bundles.
    fn change_trust(&mut self) {
        let state = Rc::clone(&self.site.borrow().state);
        let mut state = state.borrow_mut();
        let pending = state.pending_trust().to_vec();
        if !pending.is_empty() {
            let outcome = pending.iter().try_for_each(|changes| self.trust.apply(changes));
            // Any other error is a change that pinned files have made impossible, and a retry would not help.
            if let Err(error @ (TrustError::File { .. } | TrustError::Changes { .. })) = outcome {
                drop(state);
                return self.trust_failed(&error);
            }
            if let Err(error) = state.trust_is_changed() {
                tracing::warn!("{error}: the same key changes are made again");
            }
        }
        let keys: Vec<PublicKey> = self.trust.receipt_keys().cloned().collect();
        self.receipt_keys.send_if_modified(|old| {
            let is_new = *old != keys;
            *old = keys;
            is_new
        });
    }

    fn trust_failed(&self, error: &TrustError) {
        self.reporter.problem(Problem::Trust, Some(error.to_string()));
    }
}

/// Treats a timeout as success: an acknowledgement may hang while the hub is away, and the object is just
/// listed again.
fn pass_over_delay(done: Result<(), MmsError>) -> Result<(), MmsError> {
    match done {
        Err(error @ MmsError::Timeout { .. }) => {
            tracing::debug!(%error, "acknowledgement not confirmed");
            Ok(())
        }
        done => done,
    }
}
