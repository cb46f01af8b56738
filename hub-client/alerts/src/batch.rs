//! A batch holds consecutive alerts of one node and travels as one MMS object of type `hzn-armor.alerts`.
//!
//! ```text
//! skippable zstd frame: "HZNA" 0x01, Ed25519 signature (64 bytes) over CONTEXT and the frame that follows
//! zstd frame:           header line, then one line per alert; `zstd -dc` reads the object as it is
//! ```
//!
//! Invariants:
//! - A batch covers `first..=last` without a hole: each number belongs to an alert or to a range in `lost`.
//! - The chain starts at 32 zero bytes; for each alert h(n) = SHA-256(h(n-1) | n as 8 bytes big-endian |
//!   SHA-256(line)). It is fixed when the node writes the alert, so it does not depend on the batch that
//!   carries the alert. A lost range contains the chain after it.
//! - The signature is over the compressed bytes: only bytes that the node signed are decompressed, and only
//!   up to [`MAX_CONTENT`].

use std::fmt;
use std::io::Read;
use std::str::FromStr;

use armor_bundle::keys::{KeyError, KeyId, PrivateKey, PublicKey};
use jiff::Timestamp;
use ring::digest::{Context, SHA256, digest};
use serde::{Deserialize, Serialize};

use crate::alert::{Alert, MAX_LINE};

/// Maximum size of an object in bytes. The sync service fails on objects of more than one 5 MiB chunk.
pub const MAX_OBJECT: usize = 4 << 20;

/// Size in bytes of alert lines (with newlines) and lost ranges ([`LOST_SIZE`] each) at which a batch is
/// full.
pub const FULL: usize = 1 << 20;

/// Maximum size of one lost range in the header, in bytes.
pub const LOST_SIZE: usize = 192;

/// Maximum number of objects in [`Header::replaces`].
pub const MAX_REPLACED: usize = 32;

/// Maximum decompressed size of a batch in bytes: [`FULL`], one more line, and the header.
pub const MAX_CONTENT: usize = FULL + MAX_LINE + (16 << 10);

/// Version of the format, as it stands in the header.
pub const VERSION: u32 = 1;

const CONTEXT: &[u8] = b"hzn-armor.alerts.v1\n";
/// Second of the sixteen magic numbers that zstd reserves for skippable frames.
const SKIPPABLE: [u8; 4] = 0x184D_2A51_u32.to_le_bytes();
const MARK: [u8; 5] = *b"HZNA\x01";
const SIGNATURE: usize = 64;
const PREFIX: usize = 8 + MARK.len() + SIGNATURE;
const LEVEL: i32 = 3;
/// Largest zstd window that is accepted, as a power of two: [`MAX_CONTENT`] rounded up.
const WINDOW_LOG: u32 = 21;

/// A `Digest` is a SHA-256 value, written as 64 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// Returns the SHA-256 of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self::from_ring(digest(&SHA256, bytes))
    }

    fn from_ring(value: ring::digest::Digest) -> Self {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(value.as_ref());
        Self(bytes)
    }

    /// Returns the chain after alert `sequence` with the text `line`; `self` is the chain before it.
    pub fn link(&self, sequence: u64, line: &[u8]) -> Self {
        let mut context = Context::new(&SHA256);
        context.update(&self.0);
        context.update(&sequence.to_be_bytes());
        context.update(digest(&SHA256, line).as_ref());
        Self::from_ring(context.finish())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = hex::FromHexError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes)?;
        Ok(Self(bytes))
    }
}

impl Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// A `Mark` is a point of a node's alert stream: a sequence number, and the chain after the alert of that
/// number.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Mark {
    /// The sequence number; 0 is the start of the stream.
    pub sequence: u64,
    /// The chain after that number.
    pub chain: Digest,
}

/// A `LostReason` says why alerts were lost from the spool before they were delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LostReason {
    /// The alerts were evicted to keep the spool within its size.
    Evicted,
    /// The alerts could not be written because the disk was full or failing.
    Unwritten,
    /// The spool's file was damaged. The range contains at least all alerts that were lost.
    Damaged,
}

impl fmt::Display for LostReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Evicted => "evicted",
            Self::Unwritten => "unwritten",
            Self::Damaged => "damaged",
        })
    }
}

/// A `Lost` is a range of sequence numbers whose alerts are lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Lost {
    /// First lost number.
    pub first: u64,
    /// Last lost number, inclusive.
    pub last: u64,
    /// The chain after `last`.
    pub chain: Digest,
    /// Reason of the loss.
    pub reason: LostReason,
}

impl Lost {
    /// Returns the number of lost alerts.
    pub fn count(&self) -> u64 {
        self.last - self.first + 1
    }
}

/// A `Replaced` names an object for which the node got no receipt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Replaced {
    /// The object's id.
    pub id: String,
    /// Set if the node knows that somebody consumed the object. Otherwise it was overwritten, deleted or lost
    /// on the way.
    pub consumed: bool,
}

/// A `Header` is the first line of a batch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Header {
    /// Format version, [`VERSION`].
    pub version: u32,
    /// Object id under which the node sent this batch; an object with another id is a copy.
    pub id: String,
    /// Organisation of the node.
    pub org: String,
    /// The node's id.
    pub node: String,
    /// Id of the node's key.
    pub key: KeyId,
    /// First sequence number covered.
    pub first: u64,
    /// Last sequence number covered, inclusive.
    pub last: u64,
    /// Number of alert lines.
    pub count: u64,
    /// The chain before `first`.
    pub previous: Digest,
    /// The chain after `last`.
    pub chain: Digest,
    /// Lost ranges, ascending, without overlaps.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lost: Vec<Lost>,
    /// Point up to which the node has receipts; it cannot send these alerts again.
    pub receipted: Mark,
    /// Objects that this one replaces because none of them got a receipt; the latest [`MAX_REPLACED`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub replaces: Vec<Replaced>,
    /// Time at which the batch was made.
    pub created: Timestamp,
}

/// A `Record` is one alert of a verified batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The alert's sequence number.
    pub sequence: u64,
    /// The JSON line as the node wrote it, without the newline.
    pub line: Vec<u8>,
    /// The chain after this alert.
    pub chain: Digest,
}

/// A `Batch` has been verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// The batch's header.
    pub header: Header,
    /// The batch's alerts, ascending.
    pub records: Vec<Record>,
}

impl Batch {
    /// Returns the chain after `sequence` if the batch contains it: before the first number, after any alert,
    /// and at the end of a lost range.
    pub fn chain_at(&self, sequence: u64) -> Option<Digest> {
        if sequence.checked_add(1) == Some(self.header.first) {
            return Some(self.header.previous);
        }
        if sequence == self.header.last {
            return Some(self.header.chain);
        }
        let record = self.records.binary_search_by_key(&sequence, |record| record.sequence);
        record
            .ok()
            .map(|at| self.records[at].chain)
            .or_else(|| self.header.lost.iter().find(|lost| lost.last == sequence).map(|lost| lost.chain))
    }
}

/// A `BatchError` says why bytes are not a batch of the expected node.
#[derive(Debug, thiserror::Error)]
pub enum BatchError {
    /// The object has more than [`MAX_OBJECT`] bytes.
    #[error("object of {0} bytes, a batch has at most {MAX_OBJECT}")]
    TooLarge(usize),
    /// The bytes do not begin like a batch: something else was published under the type.
    #[error("not an alert batch")]
    NotABatch,
    /// The signature is not by the node's key: the object is forged, altered, or signed with another key.
    #[error("not signed by the node's key {key}")]
    Signature {
        /// The key that should have signed.
        key: KeyId,
    },
    /// The content is signed, but does not decompress to at most [`MAX_CONTENT`] bytes.
    #[error("content does not decompress to at most {MAX_CONTENT} bytes: {0}")]
    Compression(std::io::Error),
    /// This program does not know the format version.
    #[error("format version {0}, this program reads version {VERSION}: use a newer hzn-armor")]
    Version(u64),
    /// A line is not the expected JSON.
    #[error("line {line}: {error}")]
    Json {
        /// Line number from 1.
        line: usize,
        /// The parser's error.
        error: serde_json::Error,
    },
    /// Header and lines contradict each other.
    #[error("inconsistent content: {0}")]
    Inconsistent(&'static str),
    /// The node's key could not sign. Only sealing returns this.
    #[error("cannot sign with the node's key: {0}")]
    Key(#[from] KeyError),
}

/// Returns `text` with each character that is unsafe in an object name replaced by `_`.
pub fn name_part(text: &str) -> String {
    let safe = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '_' };
    text.chars().take(100).map(safe).collect::<String>().replace("..", "__")
}

/// Returns a new object id `<node>.<first>-<last>.<random>`, which others cannot guess.
pub fn object_id(node: &str, first: u64, last: u64) -> String {
    format!("{}.{first}-{last}.{}", name_part(node), random_part())
}

/// Returns 16 random hex digits.
pub(crate) fn random_part() -> String {
    hex::encode(rand::random::<[u8; 8]>())
}

/// A `Sealer` holds the identity and key with which a node's batches are sealed.
pub struct Sealer {
    /// Organisation of the node.
    pub org: String,
    /// The node's id.
    pub node: String,
    /// The node's Ed25519 key.
    pub key: PrivateKey,
}

/// Seals `header` and the alert `lines` into an object.
///
/// # Errors
/// Fails with [`BatchError::Key`] if the key does not sign, with [`BatchError::TooLarge`] if the lines exceed
/// [`FULL`] by more than one line, and with [`BatchError::Compression`] if zstd fails (out of memory).
pub fn seal(header: &Header, lines: &[Vec<u8>], key: &PrivateKey) -> Result<Vec<u8>, BatchError> {
    let mut content = serde_json::to_vec(header).map_err(|error| BatchError::Json { line: 1, error })?;
    content.push(b'\n');
    for line in lines {
        content.extend_from_slice(line);
        content.push(b'\n');
    }
    let frame = zstd::bulk::compress(&content, LEVEL).map_err(BatchError::Compression)?;
    let signature = key.sign(&signed(&frame))?;
    if signature.len() != SIGNATURE {
        return Err(BatchError::Inconsistent("the node's key is not Ed25519"));
    }
    let mut object = Vec::with_capacity(PREFIX + frame.len());
    object.extend_from_slice(&SKIPPABLE);
    object.extend_from_slice(&((MARK.len() + SIGNATURE) as u32).to_le_bytes());
    object.extend_from_slice(&MARK);
    object.extend_from_slice(&signature);
    object.extend_from_slice(&frame);
    if object.len() > MAX_OBJECT || content.len() > MAX_CONTENT {
        return Err(BatchError::TooLarge(object.len()));
    }
    Ok(object)
}

/// Verifies `object` with the node's public key and parses it. The caller still has to compare the header's
/// id, org, node and key with the source of the object.
pub fn open(object: &[u8], key: &PublicKey) -> Result<Batch, BatchError> {
    if object.len() > MAX_OBJECT {
        return Err(BatchError::TooLarge(object.len()));
    }
    let (prefix, frame) = object.split_at_checked(PREFIX).ok_or(BatchError::NotABatch)?;
    let (head, signature) = prefix.split_at(PREFIX - SIGNATURE);
    let size = ((MARK.len() + SIGNATURE) as u32).to_le_bytes();
    if head[..4] != SKIPPABLE || head[4..8] != size || head[8..] != MARK {
        return Err(BatchError::NotABatch);
    }
    if !key.verifies(&signed(frame), signature) {
        return Err(BatchError::Signature { key: key.id().clone() });
    }
    read(&decompress(frame)?)
}

fn signed(frame: &[u8]) -> Vec<u8> {
    [CONTEXT, frame].concat()
}

fn decompress(frame: &[u8]) -> Result<Vec<u8>, BatchError> {
    let bounded = || -> std::io::Result<Vec<u8>> {
        let mut decoder = zstd::stream::read::Decoder::with_buffer(frame)?;
        decoder.window_log_max(WINDOW_LOG)?;
        let mut content = Vec::new();
        decoder.take(MAX_CONTENT as u64 + 1).read_to_end(&mut content)?;
        if content.len() > MAX_CONTENT {
            return Err(std::io::Error::other("more than that"));
        }
        Ok(content)
    };
    bounded().map_err(BatchError::Compression)
}

fn read(content: &[u8]) -> Result<Batch, BatchError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Versioned {
        version: u64,
    }
    let content = content.strip_suffix(b"\n").ok_or(BatchError::Inconsistent("the last line is cut off"))?;
    let mut lines = content.split(|byte| *byte == b'\n').enumerate();
    let (_, first_line) = lines.next().ok_or(BatchError::NotABatch)?;
    let in_header = |error| BatchError::Json { line: 1, error };
    let Versioned { version } = serde_json::from_slice(first_line).map_err(in_header)?;
    if version != u64::from(VERSION) {
        return Err(BatchError::Version(version));
    }
    let header: Header = serde_json::from_slice(first_line).map_err(in_header)?;
    if header.first == 0 || header.first > header.last || header.last > i64::MAX as u64 {
        return Err(BatchError::Inconsistent("empty range"));
    }

    let mut chain = header.previous;
    let mut next = header.first;
    let mut lost = header.lost.iter().peekable();
    let mut records = Vec::new();
    let mut skip_lost = |next: &mut u64, chain: &mut Digest| -> Result<(), BatchError> {
        while let Some(range) = lost.next_if(|range| range.first == *next) {
            if range.last < range.first || range.last > header.last {
                return Err(BatchError::Inconsistent("lost range outside the batch"));
            }
            (*next, *chain) = (range.last + 1, range.chain);
        }
        Ok(())
    };
    for (index, line) in lines {
        skip_lost(&mut next, &mut chain)?;
        let alert: Alert =
            serde_json::from_slice(line).map_err(|error| BatchError::Json { line: index + 1, error })?;
        if alert.sequence != next || next > header.last {
            return Err(BatchError::Inconsistent("sequence numbers do not follow each other"));
        }
        chain = chain.link(next, line);
        records.push(Record { sequence: next, line: line.to_vec(), chain });
        next += 1;
    }
    skip_lost(&mut next, &mut chain)?;
    if next != header.last + 1 || lost.peek().is_some() {
        return Err(BatchError::Inconsistent("the lines and lost ranges do not fill the range"));
    }
    if records.len() as u64 != header.count {
        return Err(BatchError::Inconsistent("the count is wrong"));
    }
    if chain != header.chain {
        return Err(BatchError::Inconsistent("the chain does not end where the header says"));
    }
    Ok(Batch { header, records })
}

#[cfg(test)]
mod tests {
    use super::*;
    use armor_bundle::keys::KeyType;

    fn key() -> PrivateKey {
        PrivateKey::generate(KeyType::Ed25519).unwrap()
    }

    fn line(sequence: u64) -> Vec<u8> {
        Alert { sequence, resource: "/etc/shadow".into(), ..Alert::default() }.to_line().unwrap()
    }

    /// Returns alerts 5, 6 and 9, with 7 and 8 lost.
    fn content(key: &PrivateKey) -> (Header, Vec<Vec<u8>>) {
        let lines = vec![line(5), line(6), line(9)];
        let previous = Digest([1; 32]);
        let lost = Lost { first: 7, last: 8, chain: Digest([2; 32]), reason: LostReason::Evicted };
        let header = Header {
            version: VERSION,
            id: object_id("node1", 5, 9),
            org: "myorg".into(),
            node: "node1".into(),
            key: key.public().id().clone(),
            first: 5,
            last: 9,
            count: 3,
            previous,
            chain: lost.chain.link(9, &lines[2]),
            lost: vec![lost],
            receipted: Mark::default(),
            replaces: Vec::new(),
            created: Timestamp::UNIX_EPOCH,
        };
        (header, lines)
    }

    #[test]
    fn opens_what_was_sealed() {
        let key = key();
        let (header, lines) = content(&key);
        let batch = open(&seal(&header, &lines, &key).unwrap(), key.public()).unwrap();
        assert_eq!(batch.header, header);
        assert_eq!(batch.records.iter().map(|record| record.line.clone()).collect::<Vec<_>>(), lines);
        let after_5 = header.previous.link(5, &lines[0]);
        assert_eq!(
            [3, 4, 5, 7, 8, 9].map(|sequence| batch.chain_at(sequence)),
            [
                None,
                Some(header.previous),
                Some(after_5),
                None,
                Some(header.lost[0].chain),
                Some(header.chain)
            ]
        );
    }

    #[test]
    fn zstd_alone_reads_the_object() {
        let key = key();
        let (header, lines) = content(&key);
        let plain = zstd::stream::decode_all(&seal(&header, &lines, &key).unwrap()[..]).unwrap();
        assert_eq!(plain.iter().filter(|byte| **byte == b'\n').count(), 4);
    }

    #[test]
    fn every_altered_byte_is_noticed() {
        let key = key();
        let (header, lines) = content(&key);
        let object = seal(&header, &lines, &key).unwrap();
        for at in 0..object.len() {
            let mut altered = object.clone();
            altered[at] ^= 1;
            let error = open(&altered, key.public()).unwrap_err();
            assert!(
                matches!(error, BatchError::NotABatch | BatchError::Signature { .. }),
                "byte {at}: {error}"
            );
        }
        for end in 0..object.len() {
            assert!(open(&object[..end], key.public()).is_err());
        }
        assert!(matches!(open(&object, self::key().public()), Err(BatchError::Signature { .. })));
        assert!(matches!(open(&vec![0; MAX_OBJECT + 1], key.public()), Err(BatchError::TooLarge(_))));
    }

    #[test]
    fn contradictions_that_the_node_signed_are_refused() {
        let key = key();
        type Alter = fn(&mut Header, &mut Vec<Vec<u8>>);
        let cases: [(&str, Alter); 12] = [
            ("the count is wrong", |header, _| header.count = 2),
            ("the chain does not end", |header, _| header.chain = Digest([9; 32])),
            ("empty range", |header, _| header.last = 4),
            ("empty range", |header, _| header.last = u64::MAX),
            ("do not fill", |header, _| header.last = 10),
            ("do not follow", |header, _| header.lost.clear()),
            ("outside the batch", |header, _| header.lost[0].last = 6),
            ("outside the batch", |header, _| header.lost[0].last = u64::MAX - 1),
            ("do not follow", |_, lines| lines.swap(0, 1)),
            ("do not fill", |_, lines| drop(lines.pop())),
            ("line 3", |_, lines| lines[1] = b"{".to_vec()),
            ("format version 2", |header, _| header.version = 2),
        ];
        for (expected, alter) in cases {
            let (mut header, mut lines) = content(&key);
            alter(&mut header, &mut lines);
            let error = open(&seal(&header, &lines, &key).unwrap(), key.public()).unwrap_err().to_string();
            assert!(error.contains(expected), "{expected}: {error}");
        }
    }

    #[test]
    fn a_bomb_is_not_decompressed() {
        let key = key();
        let frame = zstd::bulk::compress(&vec![b'a'; 64 << 20], 19).unwrap();
        let signature = key.sign(&signed(&frame)).unwrap();
        let size = ((MARK.len() + SIGNATURE) as u32).to_le_bytes();
        let object = [&SKIPPABLE[..], &size, &MARK, &signature, &frame].concat();
        assert!(matches!(open(&object, key.public()), Err(BatchError::Compression(_))));
    }

    #[test]
    fn object_ids_hold_only_what_travels() {
        let id = object_id("no de/ü..x", 1, 2);
        assert!(armor_base::name::check_name(&id).is_ok(), "{id}");
        assert_ne!(id, object_id("no de/ü..x", 1, 2));
    }
}
