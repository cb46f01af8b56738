//! This module is a bare HTTP client of the MMS API. It shares no code with the product's clients, so that
//! tests see the hub's behaviour and not the clients'.

use armor_dev_hub::Hub;
use reqwest::{Method, StatusCode};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::{DigitallySignedStruct, SignatureScheme};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;

/// Time limit of a request: longer than any answer of a healthy hub takes, shorter than a hanging one would.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A `Client` is one user at the ESS or the CSS.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    base: String,
    user: String,
    password: String,
}

/// An `Answer` is an HTTP response.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The body.
    pub body: Vec<u8>,
}

impl Answer {
    /// Returns the body as JSON, or null.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    /// Returns the body as text without the newline at its end.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).trim_end().to_owned()
    }
}

#[derive(Debug)]
struct Pin(CertificateDer<'static>, Arc<CryptoProvider>);

impl ServerCertVerifier for Pin {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if *end_entity == self.0 {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(rustls::Error::General("another certificate than the pinned one".to_owned()))
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.1.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.1.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.1.signature_verification_algorithms.supported_schemes()
    }
}

/// Returns a client configuration that accepts the certificates in `pem` as authorities, as rustls does by
/// default.
///
/// # Errors
/// Fails if `pem` contains no certificate.
pub(crate) fn default_tls(pem: &str) -> Result<rustls::ClientConfig, String> {
    let mut roots = rustls::RootCertStore::empty();
    let certificate = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|error| error.to_string())?;
    roots.add(certificate).map_err(|error| error.to_string())?;
    tls_with(roots)
}

fn tls_with(roots: rustls::RootCertStore) -> Result<rustls::ClientConfig, String> {
    let builder = rustls::ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

fn pinned_tls(pem: &str) -> Result<rustls::ClientConfig, String> {
    let certificate = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|error| error.to_string())?;
    let provider = Arc::new(ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    Ok(builder
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Pin(certificate, provider)))
        .with_no_client_auth())
}

impl Client {
    /// Makes a client of the hub's ESS; paths are relative to `objects/`.
    ///
    /// # Errors
    /// Fails if the hub's certificate cannot be parsed.
    pub fn ess(hub: &impl Hub, user: &str, password: &str) -> Result<Self, String> {
        let pem = hub.certificate_pem().map_err(|error| error.to_string())?;
        Self::ess_with(hub, pinned_tls(&pem)?, user, password)
    }

    /// Does the same as [`Client::ess`], but with rustls' own certificate validation.
    ///
    /// # Errors
    /// Fails if the hub's certificate cannot be parsed.
    pub fn ess_unpinned(hub: &impl Hub, user: &str, password: &str) -> Result<Self, String> {
        let pem = hub.certificate_pem().map_err(|error| error.to_string())?;
        Self::ess_with(hub, default_tls(&pem)?, user, password)
    }

    fn ess_with(
        hub: &impl Hub,
        tls: rustls::ClientConfig,
        user: &str,
        password: &str,
    ) -> Result<Self, String> {
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .unix_socket(hub.ess_socket())
            .http1_only()
            .pool_max_idle_per_host(0)
            .timeout(TIMEOUT)
            .build()
            .map_err(|error| error.to_string())?;
        Ok(Self::new(http, "https://localhost/api/v1/objects".to_owned(), user, password))
    }

    /// Makes a client of the hub's CSS; paths are relative to `objects/{org}/`.
    ///
    /// # Errors
    /// Fails if the client cannot be made.
    pub fn css(hub: &impl Hub, user: &str, password: &str) -> Result<Self, String> {
        let pem = hub.certificate_pem().map_err(|error| error.to_string())?;
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(pinned_tls(&pem)?)
            .pool_max_idle_per_host(0)
            .timeout(TIMEOUT)
            .build()
            .map_err(|error| error.to_string())?;
        Ok(Self::new(http, format!("{}/api/v1/objects/{}", hub.css_url(), hub.org()), user, password))
    }

    /// A caller without a name at a hub that speaks plain HTTP; paths are relative to `url`.
    ///
    /// # Errors
    /// When the client cannot be made.
    pub(crate) fn plain(url: &str) -> Result<Self, String> {
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(tls_with(rustls::RootCertStore::empty())?)
            .pool_max_idle_per_host(0)
            .timeout(TIMEOUT)
            .build()
            .map_err(|error| error.to_string())?;
        Ok(Self::new(http, url.to_owned(), "", ""))
    }

    fn new(http: reqwest::Client, base: String, user: &str, password: &str) -> Self {
        Self { http, base, user: user.to_owned(), password: password.to_owned() }
    }

    /// Returns a client of the same server with another user.
    pub fn as_caller(&self, user: &str, password: &str) -> Self {
        Self { user: user.to_owned(), password: password.to_owned(), ..self.clone() }
    }

    /// Returns the same client with another base URL.
    pub fn at(&self, base: &str) -> Self {
        Self { base: base.to_owned(), ..self.clone() }
    }

    /// Sends one request.
    ///
    /// # Errors
    /// Fails if no answer came, also because of a timeout.
    pub async fn call(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<reqwest::Body>,
    ) -> Result<Answer, reqwest::Error> {
        let slash = if path.starts_with('?') { "" } else { "/" };
        let url = format!("{}{slash}{path}", self.base);
        let mut request = self.http.request(method, url).basic_auth(&self.user, Some(&self.password));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = request.body(body).send().await?;
        let status = response.status().as_u16();
        Ok(Answer { status, body: response.bytes().await?.to_vec() })
    }

    /// Sends a GET request.
    ///
    /// # Errors
    /// Fails if no answer came.
    pub async fn get(&self, path: &str) -> Result<Answer, reqwest::Error> {
        self.call(Method::GET, path, &[], "").await
    }

    /// Sends a PUT request and returns the status.
    ///
    /// # Errors
    /// Fails if no answer came.
    pub async fn put(&self, path: &str, body: impl Into<reqwest::Body>) -> Result<u16, reqwest::Error> {
        Ok(self.call(Method::PUT, path, &[], body).await?.status)
    }

    /// Sends a DELETE request and returns the status.
    ///
    /// # Errors
    /// Fails if no answer came.
    pub async fn delete(&self, path: &str) -> Result<u16, reqwest::Error> {
        Ok(self.call(Method::DELETE, path, &[], "").await?.status)
    }

    /// Returns the ids in a list; the servers answer 404 for an empty list.
    ///
    /// # Errors
    /// Fails if no answer came.
    pub async fn ids(&self, path: &str) -> Result<Vec<String>, reqwest::Error> {
        let answer = self.get(path).await?;
        let ids = answer.json();
        let ids = ids.as_array().into_iter().flatten().filter_map(|object| object["objectID"].as_str());
        debug_assert!(answer.status == StatusCode::OK || answer.status == StatusCode::NOT_FOUND);
        Ok(ids.map(str::to_owned).collect())
    }
}
