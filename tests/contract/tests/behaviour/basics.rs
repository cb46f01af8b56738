//! These behaviours concern lists, credentials and TLS.

use super::{Error, TYPE, object, path, put, status};
use armor_contract_tests::{Client, Fixture, Hub, Role};
use serde_json::json;

pub async fn empty_list_is_404<H: Hub>(t: Fixture<H>) -> Result<(), Error> {
    for client in [&t.service, &t.operator] {
        let answer = client.get(TYPE).await?;
        assert_eq!((answer.status, answer.body.as_slice()), (404, &b""[..]));
        assert_eq!(client.get(&format!("{TYPE}?received=perhaps")).await?.status, 400);
    }
    let filtered = t.operator.get(&format!("?filters=true&objectType={TYPE}")).await?;
    assert_ne!(filtered.status, 200);
    Ok(())
}

pub async fn unknown_object_is_403_to_a_service<H: Hub>(t: Fixture<H>) -> Result<(), Error> {
    for suffix in ["", "/data", "/status"] {
        let answer = t.service.get(&format!("{}{suffix}", path("absent"))).await?;
        assert_eq!((answer.status, answer.text().as_str()), (403, "Unauthorized"), "{suffix}");
        assert_eq!(t.operator.get(&format!("{}{suffix}", path("absent"))).await?.status, 404, "{suffix}");
    }
    for operation in ["received", "consumed"] {
        assert_eq!(t.service.put(&format!("{}/{operation}", path("absent")), "").await?, 403);
    }
    Ok(())
}

pub async fn bad_credentials_are_403<H: Hub>(t: Fixture<H>) -> Result<(), Error> {
    for client in [&t.service, &t.operator] {
        for (user, password) in [("myorg/operator", "wrong"), ("myorg/nobody", "x"), ("", "")] {
            let answer = client.as_caller(user, password).get(TYPE).await?;
            assert_eq!((answer.status, answer.text().as_str()), (403, "Unauthorized"), "{user}");
        }
        let refused =
            client.as_caller("myorg/nobody", "x").put(&path("a"), object("a", &json!({}), None)).await?;
        assert_eq!(refused, 403);
    }
    Ok(())
}

pub async fn old_token_works_until_the_new_one_is_used<H: Hub>(t: Fixture<H>) -> Result<(), Error> {
    assert_eq!(t.service.get(TYPE).await?.status, 404);
    let id = t.hub.add_service("hzn-armor", "1.5.0", "new-token")?;
    assert_eq!(t.service.get(TYPE).await?.status, 404);
    assert_eq!(t.service.as_caller(&id, "new-token").get(TYPE).await?.status, 404);
    assert_eq!(t.service.get(TYPE).await?.status, 403);
    Ok(())
}

pub async fn certificate_needs_pinning<H: Hub>(t: Fixture<H>) -> Result<(), Error> {
    let unpinned = Client::ess_unpinned(&t.hub, "myorg/hzn-armor", "service-token")?;
    let error = unpinned.get(TYPE).await.err().ok_or("rustls took the certificate by itself")?;
    assert!(format!("{error:?}").contains("CaUsedAsEndEntity"), "{error:?}");
    Ok(())
}

pub async fn names_are_limited<H: Hub>(t: Fixture<H>) -> Result<(), Error> {
    put(&t.service, "a.b_c-D9", &json!({"version": "1.0.0-x"}), Some(b"x")).await?;
    for (url, id, version) in [
        ("a%20b", "a b", "1"),
        ("a%3Ab", "a:b", "1"),
        ("a+b", "a+b", "1"),
        ("a%3Db", "a=b", "1"),
        ("good", "good", "1 0"),
    ] {
        for client in [&t.service, &t.operator] {
            let body = object(id, &json!({"version": version}), Some(b"x"));
            assert_eq!(client.put(&format!("{TYPE}/{url}"), body).await?, 400, "{id} {version}");
        }
    }
    let mismatch = t.service.put(&path("one"), object("two", &json!({}), Some(b"x"))).await?;
    assert_eq!(mismatch, 400);
    let markup =
        t.service.put(&path("one"), object("one", &json!({"description": "<b>"}), Some(b"x"))).await?;
    assert_eq!(markup, 400);
    Ok(())
}

pub async fn ess_refuses_what_only_the_hub_may_set<H: Hub>(t: Fixture<H>) -> Result<(), Error> {
    for more in [
        json!({"expiration": "2100-01-01T00:00:00Z"}),
        json!({"destinationsList": ["openhorizon.edgenode:node1"]}),
        json!({"autodelete": true}),
        json!({"deleted": true}),
    ] {
        assert_eq!(t.service.put(&path("a"), object("a", &more, Some(b"x"))).await?, 400, "{more}");
    }
    let hook = json!({"action": "register", "url": "http://127.0.0.1:1/"}).to_string();
    assert_eq!(t.service.put(TYPE, hook).await?, 403);
    let resend = t.service.call("POST".parse()?, "../resend", &[], "").await?;
    assert_eq!(resend.status, 403);
    put(&t.service, "own", &json!({}), Some(b"x")).await?;
    assert_eq!(t.service.get(&format!("{}/destinations", path("own"))).await?.status, 404);
    // Metadata alone is an object without data, which is not transferred.
    put(&t.service, "bare", &json!({}), None).await?;
    assert_eq!(status(&t.service, "bare").await?.text(), "notReady");
    // A node's own credentials can read only public objects.
    let node = t.hub.add_user("some-node", "node-password", Role::NodeUser)?;
    let node = t.operator.as_caller(&node, "node-password");
    put(&t.operator, "private", &json!({}), Some(b"x")).await?;
    assert_eq!(node.get(&format!("{}/data", path("private"))).await?.status, 403);
    assert_eq!(node.put(&path("other"), object("other", &json!({}), Some(b"x"))).await?, 403);
    Ok(())
}
