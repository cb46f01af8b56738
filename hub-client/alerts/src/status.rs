//! A status is a node's signed statement about itself: its public key, what it enforces, what it refused, and
//! how full its spool is.
//!
//! It travels as an MMS object of type `hzn-armor.status`, signed with the key that it contains. A reader
//! trusts the key because it is pinned, or because it is the first one seen for a node that the hub itself
//! names as the owner.

use armor_bundle::keys::{Malformed, PrivateKey, PublicKey};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::batch::{name_part, random_part};
use crate::signed::{self, SignedError, Unverified};

/// DSSE payload type of a status.
pub const PAYLOAD_TYPE: &str = "application/vnd.horizon-armor.status+json";

/// Maximum size of a status object in bytes.
pub const MAX_OBJECT: u64 = 256 << 10;

/// A `Refused` describes a bundle that the node did not accept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Refused {
    /// Id of the bundle's object, or the path of its file.
    pub object: String,
    /// The refusal's stable code.
    pub code: String,
    /// The reason as text.
    pub reason: String,
    /// Time of the refusal.
    pub at: Timestamp,
}

/// A `BundleReport` describes a bundle that the node has accepted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct BundleReport {
    /// The bundle's name.
    pub name: String,
    /// The bundle's serial.
    pub serial: u64,
    /// Number of its policies; 0 if it has ended the enforcement of earlier ones.
    pub policies: usize,
}

/// An `AgentReport` is the agent's report on enforcement.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct AgentReport {
    /// `starting`, `enforcing`, `degraded` or `offline`.
    pub state: String,
    /// Time at which the state began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// What an operator should know about the state, one text each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<String>,
    /// The bundles accepted last, one of each name, ordered by name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub bundles: Vec<BundleReport>,
    /// Bundles that were refused last.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub refused: Vec<Refused>,
}

/// A `SpoolStats` contains figures of the spool.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct SpoolStats {
    /// Number of alerts in the spool.
    pub records: u64,
    /// Size in bytes of the alerts and lost ranges.
    pub bytes: u64,
    /// Maximum of `bytes`.
    pub max_bytes: u64,
    /// Last sequence number assigned.
    pub last: u64,
    /// Last sequence number covered by a receipt.
    pub receipted: u64,
    /// Number of alerts evicted since the spool was created, whether or not the collector had them.
    pub evicted: u64,
    /// Number of alerts that could not be written.
    pub unwritten: u64,
    /// Number of batches in flight.
    pub open: u64,
    /// Number of batches consumed at the hub that have no receipt yet.
    pub taken: u64,
    /// Reason why the spool was recreated or moved forward at this start, if it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recovered: Option<String>,
}

/// A `NodeStatus` is a node's status.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct NodeStatus {
    /// Organisation of the node.
    pub org: String,
    /// The node's id.
    pub node: String,
    /// The node's public key in PEM.
    pub public_key: String,
    /// Time at which the status was made.
    pub created: Timestamp,
    /// State of the enforcement.
    pub agent: AgentReport,
    /// State of the spool.
    pub spool: SpoolStats,
    /// Receipts that were refused lately, one reason per line: they are forged, or the collector's key is not
    /// pinned.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refused_receipts: Vec<String>,
}

/// A `StatusError` says why an object is not a node's status.
#[derive(Debug, thiserror::Error)]
pub enum StatusError {
    /// The object is not a status, or not signed with the key that it contains.
    #[error(transparent)]
    Signed(#[from] SignedError),
    /// The key in it cannot be parsed.
    #[error("the public key in it: {0}")]
    Key(#[from] Malformed),
}

impl NodeStatus {
    /// Signs the status; the result is the object's data.
    pub fn sign(&self, key: &PrivateKey) -> Result<Vec<u8>, SignedError> {
        signed::sign(PAYLOAD_TYPE, self, key)
    }

    /// Verifies a status object with the key that it contains, and returns both. The caller decides whether
    /// that is the node's key.
    pub fn verify(object: &[u8]) -> Result<(Self, PublicKey), StatusError> {
        let envelope = Unverified::read(PAYLOAD_TYPE, object)?;
        let key = PublicKey::from_pem(envelope.content::<Self>()?.public_key.as_bytes())?;
        Ok((envelope.verify([&key])?, key))
    }

    /// Returns a new object id `<node>.<random>`, which others cannot guess.
    pub fn object_id(&self) -> String {
        format!("{}.{}", name_part(&self.node), random_part())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use armor_bundle::keys::KeyType;

    #[test]
    fn a_status_is_signed_with_the_key_it_carries() {
        let [key, other] = [(); 2].map(|()| PrivateKey::generate(KeyType::Ed25519).unwrap());
        let status = NodeStatus {
            org: "o".into(),
            node: "n".into(),
            public_key: key.public().to_pem(),
            created: Timestamp::UNIX_EPOCH,
            agent: AgentReport { state: "enforcing".into(), ..AgentReport::default() },
            spool: SpoolStats::default(),
            refused_receipts: vec![],
        };
        let (read, public) = NodeStatus::verify(&status.sign(&key).unwrap()).unwrap();
        assert_eq!((read, &public), (status.clone(), key.public()));
        let error = NodeStatus::verify(&status.sign(&other).unwrap()).unwrap_err();
        assert!(matches!(error, StatusError::Signed(SignedError::Signature)));
        let error = NodeStatus::verify(&NodeStatus { public_key: "x".into(), ..status }.sign(&key).unwrap())
            .unwrap_err();
        assert!(matches!(error, StatusError::Key(_)));
    }
}
