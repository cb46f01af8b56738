//! A receipt: the collector's signed word that everything of one node up to a sequence number is durably written.
//!
//! It is a DSSE envelope signed with the collector's key, which nodes pin, published as an MMS object of type
//! `hzn-armor.receipt`. Receipts are cumulative: a later one says all that an earlier one said, so a lost receipt costs
//! nothing and an old one that is played again changes nothing.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::batch::Mark;
use crate::keys::KeyId;

/// DSSE payload type of a receipt.
pub const PAYLOAD_TYPE: &str = "application/vnd.hzn-armor.receipt+json";

/// Largest receipt object in bytes.
pub const MAX_OBJECT: u64 = 64 << 10;

/// Most ranges in `held`.
pub const MAX_HELD: usize = 64;

/// A range of sequence numbers, both ends inclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Range {
    /// First number.
    pub first: u64,
    /// Last number.
    pub last: u64,
}

/// What the collector says about one node's alerts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Receipt {
    /// Organisation of the node.
    pub org: String,
    /// The node.
    pub node: String,
    /// The node's key: a receipt for another key's alerts is not for this node.
    pub key: KeyId,
    /// Every alert up to here is written, and the chain there.
    pub up_to: Mark,
    /// Beyond a gap: what the collector holds already and need not get again. Ascending, at most [`MAX_HELD`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub held: Vec<Range>,
    /// Grows with every receipt for this node.
    pub serial: u64,
    /// When it was issued.
    pub issued: Timestamp,
}
