//! This module makes the objects that a node sends, without an agent.

use std::sync::Arc;

use armor_alerts::alert::Alert;
use armor_alerts::batch::{self, Digest, Header, Lost, LostReason, Mark};
use armor_alerts::status::{AgentReport, NodeStatus, SpoolStats};
use armor_bundle::keys::{KeyType, PrivateKey};
use jiff::Timestamp;

/// A `Stream` is a node's alert stream: its key and the chain of the alerts sent.
pub struct Stream {
    pub key: Arc<PrivateKey>,
    pub at: Mark,
    pub receipted: Mark,
}

/// A `Sealed` is a batch that [`Stream::next`] made.
pub struct Sealed {
    pub id: String,
    pub object: Vec<u8>,
    pub end: Mark,
}

impl Stream {
    pub fn new() -> Self {
        Self::with_key(Arc::new(PrivateKey::generate(KeyType::Ed25519).unwrap()))
    }

    /// Makes a stream at its start, with a key that may have signed another stream.
    pub fn with_key(key: Arc<PrivateKey>) -> Self {
        Self { key, at: Mark::default(), receipted: Mark::default() }
    }

    /// Seals the next `count` alerts, preceded by `lost` lost numbers.
    pub fn next(&mut self, lost: u64, count: u64, text: &str) -> Sealed {
        let previous = self.at;
        let first = previous.sequence + 1;
        let mut ranges = Vec::new();
        if lost > 0 {
            let chain = Digest::of(text.as_bytes());
            let last = previous.sequence + lost;
            ranges.push(Lost { first, last, chain, reason: LostReason::Evicted });
            self.at = Mark { sequence: last, chain };
        }
        let mut lines = Vec::new();
        for _ in 0..count {
            let sequence = self.at.sequence + 1;
            let line = Alert { sequence, resource: text.into(), ..Alert::default() }.to_line().unwrap();
            self.at = Mark { sequence, chain: self.at.chain.link(sequence, &line) };
            lines.push(line);
        }
        let header = Header {
            version: batch::VERSION,
            id: batch::object_id("node1", first, self.at.sequence),
            org: "myorg".into(),
            node: "node1".into(),
            key: self.key.public().id().clone(),
            first,
            last: self.at.sequence,
            count,
            previous: previous.chain,
            chain: self.at.chain,
            lost: ranges,
            receipted: self.receipted,
            replaces: Vec::new(),
            created: Timestamp::UNIX_EPOCH,
        };
        Sealed { object: batch::seal(&header, &lines, &self.key).unwrap(), id: header.id, end: self.at }
    }

    pub fn status(&self) -> Vec<u8> {
        let status = NodeStatus {
            org: "myorg".into(),
            node: "node1".into(),
            public_key: self.key.public().to_pem(),
            created: Timestamp::now(),
            agent: AgentReport { state: "enforcing".into(), ..AgentReport::default() },
            spool: SpoolStats::default(),
            refused_receipts: vec![],
        };
        status.sign(&self.key).unwrap()
    }
}
