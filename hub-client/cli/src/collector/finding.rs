//! This module words what a collector finds besides alerts: for an operator on one line, and as JSON for a report.

use std::fmt;

use armor_alerts::batch::LostReason;
use armor_alerts::status::{BundleReport, NodeStatus};
use armor_bundle::keys::KeyId;
use serde::Serialize;

/// A `Report` is called with each finding.
pub type Report = Box<dyn FnMut(&Finding) + Send>;

/// A `Finding` is something the operator should know besides the alerts. `Node` is the node's id without the
/// organisation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "Finding")]
#[serde(rename_all_fields = "PascalCase")]
pub enum Finding {
    /// A node's status.
    Status(Box<NodeStatus>),
    /// The first key seen for a node: alerts signed by it are accepted.
    KeyPinned {
        /// The node.
        node: String,
        /// Its key.
        key: KeyId,
    },
    /// A node's status contains another key than the pinned one. Alerts signed by that key are not accepted.
    KeyChanged {
        /// The node.
        node: String,
        /// The pinned key.
        pinned: KeyId,
        /// The key in the node's status.
        offered: KeyId,
        /// The status object that contains it.
        object: String,
    },
    /// The node's key is not known yet. Its alerts stay at the hub.
    KeyUnknown {
        /// The node.
        node: String,
        /// The alert object.
        object: String,
    },
    /// An object that its owner's node did not make: it is forged, or overwrote a genuine one.
    Forged {
        /// The object.
        object: String,
        /// The object's owner `org/name`, as the hub names it.
        owner: String,
        /// Reason for the refusal.
        reason: String,
    },
    /// A genuine batch under another id than its own.
    Copied {
        /// The object.
        object: String,
        /// The object's owner, as the hub names it.
        owner: String,
        /// The id in the batch's header.
        original: String,
    },
    /// An alert object was removed before it was collected. Its node sends the alerts again.
    Removed {
        /// The object.
        object: String,
        /// The object's owner.
        owner: String,
    },
    /// A node sent a batch again because an object of it never reached this collector.
    Intercepted {
        /// The node.
        node: String,
        /// The object that never arrived.
        object: String,
        /// Set if somebody else consumed the object; otherwise it was overwritten, deleted or lost on the
        /// way.
        consumed: bool,
        /// The object that contains its alerts now.
        replacement: String,
    },
    /// Later alerts arrived before these. They are held until the node has sent these again.
    Gap {
        /// The node.
        node: String,
        /// First missing number.
        first: u64,
        /// Last missing number.
        last: u64,
    },
    /// Alerts that the node reports as lost. They will not come.
    Lost {
        /// The node.
        node: String,
        /// First lost number.
        first: u64,
        /// Last lost number.
        last: u64,
        /// Number of lost alerts.
        count: u64,
        /// Reason of the loss.
        reason: LostReason,
    },
    /// Alerts for which an earlier collector with another state directory issued receipts. They will not come
    /// again.
    ElsewhereReceipted {
        /// The node.
        node: String,
        /// First number.
        first: u64,
        /// Last number.
        last: u64,
    },
    /// A batch contradicts what the same key signed before: the node's state was reset to an older one, or
    /// its key is used twice.
    Fork {
        /// The node.
        node: String,
        /// The object.
        object: String,
        /// Sequence number up to which alerts are written.
        up_to: u64,
    },
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => {
                write!(f, "node {} at {:.0}: {}", status.node, status.created, status.agent.state)?;
                for BundleReport { name, serial, policies } in &status.agent.bundles {
                    write!(f, ", bundle {name} serial {serial}")?;
                    if *policies == 0 {
                        f.write_str(" (lifted)")?;
                    }
                }
                for reason in &status.agent.reasons {
                    write!(f, "; {reason}")?;
                }
                for refused in &status.agent.refused {
                    write!(f, "; bundle {} refused: {}", refused.object, refused.reason)?;
                }
                for refused in &status.refused_receipts {
                    write!(f, "; receipt refused: {refused}")?;
                }
                Ok(())
            }
            Self::KeyPinned { node, key } => write!(f, "node {node}: first key seen, pinned: {key}"),
            Self::KeyChanged { node, pinned, offered, object } => write!(
                f,
                "node {node}: {object} shows key {offered}, pinned is {pinned}; if the node was set up anew, run with --accept-key {node}={offered}"
            ),
            Self::KeyUnknown { node, object } => {
                write!(
                    f,
                    "node {node}: {object} waits at the hub until the node's status has brought its key"
                )
            }
            Self::Forged { object, owner, reason } => {
                write!(f, "forged or overwritten: {object} made by {owner}: {reason}")
            }
            Self::Copied { object, owner, original } => {
                write!(f, "copied: {object} made by {owner} is a copy of {original}")
            }
            Self::Removed { object, owner } => {
                write!(f, "removed before it was collected: {object} made by {owner}")
            }
            Self::Intercepted { node, object, consumed: true, replacement } => {
                write!(f, "node {node}: {object} was consumed by somebody else; sent again as {replacement}")
            }
            Self::Intercepted { node, object, consumed: false, replacement } => write!(
                f,
                "node {node}: {object} never came (overwritten, deleted or lost); sent again as {replacement}"
            ),
            Self::Gap { node, first, last } => {
                write!(f, "node {node}: alerts {first} to {last} are missing so far")
            }
            Self::Lost { node, first, last, count, reason } => {
                write!(f, "node {node}: {count} alerts lost ({reason}): {first} to {last}")
            }
            Self::ElsewhereReceipted { node, first, last } => {
                write!(f, "node {node}: alerts {first} to {last} were collected with another state directory")
            }
            Self::Fork { node, object, up_to } => write!(
                f,
                "node {node}: {object} contradicts what its key signed before (alerts up to {up_to} are written): its state was set back, or its key is used twice; give it a new key by removing the node's key file"
            ),
        }
    }
}
