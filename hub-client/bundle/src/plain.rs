//! This module reads the signature of a bare payload, which `hzn mms object publish -k` puts into the
//! object's metadata.
//!
//! hzn signs the data's bytes with RSA-PSS and puts the public key beside the signature. That key arrives
//! with the object and proves nothing until it equals a pinned key.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::keys::{KeyError, KeyType, PrivateKey};

/// A `PlainFields` contains the three fields of an object's metadata that sign its data; each is empty if the
/// data is not signed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PlainFields {
    /// `SHA256`, or another hash that `hzn` can use.
    pub hash_algorithm: String,
    /// The public key in base64.
    pub public_key: String,
    /// The signature in base64.
    pub signature: String,
}

/// A `PlainSignature` contains the public key and the signature of [`PlainFields`], decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlainSignature {
    /// The public key as SubjectPublicKeyInfo DER.
    pub public_key: Vec<u8>,
    /// The signature: RSA-PSS with SHA-256 over the data.
    pub signature: Vec<u8>,
}

/// A `PlainProblem` says why metadata contains no signature that can be verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PlainProblem {
    /// One of the three fields is empty.
    Missing,
    /// The hash is not SHA-256, or a field is not base64.
    Unsupported(String),
}

impl PlainSignature {
    /// Reads the signature from an object's metadata.
    pub fn of(fields: &PlainFields) -> Result<Self, PlainProblem> {
        let PlainFields { hash_algorithm, public_key, signature } = fields;
        if hash_algorithm.is_empty() || public_key.is_empty() || signature.is_empty() {
            return Err(PlainProblem::Missing);
        }
        if hash_algorithm != "SHA256" {
            return Err(PlainProblem::Unsupported(format!(
                "the hash {hash_algorithm:?} is too weak or unknown: publish with `hzn mms object publish -a SHA256`"
            )));
        }
        let decode = |what: &str, text: &str| {
            STANDARD
                .decode(text)
                .map_err(|_| PlainProblem::Unsupported(format!("{what} in the metadata is not base64")))
        };
        Ok(Self { public_key: decode("publicKey", public_key)?, signature: decode("signature", signature)? })
    }

    /// Signs `data`; returns `None` for a key that is not RSA, because such a key crashes the hub's verifier.
    pub fn make(data: &[u8], key: &PrivateKey) -> Option<Result<Self, KeyError>> {
        if key.public().key_type() != KeyType::Rsa {
            return None;
        }
        Some(key.sign(data).map(|signature| Self { public_key: key.public().spki_der().to_vec(), signature }))
    }

    /// Returns the metadata's three fields.
    #[must_use]
    pub fn fields(&self) -> PlainFields {
        PlainFields {
            hash_algorithm: "SHA256".to_owned(),
            public_key: STANDARD.encode(&self.public_key),
            signature: STANDARD.encode(&self.signature),
        }
    }
}
