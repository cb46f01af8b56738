//! These behaviours concern changes that an agent makes to its ESS, and parts that only the development hub
//! has: its agbot and its control port.

use super::{Error, TYPE};
use armor_contract_tests::{Client, DevHub, DevHubConfig, Fixture, Hub, Role, eventually};
use armor_dev_hub::control;
use serde_json::json;
use std::sync::Arc;

pub async fn certificate_can_be_replaced<H: Hub>(t: Fixture<H>) -> Result<(), Error> {
    assert_eq!(t.service.get(TYPE).await?.status, 404);
    t.hub.replace_certificate().await?;
    assert!(t.service.get(TYPE).await.is_err());
    let client = Client::ess(&t.hub, "myorg/hzn-armor", "service-token")?;
    assert_eq!(client.get(TYPE).await?.status, 404);
    Ok(())
}

pub async fn ess_can_be_away<H: Hub>(t: Fixture<H>) -> Result<(), Error> {
    t.hub.ess_down().await?;
    assert!(t.hub.ess_socket().exists());
    assert!(t.service.get(TYPE).await.is_err());
    t.hub.restart_ess().await?;
    assert_eq!(t.service.get(TYPE).await?.status, 404);
    Ok(())
}

fn bundle(id: &str, version: &str, constraint: &str) -> String {
    let service = json!({"orgID": "myorg", "arch": "*", "serviceName": "hzn-armor", "version": version});
    let policy = json!({"constraints": [constraint], "services": [service]});
    json!({"meta": {"objectID": id, "objectType": "t", "destinationPolicy": policy}, "data": "eA=="})
        .to_string()
}

pub async fn agbot_places_what_fits_the_node() -> Result<(), Error> {
    let t = Fixture::on_dev_hub_with(|config| DevHubConfig { agbot: true, ..config }).await?;
    for (id, version, constraint) in
        [("other-node", "1.0.0", "purpose == test"), ("other-version", "2.0.0", "purpose == security")]
    {
        assert_eq!(t.operator.put(&format!("t/{id}"), bundle(id, version, constraint)).await?, 204);
    }
    assert_eq!(t.operator.put("t/fits", bundle("fits", "1.0.0", "purpose == security")).await?, 204);
    let listed = || async { (t.service.ids("t").await.ok()? == ["fits"]).then_some(()) };
    eventually("the bundle that fits is listed", listed).await?;
    assert_eq!(t.operator.get("t/other-node/destinations").await?.status, 404);
    // The next version is for other nodes: this node sees the object as deleted.
    assert_eq!(t.operator.put("t/fits", bundle("fits", "1.0.0", "purpose == test")).await?, 204);
    let deleted = || async { (t.service.get("t").await.ok()?.json()[0]["deleted"] == true).then_some(()) };
    eventually("the bundle is withdrawn", deleted).await?;
    Ok(())
}

pub async fn control_port_takes_the_hub_away() -> Result<(), Error> {
    let dir = tempfile::tempdir()?;
    let hub = Arc::new(DevHub::start(DevHubConfig::new(dir.path())).await?);
    let operator = hub.add_user("operator", "password", Role::User)?;
    let client = Client::css(&*hub, &operator, "password")?;
    let (_server, url) = control::serve(&hub, 0).await?;
    assert_eq!(client.get("t").await?.status, 404);
    for _ in 0..2 {
        assert!(order_hub(&client, &url, "down").await?.contains("down"));
        assert!(client.get("t").await.is_err());
    }
    assert!(order_hub(&client, &url, "up").await?.contains("up"));
    assert_eq!(client.get("t").await?.status, 404);
    assert!(order_hub(&client, &url, "restart-ess").await?.contains("restarted"));
    Ok(())
}

async fn order_hub(client: &Client, url: &str, order: &str) -> Result<String, reqwest::Error> {
    Ok(client.at(url).get(&format!("control/{order}")).await?.text())
}
