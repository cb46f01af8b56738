//! These behaviours are grouped by the side that starts: bundles come from the hub, alerts from the node.

mod alerts;
mod basics;
mod bundles;
mod development;
mod staying;

pub use alerts::*;
pub use basics::*;
pub use bundles::*;
pub use development::*;
pub use staying::*;

use armor_contract_tests::{Answer, Client, Fixture, Hub, eventually};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

type Error = Box<dyn std::error::Error + Send + Sync>;

/// Object type of the tests.
const TYPE: &str = "test.object";

/// Returns the body of a PUT: metadata for `id` with `more` fields, and data.
fn object(id: &str, more: &Value, data: Option<&[u8]>) -> String {
    let mut meta = json!({"objectID": id, "objectType": TYPE});
    for (name, value) in more.as_object().into_iter().flatten() {
        meta[name] = value.clone();
    }
    match data {
        Some(data) => json!({"meta": meta, "data": STANDARD.encode(data)}).to_string(),
        None => json!({"meta": meta}).to_string(),
    }
}

fn path(id: &str) -> String {
    format!("{TYPE}/{id}")
}

/// Returns metadata with a destination policy for `service` at `version`.
fn policy_for(service: &str, version: &str) -> Value {
    let service = json!({"orgID": "myorg", "arch": "*", "serviceName": service, "version": version});
    json!({"destinationPolicy": {"properties": [], "constraints": [], "services": [service]}})
}

/// Returns metadata with a destination policy that matches every test's own service.
fn policy() -> Value {
    policy_for("hzn-armor", "1.0.0")
}

/// PUTs an object of the client's own and expects status 204.
async fn put(client: &Client, id: &str, more: &Value, data: Option<&[u8]>) -> Result<(), Error> {
    let answer = client.call("PUT".parse()?, &path(id), &[], object(id, more, data)).await?;
    if answer.status == 204 {
        Ok(())
    } else {
        Err(format!("PUT {id}: {} {}", answer.status, answer.text()).into())
    }
}

/// Publishes an object with a policy and places it on the node, as operator and agbot do.
async fn publish<H: Hub>(t: &Fixture<H>, id: &str, more: &Value, data: &[u8]) -> Result<(), Error> {
    put(&t.operator, id, more, Some(data)).await?;
    place(t, id).await
}

/// Publishes an object, and waits until both the service and the hub see it delivered. Between these two
/// moments the real ESS is still reporting the delivery to the hub; an acknowledgement by the service may
/// then be lost (the object comes again, or the hub shows an error). The same happens while the ESS still has
/// an older answer of the hub to process that announces the object, so an object's round trip follows.
async fn deliver<H: Hub>(t: &Fixture<H>, id: &str, more: &Value, data: &[u8]) -> Result<Value, Error> {
    publish(t, id, more, data).await?;
    let meta = listed(&t.service, id, |_| true).await?;
    destination(t, id, "delivered").await?;
    round_trip(t, &format!("{id}.delivered")).await?;
    Ok(meta)
}

/// Sets the node as the object's destination.
async fn place<H: Hub>(t: &Fixture<H>, id: &str) -> Result<(), Error> {
    let node = json!([format!("openhorizon.edgenode:{}", t.hub.node())]).to_string();
    let answer = t.operator.call("PUT".parse()?, &format!("{}/destinations", path(id)), &[], node).await?;
    if answer.status == 204 {
        Ok(())
    } else {
        Err(format!("destinations: {} {}", answer.status, answer.text()).into())
    }
}

/// Returns the entry for `id` in the list at path `list`.
async fn entry(client: &Client, list: &str, id: &str) -> Option<Value> {
    let answer = client.get(list).await.ok()?.json();
    answer.as_array()?.iter().find(|object| object["objectID"] == id).cloned()
}

/// Waits until the list contains `id` and `wanted` is true of its entry.
async fn listed(client: &Client, id: &str, wanted: impl Fn(&Value) -> bool) -> Result<Value, Error> {
    let what = format!("{id} is listed as wanted");
    let ask = || async { entry(client, TYPE, id).await.filter(|object| wanted(object)) };
    Ok(eventually(&what, ask).await?)
}

/// Waits until the list does not contain `id`.
async fn unlisted(client: &Client, id: &str) -> Result<(), Error> {
    let ask = || async { (!client.ids(TYPE).await.ok()?.iter().any(|listed| listed == id)).then_some(()) };
    Ok(eventually(&format!("{id} is not listed"), ask).await?)
}

async fn status(client: &Client, id: &str) -> Result<Answer, Error> {
    Ok(client.get(&format!("{}/status", path(id))).await?)
}

/// Waits until the object's status is `wanted`.
async fn becomes(client: &Client, id: &str, wanted: &str) -> Result<(), Error> {
    let ask = || async { (status(client, id).await.ok()?.text() == wanted).then_some(()) };
    Ok(eventually(&format!("{id} is {wanted}"), ask).await?)
}

/// Waits until a request for `path` has this status.
async fn answers(client: &Client, path: &str, status: u16) -> Result<(), Error> {
    let ask = || async { (client.get(path).await.ok()?.status == status).then_some(()) };
    Ok(eventually(&format!("GET {path} is {status}"), ask).await?)
}

/// Waits until the node's entry in the object's destinations has this status.
async fn destination<H: Hub>(t: &Fixture<H>, id: &str, wanted: &str) -> Result<Value, Error> {
    let ask = || async {
        let list = t.operator.get(&format!("{}/destinations", path(id))).await.ok()?.json();
        list.as_array()?.iter().find(|destination| destination["status"] == wanted).cloned()
    };
    Ok(eventually(&format!("the destination of {id} is {wanted}"), ask).await?)
}

/// Sends an object from the node and waits until the hub has consumed it: by then, everything that was sent
/// or announced before it has been processed. A second object follows it, because the real hub forgets an
/// object that is consumed after the hub listed it and before the hub notified the node.
async fn round_trip<H: Hub>(t: &Fixture<H>, id: &str) -> Result<(), Error> {
    let next = format!("{id}.next");
    for id in [id, &next] {
        put(&t.service, id, &json!({}), Some(b"barrier")).await?;
    }
    for id in [id, &next] {
        listed(&t.operator, id, |_| true).await?;
    }
    assert_eq!(t.operator.put(&format!("{}/consumed", path(id)), "").await?, 204);
    becomes(&t.service, id, "consumedByDest").await
}
