//! This module checks signed data as CSS and ESS do (contract §3.3): integrity only, as the key comes with
//! the object.

use crate::meta::MetaData;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rsa::pkcs8::DecodePublicKey as _;
use rsa::signature::Verifier as _;

/// Returns whether `data` carries the RSA-PSS signature that `meta` gives, with any salt length. Unsigned
/// metadata has nothing to check and passes. This hub knows only SHA256: with SHA1, which only old tools use,
/// the check fails.
pub fn verifies(meta: &MetaData, data: &[u8]) -> bool {
    if !meta.is_signed() {
        return true;
    }
    let key =
        STANDARD.decode(&meta.public_key).ok().and_then(|der| rsa::PublicKey::from_public_key_der(&der).ok());
    let signature = STANDARD
        .decode(&meta.signature)
        .ok()
        .and_then(|bytes| rsa::pss::Signature::try_from(bytes.as_slice()).ok());
    match (key, signature) {
        (Some(key), Some(signature)) if meta.hash_algorithm == "SHA256" => {
            rsa::pss::VerifyingKey::<sha2::Sha256>::new_with_auto_salt_len(key)
                .verify(data, &signature)
                .is_ok()
        }
        _ => false,
    }
}
