//! A batch: consecutive alerts of one node, travelling as one MMS object of type `hzn-armor.alerts`.
//!
//! ```text
//! skippable zstd frame: "HZNA" 0x01, Ed25519 signature (64 bytes) over CONTEXT and the frame that follows
//! zstd frame:           header line, then one line per alert; `zstd -dc` reads the object as it is
//! ```
//!
//! Invariants:
//! - A batch covers `first..=last` without a hole: each number is either an alert or inside one of `lost`.
//! - The chain starts at 32 zero bytes; for each alert h(n) = SHA-256(h(n-1) | n as 8 bytes big-endian |
//!   SHA-256(line)). It is fixed when the alert is written on the node, so the batch that carries an alert does not
//!   matter. A lost range says the chain after it.
//! - The signature is over the compressed bytes: nothing is decompressed that the node did not sign, and what it
//!   signed is decompressed only up to [`MAX_CONTENT`].

use std::fmt;
use std::io::Read;
use std::str::FromStr;

use jiff::Timestamp;
use ring::digest::{Context, SHA256, digest};
use serde::{Deserialize, Serialize};

use crate::alert::{Alert, MAX_LINE};
use crate::keys::{KeyError, KeyId, PrivateKey, PublicKey};

/// Largest object in bytes. The sync service fails on objects of more than one 5 MiB chunk.
pub const MAX_OBJECT: usize = 4 << 20;

/// Bytes of alert lines (newlines included) and lost ranges ([`LOST_SIZE`] each) after which a batch takes no more.
pub const FULL: usize = 1 << 20;

/// Most bytes of one lost range in the header.
pub const LOST_SIZE: usize = 192;

/// Most objects in [`Header::replaces`].
pub const MAX_REPLACED: usize = 32;

/// Most bytes a batch is decompressed to: [`FULL`], one more line, and the header.
pub const MAX_CONTENT: usize = FULL + MAX_LINE + (16 << 10);

/// Version of the format, in the header.
pub const VERSION: u32 = 1;

const CONTEXT: &[u8] = b"hzn-armor.alerts.v1\n";
/// The second of the sixteen magic numbers that zstd keeps for frames a decoder skips.
const SKIPPABLE: [u8; 4] = 0x184D_2A51_u32.to_le_bytes();
const MARK: [u8; 5] = *b"HZNA\x01";
const SIGNATURE: usize = 64;
const PREFIX: usize = 8 + MARK.len() + SIGNATURE;
const LEVEL: i32 = 3;
/// Largest zstd window accepted, as a power of two: [`MAX_CONTENT`] rounded up.
const WINDOW_LOG: u32 = 21;

/// A SHA-256 value; 64 hex digits in text.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// SHA-256 of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self::from_ring(digest(&SHA256, bytes))
    }

    fn from_ring(value: ring::digest::Digest) -> Self {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(value.as_ref());
        Self(bytes)
    }

    /// The chain after `sequence`, whose alert is `line`, where `self` is the chain before it.
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

/// A point of a node's stream: everything up to and including a sequence number, and the chain there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Mark {
    /// The sequence number; 0 is the start of the stream.
    pub sequence: u64,
    /// The chain after it.
    pub chain: Digest,
}

/// Why alerts are gone from the spool before they were delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LostReason {
    /// Evicted to keep the spool within its size.
    Evicted,
    /// They could not be written: the disk was full or failing.
    Unwritten,
    /// The spool's file was damaged. The range is what may have been lost, at most.
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

/// A range of sequence numbers whose alerts are lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Lost {
    /// First lost number.
    pub first: u64,
    /// Last lost number, inclusive.
    pub last: u64,
    /// The chain after `last`.
    pub chain: Digest,
    /// Why.
    pub reason: LostReason,
}

impl Lost {
    /// How many alerts.
    pub fn count(&self) -> u64 {
        self.last - self.first + 1
    }
}

/// An object that brought no receipt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Replaced {
    /// Its id.
    pub id: String,
    /// Whether the node was told that somebody consumed it. Otherwise it was overwritten, deleted or lost on the way.
    pub consumed: bool,
}

/// First line of a batch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Header {
    /// [`VERSION`].
    pub version: u32,
    /// The object id this batch was made for; under any other it is a copy.
    pub id: String,
    /// Organisation of the node.
    pub org: String,
    /// The node.
    pub node: String,
    /// The node's key.
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
    /// Lost ranges, ascending, none overlapping.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lost: Vec<Lost>,
    /// How far receipts reach on the node: nothing up to here can be sent again.
    pub receipted: Mark,
    /// Objects that this one is sent in place of, for none of them brought a receipt; the latest [`MAX_REPLACED`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub replaces: Vec<Replaced>,
    /// When the batch was made.
    pub created: Timestamp,
}

/// One alert of a verified batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its number.
    pub sequence: u64,
    /// The JSON line as the node wrote it, without the newline.
    pub line: Vec<u8>,
    /// The chain after it.
    pub chain: Digest,
}

/// A verified batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// Its header.
    pub header: Header,
    /// Its alerts, ascending.
    pub records: Vec<Record>,
}

impl Batch {
    /// The chain after `sequence`, where the batch shows it: before the first number, after any alert, at the end of
    /// a lost range. `None` elsewhere.
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

/// Why bytes are not a batch of the node they are said to be from.
#[derive(Debug, thiserror::Error)]
pub enum BatchError {
    /// More than [`MAX_OBJECT`] bytes.
    #[error("object of {0} bytes, a batch has at most {MAX_OBJECT}")]
    TooLarge(usize),
    /// The bytes do not begin as a batch does: something else was published under the type.
    #[error("not an alert batch")]
    NotABatch,
    /// The signature is not by the node's key: forged, altered, or signed with another key.
    #[error("not signed by the node's key {key}")]
    Signature {
        /// The key that should have signed.
        key: KeyId,
    },
    /// Signed, but not decompressible within [`MAX_CONTENT`] bytes.
    #[error("content does not decompress to at most {MAX_CONTENT} bytes: {0}")]
    Compression(std::io::Error),
    /// A version of the format this program does not know.
    #[error("format version {0}, this program reads version {VERSION}: use a newer hzn-armor")]
    Version(u64),
    /// A line that is not the JSON it must be.
    #[error("line {line}: {error}")]
    Json {
        /// Line number from 1.
        line: usize,
        /// What is wrong.
        error: serde_json::Error,
    },
    /// Header and lines contradict each other.
    #[error("inconsistent content: {0}")]
    Inconsistent(&'static str),
    /// The node's key could not sign; only when sealing.
    #[error("cannot sign with the node's key: {0}")]
    Key(#[from] KeyError),
}

/// `text` with everything that does not travel safely in an object name replaced by `_`.
pub fn name_part(text: &str) -> String {
    let safe = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '_' };
    text.chars().take(100).map(safe).collect::<String>().replace("..", "__")
}

/// A new object id `<node>.<first>-<last>.<random>`, not guessable by others.
pub fn object_id(node: &str, first: u64, last: u64) -> String {
    format!("{}.{first}-{last}.{}", name_part(node), random_part())
}

/// 16 random hex digits.
pub(crate) fn random_part() -> String {
    hex::encode(rand::random::<[u8; 8]>())
}

/// Who seals a node's batches.
pub struct Sealer {
    /// Organisation of the node.
    pub org: String,
    /// The node.
    pub node: String,
    /// The node's key, Ed25519.
    pub key: PrivateKey,
}

/// Seals `header` and the alert `lines` into an object.
///
/// # Errors
/// [`BatchError::Key`] if the key does not sign, [`BatchError::TooLarge`] if more than [`FULL`] plus one line was
/// put in, [`BatchError::Compression`] if zstd fails (out of memory).
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

/// Verifies `object` against the node's public key and takes it apart. The caller still compares the header's id,
/// org, node and key with where the object came from.
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
    use crate::keys::KeyType;

    fn key() -> PrivateKey {
        PrivateKey::generate(KeyType::Ed25519).unwrap()
    }

    fn line(sequence: u64) -> Vec<u8> {
        Alert { sequence, resource: "/etc/shadow".into(), ..Alert::default() }.to_line().unwrap()
    }

    /// Alerts 5, 6, 9 with 7..=8 lost.
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
        assert!(crate::mms::check_name(&id).is_ok(), "{id}");
        assert_ne!(id, object_id("no de/ü..x", 1, 2));
    }
}
