//! These behaviours concern objects that stay at the hub: a machine without an ESS leaves them there, for a
//! destination type that no node has.

use super::{Error, TYPE, becomes, entry, listed, object, path, put, round_trip, status};
use armor_contract_tests::{Fixture, Hub, Role};
use serde_json::json;

const STAYS: &str = "no-nodes";

fn filter(id: &str) -> String {
    format!("?filters=true&objectType={TYPE}&destinationType={STAYS}{id}")
}

pub async fn object_for_a_type_without_nodes_stays<H: Hub>(t: Fixture<H>) -> Result<(), Error> {
    let meta = json!({"destinationType": STAYS, "description": "sha256:0"});
    put(&t.operator, "a", &meta, Some(b"x")).await?;
    let for_one = json!({"destinationType": STAYS, "destinationID": "some-machine"});
    put(&t.operator, "b", &for_one, Some(b"y")).await?;
    assert_eq!(status(&t.operator, "a").await?.text(), "ready");
    // The list of objects that arrived at the hub does not contain it, the list with filters does.
    assert!(entry(&t.operator, TYPE, "a").await.is_none());
    let found = entry(&t.operator, &filter(""), "a").await.ok_or("not found by its destination")?;
    assert_eq!((&found["description"], &found["ownerID"]), (&json!("sha256:0"), &json!("myorg/operator")));
    assert_eq!(t.operator.ids(&filter("")).await?, ["a", "b"]);
    assert_eq!(t.operator.ids(&filter("&destinationID=some-machine")).await?, ["b"]);
    assert_eq!(t.operator.get(&filter("&destinationID=another")).await?.status, 404);
    // Objects for nodes, whether for all or by a policy, are not in this list.
    put(&t.operator, "everybody", &json!({}), Some(b"z")).await?;
    put(&t.operator, "policy", &super::policy(), Some(b"z")).await?;
    assert_eq!(t.operator.ids(&filter("")).await?, ["a", "b"]);

    // Later objects reach the node, and an ESS that registers again asks for all objects for its node.
    listed(&t.service, "everybody", |_| true).await?;
    t.hub.restart_ess().await?;
    round_trip(&t, "barrier").await?;
    assert_eq!(t.service.ids(TYPE).await?, ["everybody"]);
    for id in ["a", "b"] {
        assert_eq!(t.service.get(&path(id)).await?.status, 403, "{id}");
        assert_eq!(t.operator.get(&format!("{}/destinations", path(id))).await?.status, 404, "{id}");
    }
    // It cannot be consumed, because nobody sent it here; when it is deleted, it is gone at once and its id
    // is free.
    assert_eq!(t.operator.put(&format!("{}/consumed", path("a")), "").await?, 400);
    assert_eq!(t.operator.delete(&path("a")).await?, 204);
    assert_eq!(t.operator.get(&path("a")).await?.status, 404);
    assert_eq!(t.operator.ids(&filter("")).await?, ["b"]);
    put(&t.operator, "a", &meta, Some(b"x")).await?;
    becomes(&t.operator, "a", "ready").await
}

pub async fn data_changes_hands_without_the_owner<H: Hub>(t: Fixture<H>) -> Result<(), Error> {
    let user = t.hub.add_user("somebody", "some-password", Role::User)?;
    let user = t.operator.as_caller(&user, "some-password");
    let meta = json!({"destinationType": STAYS, "description": "mine"});
    put(&t.operator, "a", &meta, Some(b"x")).await?;
    let first = entry(&t.operator, &filter(""), "a").await.ok_or("not listed")?;
    assert_eq!(user.put(&format!("{}/data", path("a")), "forged").await?, 204);
    assert_eq!(t.operator.get(&format!("{}/data", path("a"))).await?.body, b"forged");
    let second = entry(&t.operator, &filter(""), "a").await.ok_or("not listed")?;
    assert_eq!((&second["ownerID"], &second["description"]), (&json!("myorg/operator"), &json!("mine")));
    assert!(second["instanceID"].as_i64() > first["instanceID"].as_i64());
    // Changing the metadata changes the owner, with or without data.
    for (number, more) in [json!({}), json!({"metaOnly": true})].into_iter().enumerate() {
        let mut meta = json!({"destinationType": STAYS, "description": "yours", "ownerID": "myorg/operator"});
        for (name, value) in more.as_object().into_iter().flatten() {
            meta[name] = value.clone();
        }
        let data = (number == 0).then_some(&b"z"[..]);
        assert_eq!(user.put(&path("a"), object("a", &meta, data)).await?, 204);
        let found = entry(&t.operator, &filter(""), "a").await.ok_or("not listed")?;
        assert_eq!((&found["ownerID"], &found["description"]), (&json!("myorg/somebody"), &json!("yours")));
        put(&t.operator, "a", &json!({"destinationType": STAYS, "description": "mine"}), Some(b"x")).await?;
    }
    Ok(())
}
