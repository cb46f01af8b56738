//! This module reads and writes DSSE envelopes (secure-systems-lab/dsse, protocol 1.0): a payload, its type,
//! and several signatures over both.
//!
//! Reading is strict: base64 is standard with padding, fields that the standard does not name are refused,
//! and a key id must be that of the key that signed; it may be empty in at most one signature.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::keys::{KeyError, PrivateKey};

/// The payload type, which every bundle's signatures cover.
pub const PAYLOAD_TYPE: &str = "application/vnd.horizon-armor.bundle+json";
/// Maximum number of signatures of an envelope.
pub const MAX_SIGNATURES: usize = 16;

/// An `Envelope` is a DSSE envelope. Reading borrows the payload, which may be large.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Envelope<'t> {
    /// Type of the payload.
    #[serde(rename = "payloadType")]
    pub payload_type: String,
    /// The payload in base64.
    #[serde(borrow)]
    pub payload: Cow<'t, str>,
    /// The signatures over type and payload.
    pub signatures: Vec<EnvelopeSignature>,
}

/// An `EnvelopeSignature` is one signature of an envelope.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnvelopeSignature {
    /// The id of the signing key, or empty.
    #[serde(default)]
    pub keyid: String,
    /// The signature in base64.
    pub sig: String,
}

impl Envelope<'_> {
    /// Returns an envelope around `payload` without signatures.
    #[must_use]
    pub fn new(payload: &[u8]) -> Self {
        Self {
            payload_type: PAYLOAD_TYPE.to_owned(),
            payload: STANDARD.encode(payload).into(),
            signatures: Vec::new(),
        }
    }

    /// Returns the bytes that the signatures cover; `None` if the payload is not base64.
    #[must_use]
    pub fn message(&self) -> Option<Message> {
        let padding = self.payload.bytes().rev().take_while(|&byte| byte == b'=').count();
        let size = (self.payload.len() / 4 * 3).checked_sub(padding)?;
        let mut bytes = pae_head(&self.payload_type, size);
        let payload_from = bytes.len();
        STANDARD.decode_vec(self.payload.as_bytes(), &mut bytes).ok()?;
        (bytes.len() == payload_from + size).then_some(Message { bytes, payload_from })
    }

    /// Adds `key`'s signature over `payload`, and replaces an older one by the same key.
    pub fn sign(&mut self, payload: &[u8], key: &PrivateKey) -> Result<(), KeyError> {
        let sig = STANDARD.encode(key.sign(&pae(&self.payload_type, payload))?);
        let keyid = key.public().id().to_string();
        self.signatures.retain(|signature| signature.keyid != keyid);
        self.signatures.push(EnvelopeSignature { keyid, sig });
        Ok(())
    }
}

/// A `Message` contains the bytes that an envelope's signatures cover, with the payload among them.
#[derive(Debug, Clone)]
pub struct Message {
    bytes: Vec<u8>,
    payload_from: usize,
}

impl Message {
    /// Returns all bytes, encoded as by [`pae`].
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Returns the payload.
    #[must_use]
    pub fn payload(&self) -> &[u8] {
        &self.bytes[self.payload_from..]
    }
}

impl EnvelopeSignature {
    /// Returns the signature's bytes; `None` if they are not base64.
    #[must_use]
    pub fn bytes(&self) -> Option<Vec<u8>> {
        STANDARD.decode(&self.sig).ok()
    }
}

/// Returns the bytes to sign: DSSE's pre-authentication encoding of a type and a payload.
#[must_use]
pub fn pae(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let mut bytes = pae_head(payload_type, payload.len());
    bytes.extend_from_slice(payload);
    bytes
}

/// Returns the encoding's part before a payload of `size` bytes.
fn pae_head(payload_type: &str, size: usize) -> Vec<u8> {
    format!("DSSEv1 {} {payload_type} {size} ", payload_type.len()).into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pre_authentication_encoding_is_the_standards() {
        // This is the example of the DSSE protocol document.
        assert_eq!(
            pae("http://example.com/HelloWorld", b"hello world"),
            b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
        );
        assert_eq!(pae("", b""), b"DSSEv1 0  0 ");
    }

    #[test]
    fn what_is_verified_is_what_was_signed() {
        for payload in [&b""[..], b"1", b"12", b"123", b"1234"] {
            let message = Envelope::new(payload).message().unwrap();
            assert_eq!((message.bytes(), message.payload()), (&pae(PAYLOAD_TYPE, payload)[..], payload));
        }
        for bad in ["=", "====", "MQ", "MQ=", "MQ===", "M===", "MR==", "MQ==MQ==", "MTIz\n", "MTI-"] {
            let envelope = Envelope { payload: bad.into(), ..Envelope::new(b"") };
            assert!(envelope.message().is_none(), "{bad:?}");
        }
    }
}
