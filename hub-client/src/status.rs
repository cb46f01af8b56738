//! The node's signed word about itself: its public key, what it enforces, what it refused, how full its spool is.
//!
//! It travels as an MMS object of type `hzn-armor.status`, signed with the very key it carries. Whoever reads it believes
//! the key because it is pinned, or because it is the first one seen for a node that the hub itself names as the owner.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::batch::{name_part, random_part};
use crate::keys::{Malformed, PrivateKey, PublicKey};
use crate::signed::{self, SignedError, Unverified};

/// DSSE payload type of a status.
pub const PAYLOAD_TYPE: &str = "application/vnd.horizon-armor.status+json";

/// Largest status object in bytes.
pub const MAX_OBJECT: u64 = 256 << 10;

/// A bundle that the node did not accept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Refused {
    /// Id of the bundle's object, or the path of its file.
    pub object: String,
    /// The refusal's stable code.
    pub code: String,
    /// The reason in words.
    pub reason: String,
    /// When.
    pub at: Timestamp,
}

/// What the agent says about enforcement.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct AgentReport {
    /// `starting`, `enforcing`, `degraded` or `offline`.
    pub state: String,
    /// Since when.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// Why it is degraded, one reason a line.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<String>,
    /// Bundle in force; empty if none.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub bundle: String,
    /// Its serial.
    pub bundle_serial: u64,
    /// Latest refused bundles.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub refused: Vec<Refused>,
}

/// Figures of the spool.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct SpoolStats {
    /// Alerts kept.
    pub records: u64,
    /// Bytes they and the lost ranges take.
    pub bytes: u64,
    /// Bytes they may take.
    pub max_bytes: u64,
    /// Last number given.
    pub last: u64,
    /// Last number covered by a receipt.
    pub receipted: u64,
    /// Alerts evicted since the spool was begun, whether or not the collector had them.
    pub evicted: u64,
    /// Alerts that could not be written.
    pub unwritten: u64,
    /// Batches on their way.
    pub open: u64,
    /// Batches taken from the hub without a receipt so far.
    pub taken: u64,
    /// Why the spool was begun afresh or moved forward at this start, if it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recovered: Option<String>,
}

/// A node's status.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct NodeStatus {
    /// Organisation of the node.
    pub org: String,
    /// The node.
    pub node: String,
    /// Its public key, PEM.
    pub public_key: String,
    /// When it was made.
    pub created: Timestamp,
    /// Enforcement.
    pub agent: AgentReport,
    /// The spool.
    pub spool: SpoolStats,
    /// Receipts that were refused lately, one reason a line: somebody forges them, or the collector's key is not pinned.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refused_receipts: Vec<String>,
}

/// Why an object is not a node's status.
#[derive(Debug, thiserror::Error)]
pub enum StatusError {
    /// Not a status, or not signed with the key it carries.
    #[error(transparent)]
    Signed(#[from] SignedError),
    /// The key it carries is not one.
    #[error("the public key in it: {0}")]
    Key(#[from] Malformed),
}

impl NodeStatus {
    /// Signs the status; the result is the object's data.
    pub fn sign(&self, key: &PrivateKey) -> Result<Vec<u8>, SignedError> {
        signed::sign(PAYLOAD_TYPE, self, key)
    }

    /// Reads a status object and the key in it, which signed it. Whether that is the node's key is for the caller to say.
    pub fn verify(object: &[u8]) -> Result<(Self, PublicKey), StatusError> {
        let envelope = Unverified::read(PAYLOAD_TYPE, object)?;
        let key = PublicKey::from_pem(envelope.content::<Self>()?.public_key.as_bytes())?;
        Ok((envelope.verify([&key])?, key))
    }

    /// A new object id `<node>.<random>`, not guessable by others.
    pub fn object_id(&self) -> String {
        format!("{}.{}", name_part(&self.node), random_part())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::KeyType;

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
