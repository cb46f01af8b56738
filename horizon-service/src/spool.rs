//! The spool: alerts kept on disk from the moment they leave the kernel until the collector's receipt covers them.
//!
//! Invariants:
//! - What [`Spool::append`] returned is durable: SQLite in WAL mode with `synchronous=FULL`, one transaction per call.
//! - Numbers are gapless from 1. Every number above the receipted one is either a record or inside a lost range; a
//!   number is never given twice, even if the database is lost, because `spool.floor` (written and synced before)
//!   reserves them in blocks.
//! - The chain of [`armor_hub_client::batch`] is fixed when a record is written. A record whose line no longer fits its
//!   chain becomes a lost range when a batch is made.
//! - Records and lost ranges together stay within `max_bytes`. To make room, first goes what was taken from the hub
//!   without a receipt, then what was never sent, last what is on its way; within each the least severe, then the
//!   oldest. Each eviction is counted and leaves a lost range with the chain after it.
//! - Batches tile the numbers from the receipted one on. A batch keeps its last number for good (it may be split), so
//!   any receipt the collector ever issues falls on the end of one.
//! - A batch's bytes are stored before it is sent, so a restart sends the same bytes under the same id. At most
//!   [`MAX_OPEN`] are stored, besides `max_bytes`.
//! - A database that does not read is moved aside to `spool.db.damaged` (one is kept), never deleted.

use std::fs::{self, File};
use std::io::{self, Write};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use armor_hub_client::alert::Alert;
use armor_hub_client::batch::{
    self, BatchError, Digest, FULL, LOST_SIZE, Lost, LostReason, MAX_REPLACED, Mark, Replaced, Sealer,
};
use armor_hub_client::mms::{ALERTS_TYPE, STATUS_TYPE};
use armor_hub_client::receipt::{Range, Receipt};
pub use armor_hub_client::status::SpoolStats;
use jiff::Timestamp;
use rusqlite::{Connection, ErrorCode, OptionalExtension, Transaction, TransactionBehavior, params};
use serde::{Deserialize, Serialize};

/// Most batches on their way at a time: the ESS hangs on the fourth object while the hub is away.
pub const MAX_OPEN: u64 = 2;

/// Version of the database's schema, in its `user_version`.
const SCHEMA: i64 = 1;
/// Bytes a record costs beside its line: chain, keys, index entry.
const RECORD_COST: u64 = 128;
/// Bytes a lost range costs.
const LOST_COST: u64 = 96;
/// Numbers reserved at a time in the floor file.
const BLOCK: u64 = 4096;

/// `batch.taken` of a batch that a reissue split off: due at once, as if taken long ago.
const SPLIT_OFF: i64 = 0;

const CREATE: &str = "
CREATE TABLE state (
    id INTEGER PRIMARY KEY CHECK (id = 1), last INTEGER NOT NULL, chain BLOB NOT NULL,
    receipted INTEGER NOT NULL, receipted_chain BLOB NOT NULL, receipt_serial INTEGER NOT NULL,
    records INTEGER NOT NULL, bytes INTEGER NOT NULL, evicted INTEGER NOT NULL, unwritten INTEGER NOT NULL
) STRICT;
CREATE TABLE record (
    sequence INTEGER PRIMARY KEY, class INTEGER NOT NULL, rank INTEGER NOT NULL,
    chain BLOB NOT NULL, line BLOB NOT NULL
) STRICT;
CREATE INDEX record_eviction ON record (class, rank, sequence);
CREATE TABLE lost (first INTEGER PRIMARY KEY, last INTEGER NOT NULL, chain BLOB NOT NULL, reason INTEGER NOT NULL) STRICT;
CREATE TABLE batch (
    first INTEGER PRIMARY KEY, last INTEGER NOT NULL UNIQUE, id TEXT NOT NULL UNIQUE,
    previous BLOB NOT NULL, chain BLOB NOT NULL, taken INTEGER, replaces TEXT NOT NULL DEFAULT '[]', content BLOB
) STRICT;
CREATE TABLE stale (type TEXT NOT NULL, id TEXT NOT NULL, PRIMARY KEY (type, id)) STRICT;
CREATE TABLE status (one INTEGER PRIMARY KEY CHECK (one = 1), id TEXT NOT NULL) STRICT;
";

/// Order in which records make room: the values of `record.class`.
#[derive(Clone, Copy)]
enum Class {
    /// In a batch that somebody took, without a receipt so far.
    Taken = 0,
    /// In no batch yet.
    Unsent = 1,
    /// In a batch on its way.
    Sent = 2,
}

/// Settings of the spool.
#[derive(Debug, Clone)]
pub struct SpoolConfig {
    /// Bytes that records and lost ranges may take. The file is some tenths larger, and holds [`MAX_OPEN`] batches
    /// (each under 4 MiB) besides.
    pub max_bytes: u64,
}

/// What the spool cannot do.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// The database was written by a newer version of the agent.
    #[error("{}: schema version {found}, this agent reads up to {SCHEMA}: run the newer agent, or move the file away", path.display())]
    Newer {
        /// The database.
        path: PathBuf,
        /// Version it has.
        found: i64,
    },
    /// Another process has the database open.
    #[error("{}: in use by another process: only one agent may run on a node", path.display())]
    InUse {
        /// The database.
        path: PathBuf,
    },
    /// The database did not read. It was moved aside and a fresh one begun: the call can be repeated.
    #[error("{}: damaged ({error}); moved to {}, a fresh spool goes on from the next free number", path.display(), moved_to.display())]
    Damaged {
        /// The database.
        path: PathBuf,
        /// Where the damaged one is now.
        moved_to: PathBuf,
        /// What SQLite says.
        error: rusqlite::Error,
    },
    /// The alerts could not be written: the disk is full or failing. They are counted and named as lost.
    #[error("{}: {count} alerts not written: {error}", path.display())]
    Unwritten {
        /// File that could not be written.
        path: PathBuf,
        /// Alerts of this call.
        count: u64,
        /// Why.
        error: Box<SpoolError>,
    },
    /// A file of the spool cannot be read or written.
    #[error("{}: {error}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// SQLite cannot do what it must; mostly a full or failing disk.
    #[error("{}: {error}", path.display())]
    Sqlite {
        /// The database.
        path: PathBuf,
        /// Why.
        error: rusqlite::Error,
    },
    /// A batch cannot be sealed.
    #[error("batch: {0}")]
    Batch(#[from] BatchError),
    /// An alert cannot be written as JSON.
    #[error("alert: {0}")]
    Alert(#[from] serde_json::Error),
}

/// Why a receipt that is properly signed does not fit this spool.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Mismatch {
    /// It covers numbers that were never sent: this node's state went back, or its key is used twice.
    #[error(
        "receipt up to {up_to}, but only {sent} was sent: this node's state is older than what the collector has"
    )]
    BeyondSent {
        /// What the receipt covers.
        up_to: u64,
        /// Highest number in any batch.
        sent: u64,
    },
    /// No batch ends where it does.
    #[error("receipt up to {up_to}, where no batch ends")]
    NoBoundary {
        /// What the receipt covers.
        up_to: u64,
    },
    /// The collector's chain is not this spool's.
    #[error(
        "receipt up to {up_to} has chain {theirs}, the spool has {ours}: the collector took other alerts for ours"
    )]
    Chain {
        /// What the receipt covers.
        up_to: u64,
        /// Chain in the receipt.
        theirs: Digest,
        /// Chain in the spool.
        ours: Digest,
    },
}

/// What a receipt changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Applied {
    /// How many numbers it newly covers.
    pub covered: u64,
    /// With the newest receipt so far: batches that the collector misses although it has later ones, to be sent again.
    pub missing: Option<Vec<BatchInfo>>,
}

/// A batch ready to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// Object id.
    pub id: String,
    /// Object data.
    pub content: Vec<u8>,
}

/// A batch without its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchInfo {
    /// Object id.
    pub id: String,
    /// Numbers it covers.
    pub range: Range,
    /// When it was first seen to be taken from the hub; `None` while on its way.
    pub taken: Option<Timestamp>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct State {
    last: Mark,
    receipted: Mark,
    receipt_serial: u64,
    records: u64,
    bytes: u64,
    evicted: u64,
    unwritten: u64,
}

/// What outlives the database: numbers reserved, and how far receipts reach.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Floor {
    reserved: u64,
    receipted: Mark,
    #[serde(default)]
    receipt_serial: u64,
}

/// The spool of one node. One process at a time.
pub struct Spool {
    dir: PathBuf,
    max_bytes: u64,
    db: Connection,
    state: State,
    floor: Floor,
    /// Alerts not written since the last successful append; they get numbers with the next one.
    pending: u64,
    recovered: Option<String>,
}

impl Spool {
    /// Opens the spool in `dir`, which must exist, or begins one. A damaged database is moved aside, which
    /// [`Spool::recovered`] then says.
    ///
    /// # Errors
    /// [`SpoolError::Newer`], [`SpoolError::InUse`], and [`SpoolError::Io`] or [`SpoolError::Sqlite`] if the directory
    /// cannot be written.
    pub fn open(dir: &Path, config: SpoolConfig) -> Result<Self, SpoolError> {
        let path = dir.join("spool.db");
        let (floor, mut recovered) = Floor::read(dir)?;
        let db = match connect(&path) {
            Err(error) if is_damage(&error) => {
                let moved_to = move_aside(&path)?;
                recovered = Some(SpoolError::Damaged { path: path.clone(), moved_to, error }.to_string());
                connect(&path)
            }
            result => result,
        };
        let db = db.map_err(|error| sqlite(&path, error))?;
        let found: i64 = db
            .pragma_query_value(None, "user_version", |row| row.get(0))
            .map_err(|error| sqlite(&path, error))?;
        if found > SCHEMA {
            return Err(SpoolError::Newer { path, found });
        }
        let mut spool = Self {
            dir: dir.to_path_buf(),
            max_bytes: config.max_bytes,
            db,
            state: State::default(),
            floor,
            pending: 0,
            recovered,
        };
        match spool.load(found) {
            Err(SpoolError::Sqlite { error, .. }) if is_damage(&error) => {
                let damaged = spool.begin_afresh(error)?;
                spool.recovered = Some(damaged.to_string());
            }
            result => result?,
        }
        Ok(spool)
    }

    /// Why the spool was begun afresh or moved forward since it was opened.
    pub fn recovered(&self) -> Option<&str> {
        self.recovered.as_deref()
    }

    /// Writes `alerts` durably and returns their numbers; the range is empty if there are none. Makes room if needed.
    ///
    /// # Errors
    /// [`SpoolError::Unwritten`] if the disk is full or failing: the alerts are counted, and named as lost with the
    /// next append that works.
    pub fn append(&mut self, alerts: &[Alert]) -> Result<RangeInclusive<u64>, SpoolError> {
        let result = match self.try_append(alerts) {
            Err(SpoolError::Damaged { .. }) => self.try_append(alerts),
            result => result,
        };
        result.map_err(|error| {
            let count = alerts.len() as u64;
            self.pending = self.pending.saturating_add(count);
            SpoolError::Unwritten { path: self.path(), count, error: Box::new(error) }
        })
    }

    /// Figures for status and metrics.
    pub fn stats(&mut self) -> Result<SpoolStats, SpoolError> {
        let max_bytes = self.max_bytes;
        let recovered = self.recovered.clone();
        let pending = self.pending;
        self.transact(|tx, state| {
            let (taken, batches): (u64, u64) =
                tx.query_row("SELECT COUNT(taken), COUNT(*) FROM batch", [], |row| {
                    Ok((row.get(0)?, row.get(1)?))
                })?;
            Ok(SpoolStats {
                records: state.records,
                bytes: state.bytes,
                max_bytes,
                last: state.last.sequence,
                receipted: state.receipted.sequence,
                evicted: state.evicted,
                unwritten: state.unwritten + pending,
                open: batches - taken,
                taken,
                recovered,
            })
        })
    }

    /// Makes the next batch and records it durably. `None` if there is nothing new, or [`MAX_OPEN`] are on their way.
    pub fn next_batch(&mut self, sealer: &Sealer, now: Timestamp) -> Result<Option<Outgoing>, SpoolError> {
        self.transact(|tx, state| {
            let open: u64 =
                tx.query_row("SELECT COUNT(*) FROM batch WHERE taken IS NULL", [], |row| row.get(0))?;
            let sent = sent(tx, state)?;
            if open >= MAX_OPEN || sent.sequence >= state.last.sequence {
                return Ok(None);
            }
            let draft = Draft::assemble(tx, state, sent, state.last)?;
            draft.record(tx, state, sealer, Vec::new(), now).map(Some)
        })
    }

    /// All batches not covered by a receipt, ascending.
    pub fn batches(&mut self) -> Result<Vec<BatchInfo>, SpoolError> {
        self.transact(|tx, _| batches(tx))
    }

    /// The bytes of a batch on its way; `None` if it is not (any more).
    pub fn content(&mut self, id: &str) -> Result<Option<Vec<u8>>, SpoolError> {
        self.transact(|tx, _| {
            let content = tx
                .query_row("SELECT content FROM batch WHERE id = ?1", [id], |row| row.get(0))
                .optional()?
                .flatten();
            Ok(content)
        })
    }

    /// Remembers that somebody took batch `id` from the hub: its records are now first to make room.
    pub fn mark_taken(&mut self, id: &str, now: Timestamp) -> Result<(), SpoolError> {
        self.transact(|tx, _| {
            let range: Option<(u64, u64)> = tx
                .query_row(
                    "UPDATE batch SET taken = ?2, content = NULL WHERE id = ?1 AND taken IS NULL RETURNING first, last",
                    params![id, now.as_millisecond()],
                    |row| Ok((row.get(0)?, row.get(1)?)),
                )
                .optional()?;
            if let Some((first, last)) = range {
                set_class(tx, first, last, Class::Taken)?;
            }
            Ok(())
        })
    }

    /// Makes batch `id` anew, under a new id, from what the spool still has of it. The old id becomes stale if it was
    /// still on its way. `None` if there is no such batch (any more).
    pub fn reissue(
        &mut self,
        id: &str,
        sealer: &Sealer,
        now: Timestamp,
    ) -> Result<Option<Outgoing>, SpoolError> {
        self.transact(|tx, state| {
            let found = tx
                .query_row(
                    "SELECT first, last, previous, chain, taken, replaces FROM batch WHERE id = ?1",
                    [id],
                    |row| {
                        let first: u64 = row.get(0)?;
                        let before = Mark { sequence: first.saturating_sub(1), chain: digest(row, 2)? };
                        let end = Mark { sequence: row.get(1)?, chain: digest(row, 3)? };
                        Ok((before, end, row.get::<_, Option<i64>>(4)?, row.get::<_, String>(5)?))
                    },
                )
                .optional()?;
            let Some((before, end, taken, replaces)) = found else { return Ok(None) };
            let mut replaces: Vec<Replaced> = serde_json::from_str(&replaces)?;
            // A batch split off was never sent.
            if taken != Some(SPLIT_OFF) {
                replaces.push(Replaced { id: id.to_owned(), consumed: taken.is_some() });
            }
            replaces.drain(..replaces.len().saturating_sub(MAX_REPLACED));
            if taken.is_none() {
                tx.execute("INSERT OR IGNORE INTO stale (type, id) VALUES (?1, ?2)", [ALERTS_TYPE, id])?;
            }
            tx.execute("DELETE FROM batch WHERE id = ?1", [id])?;
            let draft = Draft::assemble(tx, state, before, end)?;
            if draft.end.sequence < end.sequence {
                // More lost ranges than fit: the rest is a batch of its own, due at once.
                let rest = draft.end.sequence + 1;
                tx.execute(
                    "INSERT INTO batch (first, last, id, previous, chain, taken) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                    params![
                        rest,
                        end.sequence,
                        batch::object_id(&sealer.node, rest, end.sequence),
                        draft.end.chain.0,
                        end.chain.0,
                        SPLIT_OFF
                    ],
                )?;
                set_class(tx, rest, end.sequence, Class::Taken)?;
            }
            draft.record(tx, state, sealer, replaces, now).map(Some)
        })
    }

    /// Applies a receipt already verified to be signed for this node: drops what it covers, and says which batches the
    /// collector misses. An older receipt, or the same again, changes nothing.
    pub fn apply_receipt(&mut self, receipt: &Receipt) -> Result<Result<Applied, Mismatch>, SpoolError> {
        let applied = self.transact(|tx, state| {
            let sent = sent(tx, state)?;
            let up_to = receipt.up_to.sequence;
            if up_to > sent.sequence {
                return Ok(Err(Mismatch::BeyondSent { up_to, sent: sent.sequence }));
            }
            let mut applied = Applied::default();
            if up_to > state.receipted.sequence {
                let ours = tx
                    .query_row("SELECT chain FROM batch WHERE last = ?1", [up_to], |row| digest(row, 0))
                    .optional()?;
                match ours {
                    None => return Ok(Err(Mismatch::NoBoundary { up_to })),
                    Some(ours) if ours != receipt.up_to.chain => {
                        return Ok(Err(Mismatch::Chain { up_to, theirs: receipt.up_to.chain, ours }));
                    }
                    Some(_) => {}
                }
                applied.covered = up_to - state.receipted.sequence;
                drop_up_to(tx, state, receipt.up_to)?;
            }
            if receipt.serial > state.receipt_serial {
                state.receipt_serial = receipt.serial;
                let reach = receipt.held.iter().map(|held| held.last).max().unwrap_or(0);
                let has = |range: Range| {
                    receipt.held.iter().any(|held| held.first <= range.first && range.last <= held.last)
                };
                let mut missing = batches(tx)?;
                missing.retain(|batch| batch.range.last < reach && !has(batch.range));
                applied.missing = Some(missing);
            }
            Ok(Ok(applied))
        })?;
        if matches!(&applied, Ok(applied) if applied.covered > 0) {
            self.write_floor(Floor {
                receipted: self.state.receipted,
                receipt_serial: self.state.receipt_serial,
                ..self.floor
            })?;
        }
        Ok(applied)
    }

    /// Objects of this node, type and id, that are of no more use and may still lie at the ESS; oldest first, at
    /// most 64.
    pub fn stale(&mut self) -> Result<Vec<(String, String)>, SpoolError> {
        self.transact(|tx, _| {
            let mut query = tx.prepare_cached("SELECT type, id FROM stale ORDER BY rowid LIMIT 64")?;
            let ids = query.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<Result<_, _>>()?;
            Ok(ids)
        })
    }

    /// Forgets a stale object once it is gone from the ESS.
    pub fn forget_stale(&mut self, object_type: &str, id: &str) -> Result<(), SpoolError> {
        self.transact(|tx, _| {
            tx.execute("DELETE FROM stale WHERE type = ?1 AND id = ?2", [object_type, id])?;
            Ok(())
        })
    }

    /// Remembers the object that is about to carry the node's status; the one before becomes stale.
    pub fn replace_status(&mut self, id: &str) -> Result<(), SpoolError> {
        self.transact(|tx, _| {
            tx.execute("INSERT OR IGNORE INTO stale (type, id) SELECT ?1, id FROM status", [STATUS_TYPE])?;
            tx.execute("INSERT OR REPLACE INTO status VALUES (1, ?1)", [id])?;
            Ok(())
        })
    }

    fn path(&self) -> PathBuf {
        self.dir.join("spool.db")
    }

    fn try_append(&mut self, alerts: &[Alert]) -> Result<RangeInclusive<u64>, SpoolError> {
        let (pending, max_bytes) = (self.pending, self.max_bytes);
        let needed = self.state.last.sequence + pending + alerts.len() as u64;
        if needed > self.floor.reserved {
            self.write_floor(Floor { reserved: needed + BLOCK, ..self.floor })?;
        }
        let range = self.transact(|tx, state| {
            if pending > 0 {
                let first = state.last.sequence + 1;
                let last = state.last.sequence + pending;
                let chain = state.last.chain.link(last, b"");
                insert_lost(tx, state, Lost { first, last, chain, reason: LostReason::Unwritten })?;
                state.last = Mark { sequence: last, chain };
                state.unwritten += pending;
            }
            let first = state.last.sequence + 1;
            let mut insert = tx.prepare_cached(
                "INSERT INTO record (sequence, class, rank, chain, line) VALUES (?1, ?2, ?3, ?4, ?5)",
            )?;
            for alert in alerts {
                let sequence = state.last.sequence + 1;
                let line = Alert { sequence, ..alert.clone() }.to_line()?;
                let chain = state.last.chain.link(sequence, &line);
                insert.execute(params![sequence, Class::Unsent as u8, alert.rank(), chain.0, line])?;
                state.last = Mark { sequence, chain };
                state.records += 1;
                state.bytes += line.len() as u64 + RECORD_COST;
            }
            make_room(tx, state, max_bytes)?;
            Ok(first..=state.last.sequence)
        })?;
        self.pending = 0;
        Ok(range)
    }

    /// Runs `work` in one transaction and keeps what it made of the state only if that commits.
    fn transact<T>(
        &mut self,
        work: impl FnOnce(&Transaction<'_>, &mut State) -> Result<T, Trouble>,
    ) -> Result<T, SpoolError> {
        let mut state = self.state;
        let result = self.db.transaction_with_behavior(TransactionBehavior::Deferred).map_err(Trouble::from);
        let result = result.and_then(|tx| {
            let value = work(&tx, &mut state)?;
            if state != self.state {
                state.write(&tx)?;
            }
            tx.commit()?;
            Ok(value)
        });
        match result {
            Ok(value) => {
                self.state = state;
                Ok(value)
            }
            Err(Trouble::Spool(error)) => Err(error),
            Err(Trouble::Sqlite(error)) if is_damage(&error) => Err(self.begin_afresh(error)?),
            Err(Trouble::Sqlite(error)) => Err(sqlite(&self.path(), error)),
        }
    }

    /// Reads the state, creating the schema in a new database, and moves past numbers that the floor says were given.
    fn load(&mut self, schema: i64) -> Result<(), SpoolError> {
        let path = self.path();
        let floor = self.floor;
        let mut moved_on = None;
        let mut load = || -> Result<State, rusqlite::Error> {
            let tx = self.db.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let mut state = if schema == 0 {
                tx.execute_batch(CREATE)?;
                tx.pragma_update(None, "user_version", SCHEMA)?;
                State { last: floor.receipted, receipted: floor.receipted, ..State::default() }
            } else {
                State::read(&tx)?
            };
            state.receipt_serial = state.receipt_serial.max(floor.receipt_serial);
            let went_back = floor.receipted.sequence > state.last.sequence
                || floor.reserved > state.last.sequence + if schema == 0 { 0 } else { 2 * BLOCK };
            if went_back {
                moved_on = Some(state.last.sequence);
                state.move_on(&tx, floor)?;
            }
            state.write(&tx)?;
            tx.commit()?;
            Ok(state)
        };
        self.state = load().map_err(|error| sqlite(&path, error))?;
        if let (Some(last), None) = (moved_on, &self.recovered) {
            self.recovered = Some(format!(
                "{}: holds numbers up to {last} only, but up to {} were reserved: it is older than spool.floor, and goes on from there",
                path.display(),
                floor.reserved
            ));
        }
        Ok(())
    }

    /// Moves the damaged database aside and begins a fresh one past every number that may have been given.
    fn begin_afresh(&mut self, error: rusqlite::Error) -> Result<SpoolError, SpoolError> {
        let path = self.path();
        // SQLite must let go of the files before they are renamed.
        self.db = Connection::open_in_memory().map_err(|error| sqlite(&path, error))?;
        let moved_to = move_aside(&path)?;
        self.db = connect(&path).map_err(|error| sqlite(&path, error))?;
        self.load(0)?;
        let damaged = SpoolError::Damaged { path, moved_to, error };
        self.recovered = Some(damaged.to_string());
        Ok(damaged)
    }

    fn write_floor(&mut self, floor: Floor) -> Result<(), SpoolError> {
        floor.write(&self.dir)?;
        self.floor = floor;
        Ok(())
    }
}

/// What ends a transaction.
enum Trouble {
    Sqlite(rusqlite::Error),
    Spool(SpoolError),
}

impl From<rusqlite::Error> for Trouble {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

impl From<BatchError> for Trouble {
    fn from(error: BatchError) -> Self {
        Self::Spool(error.into())
    }
}

impl From<serde_json::Error> for Trouble {
    fn from(error: serde_json::Error) -> Self {
        Self::Spool(error.into())
    }
}

impl State {
    fn read(tx: &Transaction<'_>) -> Result<Self, rusqlite::Error> {
        tx.query_row(
            "SELECT last, chain, receipted, receipted_chain, receipt_serial, records, bytes, evicted, unwritten FROM state",
            [],
            |row| {
                Ok(Self {
                    last: Mark { sequence: row.get(0)?, chain: digest(row, 1)? },
                    receipted: Mark { sequence: row.get(2)?, chain: digest(row, 3)? },
                    receipt_serial: row.get(4)?,
                    records: row.get(5)?,
                    bytes: row.get(6)?,
                    evicted: row.get(7)?,
                    unwritten: row.get(8)?,
                })
            },
        )
    }

    fn write(&self, tx: &Transaction<'_>) -> Result<(), rusqlite::Error> {
        let mut write =
            tx.prepare_cached("INSERT OR REPLACE INTO state VALUES (1, ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)")?;
        write.execute(params![
            self.last.sequence,
            self.last.chain.0,
            self.receipted.sequence,
            self.receipted.chain.0,
            self.receipt_serial,
            self.records,
            self.bytes,
            self.evicted,
            self.unwritten
        ])?;
        Ok(())
    }

    /// Goes on from the floor: numbers up to it may have been given and are lost as far as nobody has a receipt for
    /// them. Their chain is unknown, so any value will do for it. Batches may have been cut differently since: they
    /// are made anew.
    fn move_on(&mut self, tx: &Transaction<'_>, floor: Floor) -> Result<(), rusqlite::Error> {
        tx.execute("INSERT OR IGNORE INTO stale (type, id) SELECT ?1, id FROM batch", [ALERTS_TYPE])?;
        tx.execute("DELETE FROM batch", [])?;
        tx.execute("UPDATE record SET class = ?1", [Class::Unsent as u8])?;
        if floor.receipted.sequence > self.receipted.sequence {
            drop_up_to(tx, self, floor.receipted)?;
        }
        if self.last.sequence < floor.receipted.sequence {
            self.last = floor.receipted;
        }
        if self.last.sequence < floor.reserved {
            let chain = Digest(rand::random());
            let range = Lost {
                first: self.last.sequence + 1,
                last: floor.reserved,
                chain,
                reason: LostReason::Damaged,
            };
            insert_lost(tx, self, range)?;
            self.last = Mark { sequence: floor.reserved, chain };
        }
        Ok(())
    }
}

impl Floor {
    /// The floor of `dir`, the zero one if there is none. One that does not read is as good as none: the database has
    /// the same numbers. The second value says so.
    fn read(dir: &Path) -> Result<(Self, Option<String>), SpoolError> {
        let path = dir.join("spool.floor");
        match fs::read(&path) {
            Ok(bytes) => Ok(match serde_json::from_slice(&bytes) {
                Ok(floor) => (floor, None),
                Err(error) => (Self::default(), Some(format!("{}: ignored: {error}", path.display()))),
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok((Self::default(), None)),
            Err(error) => Err(SpoolError::Io { path, error }),
        }
    }

    /// Replaces the file atomically and durably.
    fn write(&self, dir: &Path) -> Result<(), SpoolError> {
        let path = dir.join("spool.floor");
        let write = || -> io::Result<()> {
            let fresh = dir.join("spool.floor.new");
            let mut file = File::create(&fresh)?;
            file.write_all(&serde_json::to_vec(self)?)?;
            file.sync_all()?;
            fs::rename(&fresh, &path)?;
            File::open(dir)?.sync_all()
        };
        write().map_err(|error| SpoolError::Io { path: path.clone(), error })
    }
}

/// A batch being put together.
struct Draft {
    first: u64,
    previous: Digest,
    end: Mark,
    lines: Vec<Vec<u8>>,
    lost: Vec<Lost>,
}

impl Draft {
    /// Takes what follows `before`, up to `end`, until the batch is full. A record whose line does not fit the chain
    /// becomes a lost range.
    fn assemble(
        tx: &Transaction<'_>,
        state: &mut State,
        before: Mark,
        end: Mark,
    ) -> Result<Self, rusqlite::Error> {
        let mut draft = Self {
            first: before.sequence + 1,
            previous: before.chain,
            end: before,
            lines: Vec::new(),
            lost: Vec::new(),
        };
        let mut size = 0;
        let mut damaged = Vec::new();
        let mut query = tx.prepare_cached(
            "SELECT sequence, chain, line FROM record WHERE sequence BETWEEN ?1 AND ?2 ORDER BY sequence",
        )?;
        let mut rows = query.query([draft.first, end.sequence])?;
        let mut row = rows.next()?;
        while draft.end.sequence < end.sequence && size < FULL {
            let next = draft.end.sequence + 1;
            match row {
                Some(record) if record.get::<_, u64>(0)? == next => {
                    let (chain, line) = (digest(record, 1)?, record.get::<_, Vec<u8>>(2)?);
                    if draft.end.chain.link(next, &line) == chain {
                        size += line.len() + 1;
                        draft.lines.push(line);
                    } else {
                        size += LOST_SIZE;
                        damaged.push((next, chain, line.len() as u64));
                        draft.lost.push(Lost { first: next, last: next, chain, reason: LostReason::Damaged });
                    }
                    draft.end = Mark { sequence: next, chain };
                    row = rows.next()?;
                }
                _ => {
                    let mut lost = lost_at(tx, next)?.ok_or(rusqlite::Error::QueryReturnedNoRows)?;
                    lost.first = next;
                    if lost.last >= end.sequence {
                        (lost.last, lost.chain) = (end.sequence, end.chain);
                    }
                    size += LOST_SIZE;
                    draft.end = Mark { sequence: lost.last, chain: lost.chain };
                    draft.lost.push(lost);
                }
            }
        }
        for (sequence, chain, length) in damaged {
            lose(tx, state, sequence, chain, length, LostReason::Damaged)?;
        }
        Ok(draft)
    }

    /// Seals the batch and stores it as on its way.
    fn record(
        self,
        tx: &Transaction<'_>,
        state: &State,
        sealer: &Sealer,
        replaces: Vec<Replaced>,
        now: Timestamp,
    ) -> Result<Outgoing, Trouble> {
        let id = batch::object_id(&sealer.node, self.first, self.end.sequence);
        let header = batch::Header {
            version: batch::VERSION,
            id: id.clone(),
            org: sealer.org.clone(),
            node: sealer.node.clone(),
            key: sealer.key.public().id().clone(),
            first: self.first,
            last: self.end.sequence,
            count: self.lines.len() as u64,
            previous: self.previous,
            chain: self.end.chain,
            lost: self.lost,
            receipted: state.receipted,
            replaces,
            created: now,
        };
        let content = batch::seal(&header, &self.lines, &sealer.key)?;
        tx.execute(
            "INSERT INTO batch (first, last, id, previous, chain, replaces, content)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            params![
                self.first,
                self.end.sequence,
                id,
                self.previous.0,
                self.end.chain.0,
                serde_json::to_string(&header.replaces)?,
                content
            ],
        )?;
        set_class(tx, self.first, self.end.sequence, Class::Sent)?;
        Ok(Outgoing { id, content })
    }
}

fn connect(path: &Path) -> Result<Connection, rusqlite::Error> {
    let db = Connection::open(path)?;
    // Exclusive: one process only, and no shared-memory file.
    db.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
    db.pragma_update(None, "journal_mode", "WAL")?;
    db.pragma_update(None, "synchronous", "FULL")?;
    db.pragma_update(None, "journal_size_limit", 4 << 20)?;
    db.busy_timeout(std::time::Duration::ZERO)?;
    db.set_prepared_statement_cache_capacity(32);
    Ok(db)
}

/// Whether the database itself is at fault: not readable as one, or not what this program wrote.
fn is_damage(error: &rusqlite::Error) -> bool {
    use rusqlite::Error;
    match error {
        Error::SqliteFailure(failure, _) => {
            matches!(
                failure.code,
                ErrorCode::DatabaseCorrupt
                    | ErrorCode::NotADatabase
                    | ErrorCode::Unknown
                    | ErrorCode::ConstraintViolation
            )
        }
        Error::SqlInputError { .. }
        | Error::QueryReturnedNoRows
        | Error::InvalidColumnType(..)
        | Error::FromSqlConversionFailure(..)
        | Error::IntegralValueOutOfRange(..) => true,
        _ => false,
    }
}

fn sqlite(path: &Path, error: rusqlite::Error) -> SpoolError {
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            SpoolError::InUse { path: path.to_path_buf() }
        }
        _ => SpoolError::Sqlite { path: path.to_path_buf(), error },
    }
}

/// Renames the database and its log, replacing an earlier damaged one.
fn move_aside(path: &Path) -> Result<PathBuf, SpoolError> {
    let moved_to = path.with_extension("db.damaged");
    for suffix in ["", "-wal", "-shm"] {
        let from = PathBuf::from(format!("{}{suffix}", path.display()));
        let to = PathBuf::from(format!("{}{suffix}", moved_to.display()));
        match fs::rename(&from, to) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(SpoolError::Io { path: from, error });
            }
            _ => {}
        }
    }
    Ok(moved_to)
}

fn digest(row: &rusqlite::Row<'_>, column: usize) -> Result<Digest, rusqlite::Error> {
    row.get(column).map(Digest)
}

/// The end of the last batch, or of what receipts cover.
fn sent(tx: &Transaction<'_>, state: &State) -> Result<Mark, rusqlite::Error> {
    let last = tx
        .query_row("SELECT last, chain FROM batch ORDER BY first DESC LIMIT 1", [], |row| {
            Ok(Mark { sequence: row.get(0)?, chain: digest(row, 1)? })
        })
        .optional()?;
    Ok(last.unwrap_or(state.receipted))
}

fn batches(tx: &Transaction<'_>) -> Result<Vec<BatchInfo>, Trouble> {
    let mut query = tx.prepare_cached("SELECT id, first, last, taken FROM batch ORDER BY first")?;
    let batches = query.query_map([], |row| {
        let taken: Option<i64> = row.get(3)?;
        Ok(BatchInfo {
            id: row.get(0)?,
            range: Range { first: row.get(1)?, last: row.get(2)? },
            taken: taken.map(|at| Timestamp::from_millisecond(at).unwrap_or_default()),
        })
    })?;
    Ok(batches.collect::<Result<_, _>>()?)
}

fn set_class(tx: &Transaction<'_>, first: u64, last: u64, class: Class) -> Result<(), rusqlite::Error> {
    tx.execute(
        "UPDATE record SET class = ?3 WHERE sequence BETWEEN ?1 AND ?2",
        params![first, last, class as u8],
    )?;
    Ok(())
}

/// Drops records, lost ranges and batches up to `mark`; batches still on their way become stale.
fn drop_up_to(tx: &Transaction<'_>, state: &mut State, mark: Mark) -> Result<(), rusqlite::Error> {
    let up_to = mark.sequence;
    tx.execute(
        "INSERT OR IGNORE INTO stale (type, id) SELECT ?1, id FROM batch WHERE last <= ?2 AND taken IS NULL",
        params![ALERTS_TYPE, up_to],
    )?;
    tx.execute("DELETE FROM batch WHERE last <= ?1", [up_to])?;
    let (records, lines): (u64, u64) = tx.query_row(
        "SELECT COUNT(*), COALESCE(SUM(LENGTH(line)), 0) FROM record WHERE sequence <= ?1",
        [up_to],
        |row| Ok((row.get(0)?, row.get(1)?)),
    )?;
    tx.execute("DELETE FROM record WHERE sequence <= ?1", [up_to])?;
    let ranges = tx.execute("DELETE FROM lost WHERE last <= ?1", [up_to])? as u64;
    tx.execute("UPDATE lost SET first = ?1 + 1 WHERE first <= ?1", [up_to])?;
    state.records = state.records.saturating_sub(records);
    state.bytes = state.bytes.saturating_sub(lines + records * RECORD_COST + ranges * LOST_COST);
    state.receipted = mark;
    Ok(())
}

/// Evicts records until the rest fits `max_bytes`.
fn make_room(tx: &Transaction<'_>, state: &mut State, max_bytes: u64) -> Result<(), rusqlite::Error> {
    while state.bytes > max_bytes {
        let mut query = tx.prepare_cached(
            "SELECT sequence, chain, LENGTH(line) FROM record ORDER BY class, rank, sequence LIMIT 1",
        )?;
        let record = query
            .query_row([], |row| Ok((row.get::<_, u64>(0)?, digest(row, 1)?, row.get::<_, u64>(2)?)))
            .optional()?;
        let Some((sequence, chain, length)) = record else { break };
        lose(tx, state, sequence, chain, length, LostReason::Evicted)?;
        state.evicted += 1;
    }
    Ok(())
}

/// Puts a lost range in the place of one record.
fn lose(
    tx: &Transaction<'_>,
    state: &mut State,
    sequence: u64,
    chain: Digest,
    length: u64,
    reason: LostReason,
) -> Result<(), rusqlite::Error> {
    tx.prepare_cached("DELETE FROM record WHERE sequence = ?1")?.execute([sequence])?;
    state.records = state.records.saturating_sub(1);
    state.bytes = state.bytes.saturating_sub(length + RECORD_COST);
    insert_lost(tx, state, Lost { first: sequence, last: sequence, chain, reason })
}

/// Adds a lost range, joined with its neighbours where the reason is the same.
fn insert_lost(tx: &Transaction<'_>, state: &mut State, mut lost: Lost) -> Result<(), rusqlite::Error> {
    let below = if lost.first > 1 { lost_at(tx, lost.first - 1)? } else { None };
    let above = lost_at(tx, lost.last + 1)?;
    for neighbour in [below, above].into_iter().flatten().filter(|other| other.reason == lost.reason) {
        tx.prepare_cached("DELETE FROM lost WHERE first = ?1")?.execute([neighbour.first])?;
        state.bytes = state.bytes.saturating_sub(LOST_COST);
        lost.first = lost.first.min(neighbour.first);
        if neighbour.last > lost.last {
            (lost.last, lost.chain) = (neighbour.last, neighbour.chain);
        }
    }
    tx.prepare_cached("INSERT INTO lost (first, last, chain, reason) VALUES (?1, ?2, ?3, ?4)")?
        .execute(params![lost.first, lost.last, lost.chain.0, lost.reason as u8])?;
    state.bytes += LOST_COST;
    Ok(())
}

/// The lost range that `sequence` is in.
fn lost_at(tx: &Transaction<'_>, sequence: u64) -> Result<Option<Lost>, rusqlite::Error> {
    let mut query = tx.prepare_cached(
        "SELECT first, last, chain, reason FROM lost WHERE first <= ?1 ORDER BY first DESC LIMIT 1",
    )?;
    let lost = query
        .query_row([sequence], |row| {
            let reason = match row.get::<_, u8>(3)? {
                0 => LostReason::Evicted,
                1 => LostReason::Unwritten,
                _ => LostReason::Damaged,
            };
            Ok(Lost { first: row.get(0)?, last: row.get(1)?, chain: digest(row, 2)?, reason })
        })
        .optional()?;
    Ok(lost.filter(|lost| sequence <= lost.last))
}
