//! The ledger is the collector's memory, an SQLite file. It records per node the pinned key, the mark up to
//! which alerts are written (with the chain there), the batches held beyond a gap, and the output's length at
//! that mark. It also records which objects at the hub have no data and since when, and which machines use
//! the hub without an ESS.
//!
//! Invariants:
//! - A stream is a node with one key. Its mark moves only together with the recorded length of the output, in
//!   one transaction, after the output was synced: alerts beyond that length count as not written.
//! - A receipt is due from the moment the mark moves until it is published.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use armor_alerts::batch::{Digest, Mark};
use armor_alerts::receipt::Range;
use armor_bundle::keys::PublicKey;
use armor_policy::escaped;
use armor_policy::escaped_path;
use rusqlite::{Connection, ErrorCode, OptionalExtension, params};

/// Version of the schema.
const SCHEMA: i64 = 1;
/// Number of accepted batches remembered per stream, to distinguish duplicates from forks and late receipts
/// from tampering.
const MAX_ACCEPTED: u64 = 4096;

/// Name of the ledger in the collector's state directory.
pub const LEDGER_FILE: &str = "collector.db";

const CREATE: &str = "
CREATE TABLE node (name TEXT PRIMARY KEY, stream INTEGER NOT NULL) STRICT;
CREATE TABLE stream (
    id INTEGER PRIMARY KEY, node TEXT NOT NULL, key TEXT NOT NULL, pem TEXT NOT NULL, up_to INTEGER NOT NULL,
    chain BLOB NOT NULL, serial INTEGER NOT NULL, receipt_due INTEGER NOT NULL, UNIQUE (node, key)
) STRICT;
CREATE TABLE accepted (
    number INTEGER PRIMARY KEY, stream INTEGER NOT NULL, last INTEGER NOT NULL, chain BLOB NOT NULL, id TEXT NOT NULL
) STRICT;
CREATE INDEX accepted_id ON accepted (stream, id);
CREATE INDEX accepted_last ON accepted (stream, last);
CREATE TABLE held (
    stream INTEGER NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL, id TEXT NOT NULL, content BLOB NOT NULL,
    PRIMARY KEY (stream, first, last)
) STRICT;
CREATE TABLE output (file INTEGER PRIMARY KEY, length INTEGER NOT NULL) STRICT;
CREATE TABLE receipt (id TEXT PRIMARY KEY, stream INTEGER NOT NULL) STRICT;
";
/// Version 0.1.0 lacks these tables and ignores them, so the schema version stays.
const CREATE_LATER: &str = "
CREATE TABLE IF NOT EXISTS empty (name TEXT PRIMARY KEY, since INTEGER NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS at_hub (node TEXT PRIMARY KEY) STRICT;
";

/// A `LedgerError` says why the collector's state cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// Another collector has the ledger open.
    #[error(
        "{}: in use by another collector: one state directory serves one collector at a time",
        escaped_path(path)
    )]
    InUse {
        /// The database.
        path: PathBuf,
    },
    /// A newer version wrote the ledger.
    #[error(
        "{}: schema version {found}, this hzn-armor reads up to {SCHEMA}: use the newer one",
        escaped_path(path)
    )]
    Newer {
        /// The database.
        path: PathBuf,
        /// The file's schema version.
        found: i64,
    },
    /// SQLite fails: not a database, a full disk, missing rights. Nodes keep alerts that have no receipt;
    /// with a new state directory, collecting continues where their receipts end.
    // SQLite's message contains the file name too, unescaped.
    #[error("{}: {}", escaped_path(path), escaped(error.to_string().as_bytes()))]
    Sqlite {
        /// The database.
        path: PathBuf,
        /// SQLite's error.
        error: rusqlite::Error,
    },
}

/// A `Stream` is the sequence of a node's alerts under one key.
#[derive(Debug, Clone)]
pub(super) struct Stream {
    pub(super) id: i64,
    pub(super) node: String,
    pub(super) key: PublicKey,
    pub(super) up_to: Mark,
}

/// A `Held` is a batch that lies beyond a gap.
pub(super) struct Held {
    pub(super) range: Range,
    pub(super) id: String,
    pub(super) content: Vec<u8>,
}

/// A `Boundary` says whether a batch with the same end is known, with the same chain or another one.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Boundary {
    Unknown,
    Same,
    Other,
}

pub(super) struct Ledger {
    path: PathBuf,
    db: Connection,
}

type Result<T> = std::result::Result<T, LedgerError>;

impl Ledger {
    pub(super) fn open(dir: &Path) -> Result<Self> {
        let path = dir.join(LEDGER_FILE);
        let connect = || -> rusqlite::Result<(Connection, i64)> {
            let mut db = Connection::open(&path)?;
            db.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
            db.pragma_update(None, "journal_mode", "WAL")?;
            db.pragma_update(None, "synchronous", "FULL")?;
            let tx = db.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
            let found = tx.pragma_query_value(None, "user_version", |row| row.get(0))?;
            if found == 0 {
                tx.execute_batch(CREATE)?;
                tx.pragma_update(None, "user_version", SCHEMA)?;
            }
            if found <= SCHEMA {
                tx.execute_batch(CREATE_LATER)?;
            }
            tx.commit()?;
            Ok((db, found))
        };
        match connect() {
            Ok((_, found)) if found > SCHEMA => Err(LedgerError::Newer { path, found }),
            Ok((db, _)) => Ok(Self { path, db }),
            Err(error) => Err(sqlite(&path, error)),
        }
    }

    /// Returns the stream that currently takes a node's alerts.
    pub(super) fn stream(&self, node: &str) -> Result<Option<Stream>> {
        self.run(|db| {
            db.query_row(
                "SELECT id, node, pem, up_to, chain FROM stream WHERE id = (SELECT stream FROM node WHERE name = ?1)",
                [node],
                read_stream,
            )
            .optional()
        })
    }

    /// Returns the streams whose receipt is due.
    pub(super) fn due(&self) -> Result<Vec<Stream>> {
        self.streams("receipt_due = 1")
    }

    /// Returns the streams with batches beyond a gap.
    pub(super) fn holding(&self) -> Result<Vec<Stream>> {
        self.streams("id IN (SELECT stream FROM held)")
    }

    fn streams(&self, condition: &str) -> Result<Vec<Stream>> {
        self.run(|db| {
            let mut query = db.prepare_cached(&format!(
                "SELECT id, node, pem, up_to, chain FROM stream WHERE {condition} ORDER BY node"
            ))?;
            query.query_map([], read_stream)?.collect()
        })
    }

    /// Pins `key`: from this call on, a node's alerts belong to its stream under `key`.
    pub(super) fn pin(&mut self, node: &str, key: &PublicKey) -> Result<()> {
        self.write(|tx| {
            tx.execute(
                "INSERT OR IGNORE INTO stream (node, key, pem, up_to, chain, serial, receipt_due)
                 VALUES (?1, ?2, ?3, 0, ?4, 0, 0)",
                params![node, key.id().as_str(), key.to_pem(), Digest::default().0],
            )?;
            tx.execute(
                "INSERT OR REPLACE INTO node SELECT node, id FROM stream WHERE node = ?1 AND key = ?2",
                params![node, key.id().as_str()],
            )
        })
        .map(|_| ())
    }

    /// Remembers whether a node fetches its receipts from the hub itself, without an ESS.
    pub(super) fn set_at_hub(&mut self, node: &str, at_hub: bool) -> Result<()> {
        let change = match at_hub {
            true => "INSERT OR IGNORE INTO at_hub VALUES (?1)",
            false => "DELETE FROM at_hub WHERE node = ?1",
        };
        self.write(|tx| tx.execute(change, [node])).map(|_| ())
    }

    /// Returns whether a node fetches its receipts from the hub itself.
    pub(super) fn is_at_hub(&self, node: &str) -> Result<bool> {
        self.run(|db| {
            db.query_row("SELECT EXISTS (SELECT 1 FROM at_hub WHERE node = ?1)", [node], |row| row.get(0))
        })
    }

    /// Moves the stream to `mark`; with `batch`, remembers its end and id, and with `output`, the file's
    /// length.
    pub(super) fn accept(
        &mut self,
        stream: i64,
        mark: Mark,
        batch: Option<&str>,
        output: Option<(u64, u64)>,
    ) -> Result<()> {
        self.write(|tx| {
            tx.execute(
                "UPDATE stream SET up_to = ?2, chain = ?3, receipt_due = 1 WHERE id = ?1",
                params![stream, mark.sequence, mark.chain.0],
            )?;
            if let Some(id) = batch {
                remember(tx, stream, mark, id)?;
            }
            if let Some((file, length)) = output {
                tx.execute("INSERT OR REPLACE INTO output VALUES (?1, ?2)", params![file, length])?;
            }
            tx.execute("DELETE FROM held WHERE stream = ?1 AND last <= ?2", params![stream, mark.sequence])
        })
        .map(|_| ())
    }

    /// Compares a batch that ends at `mark` with the accepted batches.
    pub(super) fn boundary(&self, stream: i64, mark: Mark) -> Result<Boundary> {
        self.run(|db| {
            let mut query =
                db.prepare_cached("SELECT chain FROM accepted WHERE stream = ?1 AND last = ?2")?;
            let mut rows = query.query(params![stream, mark.sequence])?;
            let mut known = Boundary::Unknown;
            while let Some(row) = rows.next()? {
                if row.get::<_, [u8; 32]>(0)? == mark.chain.0 {
                    return Ok(Boundary::Same);
                }
                known = Boundary::Other;
            }
            Ok(known)
        })
    }

    /// Returns whether the batch of this id was accepted: written, held, or found to be a duplicate.
    pub(super) fn has(&self, stream: i64, id: &str) -> Result<bool> {
        self.run(|db| {
            db.query_row(
                "SELECT EXISTS (SELECT 1 FROM accepted WHERE stream = ?1 AND id = ?2)
                 OR EXISTS (SELECT 1 FROM held WHERE stream = ?1 AND id = ?2)",
                params![stream, id],
                |row| row.get(0),
            )
        })
    }

    /// Remembers a batch with nothing new. Its node seems to lack the last receipt, so a receipt is due
    /// again.
    pub(super) fn duplicate(&mut self, stream: i64, end: Mark, id: &str) -> Result<()> {
        self.write(|tx| {
            remember(tx, stream, end, id)?;
            tx.execute("UPDATE stream SET receipt_due = 1 WHERE id = ?1", [stream])
        })
        .map(|_| ())
    }

    /// Keeps a batch that lies beyond a gap.
    pub(super) fn hold(&mut self, stream: i64, held: &Held) -> Result<()> {
        self.write(|tx| {
            tx.execute(
                "INSERT OR REPLACE INTO held VALUES (?1, ?2, ?3, ?4, ?5)",
                params![stream, held.range.first, held.range.last, held.id, held.content],
            )?;
            tx.execute("UPDATE stream SET receipt_due = 1 WHERE id = ?1", [stream])
        })
        .map(|_| ())
    }

    /// Returns the ranges of the held batches, ascending.
    pub(super) fn held_ranges(&self, stream: i64) -> Result<Vec<Range>> {
        self.run(|db| {
            let mut query =
                db.prepare_cached("SELECT first, last FROM held WHERE stream = ?1 ORDER BY first")?;
            query.query_map([stream], |row| Ok(Range { first: row.get(0)?, last: row.get(1)? }))?.collect()
        })
    }

    /// Returns a held batch that begins at `next` or before.
    pub(super) fn held_at(&self, stream: i64, next: u64) -> Result<Option<Held>> {
        self.run(|db| {
            db.query_row(
                "SELECT first, last, id, content FROM held WHERE stream = ?1 AND first <= ?2 ORDER BY first LIMIT 1",
                params![stream, next],
                |row| {
                    let range = Range { first: row.get(0)?, last: row.get(1)? };
                    Ok(Held { range, id: row.get(2)?, content: row.get(3)? })
                },
            )
            .optional()
        })
    }

    /// Drops a held batch that turned out not to fit.
    pub(super) fn drop_held(&mut self, stream: i64, range: Range) -> Result<()> {
        self.write(|tx| {
            tx.execute(
                "DELETE FROM held WHERE stream = ?1 AND first = ?2 AND last = ?3",
                params![stream, range.first, range.last],
            )
        })
        .map(|_| ())
    }

    /// Returns the recorded length of the output file with this inode.
    pub(super) fn output_length(&self, file: u64) -> Result<Option<u64>> {
        self.run(|db| {
            db.query_row("SELECT length FROM output WHERE file = ?1", [file], |row| row.get(0)).optional()
        })
    }

    pub(super) fn set_output_length(&mut self, file: u64, length: u64) -> Result<()> {
        self.write(|tx| tx.execute("INSERT OR REPLACE INTO output VALUES (?1, ?2)", params![file, length]))
            .map(|_| ())
    }

    /// Returns a new serial for the stream's receipt, above all earlier ones and not below `now`
    /// (milliseconds).
    pub(super) fn next_serial(&mut self, stream: i64, now: u64) -> Result<u64> {
        self.write(|tx| {
            tx.query_row(
                "UPDATE stream SET serial = MAX(serial + 1, ?2) WHERE id = ?1 RETURNING serial",
                params![stream, now],
                |row| row.get(0),
            )
        })
    }

    /// Remembers a receipt object before it is published, so that it is removed later even after a crash.
    pub(super) fn add_receipt(&mut self, stream: i64, id: &str) -> Result<()> {
        self.write(|tx| tx.execute("INSERT INTO receipt VALUES (?1, ?2)", params![id, stream])).map(|_| ())
    }

    /// Records that the receipt `id` is published, and returns the older receipts, which are of no more use.
    pub(super) fn published(&mut self, stream: i64, id: &str) -> Result<Vec<String>> {
        self.write(|tx| {
            tx.execute("UPDATE stream SET receipt_due = 0 WHERE id = ?1", [stream])?;
            let node = "SELECT id FROM stream WHERE node = (SELECT node FROM stream WHERE id = ?1)";
            let mut query =
                tx.prepare(&format!("SELECT id FROM receipt WHERE stream IN ({node}) AND id <> ?2"))?;
            query.query_map(params![stream, id], |row| row.get(0))?.collect()
        })
    }

    pub(super) fn forget_receipt(&mut self, id: &str) -> Result<()> {
        self.write(|tx| tx.execute("DELETE FROM receipt WHERE id = ?1", [id])).map(|_| ())
    }

    /// Records that object `name` has no data at `now`, and returns since when (in seconds) that has been so.
    pub(super) fn empty_since(&mut self, name: &str, now: i64) -> Result<i64> {
        self.write(|tx| {
            tx.query_row(
                // With MIN, setting the clock back does not keep the object for ever.
                "INSERT INTO empty VALUES (?1, ?2)
                 ON CONFLICT (name) DO UPDATE SET since = MIN(since, excluded.since) RETURNING since",
                params![name, now],
                |row| row.get(0),
            )
        })
    }

    /// Forgets objects without data that are no longer `listed` at the hub.
    pub(super) fn retain_empty(&mut self, listed: &HashSet<String>) -> Result<()> {
        self.write(|tx| {
            let mut query = tx.prepare("SELECT name FROM empty")?;
            let names = query.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<Vec<String>>>()?;
            for gone in names.iter().filter(|name| !listed.contains(*name)) {
                tx.execute("DELETE FROM empty WHERE name = ?1", [gone])?;
            }
            Ok(())
        })
    }

    fn run<T>(&self, work: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T> {
        work(&self.db).map_err(|error| sqlite(&self.path, error))
    }

    fn write<T>(
        &mut self,
        work: impl FnOnce(&rusqlite::Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T> {
        let result = self.db.transaction().and_then(|tx| {
            let value = work(&tx)?;
            tx.commit()?;
            Ok(value)
        });
        result.map_err(|error| sqlite(&self.path, error))
    }
}

/// Remembers a batch as accepted, and forgets the oldest one.
fn remember(tx: &rusqlite::Transaction<'_>, stream: i64, end: Mark, id: &str) -> rusqlite::Result<()> {
    tx.execute(
        "INSERT INTO accepted (stream, last, chain, id) VALUES (?1, ?2, ?3, ?4)",
        params![stream, end.sequence, end.chain.0, id],
    )?;
    tx.execute(
        "DELETE FROM accepted WHERE stream = ?1 AND number <=
         (SELECT number FROM accepted WHERE stream = ?1 ORDER BY number DESC LIMIT 1 OFFSET ?2)",
        params![stream, MAX_ACCEPTED],
    )?;
    Ok(())
}

fn sqlite(path: &Path, error: rusqlite::Error) -> LedgerError {
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            LedgerError::InUse { path: path.to_path_buf() }
        }
        _ => LedgerError::Sqlite { path: path.to_path_buf(), error },
    }
}

fn read_stream(row: &rusqlite::Row<'_>) -> rusqlite::Result<Stream> {
    let pem: String = row.get(2)?;
    let key = PublicKey::from_pem(pem.as_bytes()).map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(2, rusqlite::types::Type::Text, Box::new(error))
    })?;
    let up_to = Mark { sequence: row.get(3)?, chain: Digest(row.get(4)?) };
    Ok(Stream { id: row.get(0)?, node: row.get(1)?, key, up_to })
}
