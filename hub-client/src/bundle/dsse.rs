//! DSSE envelopes (secure-systems-lab/dsse, protocol 1.0): a payload, its type and several signatures over both.
//!
//! Read strictly: standard base64 with padding, no field that the standard does not name, and a key id that is the id of the key that
//! signed, or empty in at most one signature.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::keys::{KeyError, PrivateKey};

/// The payload type that is signed with every bundle.
pub const PAYLOAD_TYPE: &str = "application/vnd.horizon-armor.bundle+json";
/// The most signatures of an envelope.
pub const MAX_SIGNATURES: usize = 16;

/// An envelope.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Envelope {
    /// What the payload is.
    #[serde(rename = "payloadType")]
    pub payload_type: String,
    /// The payload, base64.
    pub payload: String,
    /// The signatures.
    pub signatures: Vec<EnvelopeSignature>,
}

/// One signature of an envelope.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnvelopeSignature {
    /// The id of the key, or empty.
    #[serde(default)]
    pub keyid: String,
    /// The signature, base64.
    pub sig: String,
}

impl Envelope {
    /// An envelope around `payload` without signatures.
    #[must_use]
    pub fn new(payload: &[u8]) -> Self {
        Self {
            payload_type: PAYLOAD_TYPE.to_owned(),
            payload: STANDARD.encode(payload),
            signatures: Vec::new(),
        }
    }

    /// The payload's bytes; `None` where they are not base64.
    #[must_use]
    pub fn payload_bytes(&self) -> Option<Vec<u8>> {
        STANDARD.decode(&self.payload).ok()
    }

    /// Adds `key`'s signature over `payload`, in place of an older one of the same key.
    pub fn sign(&mut self, payload: &[u8], key: &PrivateKey) -> Result<(), KeyError> {
        let sig = STANDARD.encode(key.sign(&pae(&self.payload_type, payload))?);
        let keyid = key.public().id().to_string();
        self.signatures.retain(|signature| signature.keyid != keyid);
        self.signatures.push(EnvelopeSignature { keyid, sig });
        Ok(())
    }
}

impl EnvelopeSignature {
    /// The signature's bytes; `None` where they are not base64.
    #[must_use]
    pub fn bytes(&self) -> Option<Vec<u8>> {
        STANDARD.decode(&self.sig).ok()
    }
}

/// What is signed: DSSE's pre-authentication encoding of a type and a payload.
#[must_use]
pub fn pae(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let mut bytes = format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), payload.len()).into_bytes();
    bytes.extend_from_slice(payload);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pre_authentication_encoding_is_the_standards() {
        // The example of the DSSE protocol document.
        assert_eq!(
            pae("http://example.com/HelloWorld", b"hello world"),
            b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
        );
        assert_eq!(pae("", b""), b"DSSEv1 0  0 ");
    }
}
