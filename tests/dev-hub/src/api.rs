//! This module answers the HTTP API of both ends. The real CSS and ESS share their code too; [`Side`] decides
//! where they differ.

use crate::auth::{Credential, Role};
use crate::link;
use crate::meta::{MetaData, ServiceId, Status, is_valid_name};
use crate::policy::{self, VersionRange};
use crate::signature;
use crate::state::{State, lock};
use crate::store::{Key, Object, Store};
use axum::body::{Body, to_bytes};
use axum::http::{Method, Request, Response, StatusCode, header};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

/// Largest request body that is accepted, in bytes.
const BODY_LIMIT: usize = 256 << 20;

/// A `Side` is the end that answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The hub's end, where the org is in the path.
    Css,
    /// The node's end.
    Ess,
}

type Answer = Result<Response<Body>, Refusal>;

/// A `Refusal` is an error answer: status and text.
#[derive(Debug)]
struct Refusal(StatusCode, String);

const FORBIDDEN: fn() -> Refusal = || Refusal(StatusCode::FORBIDDEN, "Unauthorized".to_owned());

fn bad_request(text: impl Into<String>) -> Refusal {
    Refusal(StatusCode::BAD_REQUEST, text.into() + "\n")
}

fn empty(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

fn typed(content_type: &'static str, body: impl Into<Body>) -> Response<Body> {
    let mut response = Response::new(body.into());
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(content_type));
    response
}

/// Answers with a list as JSON, or with 404 and an empty body if the list is empty, as everywhere in this
/// API.
fn list<T: Serialize>(items: &[T]) -> Answer {
    if items.is_empty() {
        return Ok(empty(StatusCode::NOT_FOUND));
    }
    let text = serde_json::to_string_pretty(items)
        .map_err(|error| Refusal(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))?;
    Ok(typed("application/json", text))
}

/// Answers one request at one end.
pub async fn handle(state: Arc<State>, side: Side, request: Request<Body>) -> Response<Body> {
    match route(&state, side, request).await {
        Ok(response) => response,
        Err(Refusal(status, text)) => {
            let mut response = typed("text/plain; charset=utf-8", text);
            *response.status_mut() = status;
            response
        }
    }
}

/// A `Call` is one request with its caller, end and org.
struct Call<'a> {
    state: &'a Arc<State>,
    side: Side,
    caller: Credential,
    org: String,
}

async fn route(state: &Arc<State>, side: Side, request: Request<Body>) -> Answer {
    let (head, body) = request.into_parts();
    let Some(path) = head.uri.path().strip_prefix("/api/v1/") else {
        return Ok(empty(StatusCode::NOT_FOUND));
    };
    if path == "health" {
        let node_type = if side == Side::Css { "CSS" } else { "ESS" };
        let health = serde_json::json!({"general": {"nodeType": node_type, "healthStatus": "green"}});
        return Ok(typed("application/json", health.to_string()));
    }
    let authorization = head.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let caller = state
        .authenticate(side, authorization)
        .filter(|caller| caller.role != Role::Node)
        .ok_or_else(FORBIDDEN)?;
    let mut parts = path.split('/').filter(|part| !part.is_empty());
    let resource = parts.next();
    let org = match side {
        Side::Css => parts.next().unwrap_or_default().to_owned(),
        Side::Ess => state.org.clone(),
    };
    let parts: Vec<&str> = parts.collect();
    let call = Call { state, side, caller, org };
    if call.caller.org != call.org || (side == Side::Css && call.caller.role == Role::Service) {
        return Err(FORBIDDEN());
    }
    let query: HashMap<&str, &str> =
        head.uri.query().unwrap_or_default().split('&').filter_map(|pair| pair.split_once('=')).collect();
    call.wait_while_held(&parts).await;
    match (resource, parts.as_slice(), &head.method) {
        (Some("objects"), [], &Method::GET) if side == Side::Css && query.get("filters") == Some(&"true") => {
            call.filtered(&query)
        }
        (Some("objects"), [object_type], &Method::GET) => call.list_type(object_type, &query),
        (Some("objects"), [_], &Method::PUT) if call.caller.role == Role::Service => Err(FORBIDDEN()),
        (Some("objects"), [object_type, id], method) => match *method {
            Method::GET => call.metadata(object_type, id),
            Method::PUT => call.update(object_type, id, &read(body).await?).await,
            Method::DELETE => call.delete(object_type, id).await,
            _ => Ok(empty(StatusCode::METHOD_NOT_ALLOWED)),
        },
        (Some("objects"), [object_type, id, operation], method) => match (*operation, method) {
            ("data", &Method::GET) => call.data(object_type, id),
            ("data", &Method::PUT) if head.headers.contains_key(header::CONTENT_RANGE) => {
                Err(Refusal(StatusCode::INTERNAL_SERVER_ERROR, "Failed to store data in chunks\n".to_owned()))
            }
            ("data", &Method::PUT) => call.update_data(object_type, id, read(body).await?).await,
            ("status", &Method::GET) => call.status(object_type, id),
            ("received" | "consumed" | "deleted", &Method::PUT) => {
                call.acknowledge(object_type, id, operation).await
            }
            ("destinations", method) => call.destinations(object_type, id, method, read(body).await?),
            _ => Ok(empty(StatusCode::BAD_REQUEST)),
        },
        (Some("resend"), [], &Method::POST) if call.caller.role == Role::Service => Err(FORBIDDEN()),
        (Some("destinations"), [], &Method::GET) if side == Side::Css => call.nodes(),
        _ => Ok(empty(StatusCode::BAD_REQUEST)),
    }
}

async fn read(body: Body) -> Result<Bytes, Refusal> {
    to_bytes(body, BODY_LIMIT).await.map_err(|error| bad_request(error.to_string()))
}

#[derive(Deserialize)]
struct Update {
    meta: MetaData,
    data: Option<String>,
}

#[derive(Serialize)]
struct Listed<'a> {
    #[serde(rename = "orgID")]
    org: &'a str,
    #[serde(rename = "objectType")]
    object_type: &'a str,
    #[serde(rename = "objectID")]
    id: &'a str,
    destinations: Vec<DestinationStatus<'a>>,
}

#[derive(Serialize)]
struct DestinationStatus<'a> {
    #[serde(rename = "destinationType")]
    kind: &'a str,
    #[serde(rename = "destinationID")]
    id: &'a str,
    status: &'a str,
    message: &'a str,
}

fn destination_list(object: &Object) -> Vec<DestinationStatus<'_>> {
    let list = object.destinations.iter().filter_map(|destination| {
        let (kind, id) = destination.name.split_once(':')?;
        Some(DestinationStatus { kind, id, status: destination.status, message: &destination.message })
    });
    list.collect()
}

impl Call<'_> {
    fn store(&self) -> &Mutex<Store> {
        match self.side {
            Side::Css => &self.state.css,
            Side::Ess => &self.state.ess,
        }
    }

    fn key(&self, object_type: &str, id: &str) -> Key {
        (self.org.clone(), object_type.to_owned(), id.to_owned())
    }

    /// Returns whether the caller may do more with this object than read it if it is public.
    fn owns(&self, object: &Object) -> bool {
        match (self.side, self.caller.role) {
            (Side::Ess, Role::Service) => {
                policy::is_visible(object.meta.destination_policy.as_ref(), &self.caller.identity)
            }
            (Side::Css, Role::NodeUser) => false,
            _ => true,
        }
    }

    fn reads(&self, object: &Object) -> bool {
        object.meta.public || self.owns(object)
    }

    /// Returns the refusal for an object that does not exist, which services and node users do not learn.
    fn unknown(&self) -> Refusal {
        match self.caller.role {
            Role::Service | Role::NodeUser => FORBIDDEN(),
            _ => Refusal(StatusCode::NOT_FOUND, String::new()),
        }
    }

    /// Returns the object if the caller may read it.
    fn readable<'s>(&self, store: &'s Store, object_type: &str, id: &str) -> Result<&'s Object, Refusal> {
        let object = store.objects.get(&self.key(object_type, id)).ok_or_else(|| self.unknown())?;
        if self.reads(object) { Ok(object) } else { Err(FORBIDDEN()) }
    }

    /// Waits for the hub if the request is for an object whose acknowledgement waits for the hub, or for a
    /// list with one: the ESS locks such objects.
    async fn wait_while_held(&self, parts: &[&str]) {
        if self.side == Side::Css {
            return;
        }
        let held = lock(&self.state.held).clone();
        let is_held = held.iter().any(|key| {
            let is_listed = || {
                let ess = lock(&self.state.ess);
                ess.objects.get(key).is_some_and(|object| object.status != Status::Consumed)
            };
            parts.first() == Some(&key.1.as_str()) && parts.get(1).map_or_else(is_listed, |id| *id == key.2)
        });
        if is_held {
            self.state.hub_comes_up().await;
        }
    }

    /// Reports to the sender of an object what was done with it. With the hub down this waits, and locks the
    /// object.
    async fn report(&self, key: Key) {
        self.state.wake_link.notify_one();
        if self.side == Side::Ess && !*self.state.hub_is_up.borrow() {
            lock(&self.state.held).insert(key);
            self.state.hub_comes_up().await;
        }
    }

    fn list_type(&self, object_type: &str, query: &HashMap<&str, &str>) -> Answer {
        let flag = |name| match query.get(name) {
            None | Some(&"") | Some(&"false") => Ok(false),
            Some(&"true") => Ok(true),
            Some(_) => Err(Refusal(StatusCode::BAD_REQUEST, String::new())),
        };
        let all = flag("all_objects")?;
        let also_received = flag("received")?;
        let store = lock(self.store());
        if all {
            let objects: Vec<_> = store
                .of_type(&self.org, object_type)
                .filter(|object| self.reads(object))
                .map(|object| Listed {
                    org: &self.org,
                    object_type,
                    id: &object.meta.object_id,
                    destinations: destination_list(object),
                })
                .collect();
            return list(&objects);
        }
        let objects: Vec<MetaData> = store
            .of_type(&self.org, object_type)
            .filter(|object| match object.status {
                Status::CompletelyReceived | Status::Deleted => true,
                Status::Received => also_received,
                _ => false,
            })
            .filter_map(|object| {
                let mut meta = object.meta.clone();
                if self.caller.role == Role::Service
                    && policy::names_service(&object.removed_services, &self.caller.identity)
                {
                    meta.deleted = true;
                } else if !self.reads(object) {
                    return None;
                }
                Some(meta)
            })
            .collect();
        list(&objects)
    }

    fn filtered(&self, query: &HashMap<&str, &str>) -> Answer {
        let store = lock(self.store());
        let given = |name, value: &str| query.get(name).is_none_or(|wanted| *wanted == value);
        let is_destined = |meta: &MetaData| {
            let Some(kind) = query.get("destinationType") else { return true };
            match &meta.destinations_list {
                _ if !meta.destination_type.is_empty() => {
                    meta.destination_type == *kind && given("destinationID", &meta.destination_id)
                }
                Some(list) => list
                    .iter()
                    .filter_map(|destination| destination.split_once(':'))
                    .any(|(listed, id)| listed == *kind && given("destinationID", id)),
                None => false,
            }
        };
        let objects: Vec<&MetaData> = store
            .objects
            .iter()
            .filter(|((org, ..), object)| {
                let meta = &object.meta;
                *org == self.org
                    && given("objectType", &meta.object_type)
                    && given("objectID", &meta.object_id)
                    && given("deleted", &meta.deleted.to_string())
                    && given("noData", &meta.no_data.to_string())
                    && is_destined(meta)
                    && given("destinationPolicy", &meta.destination_policy.is_some().to_string())
                    && self.reads(object)
            })
            .map(|(_, object)| &object.meta)
            .collect();
        list(&objects)
    }

    fn metadata(&self, object_type: &str, id: &str) -> Answer {
        let store = lock(self.store());
        let object = self.readable(&store, object_type, id)?;
        serde_json::to_string_pretty(&object.meta)
            .map(|text| typed("application/json", text))
            .map_err(|error| Refusal(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))
    }

    fn data(&self, object_type: &str, id: &str) -> Answer {
        let store = lock(self.store());
        let object = self.readable(&store, object_type, id)?;
        match &object.data {
            Some(data) => Ok(typed("application/octet-stream", data.clone())),
            None => Ok(empty(StatusCode::NOT_FOUND)),
        }
    }

    fn status(&self, object_type: &str, id: &str) -> Answer {
        let store = lock(self.store());
        let object = self.readable(&store, object_type, id)?;
        Ok(typed("plain/text", object.status.to_string()))
    }

    /// Acknowledges an object: `received` hides it from the list, `consumed` ends it, `deleted` confirms its
    /// deletion.
    async fn acknowledge(&self, object_type: &str, id: &str, operation: &str) -> Answer {
        let is_reported = match operation {
            "deleted" => self.mark_deletion_seen(object_type, id)?,
            _ => self.mark(object_type, id, operation)?,
        };
        if is_reported {
            self.report(self.key(object_type, id)).await;
        }
        Ok(empty(StatusCode::NO_CONTENT))
    }

    /// Marks an object as received or consumed; returns whether that must be reported to the sender.
    fn mark(&self, object_type: &str, id: &str, operation: &str) -> Result<bool, Refusal> {
        let mut store = lock(self.store());
        match store.objects.get(&self.key(object_type, id)) {
            Some(object) if !self.owns(object) => return Err(FORBIDDEN()),
            None if self.caller.role == Role::Service => return Err(FORBIDDEN()),
            _ => {}
        }
        let Some(object) = store.objects.get_mut(&self.key(object_type, id)) else {
            return Err(bad_request("Failed to find object"));
        };
        if !matches!(object.status, Status::CompletelyReceived | Status::Received) {
            return Err(bad_request(format!(
                "Invalid attempt to mark object in status {} as {operation}",
                object.status
            )));
        }
        if operation == "received" {
            object.status = Status::Received;
            return Ok(false);
        }
        object.status = Status::Consumed;
        object.data = None;
        Ok(true)
    }

    /// Marks a deletion as seen; returns whether that must be reported to the sender, which is not so if an
    /// update took the caller's service out of the policy.
    fn mark_deletion_seen(&self, object_type: &str, id: &str) -> Result<bool, Refusal> {
        let mut store = lock(self.store());
        let identity = &self.caller.identity;
        let is_service = self.caller.role == Role::Service;
        let Some(object) = store.objects.get_mut(&self.key(object_type, id)) else {
            return Err(if is_service { FORBIDDEN() } else { bad_request("Failed to find object") });
        };
        if object.meta.deleted {
            if !self.owns(object) {
                return Err(FORBIDDEN());
            }
            object.deletion_acknowledged = true;
            return Ok(true);
        }
        let before = object.removed_services.len();
        let is_other = |service: &ServiceId| !policy::names_service(std::slice::from_ref(service), identity);
        object.removed_services.retain(is_other);
        if object.removed_services.len() < before {
            return Ok(false);
        }
        if !self.owns(object) {
            return Err(FORBIDDEN());
        }
        Err(bad_request("Invalid attempt to confirm deletion of an object that is not deleted"))
    }

    async fn update(&self, object_type: &str, id: &str, body: &[u8]) -> Answer {
        if self.side == Side::Css && self.caller.role == Role::NodeUser {
            return Err(FORBIDDEN());
        }
        let update: Update = serde_json::from_slice(body)
            .map_err(|error| bad_request(format!("Invalid JSON for update. Error: {error}")))?;
        let data = match update.data {
            None => None,
            Some(text) => Some(Bytes::from(
                STANDARD.decode(text).map_err(|error| bad_request(format!("data: {error}")))?,
            )),
        };
        let mut meta = update.meta;
        self.check(&meta, object_type, id, data.is_some())?;
        if meta.origin_type.is_empty() || meta.origin_id.is_empty() {
            (meta.origin_type, meta.origin_id) = match self.side {
                Side::Css => ("Cloud".to_owned(), "Cloud".to_owned()),
                Side::Ess => (crate::state::NODE_TYPE.to_owned(), self.state.node.clone()),
            };
        }
        if meta.destination_org_id.is_empty() {
            meta.destination_org_id.clone_from(&self.org);
        }
        if meta.consumers == 0 {
            meta.consumers = 1;
        }
        if self.side == Side::Css {
            meta.owner_id = format!("{}/{}", self.caller.org, self.caller.identity);
        }
        let key = self.key(object_type, id);
        let ready = {
            let mut store = lock(self.store());
            self.store_update(&mut store, &key, meta, data)?
        };
        if ready {
            self.announce(key).await;
        }
        Ok(empty(StatusCode::NO_CONTENT))
    }

    /// Puts the update into the store; returns whether the object may go to the other side.
    fn store_update(
        &self,
        store: &mut Store,
        key: &Key,
        mut meta: MetaData,
        mut data: Option<Bytes>,
    ) -> Result<bool, Refusal> {
        let instance = store.next_instance();
        let before = store.objects.get(key);
        if before.is_some_and(|object| !object.status.is_senders()) {
            return Err(bad_request("Can't update object of the receiving side"));
        }
        if before.is_some_and(|object| {
            object.meta.destination_policy.is_some() != meta.destination_policy.is_some()
        }) {
            return Err(bad_request("Can't update the existence of Destination Policy"));
        }
        meta.instance_id = instance;
        if let Some(policy) = &mut meta.destination_policy {
            policy.timestamp = instance;
        }
        let mut destinations = before.map(|object| object.destinations.clone()).unwrap_or_default();
        for destination in destinations.iter_mut().filter(|destination| !destination.withdraw) {
            destination.status = "pending";
            destination.message.clear();
        }
        let mut status = Status::NotReady;
        if meta.no_data {
            data = None;
            meta.public_key.clear();
            meta.signature.clear();
            status = Status::Ready;
        } else if meta.meta_only {
            if let Some(before) = before {
                data.clone_from(&before.data);
                meta.data_id = before.meta.data_id;
                meta.hash_algorithm.clone_from(&before.meta.hash_algorithm);
                meta.public_key.clone_from(&before.meta.public_key);
                meta.signature.clone_from(&before.meta.signature);
            }
            if data.is_some() {
                status = Status::Ready;
            }
        } else if let Some(bytes) = &data {
            meta.data_id = instance;
            meta.object_size = i64::try_from(bytes.len()).unwrap_or(i64::MAX);
            status =
                if signature::verifies(&meta, bytes) { Status::Ready } else { Status::VerificationFailed };
        }
        if status == Status::VerificationFailed {
            data = None;
        }
        let mut object = Object::new(meta, status, data);
        object.destinations = destinations;
        let inactive = object.meta.inactive;
        store.objects.insert(key.clone(), object);
        if status == Status::VerificationFailed {
            return Err(Refusal(
                StatusCode::INTERNAL_SERVER_ERROR,
                "Failed to verify data signature\n".to_owned(),
            ));
        }
        Ok(status == Status::Ready && !inactive)
    }

    async fn update_data(&self, object_type: &str, id: &str, data: Bytes) -> Answer {
        if self.side == Side::Css && self.caller.role == Role::NodeUser {
            return Err(FORBIDDEN());
        }
        let key = self.key(object_type, id);
        {
            let mut store = lock(self.store());
            let instance = store.next_instance();
            let Some(object) = store.objects.get_mut(&key) else { return Err(self.unknown()) };
            if !self.owns(object) {
                return Err(FORBIDDEN());
            }
            if !object.status.is_senders() {
                return Err(bad_request("Can't update data of the receiving side"));
            }
            if object.meta.no_data {
                return Err(bad_request("Can't update data, the NoData flag is set to true"));
            }
            if !signature::verifies(&object.meta, &data) {
                object.status = Status::VerificationFailed;
                object.data = None;
                return Err(Refusal(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "Failed to verify and store data\n".to_owned(),
                ));
            }
            object.meta.object_size = i64::try_from(data.len()).unwrap_or(i64::MAX);
            (object.meta.instance_id, object.meta.data_id) = (instance, instance);
            object.data = Some(data);
            object.status = Status::Ready;
            for destination in object.destinations.iter_mut().filter(|destination| !destination.withdraw) {
                destination.status = "pending";
            }
        }
        self.announce(key).await;
        Ok(empty(StatusCode::NO_CONTENT))
    }

    /// Announces the object to the link. At the ESS this waits for room in the queue, which with the hub down
    /// is forever. The object waits on after the client has given up.
    async fn announce(&self, key: Key) {
        match self.side {
            Side::Css => self.state.wake_link.notify_one(),
            Side::Ess => {
                let queue = lock(&self.state.send_queue).clone();
                if let Some(queue) = queue {
                    // Fails if the ESS stops: the object is then stored and never sent, as in the real one.
                    let _ = tokio::spawn(async move { queue.send(key).await }).await;
                }
            }
        }
    }

    /// Checks the rules for metadata (contract §3.1, §4.1).
    fn check(&self, meta: &MetaData, object_type: &str, id: &str, has_data: bool) -> Result<(), Refusal> {
        if meta.object_id != id || meta.object_type != object_type {
            return Err(bad_request("Object ID or type in the URL doesn't match that in the payload"));
        }
        for (what, name, optional) in [
            ("Object ID", id, false),
            ("Object type", object_type, false),
            ("Version", &meta.version, true),
            ("Destination type", &meta.destination_type, true),
            ("Destination org", &meta.destination_org_id, true),
        ] {
            if !(optional && name.is_empty() || is_valid_name(name)) {
                return Err(bad_request(format!("{what} ({name}) contains invalid characters")));
            }
        }
        if !["", "SHA1", "SHA256"].contains(&meta.hash_algorithm.as_str()) {
            return Err(bad_request(format!("Hash Algorithm ({}) is not supported", meta.hash_algorithm)));
        }
        if [&meta.public_key, &meta.signature].iter().any(|field| STANDARD.decode(field).is_err()) {
            return Err(bad_request("PublicKey or Signature is not base64 encoded"));
        }
        if meta.description.contains(['<', '>']) {
            return Err(bad_request("Description contains invalid characters"));
        }
        if self.side == Side::Ess && !meta.expiration.is_empty() {
            return Err(bad_request("Object expiration is disabled on ESS"));
        }
        if self.side == Side::Ess && meta.destinations_list.is_some() {
            return Err(bad_request("Destinations list is not supported for ESS"));
        }
        if meta.autodelete && meta.destinations_list.is_none() && meta.destination_id.is_empty() {
            return Err(bad_request(
                "AutoDelete can be used only for objects with DestinationsList or DestID set",
            ));
        }
        if meta.deleted {
            return Err(bad_request("Object marked as deleted"));
        }
        if meta.meta_only && has_data {
            return Err(bad_request("Can't update data if MetaOnly is true"));
        }
        let ways = [
            meta.destinations_list.is_some(),
            !meta.destination_type.is_empty(),
            meta.destination_policy.is_some(),
        ];
        if ways.iter().filter(|given| **given).count() > 1 {
            return Err(bad_request(
                "Give one of destinations list, destination type and destination policy",
            ));
        }
        if !meta.destination_id.is_empty() && meta.destination_type.is_empty() {
            return Err(bad_request(
                "Destination ID provided without destination type in object's meta data",
            ));
        }
        for service in meta.destination_policy.iter().flat_map(|policy| &policy.services) {
            if [&service.org_id, &service.arch, &service.service_name].iter().any(|field| field.is_empty())
                || VersionRange::parse(&service.version).is_none()
            {
                return Err(bad_request(
                    "A service in a DestinationPolicy must have organization, arch, name and version",
                ));
            }
        }
        Ok(())
    }

    async fn delete(&self, object_type: &str, id: &str) -> Answer {
        let key = self.key(object_type, id);
        {
            let mut store = lock(self.store());
            let Some(object) = store.objects.get_mut(&key) else { return Err(self.unknown()) };
            if !self.owns(object) {
                return Err(FORBIDDEN());
            }
            match (self.side, object.status.is_senders()) {
                (Side::Ess, false) => {
                    return Err(bad_request(
                        "Failed to delete the object. Error: Can't delete object on the receiving side for ESS",
                    ));
                }
                (Side::Css, true) if !object.destinations.is_empty() => {
                    link::mark_deleted(object);
                    for destination in &mut object.destinations {
                        destination.withdraw = true;
                    }
                }
                (Side::Css, _) => {
                    store.objects.remove(&key);
                    return Ok(empty(StatusCode::NO_CONTENT));
                }
                (Side::Ess, true) => link::mark_deleted(object),
            }
        }
        self.announce(key).await;
        Ok(empty(StatusCode::NO_CONTENT))
    }

    fn destinations(&self, object_type: &str, id: &str, method: &Method, body: Bytes) -> Answer {
        if self.side == Side::Ess {
            return Ok(empty(StatusCode::NOT_FOUND));
        }
        let mut store = lock(self.store());
        let Some(object) = store.objects.get_mut(&self.key(object_type, id)) else {
            return Err(self.unknown());
        };
        if !self.owns(object) {
            return Err(FORBIDDEN());
        }
        match *method {
            Method::GET => list(&destination_list(object)),
            Method::PUT => {
                let names: Vec<String> =
                    serde_json::from_slice(&body).map_err(|error| bad_request(error.to_string()))?;
                if let Some(name) = names.iter().find(|name| name.split(':').count() != 2) {
                    return Err(bad_request(format!("Invalid destination {name}")));
                }
                let node = self.state.destination();
                if names.iter().any(|name| *name != node) || !self.state.registered.load(Ordering::SeqCst) {
                    return Err(Refusal(
                        StatusCode::INTERNAL_SERVER_ERROR,
                        "Failed to find destination\n".to_owned(),
                    ));
                }
                object.placed = object.meta.instance_id;
                link::set_destinations(object, &names);
                self.state.wake_link.notify_one();
                Ok(empty(StatusCode::NO_CONTENT))
            }
            _ => Ok(empty(StatusCode::METHOD_NOT_ALLOWED)),
        }
    }

    fn nodes(&self) -> Answer {
        let registered = self.state.registered.load(Ordering::SeqCst);
        let node = serde_json::json!({
            "destinationOrgID": self.state.org,
            "destinationType": crate::state::NODE_TYPE,
            "destinationID": self.state.node,
            "communication": "http",
        });
        list(if registered { std::slice::from_ref(&node) } else { &[] })
    }
}
