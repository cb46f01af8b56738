//! From an object's bytes to a bundle that may be enforced, or to the one reason why not.
//!
//! Order: size, form, signatures, payload, target, serial, expiry, keys, policies. Nothing that is not signed by a pinned key is
//! parsed further than the envelope; nothing is partly accepted.

use std::collections::{BTreeMap, BTreeSet};

use armor_policy::text::foreign_encoding;
use armor_policy::{Diagnostics, Policy};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::constraint::Properties;
use super::dsse::{Envelope, EnvelopeSignature, MAX_SIGNATURES, Message, PAYLOAD_TYPE};
use super::payload::{Payload, PayloadError};
use super::plain::{PlainProblem, PlainSignature};
use super::{MAX_BUNDLE, MAX_PAYLOAD};
use crate::keys::{KeyId, PublicKey};
use crate::mms::MetaData;
use crate::trust::{BadChange, TrustStore};

/// Who the node is, to decide whether a bundle is for it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct NodeIdentity {
    /// Its org.
    pub org: String,
    /// Its id without org.
    pub id: String,
    /// Its architecture, as Open Horizon calls it.
    pub arch: String,
    /// Its properties; `openhorizon.arch` is added from `arch`.
    pub properties: Properties,
}

/// The last accepted bundle of a name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accepted {
    /// Its serial.
    pub serial: u64,
    /// Its [`VerifiedBundle::digest`].
    pub digest: String,
}

/// The last accepted bundle by name; a node keeps it for ever.
pub type SerialFloor = BTreeMap<String, Accepted>;

/// A bundle that passed every check.
#[derive(Debug, Clone)]
pub struct VerifiedBundle {
    /// What it says.
    pub payload: Payload,
    /// Hex of the SHA-256 of the payload's bytes, whatever form they came in.
    pub digest: String,
    /// The parsed policies of all its files, in their order.
    pub policies: Vec<Policy>,
    /// The pinned keys that signed it.
    pub keys: Vec<KeyId>,
}

/// Why a bundle is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// More bytes than any bundle has.
    #[error("the bundle has {size} bytes, {max} are allowed")]
    TooLarge {
        /// Its size in bytes.
        size: usize,
        /// The limit in bytes.
        max: usize,
    },
    /// JSON that ends too early.
    #[error("the bundle ends too early, after {size} bytes: publish it again")]
    Truncated {
        /// Its size in bytes.
        size: usize,
    },
    /// Not JSON.
    #[error("the bundle is not JSON: {0}")]
    NotJson(String),
    /// JSON of something else, or an envelope of something else.
    #[error("not a bundle: {0}")]
    NotABundle(String),
    /// No signature at all.
    #[error(
        "the bundle is not signed: sign it with `hzn-armor bundle sign`, or publish it with `hzn mms object publish -k`"
    )]
    Unsigned,
    /// A signature of a sort that is not verified.
    #[error("the signature is of an unsupported sort: {0}")]
    UnsupportedSignature(String),
    /// The node has no keys to verify with.
    #[error(
        "no bundle key is pinned on this node: put the signer's public key into trust.d, as a file that ends in .pem"
    )]
    NoPinnedKeys,
    /// No signature is of a pinned key.
    #[error("signed by {signers}, none of which is pinned on this node")]
    UnknownSigner {
        /// The ids that the bundle names.
        signers: String,
    },
    /// A signature names a pinned key and is not that key's signature over these bytes.
    #[error("the signature of {0} does not fit: the bundle was altered after it was signed")]
    BadSignature(KeyId),
    /// Fewer pinned keys signed than the node demands.
    #[error("signed by {have} of the {need} different pinned keys that this node demands")]
    TooFewSignatures {
        /// Pinned keys that signed.
        have: usize,
        /// Pinned keys that must sign.
        need: u32,
    },
    /// Well signed, but not a payload that can be meant.
    #[error("the payload cannot be used: {0}")]
    BadPayload(PayloadError),
    /// Well signed, but it asks for something that this agent does not do.
    #[error("the payload cannot be used: {0}")]
    UnsupportedRequirement(String),
    /// For other nodes.
    #[error("the bundle is not for this node: {0}")]
    WrongTarget(String),
    /// Older than what the node has accepted.
    #[error("serial {got} of {name} is below {have}, which this node has accepted: publish a higher one")]
    SerialTooLow {
        /// The bundle's name.
        name: String,
        /// The serial that was accepted last.
        have: u64,
        /// The serial of the bundle.
        got: u64,
    },
    /// The serial of what the node has accepted, with another content.
    #[error(
        "serial {serial} of {name} was accepted with another content: publish this one with a higher serial"
    )]
    SerialReused {
        /// The bundle's name.
        name: String,
        /// The serial.
        serial: u64,
    },
    /// Exactly what the node has accepted last; nothing to do and nothing to report.
    #[error("serial {serial} of {name} is already accepted")]
    AlreadyAccepted {
        /// The bundle's name.
        name: String,
        /// The serial.
        serial: u64,
    },
    /// A serial that no later bundle of the name could pass.
    #[error("{0}")]
    SerialTooHigh(PayloadError),
    /// Too old to be accepted.
    #[error("the bundle expired at {0}: sign a newer one, or set this node's clock")]
    Expired(Timestamp),
    /// Its changes of keys cannot be made.
    #[error("its trust changes cannot be made: {0}")]
    BadTrustChange(BadChange),
    /// At least one of its policies is in error.
    #[error("a policy is in error:\n{0}")]
    BadPolicy(Diagnostics),
}

impl Refusal {
    /// A word for the reason that stays the same across versions.
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

/// A bundle taken apart, nothing of it believed yet.
#[derive(Debug, Clone)]
pub struct SignedBundle<'b> {
    content: Content<'b>,
    /// How it is signed.
    pub signatures: Signatures,
}

/// The payload and what is signed with it. The only copy: bundles may be large, and nodes small.
#[derive(Debug, Clone)]
enum Content<'b> {
    Envelope(Message),
    Plain(&'b [u8]),
}

/// How a bundle is signed.
#[derive(Debug, Clone)]
pub enum Signatures {
    /// By an envelope.
    Envelope(Vec<EnvelopeSignature>),
    /// By the object's metadata; why not, where that holds no usable signature.
    Plain(Result<PlainSignature, PlainProblem>),
}

#[derive(Deserialize)]
struct Probe {
    #[serde(rename = "payloadType")]
    payload_type: Option<serde::de::IgnoredAny>,
    format: Option<serde::de::IgnoredAny>,
}

impl<'b> SignedBundle<'b> {
    /// Takes an object apart. `meta` is where the signature of a bare payload is.
    pub fn open(bytes: &'b [u8], meta: Option<&MetaData>) -> Result<Self, Refusal> {
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
                let signature = meta.map_or(Err(PlainProblem::Missing), PlainSignature::of);
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
        // Each of these is tried with every pinned key, over all of the payload.
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

    /// The payload's bytes.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        match &self.content {
            Content::Envelope(message) => message.payload(),
            Content::Plain(bytes) => bytes,
        }
    }

    /// What the signatures are over.
    fn signed(&self) -> &[u8] {
        match &self.content {
            Content::Envelope(message) => message.bytes(),
            Content::Plain(bytes) => bytes,
        }
    }

    /// Hex of the SHA-256 of the payload's bytes.
    #[must_use]
    pub fn digest(&self) -> String {
        hex::encode(Sha256::digest(self.payload()))
    }

    /// The pinned keys that signed, if they are enough.
    ///
    /// A signature that names a pinned key must be its; one of a key that is not pinned is passed over, so that a bundle may be
    /// signed for nodes with old and with new keys.
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

/// Decides whether `node` may enforce a bundle. `meta` is the object's metadata, which nothing is believed from but the signature
/// of a bare payload; `floor` is what the node accepted before.
///
/// # Errors
/// The [`Refusal`]; nothing has changed then.
pub fn verify(
    bytes: &[u8],
    meta: Option<&MetaData>,
    trust: &TrustStore,
    node: &NodeIdentity,
    floor: &SerialFloor,
    now: Timestamp,
) -> Result<VerifiedBundle, Refusal> {
    let signed = SignedBundle::open(bytes, meta)?;
    let keys = signed.signers(trust)?;
    let payload = Payload::parse(signed.payload())?;
    check_target(&payload, node)?;
    let digest = signed.digest();
    // Its policies take memory enough.
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

/// Reads a bundle that this node accepted earlier and kept, by the digest that it noted then.
///
/// Neither signatures, target, serial nor expiry are looked at: what was accepted stays in force after its keys were replaced and
/// after it expired. `keys` is empty.
///
/// # Errors
/// A [`Refusal`] where the bytes are not those, or no longer mean anything to this version.
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

/// Text of others in a message of ours: short and without control characters.
fn shortened(text: &str) -> String {
    let mut short: String = text.chars().filter(|c| !c.is_control()).take(300).collect();
    if short.len() < text.len() {
        short.push_str("...");
    }
    short
}

#[cfg(test)]
mod tests;
