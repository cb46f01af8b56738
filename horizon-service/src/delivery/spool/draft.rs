//! Assembles a batch from records and lost ranges.

use armor_alerts::batch::{self, Digest, FULL, LOST_SIZE, Lost, LostReason, Mark, Replaced, Sealer};
use jiff::Timestamp;
use rusqlite::{Transaction, params};

use super::Outgoing;
use super::error::TxError;
use super::rows::{Class, State, digest, lose, lost_at, set_class};

/// A `Draft` is a batch being assembled.
pub(super) struct Draft {
    pub(super) first: u64,
    pub(super) previous: Digest,
    pub(super) end: Mark,
    pub(super) lines: Vec<Vec<u8>>,
    pub(super) lost: Vec<Lost>,
}

impl Draft {
    /// Takes the numbers after `before`, up to `end`, until the batch is full. A record whose line does not
    /// fit the chain becomes a lost range.
    pub(super) fn assemble(
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
    pub(super) fn record(
        self,
        tx: &Transaction<'_>,
        state: &State,
        sealer: &Sealer,
        replaces: Vec<Replaced>,
        now: Timestamp,
    ) -> Result<Outgoing, TxError> {
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
