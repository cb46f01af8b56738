//! This module decides which server certificates are trusted in TLS towards the ESS and the CSS.
//!
//! The agent's ESS presents a self-signed certificate marked `CA:TRUE` that is never renewed while its files
//! exist, so it expires in place and no path validation accepts it. The file that the agent mounts *is* the
//! certificate: a server is trusted if it presents exactly those bytes and has their key. Name, dates and
//! extensions add nothing to that and are ignored. The same rule serves a hub with a self-signed certificate;
//! every other hub is validated by the platform.

use std::sync::Arc;

use armor_policy::document::text::foreign_encoding;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, SignatureScheme};

/// A `TlsError` says why a TLS configuration cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The text contains no certificate, or is not PEM.
    #[error("no PEM certificate in it: {0}")]
    NoCertificate(String),
    /// The platform's roots or the provider cannot be used.
    #[error("TLS cannot be set up: {0}")]
    Setup(#[from] Error),
}

/// Returns a client configuration that trusts only the first certificate of `pem`.
pub fn pinned(pem: &[u8]) -> Result<ClientConfig, TlsError> {
    let certificate =
        CertificateDer::from_pem_slice(pem).map_err(|e| TlsError::NoCertificate(e.to_string()))?;
    configuration(PinnedVerifier { pins: vec![certificate], otherwise: None, provider: provider() })
}

/// Returns a client configuration for a hub: it trusts the platform's roots, and with `extra_pem` also the
/// certificates in there, each as an authority and as the server's own certificate (a hub with a self-signed
/// certificate presents just that).
pub fn hub(extra_pem: Option<&[u8]>) -> Result<ClientConfig, TlsError> {
    configuration(hub_verifier(extra_pem)?)
}

fn hub_verifier(extra_pem: Option<&[u8]>) -> Result<PinnedVerifier, TlsError> {
    let pins = match extra_pem {
        None => Vec::new(),
        Some(pem) => CertificateDer::pem_slice_iter(pem)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|e| TlsError::NoCertificate(e.to_string()))?,
    };
    if extra_pem.is_some() && pins.is_empty() {
        let why = extra_pem.and_then(foreign_encoding);
        return Err(TlsError::NoCertificate(why.unwrap_or("the file is empty or not PEM".to_owned())));
    }
    let platform =
        rustls_platform_verifier::Verifier::new_with_extra_roots(pins.iter().cloned(), provider())?;
    Ok(PinnedVerifier { pins, otherwise: Some(Arc::new(platform)), provider: provider() })
}

/// Returns a client configuration that trusts no server: for a client that never uses TLS, even if the
/// platform has no roots.
pub fn nobody() -> Result<ClientConfig, TlsError> {
    configuration(PinnedVerifier { pins: Vec::new(), otherwise: None, provider: provider() })
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn configuration(verifier: PinnedVerifier) -> Result<ClientConfig, TlsError> {
    Ok(ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth())
}

/// A `PinnedVerifier` accepts a pinned leaf by its bytes, and any other leaf only if `otherwise` accepts it.
/// It always checks the handshake's signature.
#[derive(Debug)]
struct PinnedVerifier {
    pins: Vec<CertificateDer<'static>>,
    otherwise: Option<Arc<dyn ServerCertVerifier>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for PinnedVerifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if self.pins.iter().any(|pin| pin == leaf) {
            return Ok(ServerCertVerified::assertion());
        }
        match &self.otherwise {
            Some(verifier) => verifier.verify_server_cert(leaf, intermediates, name, ocsp, now),
            None => Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure)),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HUB: &[u8] = include_bytes!("../tests/certificates/hub.pem");
    const OTHER: &[u8] = include_bytes!("../tests/certificates/other-hub.pem");

    fn believes(verifier: &PinnedVerifier, pem: &[u8], name: &str) -> bool {
        let leaf = CertificateDer::from_pem_slice(pem).unwrap();
        let name = ServerName::try_from(name).unwrap();
        // This is long after the certificates have expired.
        let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(10_000_000_000));
        verifier.verify_server_cert(&leaf, &[], &name, &[], now).is_ok()
    }

    #[test]
    fn a_self_signed_authority_is_believed_by_its_bytes_alone() {
        let verifier = hub_verifier(Some(HUB)).unwrap();
        assert!(believes(&verifier, HUB, "hub.example"));
        assert!(!believes(&verifier, OTHER, "hub.example"));
        let nobody = PinnedVerifier { pins: Vec::new(), otherwise: None, provider: provider() };
        assert!(!believes(&nobody, HUB, "hub.example"));
    }

    #[test]
    fn a_file_without_a_certificate_is_refused() {
        assert!(matches!(pinned(b"not a certificate"), Err(TlsError::NoCertificate(_))));
        assert!(matches!(hub(Some(b"")), Err(TlsError::NoCertificate(_))));
    }
}
