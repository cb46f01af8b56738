//! A bare HTTP client of the MMS API. It shares no code with the product's clients, so that what it sees is the hubs' doing.

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

/// Longer than any answer of a healthy hub takes, shorter than a hanging one would.
const TIMEOUT: Duration = Duration::from_secs(10);

/// One caller at one end.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    base: String,
    user: String,
    password: String,
}

/// What came back.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Body.
    pub body: Vec<u8>,
}

impl Answer {
    /// The body as JSON, or null.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    /// The body as text without the newline at its end.
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

/// A client configuration that takes the certificates in `pem` for authorities, which is what rustls does by default.
///
/// # Errors
/// When `pem` holds no certificate.
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
    /// A caller at the hub's ESS; paths are relative to `objects/`.
    ///
    /// # Errors
    /// When the hub's certificate does not read.
    pub fn ess(hub: &impl Hub, user: &str, password: &str) -> Result<Self, String> {
        let pem = hub.certificate_pem().map_err(|error| error.to_string())?;
        Self::ess_with(hub, pinned_tls(&pem)?, user, password)
    }

    /// As [`Client::ess`], but with rustls' own idea of a good certificate.
    ///
    /// # Errors
    /// When the hub's certificate does not read.
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

    /// A caller at the hub's CSS; paths are relative to `objects/{org}/`.
    ///
    /// # Errors
    /// When the client cannot be made.
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

    /// The same end, called by somebody else.
    pub fn as_caller(&self, user: &str, password: &str) -> Self {
        Self { user: user.to_owned(), password: password.to_owned(), ..self.clone() }
    }

    /// The same client and caller at another base URL.
    pub fn at(&self, base: &str) -> Self {
        Self { base: base.to_owned(), ..self.clone() }
    }

    /// One request. Errors are those of transport, timeouts among them.
    ///
    /// # Errors
    /// When no answer came.
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

    /// GET.
    ///
    /// # Errors
    /// When no answer came.
    pub async fn get(&self, path: &str) -> Result<Answer, reqwest::Error> {
        self.call(Method::GET, path, &[], "").await
    }

    /// PUT; answers the status.
    ///
    /// # Errors
    /// When no answer came.
    pub async fn put(&self, path: &str, body: impl Into<reqwest::Body>) -> Result<u16, reqwest::Error> {
        Ok(self.call(Method::PUT, path, &[], body).await?.status)
    }

    /// DELETE; answers the status.
    ///
    /// # Errors
    /// When no answer came.
    pub async fn delete(&self, path: &str) -> Result<u16, reqwest::Error> {
        Ok(self.call(Method::DELETE, path, &[], "").await?.status)
    }

    /// The ids in a list; an empty one is a 404.
    ///
    /// # Errors
    /// When no answer came.
    pub async fn ids(&self, path: &str) -> Result<Vec<String>, reqwest::Error> {
        let answer = self.get(path).await?;
        let ids = answer.json();
        let ids = ids.as_array().into_iter().flatten().filter_map(|object| object["objectID"].as_str());
        debug_assert!(answer.status == StatusCode::OK || answer.status == StatusCode::NOT_FOUND);
        Ok(ids.map(str::to_owned).collect())
    }
}
