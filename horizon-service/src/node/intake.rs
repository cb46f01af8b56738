//! Takes bundles from the hub or a directory: verifies and compiles them, has them stored and put in force,
//! acknowledges and reports.
//!
//! Invariants:
//! - A bundle is judged alike wherever it comes from. Files are only read; nothing is acknowledged there.
//! - A refused bundle changes nothing but the report. It is acknowledged, so that it is not fetched again and
//!   again.
//! - A bundle is acknowledged only after it is on disk. The same object may come again.
//! - Deleting an object ends no enforcement. Only a signed bundle without policies does, for bundles of its
//!   name.
//! - At the start, and when the pinned keys change, acknowledged objects and known files are checked once
//!   more, so that a key put on the node later still makes its bundle acceptable. So they are when another bundle
//!   was accepted after one had been refused because it did not fit with those in force.

use std::sync::Arc;
use std::time::Duration;

use armor_bundle::plain::PlainFields;
use armor_bundle::{MAX_BUNDLE, Refusal, verify};
use armor_mms::{MetaData, MmsError};
use armor_policy::escaped_path;
use jiff::Timestamp;

use crate::base::backoff::{Backoff, spread};
use crate::base::disk::DiskError;
use crate::base::report::{Offline, Problem, Reporter};
use crate::hub::Hub;
use crate::hub::directory::{Directory, Listing};
use crate::node::admission::compile_with;
use crate::node::bundles::Host;
use crate::node::enforcement::{Acceptance, Criteria};
use crate::node::owner::{NodeHandle, Stopped};

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
    /// The agent stops.
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

/// A `BundleIntake` takes bundles from the hub and from the directory.
pub struct BundleIntake {
    /// The hub, if there is one.
    hub: Option<Arc<Hub>>,
    directory: Directory,
    host: Host,
    node: NodeHandle,
    reporter: Arc<Reporter>,
    criteria: Criteria,
    /// A bundle was refused that may be acceptable once another one has been accepted.
    waits_for_room: bool,
    /// The next pass checks everything once more.
    looks_again: bool,
    /// Check acknowledged objects too.
    objects_again: bool,
    /// Check all files.
    files_again: bool,
    /// End of the last pass that the hub, or ESS, answered.
    reached: Option<Timestamp>,
}

/// An `Outcome` is the result of judging a bundle.
enum Outcome {
    Accepted(Box<Acceptance>),
    Refused(&'static str, String),
    /// Refused, but acceptable once others are lifted or smaller.
    NoRoom(&'static str, String),
    NothingToDo,
}

impl BundleIntake {
    /// Creates an intake that hands bundles for `host` to `node`.
    pub fn new(
        hub: Option<Arc<Hub>>,
        directory: Directory,
        host: Host,
        node: NodeHandle,
        reporter: Arc<Reporter>,
    ) -> Self {
        Self {
            hub,
            directory,
            host,
            node,
            reporter,
            criteria: Criteria::default(),
            waits_for_room: false,
            looks_again: false,
            objects_again: true,
            files_again: true,
            reached: None,
        }
    }

    /// Runs passes until the future is dropped.
    ///
    /// # Errors
    /// Fails once the owner's task has ended.
    pub async fn run(mut self, poll: Duration) -> Result<(), Stopped> {
        let mut backoff = Backoff::new(BACKOFF, BACKOFF_LIMIT);
        loop {
            let outcome = self.pass().await;
            let wait = match &outcome {
                Ok(()) => {
                    backoff.reset();
                    poll
                }
                Err(IntakeError::Stopped(_)) => return Err(Stopped),
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
        let (criteria, keys_differ) = self.node.begin_pass().await?;
        self.criteria = criteria;
        if std::mem::take(&mut self.looks_again) || keys_differ {
            (self.objects_again, self.files_again) = (true, true);
        }
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
        match self.judge(bytes, meta).await? {
            Outcome::NothingToDo => {}
            Outcome::Refused(code, reason) => self.refuse(name, code, &reason, is_fresh),
            Outcome::NoRoom(code, reason) => {
                self.waits_for_room = true;
                self.refuse(name, code, &reason, is_fresh);
            }
            Outcome::Accepted(accepted) => {
                let bundle = &accepted.bundle;
                tracing::info!(
                    object = name,
                    bundle = bundle.payload.name,
                    serial = bundle.payload.serial,
                    "accepted"
                );
                self.criteria = self.node.accept(*accepted).await??;
                self.looks_again |= std::mem::take(&mut self.waits_for_room);
                self.reporter.change(|facts| {
                    facts.refused.retain(|refused| refused.object != name);
                    facts.problems.remove(&Problem::State);
                });
            }
        }
        Ok(())
    }

    /// Verifies and compiles a bundle on a blocking thread, beside everything else.
    async fn judge(&self, bytes: Vec<u8>, meta: Option<MetaData>) -> Result<Outcome, IntakeError> {
        let (Criteria { keys, floor, bundles, left_out }, host) = (self.criteria.clone(), self.host.clone());
        let among_others = meta.is_some() && self.hub.as_deref().is_some_and(Hub::shows_those_of_others);
        let plain = meta.map(|MetaData { hash_algorithm, public_key, signature, .. }| PlainFields {
            hash_algorithm,
            public_key,
            signature,
        });
        let judged = tokio::task::spawn_blocking(move || {
            let bundle = match verify(&bytes, plain.as_ref(), &keys, &host.identity, &floor, Timestamp::now())
            {
                Ok(bundle) => bundle,
                Err(Refusal::AlreadyAccepted { .. }) => return Outcome::NothingToDo,
                Err(Refusal::WrongTarget(_)) if among_others => return Outcome::NothingToDo,
                Err(refusal) => return Outcome::Refused(refusal.code(), refusal.to_string()),
            };
            match compile_with(&bundles, &left_out, &bundle, &host) {
                Ok(compiled) => Outcome::Accepted(Box::new(Acceptance { bytes, bundle, compiled })),
                Err(error) => Outcome::NoRoom(error.code(), error.to_string()),
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
