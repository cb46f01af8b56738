//! Defines the tables: schema, the single row of state, and the steps that keep records, lost ranges and byte
//! counts consistent.

use std::path::Path;
use std::time::Duration;

use armor_alerts::batch::{Digest, Lost, LostReason, Mark};
use armor_alerts::receipt::Range;
use armor_mms::ALERTS_TYPE;
use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, Transaction, params};

use super::BatchInfo;
use super::error::TxError;
use super::floor::Floor;

/// Version of the database schema, in its `user_version`.
pub(super) const SCHEMA: i64 = 1;

/// Bytes that a record costs in addition to its line: chain, keys, index entry.
pub(super) const RECORD_COST: u64 = 128;

/// Bytes that a lost range costs.
pub(super) const LOST_COST: u64 = 96;

pub(super) const CREATE: &str = "
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

/// `Class` has the values of `record.class`, in the order of eviction.
#[derive(Clone, Copy)]
pub(super) enum Class {
    /// In a batch that was taken from the hub, but without a receipt so far.
    Taken = 0,
    /// In no batch yet.
    Unsent = 1,
    /// In a batch on its way.
    Sent = 2,
}

#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct State {
    pub(super) last: Mark,
    pub(super) receipted: Mark,
    pub(super) receipt_serial: u64,
    pub(super) records: u64,
    pub(super) bytes: u64,
    pub(super) evicted: u64,
    pub(super) unwritten: u64,
}

impl State {
    pub(super) fn read(tx: &Transaction<'_>) -> Result<Self, rusqlite::Error> {
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

    pub(super) fn write(&self, tx: &Transaction<'_>) -> Result<(), rusqlite::Error> {
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

    /// Moves the state past the floor. Numbers up to it may have been given, and are lost unless a receipt
    /// covers them. Their chain is unknown, so a random one is used. Batches may have been cut differently,
    /// so they are made again.
    pub(super) fn move_on(&mut self, tx: &Transaction<'_>, floor: Floor) -> Result<(), rusqlite::Error> {
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

pub(super) fn connect(path: &Path) -> Result<Connection, rusqlite::Error> {
    let db = Connection::open(path)?;
    // Exclusive: only one process, and no shared-memory file.
    db.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
    db.pragma_update(None, "journal_mode", "WAL")?;
    db.pragma_update(None, "synchronous", "FULL")?;
    db.pragma_update(None, "journal_size_limit", 4 << 20)?;
    db.busy_timeout(Duration::ZERO)?;
    db.set_prepared_statement_cache_capacity(32);
    Ok(db)
}

pub(super) fn digest(row: &rusqlite::Row<'_>, column: usize) -> Result<Digest, rusqlite::Error> {
    row.get(column).map(Digest)
}

/// Returns the end of the last batch, or of what receipts cover.
pub(super) fn sent(tx: &Transaction<'_>, state: &State) -> Result<Mark, rusqlite::Error> {
    let last = tx
        .query_row("SELECT last, chain FROM batch ORDER BY first DESC LIMIT 1", [], |row| {
            Ok(Mark { sequence: row.get(0)?, chain: digest(row, 1)? })
        })
        .optional()?;
    Ok(last.unwrap_or(state.receipted))
}

pub(super) fn batches(tx: &Transaction<'_>) -> Result<Vec<BatchInfo>, TxError> {
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

pub(super) fn set_class(
    tx: &Transaction<'_>,
    first: u64,
    last: u64,
    class: Class,
) -> Result<(), rusqlite::Error> {
    tx.execute(
        "UPDATE record SET class = ?3 WHERE sequence BETWEEN ?1 AND ?2",
        params![first, last, class as u8],
    )?;
    Ok(())
}

/// Drops records, lost ranges and batches up to `mark`. Batches still on their way become stale.
pub(super) fn drop_up_to(tx: &Transaction<'_>, state: &mut State, mark: Mark) -> Result<(), rusqlite::Error> {
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
pub(super) fn make_room(
    tx: &Transaction<'_>,
    state: &mut State,
    max_bytes: u64,
) -> Result<(), rusqlite::Error> {
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

/// Replaces one record by a lost range.
pub(super) fn lose(
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

/// Adds a lost range, merged with neighbours of the same reason.
pub(super) fn insert_lost(
    tx: &Transaction<'_>,
    state: &mut State,
    mut lost: Lost,
) -> Result<(), rusqlite::Error> {
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

/// Returns the lost range that contains `sequence`.
pub(super) fn lost_at(tx: &Transaction<'_>, sequence: u64) -> Result<Option<Lost>, rusqlite::Error> {
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
