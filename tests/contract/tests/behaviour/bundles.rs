//! These behaviours start at the hub and end at the node.

use super::{
    Error, TYPE, answers, becomes, deliver, destination, entry, listed, object, path, place, policy,
    policy_for, publish, put, round_trip, status, unlisted,
};
use armor_contract_tests::{Fixture, Hub, eventually};
use serde_json::json;
use std::time::Duration;

const PUBLIC_KEY: &str = include_str!("../../vectors/public-key.txt");
const SIGNED: &[u8] = b"signed by OpenSSL";

fn signed(signature: &str) -> serde_json::Value {
    json!({"hashAlgorithm": "SHA256", "publicKey": PUBLIC_KEY, "signature": signature})
}

fn merged(mut base: serde_json::Value, more: &serde_json::Value) -> serde_json::Value {
    for (name, value) in more.as_object().into_iter().flatten() {
        base[name] = value.clone();
    }
    base
}

pub async fn bundle_reaches_the_service<H: Hub>(t: Fixture<H>) -> Result<(), Error> {
    let signature = include_str!("../../vectors/salt-222.txt");
    let more =
        merged(policy(), &merged(signed(signature), &json!({"version": "7", "description": "a bundle"})));
    put(&t.operator, "b", &more, Some(SIGNED)).await?;
    assert_eq!(t.operator.get(&format!("{}/destinations", path("b"))).await?.status, 404);
    place(&t, "b").await?;
    let meta = listed(&t.service, "b", |_| true).await?;
    for (name, value) in
        [("version", "7"), ("publicKey", PUBLIC_KEY), ("signature", signature), ("hashAlgorithm", "SHA256")]
    {
        assert_eq!(meta[name], value, "{name}");
    }
    assert_eq!(meta["ownerID"], "myorg/operator");
    assert_eq!(meta["objectSize"], SIGNED.len());
    assert!(meta["instanceID"].as_i64().is_some_and(|id| id > 1 << 53), "{}", meta["instanceID"]);
    let data = t.service.get(&format!("{}/data", path("b"))).await?;
    assert_eq!((data.status, data.body.as_slice()), (200, SIGNED));
    assert_eq!(t.service.get(&path("b")).await?.json()["objectID"], "b");
    destination(&t, "b", "delivered").await?;
    // The hub's own list is that of a receiver: it does not contain objects that the hub made.
    assert_eq!(t.operator.get(TYPE).await?.status, 404);
    let all = t.operator.get(&format!("{TYPE}?all_objects=true")).await?.json();
    assert_eq!(all[0]["destinations"][0]["destinationID"], t.hub.node());
    assert_eq!(t.operator.ids(&format!("?filters=true&objectType={TYPE}")).await?, ["b"]);
    Ok(())
}

pub async fn broadcast_reaches_the_node<H: Hub>(t: Fixture<H>) -> Result<(), Error> {
    put(&t.operator, "all", &json!({}), Some(b"x")).await?;
    listed(&t.service, "all", |_| true).await?;
    let other = t.hub.add_service("other", "1.0.0", "other-token")?;
    listed(&t.service.as_caller(&other, "other-token"), "all", |_| true).await?;
    Ok(())
}

pub async fn received_hides_and_keeps<H: Hub>(t: Fixture<H>) -> Result<(), Error> {
    deliver(&t, "b", &policy(), b"x").await?;
    for _ in 0..2 {
        assert_eq!(t.service.put(&format!("{}/received", path("b")), "").await?, 204);
    }
    assert_eq!(t.service.get(TYPE).await?.status, 404);
    assert_eq!(t.service.ids(&format!("{TYPE}?received=true")).await?, ["b"]);
    assert_eq!(t.service.get(&format!("{}/data", path("b"))).await?.body, b"x");
    assert_eq!(status(&t.service, "b").await?.text(), "objreceived");
    destination(&t, "b", "delivered").await?;
    Ok(())
}

pub async fn consumed_removes_and_an_update_returns<H: Hub>(t: Fixture<H>) -> Result<(), Error> {
    deliver(&t, "b", &policy(), b"x").await?;
    assert_eq!(t.service.put(&format!("{}/consumed", path("b")), "").await?, 204);
    destination(&t, "b", "consumed").await?;
    answers(&t.service, &path("b"), 403).await?;
    assert_eq!(t.service.get(TYPE).await?.status, 404);
    put(&t.operator, "b", &policy(), Some(b"y")).await?;
    listed(&t.service, "b", |_| true).await?;
    assert_eq!(t.service.get(&format!("{}/data", path("b"))).await?.body, b"y");
    Ok(())
}

/// Returns whether this request has no answer within two seconds.
async fn hangs<T>(request: impl Future<Output = T>) -> bool {
    tokio::time::timeout(Duration::from_secs(2), request).await.is_err()
}

pub async fn consuming_hangs_without_hub<H: Hub>(t: Fixture<H>) -> Result<(), Error> {
    for id in ["b", "other"] {
        deliver(&t, id, &policy(), b"x").await?;
    }
    t.hub.hub_down().await?;
    assert_eq!(t.service.put(&format!("{}/received", path("other")), "").await?, 204);
    assert!(hangs(t.service.put(&format!("{}/consumed", path("b")), "")).await);
    // The lists show the object as consumed, but requests for the object itself hang too.
    assert_eq!(t.service.ids(&format!("{TYPE}?received=true")).await?, ["other"]);
    for suffix in ["", "/data", "/status"] {
        assert!(hangs(t.service.get(&format!("{}{suffix}", path("b")))).await, "{suffix}");
    }
    t.hub.hub_up().await?;
    destination(&t, "b", "consumed").await?;
    Ok(())
}

pub async fn consuming_without_hub_outlives_an_ess_restart<H: Hub>(t: Fixture<H>) -> Result<(), Error> {
    deliver(&t, "b", &policy(), b"x").await?;
    t.hub.hub_down().await?;
    assert!(hangs(t.service.put(&format!("{}/consumed", path("b")), "")).await);
    t.hub.restart_ess().await?;
    // The lock is gone with the process; the acknowledgement is not.
    assert_eq!(t.service.get(TYPE).await?.status, 404);
    assert_eq!(status(&t.service, "b").await?.text(), "objconsumed");
    t.hub.hub_up().await?;
    destination(&t, "b", "consumed").await?;
    Ok(())
}

pub async fn acknowledging_a_deletion_hangs_without_hub<H: Hub>(t: Fixture<H>) -> Result<(), Error> {
    deliver(&t, "b", &policy(), b"x").await?;
    assert_eq!(t.operator.delete(&path("b")).await?, 204);
    listed(&t.service, "b", |object| object["deleted"] == true).await?;
    // The real hub keeps the object for ever if it stops before it hears that the node has the deletion.
    round_trip(&t, "barrier").await?;
    t.hub.hub_down().await?;
    assert!(hangs(t.service.put(&format!("{}/deleted", path("b")), "")).await);
    // The list still contains the deleted object, and so the whole list hangs.
    assert!(hangs(t.service.get(TYPE)).await);
    assert_eq!(t.service.get("another.type").await?.status, 404);
    t.hub.hub_up().await?;
    unlisted(&t.service, "b").await?;
    answers(&t.operator, &path("b"), 404).await?;
    Ok(())
}

pub async fn deletion_stays_listed_until_acknowledged<H: Hub>(t: Fixture<H>) -> Result<(), Error> {
    deliver(&t, "b", &policy(), b"x").await?;
    assert_eq!(t.service.put(&format!("{}/received", path("b")), "").await?, 204);
    assert_eq!(t.operator.delete(&path("b")).await?, 204);
    listed(&t.service, "b", |object| object["deleted"] == true).await?;
    // The state changes before the data is removed.
    answers(&t.service, &format!("{}/data", path("b")), 404).await?;
    assert_eq!(status(&t.service, "b").await?.text(), "objdeleted");
    assert_eq!(t.service.put(&format!("{}/received", path("b")), "").await?, 400);
    assert_eq!(t.service.put(&format!("{}/deleted", path("b")), "").await?, 204);
    unlisted(&t.service, "b").await?;
    answers(&t.operator, &path("b"), 404).await?;
    Ok(())
}

pub async fn second_deletion_keeps_the_first_from_the_node<H: Hub>(t: Fixture<H>) -> Result<(), Error> {
    deliver(&t, "b", &policy(), b"x").await?;
    t.hub.ess_down().await?;
    assert_eq!(t.operator.delete(&path("b")).await?, 204);
    assert_eq!(status(&t.operator, "b").await?.text(), "objdeleted");
    assert_eq!(t.operator.delete(&path("b")).await?, 204);
    assert_eq!(t.operator.get(&path("b")).await?.status, 404);
    t.hub.restart_ess().await?;
    round_trip(&t, "barrier").await?;
    assert_eq!(listed(&t.service, "b", |_| true).await?["deleted"], false);
    Ok(())
}

pub async fn deletion_of_what_was_consumed<H: Hub>(t: Fixture<H>) -> Result<(), Error> {
    deliver(&t, "b", &policy(), b"x").await?;
    assert_eq!(t.service.put(&format!("{}/consumed", path("b")), "").await?, 204);
    destination(&t, "b", "consumed").await?;
    assert_eq!(t.operator.delete(&path("b")).await?, 204);
    listed(&t.service, "b", |object| object["deleted"] == true).await?;
    Ok(())
}

pub async fn id_is_blocked_until_the_deletion_is_acknowledged<H: Hub>(t: Fixture<H>) -> Result<(), Error> {
    deliver(&t, "b", &policy(), b"x").await?;
    assert_eq!(t.operator.delete(&path("b")).await?, 204);
    assert_eq!(t.operator.put(&path("b"), object("b", &policy(), Some(b"y"))).await?, 400);
    listed(&t.service, "b", |object| object["deleted"] == true).await?;
    assert_eq!(t.service.put(&format!("{}/deleted", path("b")), "").await?, 204);
    let free = || async {
        (t.operator.put(&path("b"), object("b", &policy(), Some(b"y"))).await.ok()? == 204).then_some(())
    };
    eventually("the id can be used again", free).await?;
    Ok(())
}

pub async fn live_object_cannot_be_acknowledged_as_deleted<H: Hub>(t: Fixture<H>) -> Result<(), Error> {
    deliver(&t, "b", &policy(), b"x").await?;
    assert_eq!(t.service.put(&format!("{}/deleted", path("b")), "").await?, 400);
    assert_eq!(t.service.delete(&path("b")).await?, 400);
    Ok(())
}

pub async fn republished_bytes_are_a_new_instance<H: Hub>(t: Fixture<H>) -> Result<(), Error> {
    let first = deliver(&t, "b", &policy(), b"x").await?;
    assert_eq!(t.service.put(&format!("{}/received", path("b")), "").await?, 204);
    put(&t.operator, "b", &policy(), Some(b"x")).await?;
    listed(&t.service, "b", |object| object["instanceID"].as_i64() > first["instanceID"].as_i64()).await?;
    Ok(())
}

pub async fn meta_only_update_keeps_data<H: Hub>(t: Fixture<H>) -> Result<(), Error> {
    let signature = include_str!("../../vectors/salt-32.txt");
    let first = deliver(&t, "b", &merged(policy(), &signed(signature)), SIGNED).await?;
    let more = json!({"metaOnly": true, "version": "9", "publicKey": "AAAA", "signature": "AAAA", "hashAlgorithm": "SHA256"});
    put(&t.operator, "b", &merged(policy(), &more), None).await?;
    let second = listed(&t.service, "b", |object| object["version"] == "9").await?;
    assert_eq!(second["dataID"], first["dataID"]);
    assert_eq!(second["objectSize"], 0);
    assert_eq!(second["signature"], signature);
    assert!(second["instanceID"].as_i64() > first["instanceID"].as_i64());
    assert_eq!(t.service.get(&format!("{}/data", path("b"))).await?.body, SIGNED);
    Ok(())
}

pub async fn visibility_follows_service_and_version<H: Hub>(t: Fixture<H>) -> Result<(), Error> {
    let cases = [
        ("open", policy_for("hzn-armor", "1.0.0"), true),
        ("exact", policy_for("hzn-armor", "1.5.0"), true),
        ("later", policy_for("hzn-armor", "2.0.0"), false),
        ("range", policy_for("hzn-armor", "[1.0.0,2.0.0)"), true),
        ("below", policy_for("hzn-armor", "[1.0.0,1.5.0)"), false),
        ("endless", policy_for("hzn-armor", "[1.0.0,INFINITY)"), true),
        ("other", policy_for("other", "1.0.0"), false),
    ];
    for (id, policy, _) in &cases {
        publish(&t, id, policy, b"x").await?;
    }
    for (id, _, visible) in &cases {
        destination(&t, id, "delivered").await?;
        let data = t.service.get(&format!("{}/data", path(id))).await?.status;
        assert_eq!(data, if *visible { 200 } else { 403 }, "{id}");
        assert_eq!(entry(&t.service, TYPE, id).await.is_some(), *visible, "{id}");
    }
    for version in ["latest", "[1.0.0", ""] {
        let body = object("bad", &policy_for("hzn-armor", version), Some(b"x"));
        assert_eq!(t.operator.put(&path("bad"), body).await?, 400, "{version}");
    }
    let both = merged(policy(), &json!({"destinationType": "openhorizon.edgenode"}));
    assert_eq!(t.operator.put(&path("bad"), object("bad", &both, Some(b"x"))).await?, 400);
    // A policy can be neither added nor removed later.
    assert_eq!(t.operator.put(&path("open"), object("open", &json!({}), Some(b"x"))).await?, 400);
    Ok(())
}

pub async fn removed_service_sees_a_deletion<H: Hub>(t: Fixture<H>) -> Result<(), Error> {
    deliver(&t, "b", &policy(), b"x").await?;
    put(&t.operator, "b", &policy_for("other", "1.0.0"), Some(b"y")).await?;
    listed(&t.service, "b", |object| object["deleted"] == true).await?;
    assert_eq!(t.service.get(&path("b")).await?.status, 403);
    let other = t.hub.add_service("other", "1.0.0", "other-token")?;
    let other = t.service.as_caller(&other, "other-token");
    listed(&other, "b", |object| object["deleted"] == false).await?;
    assert_eq!(t.service.put(&format!("{}/deleted", path("b")), "").await?, 204);
    unlisted(&t.service, "b").await?;
    listed(&other, "b", |object| object["deleted"] == false).await?;
    Ok(())
}

pub async fn moved_destination_sees_a_deletion<H: Hub>(t: Fixture<H>) -> Result<(), Error> {
    deliver(&t, "b", &policy(), b"x").await?;
    assert_eq!(t.operator.put(&format!("{}/destinations", path("b")), "[]").await?, 204);
    listed(&t.service, "b", |object| object["deleted"] == true).await?;
    Ok(())
}

pub async fn destinations_are_strings_of_registered_nodes<H: Hub>(t: Fixture<H>) -> Result<(), Error> {
    put(&t.operator, "b", &policy(), Some(b"x")).await?;
    let at = format!("{}/destinations", path("b"));
    let objects =
        json!([{"destinationType": "openhorizon.edgenode", "destinationID": t.hub.node()}]).to_string();
    assert_eq!(t.operator.put(&at, objects).await?, 400);
    let unknown = t.operator.put(&at, r#"["openhorizon.edgenode:nobody"]"#).await?;
    assert_eq!(unknown, 500);
    assert_eq!(t.operator.put(&at, r#"["nonsense"]"#).await?, 400);
    assert_eq!(t.operator.get(&at).await?.status, 404);
    Ok(())
}

pub async fn pss_verifies_at_any_salt_length<H: Hub>(t: Fixture<H>) -> Result<(), Error> {
    for (id, signature) in [
        ("salt-0", include_str!("../../vectors/salt-0.txt")),
        ("salt-32", include_str!("../../vectors/salt-32.txt")),
        ("salt-222", include_str!("../../vectors/salt-222.txt")),
    ] {
        deliver(&t, id, &merged(policy(), &signed(signature)), SIGNED).await?;
    }
    Ok(())
}

pub async fn bad_signature_is_refused<H: Hub>(t: Fixture<H>) -> Result<(), Error> {
    let good = include_str!("../../vectors/salt-222.txt");
    for (id, signature, data) in [
        ("altered", good, &b"signed by openssl"[..]),
        ("pkcs1", include_str!("../../vectors/pkcs1-v1_5.txt"), SIGNED),
    ] {
        let body = object(id, &merged(policy(), &signed(signature)), Some(data));
        assert_eq!(t.operator.put(&path(id), body).await?, 500, "{id}");
        assert_eq!(status(&t.operator, id).await?.text(), "verificationFailed", "{id}");
        // Two requests, as hzn sends them, have the same result.
        put(&t.operator, id, &merged(policy(), &signed(signature)), None).await?;
        assert_eq!(t.operator.put(&format!("{}/data", path(id)), data).await?, 500, "{id}");
        assert_eq!(status(&t.operator, id).await?.text(), "verificationFailed", "{id}");
        assert_eq!(t.operator.get(&format!("{}/data", path(id))).await?.status, 404);
    }
    // A valid signature repairs the object.
    put(&t.operator, "altered", &merged(policy(), &signed(good)), None).await?;
    assert_eq!(t.operator.put(&format!("{}/data", path("altered")), SIGNED).await?, 204);
    becomes(&t.operator, "altered", "ready").await
}

pub async fn incomplete_signature_is_not_checked<H: Hub>(t: Fixture<H>) -> Result<(), Error> {
    for field in ["hashAlgorithm", "publicKey", "signature"] {
        let mut more = merged(policy(), &signed("AAAA"));
        more[field] = json!("");
        let meta = deliver(&t, field, &more, b"not what was signed").await?;
        for name in ["hashAlgorithm", "publicKey", "signature"] {
            assert_eq!(meta[name], more[name], "{field}: {name}");
        }
    }
    Ok(())
}

pub async fn bundle_survives_an_ess_restart_without_hub<H: Hub>(t: Fixture<H>) -> Result<(), Error> {
    deliver(&t, "new", &policy(), b"x").await?;
    deliver(&t, "known", &policy(), b"y").await?;
    assert_eq!(t.service.put(&format!("{}/received", path("known")), "").await?, 204);
    t.hub.hub_down().await?;
    t.hub.restart_ess().await?;
    listed(&t.service, "new", |_| true).await?;
    assert!(entry(&t.service, TYPE, "known").await.is_none());
    assert!(entry(&t.service, &format!("{TYPE}?received=true"), "known").await.is_some());
    assert_eq!(t.service.get(&format!("{}/data", path("known"))).await?.body, b"y");
    t.hub.hub_up().await?;
    deliver(&t, "later", &policy(), b"z").await?;
    round_trip(&t, "barrier").await
}
