//! This module is the client of the hub's Cloud Sync Service with a user's credentials: for an operator, a
//! collector, and a machine that is not a Horizon node.
//!
//! Invariant: an empty answer is trusted only from a server that has proved to be a sync service.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use armor_base::file;
use armor_base::name::check_name;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::error::{Credentials, MmsError};
use crate::ess::MAX_PUT;
use crate::http::{self, Peer};
use crate::object::{Destination, DestinationPolicy, HUB_TYPE, MetaData, ObjectStatus};
use crate::tls;

/// Default time limit of one request; a bundle of several megabytes is one request.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(60);
/// Maximum size in bytes of the file with the hub's certificates; a file with all authorities of a system has
/// 250,000.
const MAX_CERTIFICATES: usize = 2 << 20;
/// URL path at which a sync service reports its health.
const HEALTH: &str = "/api/v1/health";
/// Maximum number of bytes read of that report.
const MAX_HEALTH: u64 = 64 << 10;
/// Pause between two queries whether the hub has verified a published object.
const STATUS_PAUSE: Duration = Duration::from_millis(200);

/// A `CssConfig` says how to reach the CSS.
#[derive(Clone)]
pub struct CssConfig {
    /// `HZN_FSS_CSSURL`: scheme, host, port and path before `/api`.
    pub url: String,
    /// `HZN_ORG_ID`.
    pub org: String,
    /// `HZN_EXCHANGE_USER_AUTH`: `user:password` or `org/user:password`.
    pub user: String,
    /// `HZN_MGMT_HUB_CERT_PATH`: PEM of the hub's certificate or authority, trusted besides the platform's.
    pub ca_file: Option<PathBuf>,
    /// Time limit of one request.
    pub timeout: Duration,
}

impl std::fmt::Debug for CssConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let user = self.user.split(':').next().unwrap_or_default();
        f.debug_struct("CssConfig")
            .field("url", &self.url)
            .field("org", &self.org)
            .field("user", &user)
            .finish_non_exhaustive()
    }
}

impl CssConfig {
    /// Reads the variables that `hzn` reads: `HZN_FSS_CSSURL`, `HZN_ORG_ID`, `HZN_EXCHANGE_USER_AUTH` and, if
    /// it is set, `HZN_MGMT_HUB_CERT_PATH`.
    pub fn from_vars(var: impl Fn(&str) -> Option<String>) -> Result<Self, MmsError> {
        let get = |name: &str| {
            var(name).filter(|value| !value.is_empty()).ok_or_else(|| {
                MmsError::Config(format!("{name} is not set: the hub's sync service needs it"))
            })
        };
        Ok(Self {
            url: get("HZN_FSS_CSSURL")?,
            org: get("HZN_ORG_ID")?,
            user: get("HZN_EXCHANGE_USER_AUTH")?,
            ca_file: get("HZN_MGMT_HUB_CERT_PATH").ok().map(PathBuf::from),
            timeout: DEFAULT_TIMEOUT,
        })
    }

    /// Returns the user as whom the hub handles the requests, `org/user`, and the password.
    pub fn login(&self) -> Result<(String, &str), MmsError> {
        let (user, password) = self.user.split_once(':').ok_or_else(|| {
            MmsError::Config(
                "HZN_EXCHANGE_USER_AUTH has no colon: user:password or org/user:password".to_owned(),
            )
        })?;
        let user = if user.contains('/') { user.to_owned() } else { format!("{}/{user}", self.org) };
        Ok((user, password))
    }
}

/// A `NewObject` is an object to publish. Without any destination it would go to every node of the org.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NewObject {
    /// The object's id, unique within org and type.
    #[serde(rename = "objectID")]
    pub object_id: String,
    /// The object's type.
    pub object_type: String,
    /// Free text, `[A-Za-z0-9._-]`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub version: String,
    /// Free text without angle brackets.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Destination: the nodes that the agbot finds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination_policy: Option<DestinationPolicy>,
    /// Destination: one node, by type and id.
    #[serde(skip)]
    pub destination: Option<(String, String)>,
    /// The PKIX RSA key in base64; a key that is not RSA crashes the hub's verifier.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub public_key: Option<String>,
    /// The RSA-PSS signature over the data, in base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signature: Option<String>,
    /// Hash algorithm of the signature, `SHA256`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hash_algorithm: Option<String>,
}

/// A `CssClient` is a client of one CSS and org.
pub struct CssClient {
    peer: Peer,
    base: String,
    user: String,
    password: String,
    client: Client,
    health: String,
    /// Set once the server has proved to be a sync service.
    is_known: AtomicBool,
}

impl std::fmt::Debug for CssClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CssClient")
            .field("base", &self.base)
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

impl CssClient {
    /// Makes a client for `config`, and reads the certificate file.
    pub fn new(config: &CssConfig) -> Result<Self, MmsError> {
        let url = config.url.trim_end_matches('/');
        let shown = without_login(url);
        let refuse = |problem: String| Err(MmsError::Config(problem));
        let parsed = match reqwest::Url::parse(url) {
            Ok(parsed) => parsed,
            Err(error) => return refuse(format!("HZN_FSS_CSSURL={shown} is not a URL: {error}")),
        };
        if !parsed.username().is_empty() || parsed.password().is_some() {
            return refuse(format!(
                "HZN_FSS_CSSURL={shown} holds a user: take it out and put it into HZN_EXCHANGE_USER_AUTH"
            ));
        }
        if !matches!(parsed.scheme(), "http" | "https") {
            return refuse(format!("HZN_FSS_CSSURL={shown} must begin with http:// or https://"));
        }
        if parsed.query().is_some() || parsed.fragment().is_some() {
            // That part may contain a secret too.
            return refuse(
                "HZN_FSS_CSSURL must name the hub's CSS alone: take away '?' or '#' and the rest".to_owned(),
            );
        }
        check_name(&config.org).map_err(|e| MmsError::Config(format!("HZN_ORG_ID: {e}")))?;
        let (user, password) = config.login()?;
        let tls = match &config.ca_file {
            _ if parsed.scheme() == "http" => tls::nobody(),
            None => tls::hub(None),
            Some(path) => {
                let problem = |reason: String| MmsError::File { path: path.clone(), reason };
                let pem = file::read(path, MAX_CERTIFICATES).map_err(|e| problem(e.to_string()))?;
                Ok(tls::hub(Some(&pem)).map_err(|e| problem(e.to_string()))?)
            }
        }
        .map_err(|e| MmsError::Config(e.to_string()))?;
        let client = http::builder(tls).build().map_err(|e| MmsError::Config(e.to_string()))?;
        Ok(Self {
            peer: Peer { name: format!("CSS {shown}"), timeout: config.timeout },
            base: format!("{url}/api/v1/objects/{}", config.org),
            user,
            password: password.to_owned(),
            client,
            health: format!("{url}{HEALTH}"),
            is_known: AtomicBool::new(false),
        })
    }

    /// Returns the objects of the type that have arrived at the hub and that nobody acknowledged, including
    /// deletions.
    pub async fn list(&self, object_type: &str) -> Result<Vec<MetaData>, MmsError> {
        check_name(object_type)?;
        self.json_list(&format!("/{object_type}")).await
    }

    /// Returns every object of the type, in any state.
    pub async fn list_all(&self, object_type: &str) -> Result<Vec<MetaData>, MmsError> {
        check_name(object_type)?;
        self.json_list(&format!("?filters=true&objectType={object_type}")).await
    }

    /// Returns the objects of the type that stay at the hub ([`HUB_TYPE`]); with a node, only those for that
    /// node.
    pub async fn list_staying(
        &self,
        object_type: &str,
        node: Option<&str>,
    ) -> Result<Vec<MetaData>, MmsError> {
        check_name(object_type)?;
        let mut query = format!("?filters=true&objectType={object_type}&destinationType={HUB_TYPE}");
        if let Some(node) = node {
            check_name(node)?;
            query.push_str("&destinationID=");
            query.push_str(node);
        }
        self.json_list(&query).await
    }

    /// Stores an object that stays at the hub ([`HUB_TYPE`]), at most [`MAX_PUT`] bytes, and replaces an
    /// earlier one with that id. Any user of the org may replace its data, but changing its `description`
    /// makes that user the owner.
    pub async fn put_staying(
        &self,
        object_type: &str,
        id: &str,
        description: &str,
        data: &[u8],
    ) -> Result<(), MmsError> {
        if data.len() as u64 > MAX_PUT {
            return Err(MmsError::TooLarge { limit: MAX_PUT });
        }
        let body = serde_json::json!({
            "meta": {
                "objectID": id,
                "objectType": object_type,
                "destinationType": HUB_TYPE,
                "description": description,
            },
            "data": STANDARD.encode(data),
        });
        let response = self.object(Method::PUT, object_type, id, "", Some(body.to_string().into())).await?;
        self.peer.done(response).await
    }

    /// Returns the data of an object, at most `limit` bytes.
    pub async fn data(&self, object_type: &str, id: &str, limit: u64) -> Result<Vec<u8>, MmsError> {
        let response = self.object(Method::GET, object_type, id, "/data", None).await?;
        self.peer.content(response, limit).await
    }

    /// Returns the state of an object, `None` if there is none of that id.
    pub async fn status(&self, object_type: &str, id: &str) -> Result<Option<ObjectStatus>, MmsError> {
        self.peer.state(self.object(Method::GET, object_type, id, "/status", None).await).await
    }

    /// Acknowledges that the object was used: it disappears here, and its node sees `consumedByDest`. It is
    /// no error if the object is already gone.
    pub async fn consumed(&self, object_type: &str, id: &str) -> Result<(), MmsError> {
        self.gone(Method::PUT, object_type, id, "/consumed").await
    }

    /// Acknowledges a deletion that the list shows. It is no error if the object is already gone.
    pub async fn deleted(&self, object_type: &str, id: &str) -> Result<(), MmsError> {
        self.gone(Method::PUT, object_type, id, "/deleted").await
    }

    /// Deletes an object. It is no error if the object is already gone. A deleted object is not deleted
    /// again: after a second deletion the hub forgets the object before its nodes know of the deletion.
    pub async fn delete(&self, object_type: &str, id: &str) -> Result<(), MmsError> {
        match self.status(object_type, id).await? {
            None | Some(ObjectStatus::Deleted) => Ok(()),
            Some(_) => self.gone(Method::DELETE, object_type, id, "").await,
        }
    }

    /// Returns the nodes on which an object was placed and its state there; an empty list if the hub knows
    /// none.
    pub async fn destinations(&self, object_type: &str, id: &str) -> Result<Vec<Destination>, MmsError> {
        check_name(object_type)?;
        check_name(id)?;
        self.json_list(&format!("/{object_type}/{id}/destinations")).await
    }

    /// Places an object on exactly these nodes, each `type:id`, as the agbot does for an object with a
    /// destination policy.
    pub async fn set_destinations(
        &self,
        object_type: &str,
        id: &str,
        nodes: &[String],
    ) -> Result<(), MmsError> {
        let body = serde_json::Value::from(nodes).to_string().into_bytes();
        let response = self.object(Method::PUT, object_type, id, "/destinations", Some(body)).await?;
        self.peer.done(response).await
    }

    /// Publishes an object: sends the metadata, then the data in one piece, then waits until the hub has
    /// verified and stored it.
    ///
    /// # Errors
    /// Fails with [`MmsError::VerificationFailed`] if the signature in the metadata does not match, and with
    /// [`MmsError::Timeout`] if the hub does not finish in time. The object may then exist at the hub:
    /// publishing again replaces it.
    pub async fn publish(&self, object: &NewObject, data: &[u8]) -> Result<(), MmsError> {
        let NewObject { object_type, object_id, .. } = object;
        let mut meta = serde_json::to_value(object).map_err(|e| MmsError::Config(e.to_string()))?;
        if let Some((kind, id)) = &object.destination {
            check_name(kind)?;
            check_name(id)?;
            meta["destinationType"] = kind.as_str().into();
            meta["destinationID"] = id.as_str().into();
        }
        let body = serde_json::json!({ "meta": meta }).to_string().into_bytes();
        let response = self.object(Method::PUT, object_type, object_id, "", Some(body)).await?;
        self.peer.done(response).await?;

        let response = self.object(Method::PUT, object_type, object_id, "/data", Some(data.to_vec())).await?;
        let stored = self.peer.done(response).await;
        // The hub answers 500 both for an invalid signature and for a failing store; the object's state
        // distinguishes them.
        if matches!(&stored, Err(MmsError::Rejected { status, .. }) if *status != 500) {
            return stored;
        }
        let deadline = Instant::now() + self.peer.timeout;
        loop {
            match self.status(object_type, object_id).await? {
                Some(ObjectStatus::VerificationFailed) => {
                    return Err(MmsError::VerificationFailed {
                        object_type: object_type.clone(),
                        id: object_id.clone(),
                    });
                }
                Some(ObjectStatus::NotReady | ObjectStatus::Verifying) if stored.is_ok() => {}
                // If the hub has placed the object at once, its state may already be past ready.
                _ => return stored,
            }
            if Instant::now() >= deadline {
                return Err(MmsError::Timeout { server: self.peer.name.clone(), after: self.peer.timeout });
            }
            tokio::time::sleep(STATUS_PAUSE).await;
        }
    }

    /// Sends a request after which the server shows the object no more.
    async fn gone(&self, method: Method, object_type: &str, id: &str, rest: &str) -> Result<(), MmsError> {
        let answer = self.object(method, object_type, id, rest, None).await;
        self.peer.gone(answer, self.status(object_type, id)).await
    }

    async fn json_list<T: serde::de::DeserializeOwned>(&self, rest: &str) -> Result<Vec<T>, MmsError> {
        let response = self.send(self.client.get(format!("{}{rest}", self.base))).await?;
        let status = response.status();
        if status.is_redirection() {
            return Err(self.no_sync_service(format!("{status}, which leads elsewhere")));
        } else if status.is_success() && http::is_page(&response) {
            return Err(self.no_sync_service(http::PAGE.to_owned()));
        }
        match self.peer.json_list(response).await {
            Ok(list) if list.is_empty() => {
                self.expect_sync_service().await?;
                Ok(list)
            }
            Err(MmsError::BadAnswer { reason, .. }) if !self.is_known.load(Ordering::Relaxed) => {
                Err(self.no_sync_service(format!("what is no list of objects ({reason})")))
            }
            done => done,
        }
    }

    /// Checks that the server is a sync service. A CSS answers 404 if it has no objects, but other servers
    /// answer everything with 404, `[]` or `null`.
    async fn expect_sync_service(&self) -> Result<(), MmsError> {
        #[derive(Deserialize)]
        struct Health {
            #[serde(rename = "general")]
            _general: serde::de::IgnoredAny,
        }
        if self.is_known.load(Ordering::Relaxed) {
            return Ok(());
        }
        let response = self.send(self.client.get(&self.health)).await?;
        let status = response.status();
        if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
            return Err(self.peer.rejection(response).await);
        }
        let told = self.peer.body(response, MAX_HEALTH).await?;
        if !status.is_success() || serde_json::from_slice::<Health>(&told).is_err() {
            let answer =
                format!("with no objects, and to {HEALTH} with nothing that a sync service says ({status})");
            return Err(self.no_sync_service(answer));
        }
        self.is_known.store(true, Ordering::Relaxed);
        Ok(())
    }

    fn no_sync_service(&self, answer: String) -> MmsError {
        MmsError::NoSyncService { server: self.peer.name.clone(), answer }
    }

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
        let mut request = self.client.request(method, format!("{}/{object_type}/{id}{rest}", self.base));
        if let Some(body) = body {
            request = request.body(body);
        }
        let response = self.send(request).await?;
        if response.status() == StatusCode::NOT_FOUND {
            return Err(MmsError::UnknownObject { object_type: object_type.to_owned(), id: id.to_owned() });
        }
        Ok(response)
    }

    async fn send(&self, request: RequestBuilder) -> Result<Response, MmsError> {
        let response = self.peer.send(request.basic_auth(&self.user, Some(&self.password))).await?;
        if matches!(response.status(), StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            return Err(MmsError::Unauthorized {
                server: self.peer.name.clone(),
                credentials: Credentials::User(self.user.clone()),
            });
        }
        Ok(response)
    }
}

/// Returns a URL, even an invalid one, without the user and password that it may contain.
fn without_login(url: &str) -> String {
    let Some((login, rest)) = url.rsplit_once('@') else { return url.to_owned() };
    let scheme = login.find("://").map_or("", |at| &login[..at + 3]);
    format!("{scheme}...@{rest}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(url: &str, org: &str, user: &str) -> Result<CssClient, MmsError> {
        CssClient::new(&CssConfig {
            url: url.to_owned(),
            org: org.to_owned(),
            user: user.to_owned(),
            ca_file: None,
            timeout: DEFAULT_TIMEOUT,
        })
    }

    #[test]
    fn the_users_org_is_added_as_hzn_does() {
        assert_eq!(client("http://css:1/", "o", "u:p:q").unwrap().user, "o/u");
        let other = client("http://css:1/edge-css/", "o", "r/u:p").unwrap();
        assert_eq!(
            (other.user.as_str(), other.base.as_str()),
            ("r/u", "http://css:1/edge-css/api/v1/objects/o")
        );
    }

    #[test]
    fn settings_that_cannot_work_name_their_variable() {
        for (url, org, user, name) in [
            ("css", "o", "u:p", "HZN_FSS_CSSURL"),
            ("ftp://css", "o", "u:p", "HZN_FSS_CSSURL"),
            ("http://css?a", "o", "u:p", "'?'"),
            ("http://css#a", "o", "u:p", "'#'"),
            ("http://css", "o/p", "u:p", "HZN_ORG_ID"),
            ("http://css", "o", "u", "HZN_EXCHANGE_USER_AUTH"),
        ] {
            assert!(client(url, org, user).unwrap_err().to_string().contains(name), "{name}");
        }
    }

    #[test]
    fn no_error_has_a_password() {
        for url in [
            "http://u:secret@css/?a",
            "http://u:secret@css",
            "http://u:secret@:x",
            "ftp://u:secret@css",
            "u:secret@css",
            "http://css/?token=secret",
        ] {
            let error = client(url, "o", "u:p").unwrap_err().to_string();
            assert!(error.contains("HZN_FSS_CSSURL") && !error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn debug_output_has_no_password() {
        let config = CssConfig {
            url: "http://c".to_owned(),
            org: "o".to_owned(),
            user: "u:secret".to_owned(),
            ca_file: None,
            timeout: DEFAULT_TIMEOUT,
        };
        assert!(!format!("{config:?}").contains("secret"));
    }
}
