//! A receipt is the collector's signed statement that all alerts of one node up to a sequence number are
//! durably written.
//!
//! It is a DSSE envelope signed with the collector's key, which nodes pin, and is published as an MMS object
//! of type `hzn-armor.receipt`. Receipts are cumulative: a later one covers everything that an earlier one
//! covered, so losing a receipt or replaying an old one is harmless.

use armor_bundle::keys::{KeyId, PrivateKey, PublicKey};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::batch::{Mark, name_part, random_part};
use crate::signed::{self, SignedError, Unverified};

/// DSSE payload type of a receipt.
pub const PAYLOAD_TYPE: &str = "application/vnd.horizon-armor.receipt+json";

/// Maximum size of a receipt object in bytes.
pub const MAX_OBJECT: u64 = 64 << 10;

/// Maximum number of ranges in `held`.
pub const MAX_HELD: usize = 64;

/// A `Range` is a range of sequence numbers, both ends inclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Range {
    /// First number.
    pub first: u64,
    /// Last number.
    pub last: u64,
}

/// A `Receipt` says which of one node's alerts the collector has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Receipt {
    /// Organisation of the node.
    pub org: String,
    /// The node's id.
    pub node: String,
    /// Id of the node's key: a receipt for another key's alerts is not for this node.
    pub key: KeyId,
    /// Sequence number up to which all alerts are written, and the chain there.
    pub up_to: Mark,
    /// Ranges beyond a gap that the collector already holds and need not get again. Ascending, at most
    /// [`MAX_HELD`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub held: Vec<Range>,
    /// Serial, which grows with every receipt for this node.
    pub serial: u64,
    /// Time of issue.
    pub issued: Timestamp,
}

/// A `ReceiptError` says why an object is not a receipt for this node.
#[derive(Debug, thiserror::Error)]
pub enum ReceiptError {
    /// No pinned receipt key signed the object, or it is not a receipt.
    #[error(transparent)]
    Signed(#[from] SignedError),
    /// The receipt is for another node, or for a key that this node does not have (any more).
    #[error("it is for node {org}/{node} with key {key}")]
    OtherNode {
        /// Organisation in the receipt.
        org: String,
        /// Node in the receipt.
        node: String,
        /// Key in the receipt.
        key: KeyId,
    },
}

impl Receipt {
    /// Signs the receipt with the collector's key; the result is the object's data.
    pub fn sign(&self, key: &PrivateKey) -> Result<Vec<u8>, SignedError> {
        signed::sign(PAYLOAD_TYPE, self, key)
    }

    /// Verifies a receipt object: it must be signed by one of `pinned`, for `org`/`node` and its key.
    pub fn verify<'k>(
        object: &[u8],
        pinned: impl IntoIterator<Item = &'k PublicKey>,
        (org, node, key): (&str, &str, &KeyId),
    ) -> Result<Self, ReceiptError> {
        let receipt: Self = Unverified::read(PAYLOAD_TYPE, object)?.verify(pinned)?;
        if (receipt.org.as_str(), receipt.node.as_str(), &receipt.key) != (org, node, key) {
            return Err(ReceiptError::OtherNode { org: receipt.org, node: receipt.node, key: receipt.key });
        }
        Ok(receipt)
    }

    /// Returns a new object id `<node>.<up to>.<random>`, which others cannot guess.
    pub fn object_id(&self) -> String {
        format!("{}.{}.{}", name_part(&self.node), self.up_to.sequence, random_part())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use armor_bundle::keys::KeyType;

    #[test]
    fn only_a_pinned_keys_receipt_for_this_node_is_believed() {
        let [collector, stranger, node] = [(); 3].map(|()| PrivateKey::generate(KeyType::Ed25519).unwrap());
        let key = node.public().id();
        let receipt = Receipt {
            org: "o".into(),
            node: "n".into(),
            key: key.clone(),
            up_to: Mark::default(),
            held: vec![Range { first: 3, last: 4 }],
            serial: 1,
            issued: Timestamp::UNIX_EPOCH,
        };
        let object = receipt.sign(&collector).unwrap();
        let pinned = [collector.public()];
        assert_eq!(Receipt::verify(&object, pinned, ("o", "n", key)).unwrap(), receipt);
        let forged = receipt.sign(&stranger).unwrap();
        let error = Receipt::verify(&forged, pinned, ("o", "n", key)).unwrap_err();
        assert!(matches!(error, ReceiptError::Signed(SignedError::Signature)));
        for other in [("p", "n", key), ("o", "m", key), ("o", "n", stranger.public().id())] {
            let error = Receipt::verify(&object, pinned, other).unwrap_err();
            assert!(matches!(error, ReceiptError::OtherNode { .. }));
        }
        let status = signed::sign("application/vnd.horizon-armor.status+json", &receipt, &collector).unwrap();
        assert!(Receipt::verify(&status, pinned, ("o", "n", key)).is_err(), "another type's envelope");
        assert!(Receipt::verify(b"{}", pinned, ("o", "n", key)).is_err());
    }
}
