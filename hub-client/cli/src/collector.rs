//! The collector is the hub's side of alerts: it takes batches from the CSS, verifies them, writes the alerts
//! durably and in order per node, and publishes the receipts after which the nodes delete them.
//!
//! Invariants:
//! - The output contains each alert of a node once, ascending, whenever the collector ends: the ledger
//!   records the output's length together with the mark, and anything beyond that length is cut off.
//! - An object is consumed only after its content is durable or was found to be of no use; a receipt covers
//!   only durable alerts.
//! - A batch counts for the node that the hub names as its owner, and only if that node's pinned key signed
//!   it. The first key seen for a node is pinned; another key is reported, and accepted only if the operator
//!   names it.
//! - A machine that is not a Horizon node leaves its objects at the hub itself ([`HUB_TYPE`]), under a user
//!   of its own name. There anyone may replace an object's data without becoming its owner; so a key counts
//!   only if the status object's metadata names it too. Such an object is not consumed but deleted.
//! - Nothing is skipped silently: each object that is lost, forged, copied, overwritten, removed or consumed
//!   by others becomes a [`Finding`]. A finding may be reported twice if the collector ends in between.

mod finding;
mod ledger;
mod output;

use std::collections::HashSet;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use armor_alerts::batch::{self, Batch, Header, Mark, name_part};
use armor_alerts::receipt::{MAX_HELD, Range, Receipt};
use armor_alerts::signed::SignedError;
use armor_alerts::status::{self, NodeStatus};
use armor_alerts::steps::{NoSteps, Steps};
use armor_base::name::check_name;
use armor_bundle::keys::{KeyId, PrivateKey};
use armor_mms::css::{CssClient, NewObject};
use armor_mms::{ALERTS_TYPE, DestinationPolicy, HUB_TYPE, MetaData, MmsError, RECEIPT_TYPE, STATUS_TYPE};
use jiff::Timestamp;

pub use finding::{Finding, Report};
use ledger::{Boundary, Held, Ledger, Stream};
pub use ledger::{LEDGER_FILE, LedgerError};
use output::Output;
pub use output::{OutputConfig, OutputError};

/// Longest wait after a failed pass.
const BACKOFF_LIMIT: Duration = Duration::from_secs(60);
/// Time in seconds for which an object may be at the hub without data. The hub shows such an object if the
/// node deleted it before sending the data, until the deletion arrives too.
const EMPTY_LIMIT: i64 = 600;

/// A `ReceiptRoute` says how receipts reach their node. Receipts for a machine that is not a Horizon node
/// always stay at the hub.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReceiptRoute {
    /// Directly to the node; the value is its destination type: `openhorizon.edgenode`, or a pattern's name.
    Node(String),
    /// To all nodes that match a destination policy; only the services it names see the receipts.
    Policy(DestinationPolicy),
}

/// A `CollectorConfig` contains the settings of a collector.
#[derive(Debug, Clone)]
pub struct CollectorConfig {
    /// The organisation from whose nodes alerts are collected.
    pub org: String,
    /// Directory of the ledger; it must exist.
    pub state_dir: PathBuf,
    /// Destination of the alerts.
    pub output: OutputConfig,
    /// Route on which receipts reach their node.
    pub route: ReceiptRoute,
    /// Changed keys that the operator accepts: node and key.
    pub accept_keys: Vec<(String, KeyId)>,
}

/// A `Summary` counts the results of one pass.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary {
    /// Number of alerts written.
    pub alerts: u64,
    /// Number of receipts published.
    pub receipts: u64,
    /// Number of receipts that could not be published; they stay due.
    pub receipts_due: u64,
    /// Number of findings reported.
    pub findings: u64,
}

/// A `CollectorError` says why collecting cannot continue.
#[derive(Debug, thiserror::Error)]
pub enum CollectorError {
    /// A request to the CSS failed.
    #[error(transparent)]
    Mms(#[from] MmsError),
    /// The ledger fails.
    #[error("collector state: {0}")]
    Ledger(#[from] LedgerError),
    /// The output fails.
    #[error("output: {0}")]
    Output(#[from] OutputError),
    /// The collector's key does not sign.
    #[error("receipt: {0}")]
    Signed(#[from] SignedError),
}

/// A `Verdict` says whether an object is of no more use at the hub.
#[derive(PartialEq, Eq)]
enum Verdict {
    Consume,
    Leave,
}

/// A `Collector` collects the alerts of one organisation.
pub struct Collector<S = NoSteps> {
    config: CollectorConfig,
    css: CssClient,
    key: PrivateKey,
    ledger: Ledger,
    output: Output,
    report: Report,
    steps: S,
    summary: Summary,
    /// Objects that stayed at the hub and were already reported.
    reported: HashSet<String>,
    /// Objects seen at the hub in this pass.
    listed: HashSet<String>,
}

impl Collector {
    /// Opens ledger and output. `key` signs receipts; its public half must be pinned on the nodes.
    pub fn open(
        config: CollectorConfig,
        css: CssClient,
        key: PrivateKey,
        report: Report,
    ) -> Result<Self, CollectorError> {
        Self::with_steps(config, css, key, report, NoSteps)
    }
}

impl<S: Steps> Collector<S> {
    /// Does the same as [`Collector::open`], and calls `steps` at each step: `written`, `accepted`, `held`,
    /// `consumed`, `signed`, `published`, `cleared`.
    pub fn with_steps(
        config: CollectorConfig,
        css: CssClient,
        key: PrivateKey,
        report: Report,
        steps: S,
    ) -> Result<Self, CollectorError> {
        let mut ledger = Ledger::open(&config.state_dir)?;
        let output = Output::open(&config.output, &mut ledger)?;
        let summary = Summary::default();
        Ok(Self {
            config,
            css,
            key,
            ledger,
            output,
            report,
            steps,
            summary,
            reported: HashSet::new(),
            listed: HashSet::new(),
        })
    }

    /// Runs a pass every `every`, until an error occurs that waiting does not cure.
    pub async fn follow(&mut self, every: Duration) -> Result<(), CollectorError> {
        let mut wait = every;
        loop {
            match self.collect_once().await {
                Ok(_) => wait = every,
                Err(CollectorError::Mms(error)) if error.is_transient() => {
                    tracing::warn!(%error, "the hub is away, trying again");
                    wait = (wait * 2).min(BACKOFF_LIMIT.max(every));
                }
                Err(error) => return Err(error),
            }
            tokio::time::sleep(wait).await;
        }
    }

    /// Collects everything that is at the hub, then publishes the receipts that are due.
    pub async fn collect_once(&mut self) -> Result<Summary, CollectorError> {
        self.summary = Summary::default();
        // An earlier run may have ended after it filled a gap and before it wrote the batches that follow.
        for mut stream in self.ledger.holding()? {
            self.release(&mut stream)?;
        }
        self.read_statuses().await?;
        let mut objects = self.list(ALERTS_TYPE).await?;
        self.listed.extend(objects.iter().map(name_of));
        let listed = std::mem::take(&mut self.listed);
        self.reported.retain(|id| listed.contains(id));
        self.ledger.retain_empty(&listed)?;
        objects.sort_by_cached_key(|object| (object.owner_id.clone(), first_of(&object.object_id)));
        for object in objects {
            if self.take(&object).await? == Verdict::Consume {
                self.consume(&object).await?;
                self.steps.reached("consumed");
            }
        }
        for stream in self.ledger.due()? {
            self.publish_receipt(&stream).await?;
        }
        Ok(self.summary)
    }

    /// Returns the objects of a type that nodes sent or machines left at the hub.
    async fn list(&self, object_type: &str) -> Result<Vec<MetaData>, MmsError> {
        let mut objects = self.css.list(object_type).await?;
        objects.extend(self.css.list_staying(object_type, None).await?);
        Ok(objects)
    }

    /// Removes an object from the hub; its sender sees that.
    async fn consume(&self, object: &MetaData) -> Result<(), MmsError> {
        let MetaData { object_type, object_id, .. } = object;
        if stays(object) {
            self.css.delete(object_type, object_id).await
        } else {
            unless_refused(self.css.consumed(object_type, object_id).await)
        }
    }

    fn find(&mut self, finding: &Finding) {
        self.summary.findings += 1;
        (self.report)(finding);
    }

    /// Reports a finding about an object that stays at the hub, but only once.
    fn find_once(&mut self, object: &MetaData, finding: &Finding) {
        if self.reported.insert(name_of(object)) {
            self.find(finding);
        }
    }

    /// Returns the node in an owner `org/node`, or in `org/type/node` as a CSS outside Horizon's agent writes
    /// it.
    fn node_of<'o>(&self, owner: &'o str) -> Option<&'o str> {
        owner.strip_prefix(&self.config.org)?.strip_prefix('/')?.rsplit('/').next()
    }

    async fn read_statuses(&mut self) -> Result<(), CollectorError> {
        let objects = self.list(STATUS_TYPE).await?;
        self.listed.extend(objects.iter().map(name_of));
        for object in objects {
            let id = &object.object_id;
            if let Err(error) = check_name(id) {
                self.out_of_reach(&object, error);
                continue;
            }
            if object.deleted {
                unless_refused(self.css.deleted(STATUS_TYPE, id).await)?;
                continue;
            }
            match self.css.data(STATUS_TYPE, id, status::MAX_OBJECT).await {
                Ok(data) if data.is_empty() => {
                    if self.without_data(&object)? == Verdict::Leave {
                        continue;
                    }
                }
                Ok(data) => self.read_status(&object, &data)?,
                Err(MmsError::UnknownObject { .. }) if stays(&object) => {
                    if self.without_data(&object)? == Verdict::Leave {
                        continue;
                    }
                }
                Err(MmsError::UnknownObject { .. }) => continue,
                Err(error @ (MmsError::BadName(_) | MmsError::Rejected { status: 400..500, .. })) => {
                    self.out_of_reach(&object, error);
                    continue;
                }
                Err(error @ MmsError::TooLarge { .. }) => self.forged(&object, error.to_string()),
                Err(error) => return Err(error.into()),
            }
            self.consume(&object).await?;
        }
        Ok(())
    }

    fn read_status(&mut self, object: &MetaData, data: &[u8]) -> Result<(), CollectorError> {
        let (status, key) = match NodeStatus::verify(data) {
            Ok(verified) => verified,
            Err(error) => {
                self.forged(object, error.to_string());
                return Ok(());
            }
        };
        let node = status.node.clone();
        if status.org != self.config.org || self.node_of(&object.owner_id) != Some(&node) {
            self.forged(object, format!("it claims to be of {}/{node}", status.org));
            return Ok(());
        }
        if stays(object) && object.description != key.id().as_str() {
            self.forged(object, format!("its metadata names the key {:?}", object.description));
            return Ok(());
        }
        let pinned = self.ledger.stream(&node)?.map(|stream| stream.key);
        if pinned.as_ref() != Some(&key) {
            let vouched = self.config.accept_keys.iter().any(|(name, id)| *name == node && id == key.id());
            match pinned {
                Some(pinned) if !vouched => {
                    let offered = key.id().clone();
                    let object = object.object_id.clone();
                    self.find(&Finding::KeyChanged { node, pinned: pinned.id().clone(), offered, object });
                    return Ok(());
                }
                _ => {
                    self.ledger.pin(&node, &key)?;
                    self.find(&Finding::KeyPinned { node, key: key.id().clone() });
                }
            }
        }
        self.ledger.set_at_hub(&status.node, stays(object))?;
        self.find(&Finding::Status(Box::new(status)));
        Ok(())
    }

    fn forged(&mut self, object: &MetaData, reason: String) {
        let (id, owner) = (object.object_id.clone(), object.owner_id.clone());
        self.find(&Finding::Forged { object: id, owner, reason });
    }

    /// Reports, once, an object that can be neither read nor removed from here. The pass continues, so that
    /// other objects need not wait.
    fn out_of_reach(&mut self, object: &MetaData, error: impl fmt::Display) {
        let (id, owner, reason) = (object.object_id.clone(), object.owner_id.clone(), error.to_string());
        self.find_once(object, &Finding::Forged { object: id, owner, reason });
    }

    /// Leaves an object without data at the hub for [`EMPTY_LIMIT`], then reports its owner and consumes it.
    fn without_data(&mut self, object: &MetaData) -> Result<Verdict, CollectorError> {
        let now = Timestamp::now().as_second();
        if now - self.ledger.empty_since(&name_of(object), now)? < EMPTY_LIMIT {
            return Ok(Verdict::Leave);
        }
        self.forged(object, format!("it has had no data for {} minutes", EMPTY_LIMIT / 60));
        Ok(Verdict::Consume)
    }

    /// Examines one alert object.
    async fn take(&mut self, object: &MetaData) -> Result<Verdict, CollectorError> {
        let (id, owner) = (&object.object_id, &object.owner_id);
        if let Err(error) = check_name(id) {
            self.out_of_reach(object, error);
            return Ok(Verdict::Leave);
        }
        let node = self.node_of(owner);
        let stream = node.map(|node| self.ledger.stream(node)).transpose()?.flatten();
        if object.deleted {
            // A node also removes its own objects after it got a receipt for them.
            let had = match &stream {
                Some(stream) => last_of(id) <= stream.up_to.sequence || self.ledger.has(stream.id, id)?,
                None => false,
            };
            if !had {
                self.find_once(object, &Finding::Removed { object: id.clone(), owner: owner.clone() });
            }
            unless_refused(self.css.deleted(ALERTS_TYPE, id).await)?;
            return Ok(Verdict::Leave);
        }
        let Some(node) = node.filter(|node| id.starts_with(&format!("{}.", name_part(node)))) else {
            self.forged(object, "its id names another node than its owner".to_owned());
            return Ok(Verdict::Consume);
        };
        let Some(stream) = stream else {
            self.find_once(object, &Finding::KeyUnknown { node: node.to_owned(), object: id.clone() });
            return Ok(Verdict::Leave);
        };
        let data = match self.css.data(ALERTS_TYPE, id, batch::MAX_OBJECT as u64).await {
            Ok(data) if data.is_empty() => return self.without_data(object),
            Ok(data) => data,
            Err(MmsError::UnknownObject { .. }) if stays(object) => return self.without_data(object),
            Err(MmsError::UnknownObject { .. }) => return Ok(Verdict::Leave),
            Err(error @ (MmsError::BadName(_) | MmsError::Rejected { status: 400..500, .. })) => {
                self.out_of_reach(object, error);
                return Ok(Verdict::Leave);
            }
            Err(error @ MmsError::TooLarge { .. }) => {
                self.forged(object, error.to_string());
                return Ok(Verdict::Consume);
            }
            Err(error) => return Err(error.into()),
        };
        match batch::open(&data, &stream.key) {
            Err(error) => self.forged(object, error.to_string()),
            Ok(Batch { header: Header { org, node, key, .. }, .. })
                if (&org, &node, &key) != (&self.config.org, &stream.node, stream.key.id()) =>
            {
                self.forged(object, format!("it claims to be of {org}/{node} with key {key}"));
            }
            Ok(Batch { header, .. }) if header.id != *id => {
                let (object, owner, original) = (id.clone(), owner.clone(), header.id);
                self.find(&Finding::Copied { object, owner, original });
            }
            Ok(batch) => return self.fit(stream, batch, data),
        }
        Ok(Verdict::Consume)
    }

    /// Puts a genuine batch into its stream.
    fn fit(&mut self, mut stream: Stream, batch: Batch, content: Vec<u8>) -> Result<Verdict, CollectorError> {
        let header = &batch.header;
        if !self.ledger.has(stream.id, &header.id)? {
            for replaced in &header.replaces {
                if !self.ledger.has(stream.id, &replaced.id)? {
                    self.find(&Finding::Intercepted {
                        node: stream.node.clone(),
                        object: replaced.id.clone(),
                        consumed: replaced.consumed,
                        replacement: header.id.clone(),
                    });
                }
            }
        }
        let end = Mark { sequence: header.last, chain: header.chain };
        if end.sequence <= stream.up_to.sequence {
            if self.ledger.boundary(stream.id, end)? == Boundary::Other {
                self.fork(&stream, &header.id);
            } else {
                self.ledger.duplicate(stream.id, end, &header.id)?;
            }
            return Ok(Verdict::Consume);
        }
        let next = stream.up_to.sequence + 1;
        if header.first > next && header.receipted.sequence >= next {
            let last = header.receipted.sequence;
            self.find(&Finding::ElsewhereReceipted { node: stream.node.clone(), first: next, last });
            self.ledger.accept(stream.id, header.receipted, None, None)?;
            stream.up_to = header.receipted;
            self.release(&mut stream)?;
        }
        let next = stream.up_to.sequence + 1;
        if header.first > next {
            return self.hold(&stream, &batch, content);
        }
        if self.write(&mut stream, &batch)? {
            self.release(&mut stream)?;
        }
        Ok(Verdict::Consume)
    }

    fn hold(&mut self, stream: &Stream, batch: &Batch, content: Vec<u8>) -> Result<Verdict, CollectorError> {
        let header = &batch.header;
        let held = self.ledger.held_ranges(stream.id)?;
        let range = Range { first: header.first, last: header.last };
        if held.contains(&range) {
            let end = Mark { sequence: header.last, chain: header.chain };
            self.ledger.duplicate(stream.id, end, &header.id)?;
            return Ok(Verdict::Consume);
        }
        let first =
            held.iter().filter(|held| held.last < range.first).map(|held| held.last).max().unwrap_or(0);
        let first = first.max(stream.up_to.sequence) + 1;
        if first < range.first {
            let finding = Finding::Gap { node: stream.node.clone(), first, last: range.first - 1 };
            self.find(&finding);
        }
        if held.len() >= MAX_HELD {
            return Ok(Verdict::Leave);
        }
        self.ledger.hold(stream.id, &Held { range, id: header.id.clone(), content })?;
        self.steps.reached("held");
        Ok(Verdict::Consume)
    }

    /// Writes the held batches that now follow.
    fn release(&mut self, stream: &mut Stream) -> Result<(), CollectorError> {
        while let Some(held) = self.ledger.held_at(stream.id, stream.up_to.sequence + 1)? {
            let written = match batch::open(&held.content, &stream.key) {
                Ok(batch) => self.write(stream, &batch)?,
                Err(error) => {
                    tracing::warn!(id = held.id, %error, "a held batch does not read any more, the node sends it again");
                    false
                }
            };
            if !written {
                self.ledger.drop_held(stream.id, held.range)?;
            }
        }
        Ok(())
    }

    /// Writes the alerts of the batch beyond the stream's mark; returns false if the batch contradicts the
    /// stream.
    fn write(&mut self, stream: &mut Stream, batch: &Batch) -> Result<bool, CollectorError> {
        let (header, up_to) = (&batch.header, stream.up_to);
        if batch.chain_at(up_to.sequence).is_some_and(|chain| chain != up_to.chain) {
            self.fork(stream, &header.id);
            return Ok(false);
        }
        for lost in header.lost.iter().filter(|lost| lost.last > up_to.sequence) {
            let first = lost.first.max(up_to.sequence + 1);
            let (node, last, reason) = (stream.node.clone(), lost.last, lost.reason);
            self.find(&Finding::Lost { node, first, last, count: last - first + 1, reason });
        }
        let fresh = batch.records.iter().filter(|record| record.sequence > up_to.sequence);
        let count = fresh.clone().count() as u64;
        let output = self.output.append(fresh.map(|record| record.line.as_slice()))?;
        self.steps.reached("written");
        let end = Mark { sequence: header.last, chain: header.chain };
        self.ledger.accept(stream.id, end, Some(&header.id), output)?;
        self.output.commit();
        self.steps.reached("accepted");
        stream.up_to = end;
        self.summary.alerts += count;
        Ok(true)
    }

    fn fork(&mut self, stream: &Stream, object: &str) {
        let up_to = stream.up_to.sequence;
        self.find(&Finding::Fork { node: stream.node.clone(), object: object.to_owned(), up_to });
    }

    async fn publish_receipt(&mut self, stream: &Stream) -> Result<(), CollectorError> {
        let now = Timestamp::now();
        let mut held = self.ledger.held_ranges(stream.id)?;
        held.truncate(MAX_HELD);
        let receipt = Receipt {
            org: self.config.org.clone(),
            node: stream.node.clone(),
            key: stream.key.id().clone(),
            up_to: stream.up_to,
            held,
            serial: self.ledger.next_serial(stream.id, now.as_millisecond().unsigned_abs())?,
            issued: now,
        };
        let data = receipt.sign(&self.key)?;
        let (destination, destination_policy) = match &self.config.route {
            _ if self.ledger.is_at_hub(&stream.node)? => {
                (Some((HUB_TYPE.to_owned(), stream.node.clone())), None)
            }
            ReceiptRoute::Node(kind) => (Some((kind.clone(), stream.node.clone())), None),
            ReceiptRoute::Policy(policy) => (None, Some(policy.clone())),
        };
        let object = NewObject {
            object_id: receipt.object_id(),
            object_type: RECEIPT_TYPE.to_owned(),
            version: "1".to_owned(),
            destination,
            destination_policy,
            ..NewObject::default()
        };
        self.ledger.add_receipt(stream.id, &object.object_id)?;
        self.steps.reached("signed");
        match self.css.publish(&object, &data).await {
            Ok(()) => {}
            // The hub does not (or no longer) know the node; other nodes need not wait for that.
            Err(error @ MmsError::Rejected { .. }) => {
                tracing::warn!(node = stream.node, %error, "receipt not published, tried again next time");
                self.summary.receipts_due += 1;
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        }
        self.steps.reached("published");
        self.summary.receipts += 1;
        for old in self.ledger.published(stream.id, &object.object_id)? {
            self.css.delete(RECEIPT_TYPE, &old).await?;
            self.ledger.forget_receipt(&old)?;
        }
        self.steps.reached("cleared");
        Ok(())
    }
}

/// Ignores status 400: an object that was consumed, replaced or deleted in the meantime cannot be
/// acknowledged.
fn unless_refused(done: Result<(), MmsError>) -> Result<(), MmsError> {
    match done {
        Err(MmsError::Rejected { status: 400, text, .. }) => {
            tracing::debug!(text, "the object changed meanwhile");
            Ok(())
        }
        done => done,
    }
}

/// Returns whether a machine that is not a Horizon node left the object at the hub itself.
fn stays(object: &MetaData) -> bool {
    object.destination_type == HUB_TYPE
}

fn name_of(object: &MetaData) -> String {
    format!("{}/{}", object.object_type, object.object_id)
}

/// Returns the first number of an object id `<node>.<first>-<last>.<random>`. It is unverified and used only
/// for sorting.
fn first_of(id: &str) -> u64 {
    range_of(id).map_or(0, |(first, _)| first)
}

fn last_of(id: &str) -> u64 {
    range_of(id).map_or(u64::MAX, |(_, last)| last)
}

fn range_of(id: &str) -> Option<(u64, u64)> {
    let (first, last) = id.rsplit('.').nth(1)?.split_once('-')?;
    Some((first.parse().ok()?, last.parse().ok()?))
}
