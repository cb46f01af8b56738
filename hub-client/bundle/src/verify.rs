//! This module turns an object's bytes into a bundle that may be enforced, or into the one reason why it may
//! not.
//!
//! It checks size, form, signatures, payload, target, serial, expiry, keys and policies, in that order. Only
//! the envelope is parsed before a pinned key's signature is verified, and a bundle is accepted as a whole or
//! not at all.

use std::collections::{BTreeMap, BTreeSet};

use armor_policy::document::text::foreign_encoding;
use armor_policy::{Diagnostics, Policy};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::constraint::Properties;
use crate::dsse::{Envelope, EnvelopeSignature, MAX_SIGNATURES, Message, PAYLOAD_TYPE};
use crate::keys::{KeyId, PublicKey};
use crate::payload::{Payload, PayloadError};
use crate::plain::{PlainFields, PlainProblem, PlainSignature};
use crate::trust::{BadChange, TrustStore};
use crate::{MAX_BUNDLE, MAX_PAYLOAD};

/// A `NodeIdentity` identifies the node, to decide whether a bundle is for it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct NodeIdentity {
    /// The node's org.
    pub org: String,
    /// The node's id without the org.
    pub id: String,
    /// The node's architecture, as Open Horizon names it.
    pub arch: String,
    /// The node's properties; `openhorizon.arch` is added from `arch`.
    pub properties: Properties,
}

/// An `Accepted` records the last accepted bundle of a name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accepted {
    /// The bundle's serial.
    pub serial: u64,
    /// The bundle's [`VerifiedBundle::digest`].
    pub digest: String,
}

/// A `SerialFloor` records the last accepted bundle by name; a node keeps it for ever.
pub type SerialFloor = BTreeMap<String, Accepted>;

/// A `VerifiedBundle` has passed every check.
#[derive(Debug, Clone)]
pub struct VerifiedBundle {
    /// The bundle's payload.
    pub payload: Payload,
    /// Hex of the SHA-256 of the payload's bytes, the same for both signature forms.
    pub digest: String,
    /// The parsed policies of all files, in the order of the files.
    pub policies: Vec<Policy>,
    /// The pinned keys that signed the bundle.
    pub keys: Vec<KeyId>,
}

/// A `Refusal` says why a bundle is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The bundle exceeds the size limit.
    #[error("the bundle has {size} bytes, {max} are allowed")]
    TooLarge {
        /// The bundle's size in bytes.
        size: usize,
        /// The limit in bytes.
        max: usize,
    },
    /// The JSON ends too early.
    #[error("the bundle ends too early, after {size} bytes: publish it again")]
    Truncated {
        /// The bundle's size in bytes.
        size: usize,
    },
    /// The bundle is not JSON.
    #[error("the bundle is not JSON: {0}")]
    NotJson(String),
    /// The JSON is not a bundle, or the envelope contains something else.
    #[error("not a bundle: {0}")]
    NotABundle(String),
    /// The bundle has no signature.
    #[error(
        "the bundle is not signed: sign it with `hzn-armor bundle sign`, or publish it with `hzn mms object publish -k`"
    )]
    Unsigned,
    /// The kind of signature is not supported.
    #[error("the signature is of an unsupported sort: {0}")]
    UnsupportedSignature(String),
    /// The node has no keys to verify with.
    #[error(
        "no bundle key is pinned on this node: put the signer's public key into trust.d, as a file that ends in .pem"
    )]
    NoPinnedKeys,
    /// No signature is by a pinned key.
    #[error("signed by {signers}, none of which is pinned on this node")]
    UnknownSigner {
        /// The ids that the bundle names.
        signers: String,
    },
    /// A signature names a pinned key, but is not that key's signature over these bytes.
    #[error("the signature of {0} does not fit: the bundle was altered after it was signed")]
    BadSignature(KeyId),
    /// Fewer pinned keys signed than the node demands.
    #[error("signed by {have} of the {need} different pinned keys that this node demands")]
    TooFewSignatures {
        /// Number of pinned keys that signed.
        have: usize,
        /// Number of pinned keys that must sign.
        need: u32,
    },
    /// The signatures are valid, but the payload is not.
    #[error("the payload cannot be used: {0}")]
    BadPayload(PayloadError),
    /// The signatures are valid, but the payload requires something that this agent does not support.
    #[error("the payload cannot be used: {0}")]
    UnsupportedRequirement(String),
    /// The bundle is for other nodes.
    #[error("the bundle is not for this node: {0}")]
    WrongTarget(String),
    /// The serial is lower than the one that the node has accepted.
    #[error("serial {got} of {name} is below {have}, which this node has accepted: publish a higher one")]
    SerialTooLow {
        /// The bundle's name.
        name: String,
        /// The serial that was accepted last.
        have: u64,
        /// The serial of the bundle.
        got: u64,
    },
    /// The node has accepted this serial with another content.
    #[error(
        "serial {serial} of {name} was accepted with another content: publish this one with a higher serial"
    )]
    SerialReused {
        /// The bundle's name.
        name: String,
        /// The serial.
        serial: u64,
    },
    /// The bundle is exactly the one that the node accepted last; there is nothing to do or report.
    #[error("serial {serial} of {name} is already accepted")]
    AlreadyAccepted {
        /// The bundle's name.
        name: String,
        /// The serial.
        serial: u64,
    },
    /// The serial is so high that no later bundle of the name could exceed it.
    #[error("{0}")]
    SerialTooHigh(PayloadError),
    /// The bundle has expired.
    #[error("the bundle expired at {0}: sign a newer one, or set this node's clock")]
    Expired(Timestamp),
    /// The bundle's trust changes cannot be made.
    #[error("its trust changes cannot be made: {0}")]
    BadTrustChange(BadChange),
    /// At least one policy is in error.
    #[error("a policy is in error:\n{0}")]
    BadPolicy(Diagnostics),
}

impl Refusal {
    /// Returns a code for the reason that stays the same across versions.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::TooLarge { .. } => "too-large",
            Self::Truncated { .. } => "truncated",
            Self::NotJson(_) => "not-json",
            Self::NotABundle(_) => "not-a-bundle",
            Self::Unsigned => "unsigned",
            Self::UnsupportedSignature(_) => "unsupported-signature",
            Self::NoPinnedKeys => "no-pinned-keys",
            Self::UnknownSigner { .. } => "unknown-signer",
            Self::BadSignature(_) => "bad-signature",
            Self::TooFewSignatures { .. } => "too-few-signatures",
            Self::BadPayload(_) => "bad-payload",
            Self::UnsupportedRequirement(_) => "unsupported-requirement",
            Self::WrongTarget(_) => "wrong-target",
            Self::SerialTooLow { .. } => "serial-too-low",
            Self::SerialReused { .. } => "serial-reused",
            Self::AlreadyAccepted { .. } => "already-accepted",
            Self::SerialTooHigh(_) => "serial-too-high",
            Self::Expired(_) => "expired",
            Self::BadTrustChange(_) => "bad-trust-change",
            Self::BadPolicy(_) => "bad-policy",
        }
    }
}

impl From<PayloadError> for Refusal {
    fn from(error: PayloadError) -> Self {
        match error {
            PayloadError::Unsupported(text) => Self::UnsupportedRequirement(text),
            PayloadError::SerialTooHigh { .. } => Self::SerialTooHigh(error),
            PayloadError::TooLarge(size) => Self::TooLarge { size, max: MAX_PAYLOAD },
            other => Self::BadPayload(other),
        }
    }
}

/// A `SignedBundle` is a bundle whose form was parsed but whose signatures are not verified yet.
#[derive(Debug, Clone)]
pub struct SignedBundle<'b> {
    content: Content<'b>,
    /// The bundle's signatures.
    pub signatures: Signatures,
}

/// A `Content` is the payload with the signed bytes around it. It is the only copy: bundles may be large, and
/// nodes small.
#[derive(Debug, Clone)]
enum Content<'b> {
    Envelope(Message),
    Plain(&'b [u8]),
}

/// A `Signatures` says how a bundle is signed.
#[derive(Debug, Clone)]
pub enum Signatures {
    /// The signatures in the envelope.
    Envelope(Vec<EnvelopeSignature>),
    /// The signature in the object's metadata, or why there is no usable one.
    Plain(Result<PlainSignature, PlainProblem>),
}

#[derive(Deserialize)]
struct Probe {
    #[serde(rename = "payloadType")]
    payload_type: Option<serde::de::IgnoredAny>,
    format: Option<serde::de::IgnoredAny>,
}

impl<'b> SignedBundle<'b> {
    /// Parses the form of an object. `plain` contains the signature of a bare payload.
    pub fn open(bytes: &'b [u8], plain: Option<&PlainFields>) -> Result<Self, Refusal> {
        if bytes.len() > MAX_BUNDLE {
            return Err(Refusal::TooLarge { size: bytes.len(), max: MAX_BUNDLE });
        }
        let probe: Probe = serde_json::from_slice(bytes).map_err(|e| match e.classify() {
            serde_json::error::Category::Eof => Refusal::Truncated { size: bytes.len() },
            serde_json::error::Category::Data => Refusal::NotABundle(e.to_string()),
            _ => Refusal::NotJson(foreign_encoding(bytes).unwrap_or_else(|| e.to_string())),
        })?;
        match (probe.payload_type, probe.format) {
            (Some(_), _) => Self::open_envelope(bytes),
            (None, Some(_)) => {
                let signature = plain.map_or(Err(PlainProblem::Missing), PlainSignature::of);
                Ok(Self { content: Content::Plain(bytes), signatures: Signatures::Plain(signature) })
            }
            (None, None) => Err(Refusal::NotABundle("neither a DSSE envelope nor a payload".to_owned())),
        }
    }

    fn open_envelope(bytes: &[u8]) -> Result<Self, Refusal> {
        let not = |text: String| Refusal::NotABundle(text);
        let envelope: Envelope<'_> = serde_json::from_slice(bytes).map_err(|e| not(e.to_string()))?;
        if envelope.payload_type != PAYLOAD_TYPE {
            return Err(not(format!("an envelope of {:?}", envelope.payload_type)));
        }
        if envelope.signatures.len() > MAX_SIGNATURES {
            return Err(not(format!(
                "{} signatures, {MAX_SIGNATURES} are allowed",
                envelope.signatures.len()
            )));
        }
        // Such a signature is tried with every pinned key, over the whole payload.
        if envelope.signatures.iter().filter(|signature| signature.keyid.is_empty()).count() > 1 {
            return Err(not("more than one signature without a key id".to_owned()));
        }
        let message =
            envelope.message().ok_or_else(|| not("the envelope's payload is not base64".to_owned()))?;
        let size = message.payload().len();
        if size > MAX_PAYLOAD {
            return Err(Refusal::TooLarge { size, max: MAX_PAYLOAD });
        }
        Ok(Self {
            content: Content::Envelope(message),
            signatures: Signatures::Envelope(envelope.signatures),
        })
    }

    /// Returns the payload's bytes.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        match &self.content {
            Content::Envelope(message) => message.payload(),
            Content::Plain(bytes) => bytes,
        }
    }

    /// Returns the bytes that the signatures cover.
    fn signed(&self) -> &[u8] {
        match &self.content {
            Content::Envelope(message) => message.bytes(),
            Content::Plain(bytes) => bytes,
        }
    }

    /// Returns the hex of the SHA-256 of the payload's bytes.
    #[must_use]
    pub fn digest(&self) -> String {
        hex::encode(Sha256::digest(self.payload()))
    }

    /// Returns the pinned keys that signed, if they are enough.
    ///
    /// A signature that names a pinned key must be by that key. A signature by a key that is not pinned is
    /// skipped, so that a bundle may be signed for nodes with old and with new keys.
    pub fn signers(&self, trust: &TrustStore) -> Result<Vec<KeyId>, Refusal> {
        if trust.bundle_keys().next().is_none() {
            return Err(Refusal::NoPinnedKeys);
        }
        let signers = match &self.signatures {
            Signatures::Envelope(signatures) => self.envelope_signers(signatures, trust)?,
            Signatures::Plain(signature) => BTreeSet::from([self.plain_signer(signature, trust)?]),
        };
        if signers.len() < trust.threshold() as usize {
            return Err(Refusal::TooFewSignatures { have: signers.len(), need: trust.threshold() });
        }
        Ok(signers.into_iter().collect())
    }

    fn envelope_signers(
        &self,
        list: &[EnvelopeSignature],
        trust: &TrustStore,
    ) -> Result<BTreeSet<KeyId>, Refusal> {
        if list.is_empty() {
            return Err(Refusal::Unsigned);
        }
        let message = self.signed();
        let mut signers = BTreeSet::new();
        for signature in list {
            let bytes = signature
                .bytes()
                .ok_or_else(|| Refusal::NotABundle("a signature is not base64".to_owned()))?;
            let named = signature.keyid.parse::<KeyId>().ok().and_then(|id| trust.bundle_key(&id));
            let signer = match named {
                Some(key) if key.verifies(message, &bytes) => Some(key),
                Some(key) => return Err(Refusal::BadSignature(key.id().clone())),
                None if signature.keyid.is_empty() => {
                    trust.bundle_keys().find(|key| key.verifies(message, &bytes))
                }
                None => None,
            };
            signers.extend(signer.map(|key| key.id().clone()));
        }
        if signers.is_empty() {
            let named: Vec<_> =
                list.iter().map(|s| if s.keyid.is_empty() { "a key without id" } else { &s.keyid }).collect();
            return Err(Refusal::UnknownSigner { signers: shortened(&named.join(", ")) });
        }
        Ok(signers)
    }

    fn plain_signer(
        &self,
        signature: &Result<PlainSignature, PlainProblem>,
        trust: &TrustStore,
    ) -> Result<KeyId, Refusal> {
        let signature = signature.as_ref().map_err(|problem| match problem {
            PlainProblem::Missing => Refusal::Unsigned,
            PlainProblem::Unsupported(text) => Refusal::UnsupportedSignature(text.clone()),
        })?;
        let key = PublicKey::from_spki_der(&signature.public_key)
            .map_err(|e| Refusal::UnsupportedSignature(format!("publicKey in the metadata: {e}")))?;
        let pinned = trust
            .bundle_key(key.id())
            .ok_or_else(|| Refusal::UnknownSigner { signers: key.id().to_string() })?;
        if pinned.verifies(self.signed(), &signature.signature) {
            Ok(pinned.id().clone())
        } else {
            Err(Refusal::BadSignature(pinned.id().clone()))
        }
    }
}

/// Decides whether `node` may enforce a bundle. `plain`, from the object's metadata, is the signature of a
/// bare payload; `floor` records what the node accepted before.
///
/// # Errors
/// Fails with the [`Refusal`]; nothing has changed then.
pub fn verify(
    bytes: &[u8],
    plain: Option<&PlainFields>,
    trust: &TrustStore,
    node: &NodeIdentity,
    floor: &SerialFloor,
    now: Timestamp,
) -> Result<VerifiedBundle, Refusal> {
    let signed = SignedBundle::open(bytes, plain)?;
    let keys = signed.signers(trust)?;
    let payload = Payload::parse(signed.payload())?;
    check_target(&payload, node)?;
    let digest = signed.digest();
    // Frees memory, because the policies need a lot.
    drop(signed);
    payload.check_serial(now)?;
    check_serial(&payload, &digest, floor)?;
    if payload.expires <= now {
        return Err(Refusal::Expired(payload.expires));
    }
    if !payload.trust.is_empty() {
        trust.changed(&payload.trust).map_err(Refusal::BadTrustChange)?;
    }
    let policies = payload.parse_policies().map_err(Refusal::BadPolicy)?;
    Ok(VerifiedBundle { payload, digest, policies, keys })
}

/// Reads a bundle that this node accepted earlier and stored, and compares it with the recorded digest.
///
/// Signatures, target, serial and expiry are not checked: an accepted bundle stays in force after its keys
/// were replaced and after it expired. `keys` is empty.
///
/// # Errors
/// Fails if the bytes have another digest, or if this version can no longer read them.
pub fn reopen(bytes: &[u8], digest: &str) -> Result<VerifiedBundle, Refusal> {
    let signed = SignedBundle::open(bytes, None)?;
    let found = signed.digest();
    if found != digest {
        return Err(Refusal::NotABundle(format!("its payload has the digest {found}, noted was {digest}")));
    }
    let payload = Payload::parse(signed.payload())?;
    drop(signed);
    let policies = payload.parse_policies().map_err(Refusal::BadPolicy)?;
    Ok(VerifiedBundle { payload, digest: found, policies, keys: Vec::new() })
}

fn check_target(payload: &Payload, node: &NodeIdentity) -> Result<(), Refusal> {
    let target = &payload.target;
    if target.org != node.org {
        return Err(Refusal::WrongTarget(format!(
            "it is for org {}, this node is in {}",
            target.org, node.org
        )));
    }
    if !target.nodes.is_empty() && !target.nodes.contains(&node.id) {
        let nodes = shortened(&target.nodes.join(", "));
        return Err(Refusal::WrongTarget(format!("it is for {nodes}, this node is {}", node.id)));
    }
    let mut properties = node.properties.clone();
    properties.insert("openhorizon.arch".to_owned(), node.arch.clone().into());
    let constraints = payload.constraints().map_err(PayloadError::from)?;
    for (constraint, text) in constraints.iter().zip(&target.constraints) {
        if !constraint.holds(&properties) {
            return Err(Refusal::WrongTarget(format!("this node does not fulfil {text:?}")));
        }
    }
    Ok(())
}

fn check_serial(payload: &Payload, digest: &str, floor: &SerialFloor) -> Result<(), Refusal> {
    let Some(accepted) = floor.get(&payload.name) else { return Ok(()) };
    let (name, got, have) = (payload.name.clone(), payload.serial, accepted.serial);
    if got < have {
        Err(Refusal::SerialTooLow { name, have, got })
    } else if got > have {
        Ok(())
    } else if digest == accepted.digest {
        Err(Refusal::AlreadyAccepted { name, serial: got })
    } else {
        Err(Refusal::SerialReused { name, serial: got })
    }
}

/// Shortens text written by others for a message, and removes its control characters.
fn shortened(text: &str) -> String {
    let mut short: String = text.chars().filter(|c| !c.is_control()).take(300).collect();
    if short.len() < text.len() {
        short.push_str("...");
    }
    short
}

#[cfg(test)]
mod tests;
