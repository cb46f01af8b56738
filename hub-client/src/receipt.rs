//! A receipt: the collector's signed word that everything of one node up to a sequence number is durably written.
//!
//! It is a DSSE envelope signed with the collector's key, which nodes pin, published as an MMS object of type
//! `hzn-armor.receipt`. Receipts are cumulative: a later one says all that an earlier one said, so a lost receipt costs
//! nothing and an old one that is played again changes nothing.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::batch::{Mark, name_part, random_part};
use crate::keys::{KeyId, PrivateKey, PublicKey};
use crate::signed::{self, SignedError, Unverified};

/// DSSE payload type of a receipt.
pub const PAYLOAD_TYPE: &str = "application/vnd.horizon-armor.receipt+json";

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

/// Why an object is not a receipt for this node.
#[derive(Debug, thiserror::Error)]
pub enum ReceiptError {
    /// Not a receipt signed by any of the pinned receipt keys.
    #[error(transparent)]
    Signed(#[from] SignedError),
    /// It is for another node, or for a key this node does not have (any more).
    #[error("it is for node {org}/{node} with key {key}")]
    OtherNode {
        /// Organisation it names.
        org: String,
        /// Node it names.
        node: String,
        /// Key it names.
        key: KeyId,
    },
}

impl Receipt {
    /// Signs the receipt with the collector's key; the result is the object's data.
    pub fn sign(&self, key: &PrivateKey) -> Result<Vec<u8>, SignedError> {
        signed::sign(PAYLOAD_TYPE, self, key)
    }

    /// Reads a receipt object: signed by one of `pinned`, for `org`/`node` and its key.
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

    /// A new object id `<node>.<up to>.<random>`, not guessable by others.
    pub fn object_id(&self) -> String {
        format!("{}.{}.{}", name_part(&self.node), self.up_to.sequence, random_part())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::KeyType;

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
