//! Sends batches from the spool to the hub as MMS objects, reads receipts, and publishes the node's status.
//!
//! Invariants:
//! - Records leave the spool only by a receipt that is signed with a pinned key, names this node and its key,
//!   and has the spool's own chain. What the hub says about an object only decides when to send again.
//! - At most [`crate::delivery::spool::MAX_OPEN`] batches are on their way, because with the hub away the ESS hangs on
//!   the fourth PUT.
//! - A batch is sent again under its own id after a restart, after an unanswered PUT, and when it is missing
//!   at the hub. If it is there but no receipt comes, or somebody took it, it is sent under a new id that
//!   names the old one, so that the collector learns of batches that never reached it. Waits double up to a
//!   bound.
//! - The ESS does not say whether it reaches the hub, and `ready` means nothing. But if it cannot connect to
//!   the hub, it stops answering PUTs once its queue is full, at the latest when the first batch is sent
//!   again. That, or no answer at all from the ESS or the hub itself, is [`Offline`].
//! - Every request ends (by the client's timeout). After a failure the next pass waits, twice as long each
//!   time, so that an unreachable hub or ESS costs nothing.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use armor_alerts::batch::Sealer;
use armor_alerts::receipt::{self, Range, Receipt};
use armor_alerts::signed::SignedError;
use armor_alerts::status::{AgentReport, NodeStatus};
use armor_alerts::steps::{NoSteps, Steps};
use armor_base::name::check_name;
use armor_bundle::keys::PublicKey;
use armor_mms::{ALERTS_TYPE, MmsError, STATUS_TYPE};
use jiff::Timestamp;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep};

use crate::base::backoff::{Backoff, spread};
use crate::base::report::Offline;
use crate::delivery::spool::{BatchInfo, Outgoing, Spool, SpoolError};
use crate::hub::{Hub, Sent};

/// Maximum number of reasons of refused receipts kept for the status.
const MAX_REFUSED: usize = 8;
/// Maximum number of times that a wait doubles.
const MAX_DOUBLINGS: u32 = 3;

/// `UplinkConfig` holds the intervals and waits of the uplink.
#[derive(Debug, Clone)]
pub struct UplinkConfig {
    /// Interval at which receipts and the state of batches are checked.
    pub poll: Duration,
    /// Time for which alerts gather before a batch is made of them.
    pub linger: Duration,
    /// Time that a batch known to the hub or ESS waits for its receipt before it is sent under a new id.
    pub resend_after: Duration,
    /// Time that a consumed batch waits for its receipt before it is sent under a new id.
    pub receipt_grace: Duration,
    /// First wait after a failure; doubled up to `backoff_limit`.
    pub backoff: Duration,
    /// Longest wait after failures.
    pub backoff_limit: Duration,
    /// Interval at which the status is published even without a change.
    pub status_every: Duration,
}

impl Default for UplinkConfig {
    fn default() -> Self {
        Self {
            poll: Duration::from_secs(15),
            linger: Duration::from_secs(1),
            resend_after: Duration::from_secs(900),
            receipt_grace: Duration::from_secs(300),
            backoff: Duration::from_secs(1),
            backoff_limit: Duration::from_secs(60),
            status_every: Duration::from_secs(3600),
        }
    }
}

/// An `UplinkError` is the reason why a pass ended early.
#[derive(Debug, thiserror::Error)]
pub enum UplinkError {
    /// A request to the hub failed, most often because the hub is away.
    #[error(transparent)]
    Mms(#[from] MmsError),
    /// The spool failed.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// The status cannot be signed.
    #[error("status: {0}")]
    Signed(#[from] SignedError),
}

/// An `InFlight` is what this process knows about a batch on its way.
struct InFlight {
    /// Time of the last PUT.
    at: Instant,
    /// True if the PUT was answered.
    stored: bool,
}

/// An `Uplink` sends the contents of the spool.
pub struct Uplink<S = NoSteps> {
    config: UplinkConfig,
    hub: Arc<Hub>,
    spool: Arc<Mutex<Spool>>,
    sealer: Arc<Sealer>,
    receipt_keys: watch::Receiver<Vec<PublicKey>>,
    report: watch::Receiver<AgentReport>,
    steps: S,
    flights: HashMap<String, InFlight>,
    /// First numbers of batches that are missing according to a receipt.
    missing: BTreeSet<u64>,
    /// Ranges that the collector holds beyond a gap, from the latest receipt.
    held: Vec<Range>,
    /// Number of reissues of a batch, by its first number.
    reissues: HashMap<u64, u32>,
    refused: VecDeque<String>,
    status_due: Option<Instant>,
    /// Id of a status object whose PUT has not succeeded yet, or that the spool could not record.
    status_id: Option<String>,
    offline: watch::Sender<Option<Offline>>,
    /// End of the last pass that the hub, or ESS, answered.
    reached: Option<Timestamp>,
}

impl Uplink {
    /// Creates an uplink for the node that `sealer` names. `receipt_keys` are the pinned keys of collectors,
    /// and `report` is the agent's report on enforcement.
    pub fn new(
        config: UplinkConfig,
        hub: Arc<Hub>,
        spool: Arc<Mutex<Spool>>,
        sealer: Arc<Sealer>,
        receipt_keys: watch::Receiver<Vec<PublicKey>>,
        report: watch::Receiver<AgentReport>,
    ) -> Self {
        Self::with_steps(config, hub, spool, sealer, receipt_keys, report, NoSteps)
    }
}

impl<S: Steps> Uplink<S> {
    /// Creates an uplink like [`Uplink::new`] that calls `steps` at each fail point: `batch`, `put`, `taken`,
    /// `receipt`, `pruned`, `deleted`, `status`.
    pub fn with_steps(
        config: UplinkConfig,
        hub: Arc<Hub>,
        spool: Arc<Mutex<Spool>>,
        sealer: Arc<Sealer>,
        receipt_keys: watch::Receiver<Vec<PublicKey>>,
        report: watch::Receiver<AgentReport>,
        steps: S,
    ) -> Self {
        Self {
            config,
            hub,
            spool,
            sealer,
            receipt_keys,
            report,
            steps,
            flights: HashMap::new(),
            missing: BTreeSet::new(),
            held: Vec::new(),
            reissues: HashMap::new(),
            refused: VecDeque::new(),
            status_due: None,
            status_id: None,
            offline: watch::Sender::new(None),
            reached: None,
        }
    }

    /// Sets the offline state that the previous run left, which holds until something reaches the hub.
    pub fn that_was(self, offline: Option<Offline>) -> Self {
        self.offline.send_replace(offline);
        self
    }

    /// Returns since when and why [`Uplink::run`] does not reach the hub.
    pub fn offline(&self) -> watch::Receiver<Option<Offline>> {
        self.offline.subscribe()
    }

    /// Runs passes until the future is dropped. `appended` is notified after each append to the spool.
    pub async fn run(mut self, appended: Arc<Notify>) {
        let mut backoff = Backoff::new(self.config.backoff, self.config.backoff_limit);
        loop {
            let outcome = self.pass(Timestamp::now()).await;
            self.note_reachable(&outcome);
            match outcome {
                Ok(()) => {
                    backoff.reset();
                    let mut report = self.report.clone();
                    let poll = self.config.poll;
                    tokio::select! {
                        () = sleep(poll) => {}
                        () = appended.notified() => sleep(self.config.linger.min(poll)).await,
                        Ok(()) = report.changed() => {}
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, failures = backoff.failures(), "alerts wait in the spool");
                    sleep(spread(backoff.wait())).await;
                }
            }
        }
    }

    fn note_reachable(&mut self, outcome: &Result<(), UplinkError>) {
        if outcome.is_ok() {
            self.reached = Some(Timestamp::now());
        }
        self.offline.send_modify(|offline| match outcome {
            Ok(()) => *offline = None,
            Err(UplinkError::Mms(error)) => {
                let since = Offline::since(offline.take(), self.reached);
                let meaning = match (&*self.hub, error) {
                    (Hub::Ess(_), MmsError::Timeout { .. }) => {
                        ", which is what it does while the hub is away"
                    }
                    _ => "",
                };
                *offline = Some(Offline { since, reason: format!("{error}{meaning}") });
            }
            Err(UplinkError::Spool(_) | UplinkError::Signed(_)) => {}
        });
    }

    /// Runs one pass: receipts, batches on their way, new batches, status.
    pub async fn pass(&mut self, now: Timestamp) -> Result<(), UplinkError> {
        let exchanged = self.exchange(now).await;
        // A failing spool is just what the hub must learn of.
        if matches!(exchanged, Ok(()) | Err(UplinkError::Spool(_))) {
            self.publish_status(now).await?;
        }
        exchanged
    }

    async fn exchange(&mut self, now: Timestamp) -> Result<(), UplinkError> {
        self.read_receipts().await?;
        self.delete_stale().await?;
        for batch in self.with_spool(Spool::batches)? {
            match batch.taken {
                None => self.follow_up(&batch, now).await?,
                Some(taken) => self.await_receipt(&batch, taken, now).await?,
            }
        }
        let sealer = Arc::clone(&self.sealer);
        while let Some(outgoing) = self.with_spool(|spool| spool.next_batch(&sealer, now))? {
            self.steps.reached("batch");
            self.put(&outgoing).await?;
        }
        Ok(())
    }

    fn with_spool<T>(
        &self,
        work: impl FnOnce(&mut Spool) -> Result<T, SpoolError>,
    ) -> Result<T, UplinkError> {
        Ok(work(&mut self.spool.lock().unwrap_or_else(PoisonError::into_inner))?)
    }

    async fn put(&mut self, outgoing: &Outgoing) -> Result<(), UplinkError> {
        // A consumed id cannot be put again; the next check of its state shows that.
        let key = self.sealer.key.public().id();
        let done = unless_refused(self.hub.put(ALERTS_TYPE, &outgoing.id, &outgoing.content, key).await);
        self.flights.insert(outgoing.id.clone(), InFlight { at: Instant::now(), stored: done.is_ok() });
        self.steps.reached("put");
        Ok(done?)
    }

    async fn put_again(&mut self, id: &str) -> Result<(), UplinkError> {
        match self.with_spool(|spool| spool.content(id))? {
            Some(content) => self.put(&Outgoing { id: id.to_owned(), content }).await,
            None => Ok(()),
        }
    }

    /// Sends the batch under a new id.
    async fn reissue(&mut self, batch: &BatchInfo, now: Timestamp) -> Result<(), UplinkError> {
        let sealer = Arc::clone(&self.sealer);
        self.flights.remove(&batch.id);
        let Some(outgoing) = self.with_spool(|spool| spool.reissue(&batch.id, &sealer, now))? else {
            return Ok(());
        };
        self.missing.remove(&batch.range.first);
        *self.reissues.entry(batch.range.first).or_default() += 1;
        // The collector may lack the status, and with it the key that it needs to verify a batch.
        self.status_due = None;
        tracing::info!(old = batch.id, new = outgoing.id, "no receipt came for a batch, sent under a new id");
        self.steps.reached("batch");
        self.put(&outgoing).await
    }

    /// Checks a batch on its way.
    async fn follow_up(&mut self, batch: &BatchInfo, now: Timestamp) -> Result<(), UplinkError> {
        let Some(flight) = self.flights.get(&batch.id) else {
            // Sent by an earlier run; an ESS may never have got it, or lost its queue.
            return self.put_again(&batch.id).await;
        };
        let (waited, stored) = (flight.at.elapsed(), flight.stored);
        if self.missing.contains(&batch.range.first) && waited >= self.config.poll {
            return self.reissue(batch, now).await;
        }
        match self.hub.sent(ALERTS_TYPE, &batch.id, stored).await? {
            Sent::Taken => {
                self.with_spool(|spool| spool.mark_taken(&batch.id, now))?;
                self.flights.remove(&batch.id);
                self.steps.reached("taken");
                Ok(())
            }
            Sent::Missing if waited >= self.config.poll.min(self.config.resend_after) => {
                tracing::warn!(id = batch.id, "the hub does not have a batch that was sent: sent again");
                self.put_again(&batch.id).await
            }
            _ if !stored => self.put_again(&batch.id).await,
            _ if waited < self.wait(self.config.resend_after, batch) || self.is_held(batch) => Ok(()),
            _ => self.reissue(batch, now).await,
        }
    }

    /// Checks a batch that was consumed.
    async fn await_receipt(
        &mut self,
        batch: &BatchInfo,
        taken: Timestamp,
        now: Timestamp,
    ) -> Result<(), UplinkError> {
        let waited = Duration::try_from(now.duration_since(taken)).unwrap_or(Duration::MAX);
        let is_due = self.missing.contains(&batch.range.first)
            || (waited >= self.wait(self.config.receipt_grace, batch) && !self.is_held(batch));
        if !is_due || self.with_spool(Spool::stats)?.open >= crate::delivery::spool::MAX_OPEN {
            return Ok(());
        }
        self.reissue(batch, now).await
    }

    fn is_held(&self, batch: &BatchInfo) -> bool {
        self.held.iter().any(|held| held.first <= batch.range.first && batch.range.last <= held.last)
    }

    fn wait(&self, base: Duration, batch: &BatchInfo) -> Duration {
        let times = self.reissues.get(&batch.range.first).copied().unwrap_or(0);
        base * 2_u32.pow(times.min(MAX_DOUBLINGS))
    }

    async fn read_receipts(&mut self) -> Result<(), UplinkError> {
        for object in self.hub.receipts().await? {
            let id = &object.object_id;
            if check_name(id).is_err() {
                // Such an object is no collector's receipt, and no request can name it.
                tracing::debug!(id, "object with an unusable id ignored");
                continue;
            }
            if object.deleted {
                unless_refused(self.hub.deleted(&object).await)?;
                continue;
            }
            match self.hub.data(&object, receipt::MAX_OBJECT).await {
                Ok(data) => self.apply_receipt(id, &data)?,
                // Replaced by a newer one meanwhile, or too large to be a receipt.
                Err(error @ (MmsError::UnknownObject { .. } | MmsError::TooLarge { .. })) => {
                    self.refuse(id, &error.to_string());
                }
                Err(error) => return Err(error.into()),
            }
            self.steps.reached("receipt");
            unless_refused(self.hub.consumed(&object).await)?;
        }
        Ok(())
    }

    fn apply_receipt(&mut self, id: &str, data: &[u8]) -> Result<(), UplinkError> {
        let keys = self.receipt_keys.borrow().clone();
        let Sealer { org, node, key } = &*self.sealer;
        let receipt = match Receipt::verify(data, &keys, (org, node, key.public().id())) {
            Ok(receipt) => receipt,
            Err(error) => {
                self.refuse(id, &error.to_string());
                return Ok(());
            }
        };
        match self.with_spool(|spool| spool.apply_receipt(&receipt))? {
            Err(mismatch) => self.refuse(id, &mismatch.to_string()),
            Ok(applied) => {
                if let Some(missing) = applied.missing {
                    self.missing = missing.into_iter().map(|batch| batch.range.first).collect();
                    self.held.clone_from(&receipt.held);
                }
                if applied.covered > 0 {
                    tracing::debug!(up_to = receipt.up_to.sequence, "alerts delivered");
                    self.reissues.retain(|first, _| *first > receipt.up_to.sequence);
                    self.missing.retain(|first| *first > receipt.up_to.sequence);
                    let open = self.with_spool(Spool::batches)?;
                    self.flights.retain(|id, _| open.iter().any(|batch| batch.id == *id));
                }
            }
        }
        self.steps.reached("pruned");
        Ok(())
    }

    fn refuse(&mut self, id: &str, reason: &str) {
        tracing::warn!(id, reason, "receipt refused");
        if self.refused.len() == MAX_REFUSED {
            self.refused.pop_front();
        }
        self.refused.push_back(format!("{id}: {reason}"));
    }

    async fn delete_stale(&mut self) -> Result<(), UplinkError> {
        for (object_type, id) in self.with_spool(Spool::stale)? {
            unless_refused(self.hub.delete(&object_type, &id).await)?;
            self.steps.reached("deleted");
            self.with_spool(|spool| spool.forget_stale(&object_type, &id))?;
        }
        Ok(())
    }

    async fn publish_status(&mut self, now: Timestamp) -> Result<(), UplinkError> {
        let is_due = self.status_due.is_none_or(|due| due <= Instant::now());
        if !is_due && !self.report.has_changed().unwrap_or(false) {
            return Ok(());
        }
        let agent = self.report.borrow_and_update().clone();
        let status = NodeStatus {
            org: self.sealer.org.clone(),
            node: self.sealer.node.clone(),
            public_key: self.sealer.key.public().to_pem(),
            created: now,
            agent,
            spool: self.with_spool(Spool::stats)?,
            refused_receipts: self.refused.iter().cloned().collect(),
        };
        let object = status.sign(&self.sealer.key)?;
        // Due again at once, under the same id, if the PUT fails.
        self.status_due = None;
        let id = self.status_id.get_or_insert_with(|| status.object_id()).clone();
        // Published even if this fails; the id is then reused until the spool has recorded it.
        let known = self.with_spool(|spool| spool.replace_status(&id));
        match self.hub.put(STATUS_TYPE, &id, &object, self.sealer.key.public().id()).await {
            Err(MmsError::Rejected { status: 400, .. }) => {
                tracing::debug!(id, "consumed already: the next status gets another id");
                self.status_id = None;
                return Ok(());
            }
            done => done?,
        }
        self.status_due = Some(Instant::now() + self.config.status_every);
        known?;
        self.status_id = None;
        self.steps.reached("status");
        Ok(())
    }
}

/// Treats a rejection with 400 as success: the object was consumed, replaced or deleted meanwhile, and there
/// is nothing to repair.
fn unless_refused(done: Result<(), MmsError>) -> Result<(), MmsError> {
    match done {
        Err(MmsError::Rejected { status: 400, text, .. }) => {
            tracing::debug!(text, "the object changed meanwhile");
            Ok(())
        }
        done => done,
    }
}
