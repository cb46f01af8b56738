//! What the ESS and the CSS have in common: the metadata of an object, its states, the names that travel safely, the errors.
//!
//! Nothing in the metadata is covered by a signature, so nothing here is to be believed beyond "this is what the server says".

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize};

use armor_policy::escaped_path;

/// Bundles, hub to node.
pub const BUNDLE_TYPE: &str = "hzn-armor.bundle";
/// Alert batches, node to hub.
pub const ALERTS_TYPE: &str = "hzn-armor.alerts";
/// Signed node status, node to hub.
pub const STATUS_TYPE: &str = "hzn-armor.status";
/// Signed receipts for alerts, hub to node.
pub const RECEIPT_TYPE: &str = "hzn-armor.receipt";

/// Destination type of objects that stay at the hub: no node has it. An object without any destination goes to every node.
///
/// A machine that is no Horizon node, and so has no ESS, leaves what it reports at the CSS under this type, and finds there what
/// is for it, with its name as the destination's id.
pub const HUB_TYPE: &str = "hzn-armor.hub";

/// The longest object type or id that is sent, in bytes.
pub const MAX_NAME: usize = 200;
/// The most that an answer other than an object's data may have, in bytes: some 10,000 metadata records.
pub const MAX_LIST: u64 = 16 << 20;

/// An object's metadata as ESS and CSS give it; fields that are not used here are ignored.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MetaData {
    /// Identifies the object together with its type and org.
    #[serde(rename = "objectID")]
    pub object_id: String,
    /// The object's type.
    pub object_type: String,
    /// The org it belongs to.
    #[serde(rename = "destinationOrgID")]
    pub destination_org_id: String,
    /// The node it is for; for an object made on a node, the node that sent it.
    #[serde(rename = "destinationID")]
    pub destination_id: String,
    /// The type of that node.
    pub destination_type: String,
    /// Which nodes and services it is for, where the agbot places it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination_policy: Option<DestinationPolicy>,
    /// Free text of the publisher.
    pub version: String,
    /// Free text of the publisher.
    pub description: String,
    /// The origin that the sender claims; proves nothing.
    #[serde(rename = "originID")]
    pub origin_id: String,
    /// The origin's type that the sender claims; proves nothing.
    pub origin_type: String,
    /// `<org>/<user or node>` as the CSS authenticated it.
    #[serde(rename = "ownerID")]
    pub owner_id: String,
    /// The object was deleted at its origin; acknowledge with `deleted`.
    pub deleted: bool,
    /// Changes with every publish, also of the same bytes.
    #[serde(rename = "instanceID")]
    pub instance_id: i64,
    /// Changes with every publish of data.
    #[serde(rename = "dataID")]
    pub data_id: i64,
    /// Size of the data in bytes.
    pub object_size: i64,
    /// `SHA1` or `SHA256` where the data is signed, else empty.
    pub hash_algorithm: String,
    /// Base64 of the PKIX public key that the publisher names, else empty. Proves nothing until it equals a pinned one.
    pub public_key: String,
    /// Base64 of the RSA-PSS signature over the data, else empty.
    pub signature: String,
}

/// Where the agbot places an object: nodes that run one of the services and fulfil the constraints.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DestinationPolicy {
    /// Properties that a node's own constraints are matched against.
    #[serde(deserialize_with = "null_as_default")]
    pub properties: Vec<PolicyProperty>,
    /// Constraints on node properties, all of which must hold.
    #[serde(deserialize_with = "null_as_default")]
    pub constraints: Vec<String>,
    /// The services that see the object.
    #[serde(deserialize_with = "null_as_default")]
    pub services: Vec<ServiceId>,
}

/// One property of a destination policy.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyProperty {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: serde_json::Value,
    /// `string`, `int`, `float`, `boolean`, `version` or `list of strings`; empty where it follows from the value.
    #[serde(rename = "type", default, skip_serializing_if = "String::is_empty")]
    pub kind: String,
}

/// A service as a destination policy names it; Horizon wants all four fields.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceId {
    /// The service's org.
    #[serde(rename = "orgID")]
    pub org_id: String,
    /// Its architecture, or `*`.
    pub arch: String,
    /// Its url.
    pub service_name: String,
    /// A version range; `1.0.0` alone means that or newer.
    pub version: String,
}

/// What became of an object at one node, as the CSS says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Destination {
    /// The node's type.
    pub destination_type: String,
    /// The node.
    #[serde(rename = "destinationID")]
    pub destination_id: String,
    /// `pending`, `delivering`, `delivered`, `consumed`, `deleted` or `error`.
    pub status: String,
    /// What went wrong, with `error`.
    pub message: String,
}

/// Go writes an empty slice as `null`.
fn null_as_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// The state of an object at the server that was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ObjectStatus {
    /// Metadata without the data yet.
    NotReady,
    /// The data's signature is being verified.
    Verifying,
    /// The data's signature does not fit.
    VerificationFailed,
    /// Stored and to be sent; says nothing about delivery.
    Ready,
    /// Some chunks have come.
    PartiallyReceived,
    /// The receiver verifies the signature.
    ReceiverVerifying,
    /// The receiver found that the signature does not fit.
    ReceiverVerificationFailed,
    /// All of it is here, nobody acknowledged it yet.
    CompletelyReceived,
    /// Acknowledged with `received`.
    Received,
    /// Acknowledged with `consumed`.
    Consumed,
    /// Deleted at its origin.
    Deleted,
    /// Somebody at the other side consumed it; not a proof of who.
    ConsumedByDest,
    /// A word that this version does not know.
    Other(String),
}

impl ObjectStatus {
    /// Reads the servers' word for a state.
    #[must_use]
    pub fn parse(word: &str) -> Self {
        match word.trim() {
            "notReady" => Self::NotReady,
            "verifying" => Self::Verifying,
            "verificationFailed" => Self::VerificationFailed,
            "ready" => Self::Ready,
            "partiallyreceived" => Self::PartiallyReceived,
            "receiverVerifying" => Self::ReceiverVerifying,
            "receiverVerificationFailed" => Self::ReceiverVerificationFailed,
            "completelyReceived" => Self::CompletelyReceived,
            "objreceived" => Self::Received,
            "objconsumed" => Self::Consumed,
            "objdeleted" => Self::Deleted,
            "consumedByDest" => Self::ConsumedByDest,
            other => Self::Other(other.to_owned()),
        }
    }
}

/// Where the credentials come from that a server refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credentials {
    /// The agent's file, which it rewrites under a running service.
    File(PathBuf),
    /// A user of the hub.
    User(String),
}

impl fmt::Display for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => {
                write!(f, "{} (the agent writes it; is it mounted from this agreement?)", escaped_path(path))
            }
            Self::User(user) => {
                write!(f, "HZN_EXCHANGE_USER_AUTH (user {user}); check user, password and HZN_ORG_ID")
            }
        }
    }
}

/// Why a request to the ESS or the CSS failed.
#[derive(Debug, thiserror::Error)]
pub enum MmsError {
    /// No connection, a TLS failure, or the connection broke.
    #[error("{server} cannot be reached: {reason}")]
    Unreachable {
        /// Socket or URL.
        server: String,
        /// The chain of causes.
        reason: String,
    },
    /// No complete answer in time. A PUT may have been done all the same.
    #[error("{server} gave no complete answer in {} ms", after.as_millis())]
    Timeout {
        /// Socket or URL.
        server: String,
        /// The time that was waited.
        after: Duration,
    },
    /// The server refuses the credentials, also after they were read again.
    #[error("{server} refuses the credentials of {credentials}")]
    Unauthorized {
        /// Socket or URL.
        server: String,
        /// Where they come from.
        credentials: Credentials,
    },
    /// Nothing of that type and id is visible to these credentials.
    #[error("no object {object_type}/{id} for these credentials")]
    UnknownObject {
        /// The type asked for.
        object_type: String,
        /// The id asked for.
        id: String,
    },
    /// Some other server than a hub's sync service: a wrong address.
    #[error(
        "{server} is no sync service of a hub, it answers {answer}: HZN_FSS_CSSURL must name the hub's CSS, with the path before \
         /api where it has one"
    )]
    NoSyncService {
        /// URL.
        server: String,
        /// What it does instead.
        answer: String,
    },
    /// Any other refusal.
    #[error("{server} answers {status}: {text}")]
    Rejected {
        /// Socket or URL.
        server: String,
        /// HTTP status.
        status: u16,
        /// The first kilobyte of what the server says, on one line.
        text: String,
    },
    /// The hub stored the data and found that the signature in the metadata does not fit it.
    #[error(
        "the hub says that the signature of {object_type}/{id} does not fit its data: sign these bytes again"
    )]
    VerificationFailed {
        /// The object's type.
        object_type: String,
        /// The object's id.
        id: String,
    },
    /// More bytes than the caller allows, to read or to send.
    #[error("more than the {limit} bytes allowed")]
    TooLarge {
        /// The limit in bytes.
        limit: u64,
    },
    /// An answer that cannot be read.
    #[error("what {server} answers cannot be read: {reason}")]
    BadAnswer {
        /// Socket or URL.
        server: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A name that does not travel from hub to node.
    #[error("the name {0:?} is not 1 to 200 of A-Z a-z 0-9 . _ - without \"..\"")]
    BadName(String),
    /// Missing or unusable settings.
    #[error("{0}")]
    Config(String),
    /// The credentials or certificate file cannot be used now; the agent may be rewriting it.
    #[error("{}: {reason}", escaped_path(path))]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

impl MmsError {
    /// Whether the same request may succeed later with nothing changed on our side.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Timeout { .. } | Self::File { .. } => true,
            Self::Unauthorized { credentials, .. } => matches!(credentials, Credentials::File(_)),
            Self::Rejected { status, .. } => matches!(status, 424 | 429 | 500..),
            _ => false,
        }
    }
}

/// Refuses a type, id, org or node name that any server on the way would.
///
/// Hub and node accept more characters each than the way between them does, and a dot-dot in a path is refused there.
pub fn check_name(name: &str) -> Result<(), MmsError> {
    let fits = (1..=MAX_NAME).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
        && !name.contains("..")
        && name != ".";
    if fits { Ok(()) } else { Err(MmsError::BadName(name.chars().take(MAX_NAME).collect())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_do_not_travel_are_refused() {
        for good in ["a", "hzn-armor.bundle", "Node_1.5-7.x", &"a".repeat(MAX_NAME)] {
            assert!(check_name(good).is_ok(), "{good}");
        }
        for bad in
            ["", ".", "..", "a..b", "a/b", "a b", "a%2fb", "ä", "a:b", "a\n", &"a".repeat(MAX_NAME + 1)]
        {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn metadata_keeps_64_bit_ids_and_takes_null_and_unknown_fields() {
        let text = r#"{"objectID":"a","objectType":"t","instanceID":1784642390138249913,"dataID":9007199254740993,
            "destinationPolicy":{"properties":null,"constraints":null,"services":[{"orgID":"o","arch":"*","serviceName":"s","version":"1.0.0"}],"timestamp":3},
            "destinationsList":null,"expiration":"","inactive":false,"somethingNew":[1]}"#;
        let meta: MetaData = serde_json::from_str(text).unwrap();
        assert_eq!((meta.instance_id, meta.data_id), (1_784_642_390_138_249_913, 9_007_199_254_740_993));
        assert_eq!(meta.destination_policy.unwrap().services[0].service_name, "s");
    }

    #[test]
    fn states_are_read_by_the_servers_own_words() {
        assert_eq!(ObjectStatus::parse("completelyReceived\n"), ObjectStatus::CompletelyReceived);
        assert_eq!(ObjectStatus::parse("consumedByDest"), ObjectStatus::ConsumedByDest);
        assert_eq!(ObjectStatus::parse("new"), ObjectStatus::Other("new".to_owned()));
    }
}
