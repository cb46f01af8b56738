//! These behaviours start at the node and end at the hub.

use super::{
    Error, TYPE, answers, becomes, destination, entry, listed, object, path, place, policy, put, round_trip,
    status, unlisted,
};
use armor_contract_tests::{Fixture, Hub, eventually};
use serde_json::json;
use std::time::Duration;

pub async fn alert_goes_all_the_way<H: Hub>(t: Fixture<H>) -> Result<(), Error> {
    put(&t.service, "a", &json!({"description": "x 1"}), Some(b"alerts")).await?;
    assert_eq!(status(&t.service, "a").await?.text(), "ready");
    let meta = listed(&t.operator, "a", |_| true).await?;
    assert_eq!(meta["description"], "x 1");
    assert_eq!(meta["destinationType"], "openhorizon.edgenode");
    assert_eq!(meta["destinationID"], t.hub.node());
    assert_eq!(t.operator.get(&format!("{}/data", path("a"))).await?.body, b"alerts");
    assert_eq!(t.operator.get(&format!("{}/destinations", path("a"))).await?.status, 404);
    assert_eq!(status(&t.operator, "a").await?.text(), "completelyReceived");
    assert_eq!(t.operator.put(&format!("{}/consumed", path("a")), "").await?, 204);
    becomes(&t.service, "a", "consumedByDest").await?;
    answers(&t.operator, &path("a"), 404).await?;
    // The list of a service's objects does not contain its own, whatever their state.
    assert_eq!(t.service.get(TYPE).await?.status, 404);
    assert_eq!(t.service.ids(&format!("{TYPE}?all_objects=true")).await?, ["a"]);
    Ok(())
}

pub async fn alert_origin_is_claimed_and_owner_is_not<H: Hub>(t: Fixture<H>) -> Result<(), Error> {
    let claims = json!({"originType": "openhorizon.edgenode", "originID": "node9", "ownerID": "myorg/node9"});
    put(&t.service, "a", &claims, Some(b"x")).await?;
    let meta = listed(&t.operator, "a", |_| true).await?;
    assert_eq!(meta["originID"], "node9");
    let owner = meta["ownerID"].as_str().unwrap_or_default();
    assert!(owner.starts_with("myorg/") && owner.ends_with(&t.hub.node()), "{owner}");
    put(&t.service, "b", &json!({}), Some(b"x")).await?;
    let meta = listed(&t.operator, "b", |_| true).await?;
    assert_eq!(
        (&meta["originType"], &meta["originID"]),
        (&json!("openhorizon.edgenode"), &json!(t.hub.node()))
    );
    Ok(())
}

pub async fn consumed_id_cannot_be_used_again<H: Hub>(t: Fixture<H>) -> Result<(), Error> {
    round_trip(&t, "a").await?;
    assert_eq!(t.service.put(&path("a"), object("a", &json!({}), Some(b"y"))).await?, 400);
    assert_eq!(t.service.delete(&path("a")).await?, 400);
    Ok(())
}

pub async fn received_by_the_hub_is_not_reported<H: Hub>(t: Fixture<H>) -> Result<(), Error> {
    put(&t.service, "a", &json!({}), Some(b"x")).await?;
    listed(&t.operator, "a", |_| true).await?;
    assert_eq!(t.operator.put(&format!("{}/received", path("a")), "").await?, 204);
    unlisted(&t.operator, "a").await?;
    assert!(entry(&t.operator, &format!("{TYPE}?received=true"), "a").await.is_some());
    round_trip(&t, "barrier").await?;
    assert_eq!(status(&t.service, "a").await?.text(), "ready");
    assert_eq!(t.operator.put(&format!("{}/consumed", path("a")), "").await?, 204);
    becomes(&t.service, "a", "consumedByDest").await
}

pub async fn alert_deleted_at_the_hub_stays_ready<H: Hub>(t: Fixture<H>) -> Result<(), Error> {
    put(&t.service, "a", &json!({}), Some(b"x")).await?;
    listed(&t.operator, "a", |_| true).await?;
    assert_eq!(t.operator.delete(&path("a")).await?, 204);
    assert_eq!(t.operator.get(&path("a")).await?.status, 404);
    round_trip(&t, "barrier").await?;
    assert_eq!(status(&t.service, "a").await?.text(), "ready");
    // Putting it again brings it back.
    put(&t.service, "a", &json!({}), Some(b"x")).await?;
    listed(&t.operator, "a", |_| true).await?;
    Ok(())
}

pub async fn alert_deleted_by_the_service<H: Hub>(t: Fixture<H>) -> Result<(), Error> {
    put(&t.service, "a", &json!({}), Some(b"x")).await?;
    listed(&t.operator, "a", |_| true).await?;
    assert_eq!(t.service.delete(&path("a")).await?, 204);
    listed(&t.operator, "a", |object| object["deleted"] == true).await?;
    // The state changes before the data is removed.
    answers(&t.operator, &format!("{}/data", path("a")), 404).await?;
    assert_eq!(t.operator.put(&format!("{}/deleted", path("a")), "").await?, 204);
    let free = || async {
        let answer = t.service.put(&path("a"), object("a", &json!({}), Some(b"y"))).await.ok()?;
        (answer == 204).then_some(())
    };
    eventually("the id can be used again", free).await?;
    listed(&t.operator, "a", |object| object["deleted"] == false).await?;
    Ok(())
}

pub async fn alert_put_again_replaces<H: Hub>(t: Fixture<H>) -> Result<(), Error> {
    put(&t.service, "a", &json!({}), Some(b"x")).await?;
    let first = listed(&t.operator, "a", |_| true).await?;
    assert_eq!(t.operator.put(&format!("{}/received", path("a")), "").await?, 204);
    put(&t.service, "a", &json!({}), Some(b"y")).await?;
    listed(&t.operator, "a", |object| object["instanceID"].as_i64() > first["instanceID"].as_i64()).await?;
    assert_eq!(t.operator.get(&format!("{}/data", path("a"))).await?.body, b"y");
    Ok(())
}

/// PUTs an object like a client with a time limit; returns whether an answer came.
async fn put_in_time<H: Hub>(t: &Fixture<H>, id: &str) -> Result<bool, Error> {
    let body = object(id, &json!({}), Some(id.as_bytes()));
    match tokio::time::timeout(Duration::from_secs(2), t.service.put(&path(id), body)).await {
        Ok(status) => {
            assert_eq!(status?, 204, "{id}");
            Ok(true)
        }
        Err(_) => Ok(false),
    }
}

pub async fn puts_hang_without_hub_and_arrive_later<H: Hub>(t: Fixture<H>) -> Result<(), Error> {
    t.hub.hub_down().await?;
    for id in ["a1", "a2", "a3"] {
        assert!(put_in_time(&t, id).await?, "{id} hangs");
    }
    for id in ["a4", "a5"] {
        assert!(!put_in_time(&t, id).await?, "{id} does not hang");
    }
    assert_eq!(status(&t.service, "a4").await?.text(), "ready");
    // Metadata alone causes no transfer and does not hang.
    put(&t.service, "meta", &json!({}), None).await?;
    t.hub.hub_up().await?;
    for id in ["a1", "a2", "a3", "a4", "a5"] {
        listed(&t.operator, id, |_| true).await?;
    }
    Ok(())
}

pub async fn queue_is_lost_when_the_ess_restarts<H: Hub>(t: Fixture<H>) -> Result<(), Error> {
    t.hub.hub_down().await?;
    for id in ["a1", "a2", "a3"] {
        assert!(put_in_time(&t, id).await?, "{id} hangs");
    }
    t.hub.restart_ess().await?;
    t.hub.hub_up().await?;
    round_trip(&t, "barrier").await?;
    for id in ["a2", "a3"] {
        assert_eq!(status(&t.service, id).await?.text(), "ready");
        assert_eq!(t.operator.get(&path(id)).await?.status, 404, "{id} arrived");
    }
    put(&t.service, "a2", &json!({}), Some(b"again")).await?;
    listed(&t.operator, "a2", |_| true).await?;
    assert_eq!(t.operator.get(&path("a3")).await?.status, 404);
    Ok(())
}

pub async fn alert_under_a_hub_made_id_is_not_taken<H: Hub>(t: Fixture<H>) -> Result<(), Error> {
    put(&t.operator, "b", &policy(), Some(b"the hub's")).await?;
    put(&t.service, "b", &json!({}), Some(b"the node's")).await?;
    round_trip(&t, "barrier").await?;
    assert_eq!(t.operator.get(&format!("{}/data", path("b"))).await?.body, b"the hub's");
    assert_eq!(status(&t.service, "b").await?.text(), "ready");
    // The hub's object does not reach this node either.
    place(&t, "b").await?;
    destination(&t, "b", "error").await?;
    assert!(entry(&t.service, TYPE, "b").await.is_none());
    assert_eq!(t.service.get(&format!("{}/data", path("b"))).await?.body, b"the node's");
    Ok(())
}

pub async fn squatted_id_refuses_the_hub<H: Hub>(t: Fixture<H>) -> Result<(), Error> {
    put(&t.service, "b", &json!({}), Some(b"the node's")).await?;
    listed(&t.operator, "b", |_| true).await?;
    assert_eq!(t.operator.put(&path("b"), object("b", &policy(), Some(b"the hub's"))).await?, 400);
    assert_eq!(t.operator.delete(&path("b")).await?, 204);
    put(&t.operator, "b", &policy(), Some(b"the hub's")).await
}

pub async fn other_service_may_meddle_with_alerts<H: Hub>(t: Fixture<H>) -> Result<(), Error> {
    let other = t.hub.add_service("other", "1.0.0", "other-token")?;
    let other = t.service.as_caller(&other, "other-token");
    put(&t.service, "a", &json!({}), Some(b"x")).await?;
    listed(&t.operator, "a", |_| true).await?;
    assert_eq!(other.get(&format!("{}/data", path("a"))).await?.body, b"x");
    put(&other, "a", &json!({}), Some(b"forged")).await?;
    let forged = || async {
        (t.operator.get(&format!("{}/data", path("a"))).await.ok()?.body == b"forged").then_some(())
    };
    eventually("the hub has the forged data", forged).await?;
    assert_eq!(status(&t.service, "a").await?.text(), "ready");
    assert_eq!(other.delete(&path("a")).await?, 204);
    listed(&t.operator, "a", |object| object["deleted"] == true).await?;
    Ok(())
}

pub async fn any_user_may_meddle_with_alerts<H: Hub>(t: Fixture<H>) -> Result<(), Error> {
    let user = t.hub.add_user("somebody", "some-password", armor_contract_tests::Role::User)?;
    let user = t.operator.as_caller(&user, "some-password");
    for id in ["consumed", "deleted"] {
        put(&t.service, id, &json!({}), Some(b"x")).await?;
        listed(&t.operator, id, |_| true).await?;
        assert_eq!(user.get(&format!("{}/data", path(id))).await?.body, b"x");
    }
    assert_eq!(user.put(&format!("{}/consumed", path("consumed")), "").await?, 204);
    becomes(&t.service, "consumed", "consumedByDest").await?;
    assert_eq!(user.delete(&path("deleted")).await?, 204);
    assert_eq!(status(&t.service, "deleted").await?.text(), "ready");
    Ok(())
}

pub async fn large_objects_pass<H: Hub>(t: Fixture<H>) -> Result<(), Error> {
    let up = vec![7; 4 << 20];
    put(&t.service, "up", &json!({}), Some(&up)).await?;
    listed(&t.operator, "up", |_| true).await?;
    assert_eq!(t.operator.get(&format!("{}/data", path("up"))).await?.body, up);
    let down = vec![8; 12 << 20];
    put(&t.operator, "down", &policy(), Some(&down)).await?;
    place(&t, "down").await?;
    listed(&t.service, "down", |_| true).await?;
    assert_eq!(t.service.get(&format!("{}/data", path("down"))).await?.body, down);
    Ok(())
}

pub async fn range_upload_fails_at_the_ess<H: Hub>(t: Fixture<H>) -> Result<(), Error> {
    put(&t.service, "a", &json!({}), None).await?;
    let range = [("Content-Range", "bytes 0-1/2")];
    let answer = t.service.call("PUT".parse()?, &format!("{}/data", path("a")), &range, "xy").await?;
    assert_eq!(answer.status, 500);
    assert_eq!(t.service.put(&format!("{}/data", path("a")), "xy").await?, 204);
    listed(&t.operator, "a", |_| true).await?;
    Ok(())
}

pub async fn alert_deleted_before_its_turn_arrives_as_deleted<H: Hub>(t: Fixture<H>) -> Result<(), Error> {
    t.hub.hub_down().await?;
    put(&t.service, "a", &json!({}), Some(b"x")).await?;
    assert_eq!(t.service.delete(&path("a")).await?, 204);
    t.hub.hub_up().await?;
    listed(&t.operator, "a", |object| object["deleted"] == true).await?;
    answers(&t.operator, &format!("{}/data", path("a")), 404).await?;
    assert_eq!(t.operator.put(&format!("{}/deleted", path("a")), "").await?, 204);
    unlisted(&t.operator, "a").await
}

pub async fn alert_deleted_at_both_ends_is_gone<H: Hub>(t: Fixture<H>) -> Result<(), Error> {
    put(&t.service, "a", &json!({}), Some(b"x")).await?;
    listed(&t.operator, "a", |_| true).await?;
    assert_eq!(t.operator.delete(&path("a")).await?, 204);
    assert_eq!(t.service.delete(&path("a")).await?, 204);
    round_trip(&t, "barrier").await?;
    assert!(entry(&t.operator, &format!("{TYPE}?received=true"), "a").await.is_none());
    Ok(())
}
