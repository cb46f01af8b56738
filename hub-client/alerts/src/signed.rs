//! This module signs and verifies small JSON documents: a DSSE envelope around one value, signed with one
//! key. Receipts and node status use it.

use armor_bundle::dsse::{Envelope, EnvelopeSignature, Message};
use armor_bundle::keys::{KeyError, PrivateKey, PublicKey};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A `SignedError` says why a signed document cannot be made or trusted.
#[derive(Debug, thiserror::Error)]
pub enum SignedError {
    /// The object is not a DSSE envelope of the expected type: something else was published.
    #[error("not a signed document of type {0}")]
    NotAnEnvelope(&'static str),
    /// No signature is by a trusted key: the document is forged, altered, or signed with another key.
    #[error("not signed by a key that is believed here")]
    Signature,
    /// The document is signed, but not the expected JSON; the signer's version may differ.
    #[error("signed content does not read: {0}")]
    Content(#[from] serde_json::Error),
    /// The key cannot sign.
    #[error(transparent)]
    Key(#[from] KeyError),
}

/// Signs `value` as an envelope of `payload_type`.
pub fn sign<T: Serialize>(
    payload_type: &'static str,
    value: &T,
    key: &PrivateKey,
) -> Result<Vec<u8>, SignedError> {
    let payload = serde_json::to_vec(value)?;
    let mut envelope = Envelope { payload_type: payload_type.to_owned(), ..Envelope::new(&payload) };
    envelope.sign(&payload, key)?;
    Ok(serde_json::to_vec(&envelope)?)
}

/// An `Unverified` is an envelope whose signatures have not been verified yet.
pub struct Unverified {
    message: Message,
    signatures: Vec<EnvelopeSignature>,
}

impl Unverified {
    /// Parses an envelope of `payload_type`.
    pub fn read(payload_type: &'static str, object: &[u8]) -> Result<Self, SignedError> {
        let other = || SignedError::NotAnEnvelope(payload_type);
        let envelope: Envelope<'_> = serde_json::from_slice(object).map_err(|_| other())?;
        if envelope.payload_type != payload_type {
            return Err(other());
        }
        let message = envelope.message().ok_or_else(other)?;
        Ok(Self { message, signatures: envelope.signatures })
    }

    /// Returns the content, which must not be trusted before [`Self::verify`].
    pub fn content<T: DeserializeOwned>(&self) -> Result<T, SignedError> {
        Ok(serde_json::from_slice(self.message.payload())?)
    }

    /// Returns the content if one of `keys` signed it.
    pub fn verify<'k, T: DeserializeOwned>(
        &self,
        keys: impl IntoIterator<Item = &'k PublicKey>,
    ) -> Result<T, SignedError> {
        let message = self.message.bytes();
        let signatures: Vec<_> = self.signatures.iter().filter_map(|sig| sig.bytes()).collect();
        let signed = |key: &PublicKey| signatures.iter().any(|signature| key.verifies(message, signature));
        if !keys.into_iter().any(signed) {
            return Err(SignedError::Signature);
        }
        self.content()
    }
}
