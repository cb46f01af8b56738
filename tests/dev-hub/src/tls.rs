//! This module makes the ESS's certificate: self-signed and CA:TRUE, as anax makes it (contract §1.2).
//! rustls' default verifier refuses it.

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
};
use rustls::pki_types::PrivatePkcs8KeyDer;
use std::sync::Arc;

/// An `Identity` is a server's TLS configuration and its certificate, which clients pin.
pub struct Identity {
    /// Configuration for the acceptor.
    pub config: Arc<rustls::ServerConfig>,
    /// The certificate in PEM.
    pub certificate_pem: String,
}

/// Makes a fresh key and certificate.
///
/// # Errors
/// Fails if the crypto provider cannot make or use the key.
pub fn identity() -> Result<Identity, Box<dyn std::error::Error + Send + Sync>> {
    let mut params = CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()])?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "localhost");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let key = KeyPair::generate()?;
    let certificate = params.self_signed(&key)?;
    let config =
        rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.der().clone()],
                PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
            )?;
    Ok(Identity { config: Arc::new(config), certificate_pem: certificate.pem() })
}
