//! Stands in for the Exchange, the CSS and the API of Open Horizon's agent, as far as `hzn` calls them here,
//! on one loopback port below `/v1`, `/css` and `/agent`.
//!
//! Invariants:
//! - Every request is kept as it was sent, refused or not.
//! - A request that the real services refuse is refused; an unknown call is answered with 501, and `hzn`
//!   fails.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Router;
use axum::body::{Bytes, to_bytes};
use axum::extract::{Request as HttpRequest, State};
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// Largest request body in bytes, more than any that is sent here.
const MAX_BODY: usize = 16 << 20;

/// A `Request` is one request as it came.
#[derive(Debug, Clone)]
pub struct Request {
    /// HTTP method, such as `PUT`.
    pub method: String,
    /// Path from `/v1`, `/css` or `/agent` on, without the query.
    pub path: String,
    /// `org/user:password` of its basic authentication, or empty.
    pub credentials: String,
    /// Body of the request.
    pub body: Vec<u8>,
}

impl Request {
    /// Returns the body as JSON, or null.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }
}

/// An `Object` is one object at the CSS.
#[derive(Debug, Clone, Default)]
pub struct Object {
    /// Its metadata.
    pub meta: Value,
    /// Its data.
    pub data: Vec<u8>,
}

#[derive(Default)]
struct Inner {
    requests: Vec<Request>,
    /// The Exchange's resources, by path below `/v1/orgs`.
    resources: BTreeMap<String, Value>,
    /// Objects of the CSS, by org, type and id as in the path.
    objects: BTreeMap<String, Object>,
    /// The registration that the node's agent was given, and its state.
    node: Option<(Value, Value)>,
}

type Shared = Arc<Mutex<Inner>>;

/// A `Hub` is the running stand-in, which ends when this is dropped.
pub struct Hub {
    address: SocketAddr,
    shared: Shared,
    server: JoinHandle<()>,
}

impl Drop for Hub {
    fn drop(&mut self) {
        self.server.abort();
    }
}

fn lock(shared: &Shared) -> MutexGuard<'_, Inner> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Hub {
    /// Starts an empty stand-in.
    ///
    /// # Errors
    /// Fails if no port is free.
    pub async fn start() -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let shared = Shared::default();
        let router = Router::new().fallback(answer).with_state(shared.clone());
        let server = tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, router).await {
                eprintln!("the stand-in hub ended: {error}");
            }
        });
        Ok(Self { address, shared, server })
    }

    /// Returns the URL of one of its parts: `v1`, `css` or `agent`.
    pub fn url(&self, part: &str) -> String {
        format!("http://{}/{part}", self.address)
    }

    /// Returns all requests so far that change something.
    pub fn changes(&self) -> Vec<Request> {
        let changes = |request: &&Request| request.method != "GET";
        lock(&self.shared).requests.iter().filter(changes).cloned().collect()
    }

    /// Returns the Exchange's resource at a path below `/v1/orgs/`.
    pub fn resource(&self, path: &str) -> Option<Value> {
        lock(&self.shared).resources.get(path).cloned()
    }

    /// Returns the objects at the CSS, by `org/type/id`.
    pub fn objects(&self) -> BTreeMap<String, Object> {
        lock(&self.shared).objects.clone()
    }

    /// Puts an object into the CSS as if it had been published earlier.
    pub fn add_object(&self, path: &str, object: Object) {
        lock(&self.shared).objects.insert(path.to_owned(), object);
    }
}

async fn answer(State(shared): State<Shared>, http: HttpRequest) -> Response {
    let (parts, body) = http.into_parts();
    let Ok(body) = to_bytes(body, MAX_BODY).await else {
        return StatusCode::PAYLOAD_TOO_LARGE.into_response();
    };
    let credentials = parts
        .headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok()?.strip_prefix("Basic "))
        .and_then(|encoded| String::from_utf8(STANDARD.decode(encoded).ok()?).ok())
        .unwrap_or_default();
    let path = parts.uri.path().to_owned();
    let request =
        Request { method: parts.method.to_string(), path: path.clone(), credentials, body: body.to_vec() };
    let mut inner = lock(&shared);
    inner.requests.push(request.clone());
    let query = parts.uri.query().unwrap_or_default();
    if let Some(path) = path.strip_prefix("/agent/") {
        return agent(&mut inner, &parts.method, path, &body);
    }
    if !request.credentials.contains('/') || !request.credentials.contains(':') {
        return refuse(StatusCode::UNAUTHORIZED, "org/user:password is missing");
    }
    match (path.strip_prefix("/v1/"), path.strip_prefix("/css/api/v1/objects/")) {
        (Some("admin/version"), _) => "2.154.0".into_response(),
        (Some(path), _) => match path.strip_prefix("orgs/") {
            Some(path) => exchange(&mut inner, &parts.method, path, query, &body),
            None => unknown(&request),
        },
        (_, Some(path)) => css(&mut inner, &parts.method, path, query, &request),
        _ => unknown(&request),
    }
}

fn unknown(request: &Request) -> Response {
    refuse(
        StatusCode::NOT_IMPLEMENTED,
        &format!("the stand-in does not know {} {}", request.method, request.path),
    )
}

fn refuse(status: StatusCode, why: &str) -> Response {
    reply(status, &json!({"code": "refused", "msg": why}))
}

fn reply(status: StatusCode, body: &Value) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], body.to_string()).into_response()
}

/// Answers as the agent of a node that is not registered at first.
fn agent(inner: &mut Inner, method: &Method, path: &str, body: &Bytes) -> Response {
    let sent: Value = serde_json::from_slice(body).unwrap_or(Value::Null);
    let taken = || (StatusCode::CREATED, [(header::CONTENT_TYPE, "application/json")], body.clone());
    match (method.as_str(), path) {
        ("GET", "status") => {
            let configuration =
                json!({"architecture": "amd64", "exchange_api": "", "exchange_version": "2.154.0"});
            reply(StatusCode::OK, &json!({"configuration": configuration}))
        }
        ("GET", "node") => {
            let unconfigured = json!({"state": "unconfigured", "last_update_time": 0});
            let (mut node, state) =
                inner.node.clone().unwrap_or_else(|| (json!({"id": "node1"}), unconfigured));
            node["configstate"] = state;
            reply(StatusCode::OK, &node)
        }
        ("POST", "node") => {
            inner.node = Some((sent, json!({"state": "configuring", "last_update_time": 0})));
            taken().into_response()
        }
        ("PUT", "node/configstate") => match &mut inner.node {
            Some((_, state)) => {
                *state = sent;
                taken().into_response()
            }
            None => refuse(StatusCode::NOT_FOUND, path),
        },
        ("DELETE", "node") => match inner.node.take() {
            Some(_) => StatusCode::NO_CONTENT.into_response(),
            None => refuse(StatusCode::NOT_FOUND, path),
        },
        _ => {
            refuse(StatusCode::NOT_IMPLEMENTED, &format!("the stand-in agent does not know {method} {path}"))
        }
    }
}

fn exchange(inner: &mut Inner, method: &Method, path: &str, query: &str, body: &Bytes) -> Response {
    let sent: Value = serde_json::from_slice(body).unwrap_or(Value::Null);
    let parts: Vec<&str> = path.split('/').collect();
    let created = || reply(StatusCode::CREATED, &json!({"code": "ok", "msg": "ok"}));
    match (method.as_str(), parts.as_slice()) {
        ("POST" | "PUT", [org, "services", ..]) if parts.len() <= 3 => match service_id(&sent) {
            Err(why) => refuse(StatusCode::BAD_REQUEST, &why),
            Ok(id) => {
                inner.resources.insert(format!("{org}/services/{id}"), sent);
                created()
            }
        },
        ("PUT", [_, "services", _, "keys", _]) => {
            inner.resources.insert(path.to_owned(), String::from_utf8_lossy(body).into());
            created()
        }
        ("POST" | "PUT", [_, "business", "policies", _])
        | ("PUT", [_, "services" | "nodes", _, "policy"] | [_, "nodes", _]) => {
            inner.resources.insert(path.to_owned(), sent);
            created()
        }
        ("DELETE", [_, "services", _] | [_, "services", _, "policy"] | [_, "business", "policies", _]) => {
            match inner.resources.remove(path) {
                Some(_) => StatusCode::NO_CONTENT.into_response(),
                None => refuse(StatusCode::NOT_FOUND, path),
            }
        }
        ("GET", [_, "services" | "nodes", _, "policy"]) => match inner.resources.get(path) {
            Some(policy) => reply(StatusCode::OK, policy),
            None => refuse(StatusCode::NOT_FOUND, path),
        },
        ("GET", [org, kind @ ("services" | "nodes"), ..]) => {
            let wanted = |name: &str| {
                let value = query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
                value.filter(|value| *value != "*").map(str::to_owned)
            };
            let fits = |key: &str, value: &Value| {
                let named = key.strip_prefix(&format!("{org}/{kind}/")).is_some_and(|id| !id.contains('/'))
                    && parts.get(2).is_none_or(|_| key == path);
                let filter = |name| wanted(name).is_none_or(|wanted| value[name] == wanted.as_str());
                named && ["url", "version", "arch"].into_iter().all(filter)
            };
            let found: serde_json::Map<String, Value> = inner
                .resources
                .iter()
                .filter(|(key, value)| fits(key, value))
                .map(|(key, value)| (key.replacen(&format!("/{kind}/"), "/", 1), value.clone()))
                .collect();
            match found.is_empty() {
                true => refuse(StatusCode::NOT_FOUND, path),
                false => reply(StatusCode::OK, &json!({*kind: found, "lastIndex": 0})),
            }
        }
        _ => refuse(
            StatusCode::NOT_IMPLEMENTED,
            &format!("the stand-in Exchange does not know {method} {path}"),
        ),
    }
}

/// Returns the id under which the Exchange keeps a service, or the reason for which it refuses the service.
fn service_id(sent: &Value) -> Result<String, String> {
    let text = |name: &str| sent[name].as_str().ok_or_else(|| format!("{name} must be text"));
    text("label")?;
    let (url, version, arch) = (text("url")?, text("version")?, text("arch")?);
    let numbers: Vec<_> = version.split('.').collect();
    if numbers.len() > 3 || !numbers.iter().all(|number| number.parse::<u32>().is_ok()) {
        return Err(format!("{version} is no version"));
    }
    if !["exclusive", "single", "singleton", "multiple"].contains(&text("sharable")?) {
        return Err("sharable".to_owned());
    }
    let documentation = text("documentation")?;
    if !documentation.is_empty() && !documentation.starts_with("http") {
        return Err(format!("{documentation} is no URL"));
    }
    let inputs = sent["userInput"].as_array().map(Vec::as_slice).unwrap_or_default();
    if !inputs.iter().all(|input| input.as_object().is_some_and(|map| map.values().all(Value::is_string))) {
        return Err("userInput must map text to text".to_owned());
    }
    if !text("deployment")?.is_empty() && text("deploymentSignature")?.is_empty() {
        return Err("the deployment is not signed".to_owned());
    }
    Ok(format!("{}_{version}_{arch}", url.replace('/', "-")))
}

fn css(inner: &mut Inner, method: &Method, path: &str, query: &str, request: &Request) -> Response {
    let key = path.trim_end_matches("/data").trim_end_matches("/status").to_owned();
    let last = path[key.len()..].trim_start_matches('/');
    match (method.as_str(), key.matches('/').count(), last) {
        // Metadata, with null as the data, which follow in another request.
        ("PUT", 2, "") => {
            inner.objects.entry(key).or_default().meta = request.json()["meta"].clone();
            StatusCode::NO_CONTENT.into_response()
        }
        ("PUT", 2, "data") => match inner.objects.get_mut(&key) {
            Some(object) => {
                object.data.clone_from(&request.body);
                StatusCode::NO_CONTENT.into_response()
            }
            None => refuse(StatusCode::NOT_FOUND, path),
        },
        ("GET", 2, "status") if inner.objects.contains_key(&key) => "ready".into_response(),
        ("DELETE", 2, "") => match inner.objects.remove(&key) {
            Some(_) => StatusCode::NO_CONTENT.into_response(),
            None => refuse(StatusCode::NOT_FOUND, path),
        },
        // The list of an org's objects of one type.
        ("GET", 0, "") => {
            let kind = query.split('&').find_map(|pair| pair.strip_prefix("objectType=")).unwrap_or_default();
            let prefix = format!("{key}/{kind}/");
            let of_kind = inner.objects.iter().filter(|(key, _)| key.starts_with(&prefix));
            let list: Vec<_> = of_kind.map(|(_, object)| object.meta.clone()).collect();
            match list.is_empty() {
                true => StatusCode::NOT_FOUND.into_response(),
                false => reply(StatusCode::OK, &list.into()),
            }
        }
        _ => unknown(request),
    }
}
