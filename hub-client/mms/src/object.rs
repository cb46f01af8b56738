//! This module contains what ESS and CSS have in common about objects: their types, metadata and states.
//!
//! No signature covers the metadata, so it proves nothing but that the server says so.

use serde::{Deserialize, Deserializer, Serialize};

/// Object type of bundles, hub to node.
pub const BUNDLE_TYPE: &str = "hzn-armor.bundle";
/// Object type of alert batches, node to hub.
pub const ALERTS_TYPE: &str = "hzn-armor.alerts";
/// Object type of signed node status, node to hub.
pub const STATUS_TYPE: &str = "hzn-armor.status";
/// Object type of signed receipts for alerts, hub to node.
pub const RECEIPT_TYPE: &str = "hzn-armor.receipt";

/// Destination type of objects that stay at the hub. No node has it; an object without any destination would
/// go to every node.
///
/// A machine that is not a Horizon node, and so has no ESS, puts its reports into the CSS under this type,
/// and finds objects for it there, with its name as the destination id.
pub const HUB_TYPE: &str = "hzn-armor.hub";

/// A `MetaData` is an object's metadata as ESS and CSS return it; unused fields are ignored.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct MetaData {
    /// The object's id, unique together with its type and org.
    #[serde(rename = "objectID")]
    pub object_id: String,
    /// The object's type.
    pub object_type: String,
    /// The org that the object belongs to.
    #[serde(rename = "destinationOrgID")]
    pub destination_org_id: String,
    /// The destination node; for an object made on a node, the node that sent it.
    #[serde(rename = "destinationID")]
    pub destination_id: String,
    /// The type of the destination node.
    pub destination_type: String,
    /// Nodes and services for which the object is, if the agbot places it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination_policy: Option<DestinationPolicy>,
    /// Free text of the publisher.
    pub version: String,
    /// Free text of the publisher.
    pub description: String,
    /// The origin that the sender claims; it proves nothing.
    #[serde(rename = "originID")]
    pub origin_id: String,
    /// The origin's type that the sender claims; it proves nothing.
    pub origin_type: String,
    /// Owner `<org>/<user or node>` as the CSS authenticated it.
    #[serde(rename = "ownerID")]
    pub owner_id: String,
    /// Set if the object was deleted at its origin; to be acknowledged with `deleted`.
    pub deleted: bool,
    /// Number that changes with every publish, even of the same bytes.
    #[serde(rename = "instanceID")]
    pub instance_id: i64,
    /// Number that changes with every publish of data.
    #[serde(rename = "dataID")]
    pub data_id: i64,
    /// Size of the data in bytes.
    pub object_size: i64,
    /// `SHA1` or `SHA256` if the data is signed, else empty.
    pub hash_algorithm: String,
    /// The PKIX public key that the publisher names, in base64, or empty. It proves nothing until it equals a
    /// pinned key.
    pub public_key: String,
    /// The RSA-PSS signature over the data, in base64, or empty.
    pub signature: String,
}

/// A `DestinationPolicy` says where the agbot places an object: on nodes that run one of the services and
/// fulfil the constraints.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DestinationPolicy {
    /// Properties against which the node's own constraints are matched.
    #[serde(deserialize_with = "null_as_default")]
    pub properties: Vec<PolicyProperty>,
    /// Constraints on node properties, all of which must hold.
    #[serde(deserialize_with = "null_as_default")]
    pub constraints: Vec<String>,
    /// Services that see the object.
    #[serde(deserialize_with = "null_as_default")]
    pub services: Vec<ServiceId>,
}

/// A `PolicyProperty` is one property of a destination policy.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyProperty {
    /// The property's name.
    pub name: String,
    /// The property's value.
    pub value: serde_json::Value,
    /// `string`, `int`, `float`, `boolean`, `version` or `list of strings`; empty if it follows from the
    /// value.
    #[serde(rename = "type", default, skip_serializing_if = "String::is_empty")]
    pub kind: String,
}

/// A `ServiceId` names a service in a destination policy; Horizon requires all four fields.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceId {
    /// The service's org.
    #[serde(rename = "orgID")]
    pub org_id: String,
    /// The service's architecture, or `*`.
    pub arch: String,
    /// The service's url.
    pub service_name: String,
    /// A version range; `1.0.0` alone means that version or newer.
    pub version: String,
}

/// A `Destination` is the state of an object at one node, as the CSS reports it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Destination {
    /// The node's type.
    pub destination_type: String,
    /// The node's id.
    #[serde(rename = "destinationID")]
    pub destination_id: String,
    /// `pending`, `delivering`, `delivered`, `consumed`, `deleted` or `error`.
    pub status: String,
    /// The error message, if `status` is `error`.
    pub message: String,
}

/// Deserializes `null` as the default, because Go writes an empty slice as `null`.
fn null_as_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// An `ObjectStatus` is the state of an object at the server that was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ObjectStatus {
    /// The metadata is there, the data is not yet.
    NotReady,
    /// The data's signature is being verified.
    Verifying,
    /// The data's signature is invalid.
    VerificationFailed,
    /// The object is stored and will be sent; this says nothing about delivery.
    Ready,
    /// Some chunks have arrived.
    PartiallyReceived,
    /// The receiver is verifying the signature.
    ReceiverVerifying,
    /// The receiver found the signature invalid.
    ReceiverVerificationFailed,
    /// All of the object has arrived; nobody acknowledged it yet.
    CompletelyReceived,
    /// The object was acknowledged with `received`.
    Received,
    /// The object was acknowledged with `consumed`.
    Consumed,
    /// The object was deleted at its origin.
    Deleted,
    /// Somebody at the other side consumed the object; this does not prove who.
    ConsumedByDest,
    /// A state that this version does not know.
    Other(String),
}

impl ObjectStatus {
    /// Parses the servers' name of a state.
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

#[cfg(test)]
mod tests {
    use super::*;

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
