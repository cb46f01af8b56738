//! Keeps alerts on disk from the moment they leave the kernel until the collector's receipt covers them.
//!
//! Invariants:
//! - When [`Spool::append`] returns, the alerts are durable: SQLite in WAL mode with `synchronous=FULL`, one
//!   transaction per call.
//! - Numbers are gapless from 1. Every number above the receipted one is either a record or inside a lost
//!   range. No number is ever given twice, even if the database is lost, because `spool.floor` (written and
//!   synced before) reserves them in blocks.
//! - The chain of [`armor_alerts::batch`] is fixed when a record is written. A record whose line no
//!   longer fits its chain becomes a lost range when a batch is made.
//! - Records and lost ranges together stay within `max_bytes`. Records are evicted in this order: taken from
//!   the hub without a receipt, never sent, on their way; within each, the least severe first, then the
//!   oldest. Each eviction is counted and leaves a lost range with the chain after it.
//! - Batches cover all numbers from the receipted one on without overlap. A batch keeps its last number for
//!   good (it may be split), so any receipt that the collector ever issues falls on the end of a batch.
//! - A batch's bytes are stored before it is sent, so that a restart sends the same bytes under the same id.
//!   At most [`MAX_OPEN`] are stored, in addition to `max_bytes`.
//! - An unreadable database is moved aside to `spool.db.damaged` (one is kept), never deleted.
//! - A spool that cannot be opened counts the alerts that it is given. Each call tries to open it.

mod draft;
mod error;
mod floor;
mod rows;

use std::fs;
use std::io;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use armor_alerts::alert::Alert;
use armor_alerts::batch::{self, Lost, LostReason, MAX_REPLACED, Mark, Replaced, Sealer};
use armor_alerts::receipt::{Range, Receipt};
pub use armor_alerts::status::SpoolStats;
use armor_mms::{ALERTS_TYPE, STATUS_TYPE};
use armor_policy::escaped_path;
use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};

use draft::Draft;
pub use error::{Mismatch, SpoolError};
use error::{TxError, is_damage, sqlite};
use floor::Floor;
use rows::{
    CREATE, Class, RECORD_COST, SCHEMA, State, batches, connect, digest, drop_up_to, insert_lost, make_room,
    sent, set_class,
};

/// Maximum number of batches on their way, because the ESS hangs on the fourth object while the hub is away.
pub const MAX_OPEN: u64 = 2;

/// Number of sequence numbers reserved at a time in the floor file.
const BLOCK: u64 = 4096;

/// `batch.taken` of a batch that a reissue split off. It is due at once, as if it had been taken long ago.
const SPLIT_OFF: i64 = 0;

/// `SpoolConfig` holds the settings of the spool.
#[derive(Debug, Clone)]
pub struct SpoolConfig {
    /// Maximum bytes of records and lost ranges. The file is some tenths larger, and also holds [`MAX_OPEN`]
    /// batches (each under 4 MiB).
    pub max_bytes: u64,
}

/// `Applied` is the effect of a receipt.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Applied {
    /// Number of newly covered numbers.
    pub covered: u64,
    /// Set for the newest receipt so far: batches to send again, because the collector misses them although
    /// it has later ones.
    pub missing: Option<Vec<BatchInfo>>,
}

/// `Outgoing` is a batch ready to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// Object id.
    pub id: String,
    /// Object data.
    pub content: Vec<u8>,
}

/// `BatchInfo` is a batch without its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchInfo {
    /// Object id.
    pub id: String,
    /// The numbers that it covers.
    pub range: Range,
    /// Time at which it was first seen to be taken from the hub; `None` while it is on its way.
    pub taken: Option<Timestamp>,
}

/// A `Spool` is the spool of one node, used by one process at a time.
pub struct Spool {
    dir: PathBuf,
    max_bytes: u64,
    /// `None` until it can be opened; `state` and `floor` are not valid before.
    db: Option<Connection>,
    state: State,
    floor: Floor,
    /// Number of alerts that could not be written since the last successful append. They get numbers with the
    /// next one.
    pending: u64,
    recovered: Option<String>,
}

impl Spool {
    /// Creates a spool in `dir`, which must exist, without opening it.
    pub fn new(dir: &Path, config: SpoolConfig) -> Self {
        Self {
            dir: dir.to_path_buf(),
            max_bytes: config.max_bytes,
            db: None,
            state: State::default(),
            floor: Floor::default(),
            pending: 0,
            recovered: None,
        }
    }

    /// Creates a spool like [`Spool::new`] and opens it.
    ///
    /// # Errors
    /// Fails like [`Spool::ensure_open`].
    pub fn open(dir: &Path, config: SpoolConfig) -> Result<Self, SpoolError> {
        let mut spool = Self::new(dir, config);
        spool.ensure_open()?;
        Ok(spool)
    }

    /// Opens or creates the spool if it is not open. A damaged database is moved aside, and
    /// [`Spool::recovered`] says so.
    ///
    /// # Errors
    /// Fails with [`SpoolError::Newer`], [`SpoolError::InUse`], or, if the directory cannot be written, with
    /// [`SpoolError::Io`] or [`SpoolError::Sqlite`]. Until it is open, all other calls fail in the same way.
    pub fn ensure_open(&mut self) -> Result<(), SpoolError> {
        self.db = Some(self.take_open()?);
        Ok(())
    }

    /// Returns why the spool was replaced or moved forward since it was opened.
    pub fn recovered(&self) -> Option<&str> {
        self.recovered.as_deref()
    }

    /// Writes `alerts` durably, evicting others if needed, and returns their numbers; the range is empty if
    /// there are none.
    ///
    /// # Errors
    /// Fails with [`SpoolError::Unwritten`] if the disk is full or failing. The alerts are then counted, and
    /// recorded as lost with the next successful append.
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

    /// Returns counts for status and metrics. While the spool is not open, they cover only alerts given
    /// since.
    pub fn stats(&mut self) -> Result<SpoolStats, SpoolError> {
        let max_bytes = self.max_bytes;
        let recovered = self.recovered.clone();
        let pending = self.pending;
        if self.db.is_none() {
            return Ok(SpoolStats { max_bytes, unwritten: pending, recovered, ..SpoolStats::default() });
        }
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

    /// Makes the next batch and stores it durably. Returns `None` if there is nothing new or [`MAX_OPEN`] are
    /// on their way.
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

    /// Returns all batches not covered by a receipt, ascending.
    pub fn batches(&mut self) -> Result<Vec<BatchInfo>, SpoolError> {
        self.transact(|tx, _| batches(tx))
    }

    /// Returns the bytes of a batch on its way, or `None` if it is not (any more).
    pub fn content(&mut self, id: &str) -> Result<Option<Vec<u8>>, SpoolError> {
        self.transact(|tx, _| {
            let content = tx
                .query_row("SELECT content FROM batch WHERE id = ?1", [id], |row| row.get(0))
                .optional()?
                .flatten();
            Ok(content)
        })
    }

    /// Records that batch `id` was taken from the hub; its records are now evicted first.
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

    /// Makes batch `id` again, under a new id, from what the spool still has of it. The old id becomes stale
    /// if it was still on its way. Returns `None` if there is no such batch (any more).
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
            // A split-off batch was never sent.
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
                // Not all lost ranges fit, so the rest becomes a batch of its own, due at once.
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

    /// Applies a receipt that is already verified to be signed for this node: drops what it covers and
    /// returns which batches the collector misses. An older or repeated receipt changes nothing.
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

    /// Returns type and id of this node's objects that are no longer needed and may still be at the ESS;
    /// oldest first, at most 64.
    pub fn stale(&mut self) -> Result<Vec<(String, String)>, SpoolError> {
        self.transact(|tx, _| {
            let mut query = tx.prepare_cached("SELECT type, id FROM stale ORDER BY rowid LIMIT 64")?;
            let ids = query.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<Result<_, _>>()?;
            Ok(ids)
        })
    }

    /// Forgets a stale object after it was deleted at the ESS.
    pub fn forget_stale(&mut self, object_type: &str, id: &str) -> Result<(), SpoolError> {
        self.transact(|tx, _| {
            tx.execute("DELETE FROM stale WHERE type = ?1 AND id = ?2", [object_type, id])?;
            Ok(())
        })
    }

    /// Records the object that is about to carry the node's status; the previous one becomes stale.
    pub fn replace_status(&mut self, id: &str) -> Result<(), SpoolError> {
        self.transact(|tx, _| {
            tx.execute(
                "INSERT OR IGNORE INTO stale (type, id) SELECT ?1, id FROM status WHERE id <> ?2",
                [STATUS_TYPE, id],
            )?;
            tx.execute("INSERT OR REPLACE INTO status VALUES (1, ?1)", [id])?;
            Ok(())
        })
    }

    fn path(&self) -> PathBuf {
        self.dir.join("spool.db")
    }

    fn try_append(&mut self, alerts: &[Alert]) -> Result<RangeInclusive<u64>, SpoolError> {
        self.ensure_open()?;
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

    /// Runs `work` in one transaction, and keeps its changes to the state only if that commits.
    fn transact<T>(
        &mut self,
        work: impl FnOnce(&Transaction<'_>, &mut State) -> Result<T, TxError>,
    ) -> Result<T, SpoolError> {
        let mut db = self.take_open()?;
        let mut state = self.state;
        let result = db.transaction_with_behavior(TransactionBehavior::Deferred).map_err(TxError::from);
        let result = result.and_then(|tx| {
            let value = work(&tx, &mut state)?;
            if state != self.state {
                state.write(&tx)?;
            }
            tx.commit()?;
            Ok(value)
        });
        let outcome = match result {
            Ok(value) => {
                self.state = state;
                Ok(value)
            }
            Err(TxError::Spool(error)) => Err(error),
            Err(TxError::Sqlite(error)) if is_damage(&error) => {
                // SQLite must close the files before they are renamed.
                drop(db);
                let (fresh, damaged) = self.begin_afresh(error)?;
                db = fresh;
                Err(damaged)
            }
            Err(TxError::Sqlite(error)) => Err(sqlite(&self.path(), error)),
        };
        self.db = Some(db);
        outcome
    }

    /// Takes the open database out of `self.db`, opening it if needed. The caller must put it back.
    fn take_open(&mut self) -> Result<Connection, SpoolError> {
        if let Some(db) = self.db.take() {
            return Ok(db);
        }
        let path = self.path();
        let (floor, ignored) = Floor::read(&self.dir)?;
        self.floor = floor;
        self.recovered = self.recovered.take().or(ignored);
        let mut db = match connect(&path) {
            Err(error) if is_damage(&error) => return Ok(self.begin_afresh(error)?.0),
            db => db.map_err(|error| sqlite(&path, error))?,
        };
        let found: i64 = db
            .pragma_query_value(None, "user_version", |row| row.get(0))
            .map_err(|error| sqlite(&path, error))?;
        if found > SCHEMA {
            return Err(SpoolError::Newer { path, found, known: SCHEMA });
        }
        match self.load(&mut db, found) {
            Err(SpoolError::Sqlite { error, .. }) if is_damage(&error) => {
                drop(db);
                Ok(self.begin_afresh(error)?.0)
            }
            loaded => loaded.map(|()| db),
        }
    }

    /// Reads the state, creating the schema in a new database, and moves past numbers that the floor says
    /// were given.
    fn load(&mut self, db: &mut Connection, schema: i64) -> Result<(), SpoolError> {
        let path = self.path();
        let floor = self.floor;
        let mut moved_on = None;
        let mut load = || -> Result<State, rusqlite::Error> {
            let tx = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let (stored, mut state) = if schema == 0 {
                tx.execute_batch(CREATE)?;
                tx.pragma_update(None, "user_version", SCHEMA)?;
                (None, State { last: floor.receipted, receipted: floor.receipted, ..State::default() })
            } else {
                let stored = State::read(&tx)?;
                (Some(stored), stored)
            };
            state.receipt_serial = state.receipt_serial.max(floor.receipt_serial);
            let went_back = floor.receipted.sequence > state.last.sequence
                || floor.reserved > state.last.sequence + if schema == 0 { 0 } else { 2 * BLOCK };
            if went_back {
                moved_on = Some(state.last.sequence);
                state.move_on(&tx, floor)?;
            }
            // Without changes nothing is written, so that the spool can be opened on a full disk.
            if stored != Some(state) {
                state.write(&tx)?;
            }
            tx.commit()?;
            Ok(state)
        };
        self.state = load().map_err(|error| sqlite(&path, error))?;
        if let (Some(last), None) = (moved_on, &self.recovered) {
            self.recovered = Some(format!(
                "{}: holds numbers up to {last} only, but up to {} were reserved: it is older than spool.floor, and goes on from there",
                escaped_path(&path),
                floor.reserved
            ));
        }
        Ok(())
    }

    /// Moves the damaged database, which must be closed, aside and begins a new one past every number that
    /// may have been given. Returns the new database and the error to report.
    fn begin_afresh(&mut self, error: rusqlite::Error) -> Result<(Connection, SpoolError), SpoolError> {
        let path = self.path();
        let moved_to = move_aside(&path)?;
        let damaged = SpoolError::Damaged { path: path.clone(), moved_to, error };
        self.recovered = Some(damaged.to_string());
        let mut db = connect(&path).map_err(|error| sqlite(&path, error))?;
        self.load(&mut db, 0)?;
        Ok((db, damaged))
    }

    fn write_floor(&mut self, floor: Floor) -> Result<(), SpoolError> {
        floor.write(&self.dir)?;
        self.floor = floor;
        Ok(())
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
