//! This module is the client of the node's Edge Sync Service, as a service on the node sees it.
//!
//! Invariants:
//! - Every request ends within the configured time.
//! - If the ESS refuses the credentials or the connection fails, the client reads credentials and certificate
//!   again, once: the agent replaces both while a service runs.
//! - An object that the ESS does not show to this service is distinguished from refused credentials, though
//!   both answer 403 on a policy node.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use armor_base::file;
use armor_base::name::check_name;
use armor_policy::escaped_path;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::{Client, Method, Response, StatusCode};
use serde::Deserialize;

use crate::error::{Credentials, MmsError};
use crate::http::{self, Peer};
use crate::object::{MetaData, ObjectStatus};
use crate::tls;

/// Maximum size of a node's object in bytes: some nodes never send an object of more than one 5 MiB chunk.
pub const MAX_PUT: u64 = 5 << 20;
/// Default time limit of one request.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(15);
/// Maximum size of a credentials or certificate file in bytes.
const MAX_FILE: usize = 64 << 10;
const API: &str = "api/v1/objects";

/// An `EssAddress` says where the ESS listens; both variants use TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EssAddress {
    /// A unix socket: the agent's default, `secure-unix`.
    Unix(PathBuf),
    /// Host and port: an agent configured for `https`.
    Tcp(String, u16),
}

/// An `EssConfig` says how to reach the ESS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EssConfig {
    /// Address at which the ESS listens.
    pub address: EssAddress,
    /// File with the credentials: JSON with `id` and `token`.
    pub auth_file: PathBuf,
    /// File with the certificate that the ESS presents, in PEM.
    pub cert_file: PathBuf,
    /// Time limit of one request.
    pub timeout: Duration,
}

impl EssConfig {
    /// Reads the `HZN_ESS_*` variables that the agent sets.
    pub fn from_env() -> Result<Self, MmsError> {
        Self::from_vars(|name| std::env::var(name).ok())
    }

    /// Does the same as [`Self::from_env`] with the variables that `var` returns.
    pub fn from_vars(var: impl Fn(&str) -> Option<String>) -> Result<Self, MmsError> {
        let get = |name: &str| {
            var(name).filter(|value| !value.is_empty()).ok_or_else(|| {
                MmsError::Config(format!(
                    "{name} is not set: the Open Horizon agent sets it for the services it starts"
                ))
            })
        };
        let address = get("HZN_ESS_API_ADDRESS")?;
        let address = match get("HZN_ESS_API_PROTOCOL")?.as_str() {
            "secure-unix" => EssAddress::Unix(address.into()),
            "https" | "secure" => {
                let port = get("HZN_ESS_API_PORT")?;
                let port = port
                    .parse()
                    .map_err(|_| MmsError::Config(format!("HZN_ESS_API_PORT={port} is not a port number")))?;
                EssAddress::Tcp(address, port)
            }
            other => {
                return Err(MmsError::Config(format!(
                    "HZN_ESS_API_PROTOCOL={other} is not supported: secure-unix, secure or https is"
                )));
            }
        };
        Ok(Self {
            address,
            auth_file: get("HZN_ESS_AUTH")?.into(),
            cert_file: get("HZN_ESS_CERT")?.into(),
            timeout: DEFAULT_TIMEOUT,
        })
    }
}

/// An `EssClient` is a client of one ESS. It is cheap to share by reference and connects at the first
/// request.
pub struct EssClient {
    config: EssConfig,
    peer: Peer,
    base: String,
    session: Mutex<Option<Arc<Session>>>,
}

/// A `Session` keeps the two files as they were read, and the client made from them.
struct Session {
    auth: Vec<u8>,
    certificate: Vec<u8>,
    credential: Auth,
    client: Client,
}

#[derive(Deserialize)]
struct Auth {
    id: String,
    token: String,
}

impl std::fmt::Debug for EssClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EssClient").field("config", &self.config).finish_non_exhaustive()
    }
}

impl EssClient {
    /// Makes a client for `config`. The first request reads the files, so a node that is still starting is no
    /// error.
    pub fn new(config: EssConfig) -> Result<Self, MmsError> {
        let (name, base) = match &config.address {
            // The certificate's name; a socket needs no name resolution.
            EssAddress::Unix(path) => (format!("ESS {}", escaped_path(path)), "https://localhost".to_owned()),
            EssAddress::Tcp(host, port) => (format!("ESS {host}:{port}"), format!("https://{host}:{port}")),
        };
        reqwest::Url::parse(&base).map_err(|e| MmsError::Config(format!("{name}: {e}")))?;
        let peer = Peer { name, timeout: config.timeout };
        Ok(Self { config, peer, base, session: Mutex::new(None) })
    }

    /// Returns the objects of the type that nobody acknowledged yet, including deletions. With
    /// `also_received` it includes those marked as received.
    pub async fn list(&self, object_type: &str, also_received: bool) -> Result<Vec<MetaData>, MmsError> {
        check_name(object_type)?;
        let query = if also_received { "?received=true" } else { "" };
        let response = self.send(Method::GET, &format!("{object_type}{query}"), None).await?;
        if response.status() == StatusCode::FORBIDDEN {
            return Err(self.unauthorized());
        }
        self.peer.json_list(response).await
    }

    /// Returns the data of an object, at most `limit` bytes.
    pub async fn data(&self, object_type: &str, id: &str, limit: u64) -> Result<Vec<u8>, MmsError> {
        let response = self.object(Method::GET, object_type, id, "/data", None).await?;
        self.peer.content(response, limit).await
    }

    /// Returns the state of an object, `None` if the ESS shows this service no object of that id.
    pub async fn status(&self, object_type: &str, id: &str) -> Result<Option<ObjectStatus>, MmsError> {
        self.peer.state(self.object(Method::GET, object_type, id, "/status", None).await).await
    }

    /// Stores an object of this service for the hub, at most [`MAX_PUT`] bytes. The ESS may hang while the
    /// hub is unreachable: after an [`MmsError::Timeout`] the object may be stored, and repeating the PUT
    /// queues it again.
    pub async fn put(&self, object_type: &str, id: &str, data: &[u8]) -> Result<(), MmsError> {
        if data.len() as u64 > MAX_PUT {
            return Err(MmsError::TooLarge { limit: MAX_PUT });
        }
        let body = serde_json::json!({
            "meta": { "objectID": id, "objectType": object_type },
            "data": STANDARD.encode(data),
        });
        let response = self.object(Method::PUT, object_type, id, "", Some(body.to_string().into())).await?;
        self.peer.done(response).await
    }

    /// Acknowledges that the object was received; it stays and `also_received` lists it.
    pub async fn received(&self, object_type: &str, id: &str) -> Result<(), MmsError> {
        let response = self.object(Method::PUT, object_type, id, "/received", None).await?;
        self.peer.done(response).await
    }

    /// Acknowledges that the object was used; the ESS drops it. It is no error if the object is already gone.
    pub async fn consumed(&self, object_type: &str, id: &str) -> Result<(), MmsError> {
        self.gone(Method::PUT, object_type, id, "/consumed").await
    }

    /// Acknowledges a deletion that the list shows. It is no error if the object is already gone.
    pub async fn deleted(&self, object_type: &str, id: &str) -> Result<(), MmsError> {
        self.gone(Method::PUT, object_type, id, "/deleted").await
    }

    /// Deletes an object of this service. It is no error if the object is already gone.
    pub async fn delete(&self, object_type: &str, id: &str) -> Result<(), MmsError> {
        self.gone(Method::DELETE, object_type, id, "").await
    }

    /// Sends a request after which the ESS shows the object no more.
    async fn gone(&self, method: Method, object_type: &str, id: &str, rest: &str) -> Result<(), MmsError> {
        let answer = self.object(method, object_type, id, rest, None).await;
        self.peer.gone(answer, self.status(object_type, id)).await
    }

    /// Sends a request about one object. Status 404 means that the object is unknown, and so does 403 if the
    /// type may be listed.
    async fn object(
        &self,
        method: Method,
        object_type: &str,
        id: &str,
        rest: &str,
        body: Option<Vec<u8>>,
    ) -> Result<Response, MmsError> {
        check_name(object_type)?;
        check_name(id)?;
        let response = self.send(method, &format!("{object_type}/{id}{rest}"), body).await?;
        let unknown = || MmsError::UnknownObject { object_type: object_type.to_owned(), id: id.to_owned() };
        match response.status() {
            StatusCode::NOT_FOUND => Err(unknown()),
            StatusCode::FORBIDDEN => {
                let list = self.send(Method::GET, object_type, None).await?;
                Err(if list.status() == StatusCode::FORBIDDEN { self.unauthorized() } else { unknown() })
            }
            _ => Ok(response),
        }
    }

    /// Sends a request, and sends it once more if it was refused or the connection failed and the files have
    /// changed.
    async fn send(&self, method: Method, path: &str, body: Option<Vec<u8>>) -> Result<Response, MmsError> {
        let session = self.session()?;
        let first = self.exchange(&session, method.clone(), path, body.clone()).await;
        let stale = match &first {
            Ok(response) => response.status() == StatusCode::FORBIDDEN,
            Err(e) => matches!(e, MmsError::Unreachable { .. }),
        };
        if !stale {
            return first;
        }
        match self.renewed(&session)? {
            Some(session) => self.exchange(&session, method, path, body).await,
            None => first,
        }
    }

    async fn exchange(
        &self,
        session: &Session,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
    ) -> Result<Response, MmsError> {
        let mut request = session
            .client
            .request(method, format!("{}/{API}/{path}", self.base))
            .basic_auth(&session.credential.id, Some(&session.credential.token));
        if let Some(body) = body {
            request = request.body(body);
        }
        self.peer.send(request).await
    }

    fn session(&self) -> Result<Arc<Session>, MmsError> {
        let mut slot = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(session) = &*slot {
            return Ok(Arc::clone(session));
        }
        let session = Arc::new(self.read_session()?);
        *slot = Some(Arc::clone(&session));
        Ok(session)
    }

    /// Returns a session from the current files, `None` if they are those from which `old` was made.
    fn renewed(&self, old: &Session) -> Result<Option<Arc<Session>>, MmsError> {
        let new = self.read_session()?;
        if new.auth == old.auth && new.certificate == old.certificate {
            return Ok(None);
        }
        tracing::info!(server = %self.peer.name, "credentials or certificate changed, using the new ones");
        let new = Arc::new(new);
        *self.session.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&new));
        Ok(Some(new))
    }

    fn read_session(&self) -> Result<Session, MmsError> {
        let problem = |path: &Path, reason: String| MmsError::File { path: path.to_owned(), reason };
        let EssConfig { auth_file, cert_file, .. } = &self.config;
        let read = |path: &Path| file::read(path, MAX_FILE).map_err(|e| problem(path, e.to_string()));
        let (auth, certificate) = (read(auth_file)?, read(cert_file)?);
        let credential: Auth = serde_json::from_slice(&auth)
            // The parser's message could quote the token.
            .map_err(|e| problem(auth_file, format!("not JSON with id and token (line {})", e.line())))?;
        let tls = tls::pinned(&certificate).map_err(|e| problem(cert_file, e.to_string()))?;
        let mut builder = http::builder(tls).no_proxy();
        if let EssAddress::Unix(path) = &self.config.address {
            builder = builder.unix_socket(path.as_path());
        }
        let client = builder.build().map_err(|e| MmsError::Config(format!("{}: {e}", self.peer.name)))?;
        Ok(Session { auth, certificate, credential, client })
    }

    fn unauthorized(&self) -> MmsError {
        MmsError::Unauthorized {
            server: self.peer.name.clone(),
            credentials: Credentials::File(self.config.auth_file.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(protocol: &str, address: &str, port: &str) -> Result<EssConfig, MmsError> {
        EssConfig::from_vars(|name| {
            Some(
                match name {
                    "HZN_ESS_API_PROTOCOL" => protocol,
                    "HZN_ESS_API_ADDRESS" => address,
                    "HZN_ESS_API_PORT" => port,
                    "HZN_ESS_AUTH" => "/ess-auth/auth.json",
                    _ => "/ess-cert/cert.pem",
                }
                .to_owned(),
            )
        })
    }

    #[test]
    fn the_agents_variables_name_the_address() {
        let unix = config("secure-unix", "/var/run/horizon/essapi.sock", "0").unwrap();
        assert_eq!(unix.address, EssAddress::Unix("/var/run/horizon/essapi.sock".into()));
        assert_eq!(
            config("https", "localhost", "8443").unwrap().address,
            EssAddress::Tcp("localhost".to_owned(), 8443)
        );
        assert!(config("https", "localhost", "x").is_err());
        assert!(config("unix-secure", "/x", "0").is_err());
        assert!(config("secure-unix", "", "0").unwrap_err().to_string().contains("HZN_ESS_API_ADDRESS"));
    }

    #[tokio::test]
    async fn missing_files_and_unsafe_names_are_named() {
        let client = EssClient::new(config("secure-unix", "/nowhere/sock", "0").unwrap()).unwrap();
        let error = client.list("t", false).await.unwrap_err();
        assert!(matches!(&error, MmsError::File { path, .. } if path.ends_with("auth.json")), "{error}");
        assert!(error.is_transient());
        assert!(matches!(client.data("t", "../x", 1).await, Err(MmsError::BadName(_))));
        assert!(matches!(
            client.put("t", "x", &vec![0; MAX_PUT as usize + 1]).await,
            Err(MmsError::TooLarge { .. })
        ));
    }
}
