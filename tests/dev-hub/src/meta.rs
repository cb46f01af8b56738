//! This module defines the object model of the MMS: metadata, destination policies, object states and the
//! rules for names (contract §3.1).

use serde::{Deserialize, Serialize};
use std::fmt;

/// `MetaData` is an object's metadata. Every field is present in every answer, as in those of the real
/// services.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)] // the wire names are documented in contract §3.1
pub struct MetaData {
    #[serde(rename = "objectID")]
    pub object_id: String,
    pub object_type: String,
    #[serde(rename = "destinationOrgID")]
    pub destination_org_id: String,
    #[serde(rename = "destinationID")]
    pub destination_id: String,
    pub destination_type: String,
    pub destinations_list: Option<Vec<String>>,
    pub destination_policy: Option<DestinationPolicy>,
    pub expiration: String,
    pub version: String,
    pub description: String,
    pub link: String,
    pub inactive: bool,
    pub activation_time: String,
    pub no_data: bool,
    pub meta_only: bool,
    pub destination_data_uri: String,
    pub source_data_uri: String,
    pub consumers: i64,
    pub autodelete: bool,
    #[serde(rename = "originID")]
    pub origin_id: String,
    pub origin_type: String,
    pub deleted: bool,
    #[serde(rename = "instanceID")]
    pub instance_id: i64,
    #[serde(rename = "dataID")]
    pub data_id: i64,
    pub object_size: i64,
    pub chunk_size: i64,
    pub upload_chunk_size: i64,
    pub hash_algorithm: String,
    pub public_key: String,
    pub signature: String,
    pub public: bool,
    #[serde(rename = "ownerID")]
    pub owner_id: String,
}

impl MetaData {
    /// Returns whether the services check the data against the signature, which they do only if all three
    /// fields are set (contract §3.3).
    pub fn is_signed(&self) -> bool {
        ![&self.hash_algorithm, &self.public_key, &self.signature].iter().any(|field| field.is_empty())
    }
}

/// A `DestinationPolicy` selects the services and nodes that may have the object.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct DestinationPolicy {
    pub properties: Vec<serde_json::Value>,
    pub constraints: Vec<String>,
    pub services: Vec<ServiceId>,
    pub timestamp: i64,
}

/// A `ServiceId` names a service in a destination policy. `version` is a version or a range.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct ServiceId {
    #[serde(rename = "orgID")]
    pub org_id: String,
    pub arch: String,
    pub service_name: String,
    pub version: String,
}

/// A `Status` is the state of an object in one store. The sender's states come first, then the receiver's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Status {
    NotReady,
    VerificationFailed,
    Ready,
    ReceiverVerificationFailed,
    CompletelyReceived,
    Received,
    Consumed,
    Deleted,
    ConsumedByDest,
}

impl Status {
    /// Returns whether this store made the object. Only then may it be written or handed out to others.
    pub fn is_senders(self) -> bool {
        matches!(self, Self::NotReady | Self::VerificationFailed | Self::Ready)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotReady => "notReady",
            Self::VerificationFailed => "verificationFailed",
            Self::Ready => "ready",
            Self::ReceiverVerificationFailed => "receiverVerificationFailed",
            Self::CompletelyReceived => "completelyReceived",
            Self::Received => "objreceived",
            Self::Consumed => "objconsumed",
            Self::Deleted => "objdeleted",
            Self::ConsumedByDest => "consumedByDest",
        })
    }
}

/// Returns whether `name` may name an object, type, org or version.
pub fn is_valid_name(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| c.is_alphanumeric() || "!@#$^*-_.~|".contains(c))
}

/// Returns whether the ESS can carry `name` in a URL to the CSS, which is narrower than [`is_valid_name`].
pub fn is_transportable_name(name: &str) -> bool {
    !name.contains("..") && name.chars().all(|c| c.is_alphanumeric() || "._@-".contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_valid_and_names_that_travel() {
        for name in ["a", "hzn-armor.bundle", "a_b@c", "é"] {
            assert!(is_valid_name(name) && is_transportable_name(name), "{name}");
        }
        for name in ["", "a b", "a/b", "a%b", "a:b", "a+b", "a=b"] {
            assert!(!is_valid_name(name), "{name}");
        }
        assert!(is_valid_name("a!b") && !is_transportable_name("a!b"));
        assert!(is_valid_name("a..b") && !is_transportable_name("a..b"));
    }
}
