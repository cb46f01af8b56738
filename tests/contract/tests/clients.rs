//! These tests run the product's ESS and CSS clients on each hub.

#![allow(clippy::unwrap_used)]

use std::process::ExitCode;
use std::time::{Duration, Instant};

use armor_bundle::keys::{KeyType, PrivateKey};
use armor_bundle::plain::PlainSignature;
use armor_contract_tests::{Credential, Fixture, Hub, Role, both_hubs, run_all};
use armor_mms::css::{CssClient, CssConfig, NewObject};
use armor_mms::ess::{EssClient, EssConfig};
use armor_mms::{BUNDLE_TYPE, DestinationPolicy, MmsError, ObjectStatus, ServiceId};

const DEADLINE: Duration = Duration::from_secs(30);

fn main() -> ExitCode {
    run_all([both_hubs![
        a_bundle_goes_to_the_node_and_is_acknowledged,
        an_alert_reaches_the_hub_and_its_consumption_shows_at_the_node,
        a_signature_that_does_not_fit_is_told_apart,
        an_unknown_object_is_not_taken_for_refused_credentials,
        replaced_credentials_are_read_again,
        only_the_pinned_certificate_is_trusted_and_a_new_one_is_reread,
        an_ess_that_is_away_or_restarts_is_no_end,
        a_put_that_hangs_ends_in_time_and_can_be_repeated,
    ]])
}

fn bundle(id: &str) -> NewObject {
    NewObject {
        object_id: id.to_owned(),
        object_type: BUNDLE_TYPE.to_owned(),
        destination_policy: Some(DestinationPolicy {
            constraints: vec!["purpose == security".to_owned()],
            services: vec![ServiceId {
                org_id: "myorg".to_owned(),
                arch: "*".to_owned(),
                service_name: "hzn-armor".to_owned(),
                version: "1.0.0".to_owned(),
            }],
            ..DestinationPolicy::default()
        }),
        ..NewObject::default()
    }
}

/// Asks until the answer is `Some`.
async fn eventually<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn a_bundle_goes_to_the_node_and_is_acknowledged<H: Hub>(fixture: Fixture<H>) {
    let (ess, css) = (fixture.ess().unwrap(), fixture.css().unwrap());
    assert!(ess.list(BUNDLE_TYPE, true).await.unwrap().is_empty());
    assert!(css.list(BUNDLE_TYPE).await.unwrap().is_empty());

    css.publish(&bundle("edge.1.0123456789ab"), b"content").await.unwrap();
    let (kind, node) = fixture.destination();
    css.set_destinations(BUNDLE_TYPE, "edge.1.0123456789ab", &[format!("{kind}:{node}")]).await.unwrap();
    let meta =
        eventually("the node sees it", async || ess.list(BUNDLE_TYPE, false).await.unwrap().pop()).await;
    assert_eq!((meta.object_id.as_str(), meta.object_size, meta.deleted), ("edge.1.0123456789ab", 7, false));
    assert_eq!(ess.data(BUNDLE_TYPE, &meta.object_id, 7).await.unwrap(), b"content");
    assert!(matches!(ess.data(BUNDLE_TYPE, &meta.object_id, 6).await, Err(MmsError::TooLarge { limit: 6 })));

    eventually("the hub knows that it is delivered", async || {
        let destinations = css.destinations(BUNDLE_TYPE, &meta.object_id).await.unwrap();
        destinations.into_iter().find(|node| node.status == "delivered")
    })
    .await;
    ess.received(BUNDLE_TYPE, &meta.object_id).await.unwrap();
    assert!(ess.list(BUNDLE_TYPE, false).await.unwrap().is_empty());
    assert_eq!(ess.list(BUNDLE_TYPE, true).await.unwrap().len(), 1);
    assert_eq!(ess.status(BUNDLE_TYPE, &meta.object_id).await.unwrap(), Some(ObjectStatus::Received));
    assert_eq!(css.list_all(BUNDLE_TYPE).await.unwrap()[0].object_id, meta.object_id);
    assert_eq!(css.destinations(BUNDLE_TYPE, &meta.object_id).await.unwrap()[0].destination_id, "node1");

    fixture.hub.ess_down().await.unwrap();
    for _ in 0..2 {
        css.delete(BUNDLE_TYPE, &meta.object_id).await.unwrap();
    }
    fixture.hub.restart_ess().await.unwrap();
    eventually("the node sees the deletion", async || {
        ess.list(BUNDLE_TYPE, false).await.ok()?.pop().filter(|meta| meta.deleted)
    })
    .await;
    ess.deleted(BUNDLE_TYPE, &meta.object_id).await.unwrap();
    eventually("it is gone from the node", async || {
        ess.list(BUNDLE_TYPE, true).await.unwrap().is_empty().then_some(())
    })
    .await;
}

async fn an_alert_reaches_the_hub_and_its_consumption_shows_at_the_node<H: Hub>(fixture: Fixture<H>) {
    let (ess, css) = (fixture.ess().unwrap(), fixture.css().unwrap());
    ess.put("t", "node1.1-2.aa", b"alerts").await.unwrap();
    // The real hub forgets an object that is consumed after the hub listed it and before the hub notified the
    // node. Once the hub has the next object, that time is over.
    ess.put("t", "node1.3-3.bb", b"more").await.unwrap();
    eventually("the hub has both", async || (css.list("t").await.unwrap().len() == 2).then_some(())).await;
    assert_eq!(css.data("t", "node1.1-2.aa", 100).await.unwrap(), b"alerts");
    css.consumed("t", "node1.1-2.aa").await.unwrap();
    css.consumed("t", "node1.1-2.aa").await.unwrap();
    eventually("the node sees it", async || {
        (ess.status("t", "node1.1-2.aa").await.unwrap() == Some(ObjectStatus::ConsumedByDest)).then_some(())
    })
    .await;
    ess.delete("t", "node1.3-3.bb").await.unwrap();
}

async fn a_signature_that_does_not_fit_is_told_apart<H: Hub>(fixture: Fixture<H>) {
    let key = PrivateKey::generate(KeyType::Rsa).unwrap();
    let fields = PlainSignature::make(b"content", &key).unwrap().unwrap().fields();
    let object = NewObject {
        hash_algorithm: Some(fields.hash_algorithm),
        public_key: Some(fields.public_key),
        signature: Some(fields.signature),
        ..bundle("edge.1.0123456789ab")
    };
    fixture.css().unwrap().publish(&object, b"content").await.unwrap();
    let error = fixture.css().unwrap().publish(&object, b"contend").await.unwrap_err();
    assert!(matches!(error, MmsError::VerificationFailed { .. }), "{error}");
}

async fn an_unknown_object_is_not_taken_for_refused_credentials<H: Hub>(fixture: Fixture<H>) {
    let ess = fixture.ess().unwrap();
    assert_eq!(ess.status("t", "x").await.unwrap(), None);
    assert!(matches!(ess.data("t", "x", 1).await, Err(MmsError::UnknownObject { .. })));
    ess.consumed("t", "x").await.unwrap();
    assert_eq!(fixture.css().unwrap().status("t", "x").await.unwrap(), None);

    let config = CssConfig { user: "operator:wrong".to_owned(), ..fixture.css_config() };
    let stranger = CssClient::new(&config).unwrap();
    let error = stranger.list("t").await.unwrap_err();
    assert!(matches!(error, MmsError::Unauthorized { .. }) && !error.is_transient(), "{error}");
    assert!(error.to_string().contains("myorg/operator") && !error.to_string().contains("wrong"), "{error}");
}

async fn replaced_credentials_are_read_again<H: Hub>(fixture: Fixture<H>) {
    let ess = fixture.ess().unwrap();
    ess.list("t", false).await.unwrap();
    let new = Credential {
        token: "new".to_owned(),
        role: Role::Service,
        org: "myorg".to_owned(),
        identity: "myorg/1.5.0/hzn-armor".to_owned(),
    };
    fixture.hub.put_credential("myorg/hzn-armor", new).unwrap();
    // The old token is valid until the new one is used.
    fixture.write_horizon_files("new").unwrap();
    fixture.ess().unwrap().list("t", false).await.unwrap();
    fixture.write_horizon_files("service-token").unwrap();
    for refused in [ess.list("t", false).await.map(drop), ess.data("t", "x", 1).await.map(drop)] {
        let error = refused.unwrap_err();
        assert!(matches!(error, MmsError::Unauthorized { .. }) && error.is_transient(), "{error}");
        assert!(error.to_string().contains("auth.json"), "{error}");
    }
    // A half-written file is named in the error, and the error ends as soon as the agent has written all of
    // it.
    std::fs::write(fixture.horizon_files().join("auth.json"), r#"{"id":"myorg/hzn-armor","tok"#).unwrap();
    let error = ess.list("t", false).await.unwrap_err();
    assert!(matches!(&error, MmsError::File { path, .. } if path.ends_with("auth.json")), "{error}");
    fixture.write_horizon_files("new").unwrap();
    ess.list("t", false).await.unwrap();
}

async fn only_the_pinned_certificate_is_trusted_and_a_new_one_is_reread<H: Hub>(fixture: Fixture<H>) {
    let ess = fixture.ess().unwrap();
    ess.list("t", false).await.unwrap();
    fixture.hub.replace_certificate().await.unwrap();
    // The first request on an old connection may report only that the connection ended, and not the
    // certificate.
    eventually("the new certificate is refused", async || {
        let error = ess.list("t", false).await.unwrap_err();
        assert!(matches!(error, MmsError::Unreachable { .. }) && error.is_transient(), "{error}");
        error.to_string().contains("certificate").then_some(())
    })
    .await;
    fixture.write_horizon_files("service-token").unwrap();
    ess.list("t", false).await.unwrap();
}

async fn an_ess_that_is_away_or_restarts_is_no_end<H: Hub>(fixture: Fixture<H>) {
    let ess = fixture.ess().unwrap();
    ess.list("t", false).await.unwrap();
    fixture.hub.ess_down().await.unwrap();
    assert!(matches!(ess.list("t", false).await, Err(MmsError::Unreachable { .. })));
    std::fs::remove_file(fixture.hub.ess_socket()).unwrap();
    let error = ess.list("t", false).await.unwrap_err();
    assert!(error.to_string().contains("essapi.sock"), "{error}");
    for _ in 0..2 {
        fixture.hub.restart_ess().await.unwrap();
        // An old connection may fail only at the next request.
        eventually("it answers again", async || ess.list("t", false).await.ok()).await;
    }
}

async fn a_put_that_hangs_ends_in_time_and_can_be_repeated<H: Hub>(fixture: Fixture<H>) {
    let config = EssConfig { timeout: Duration::from_secs(1), ..fixture.ess_config() };
    let ess = EssClient::new(config).unwrap();
    fixture.hub.hub_down().await.unwrap();
    let mut hung = None;
    for number in 0..6 {
        let id = format!("node1.{number}");
        match ess.put("t", &id, b"alerts").await {
            Ok(()) => {}
            Err(error) => {
                assert!(matches!(error, MmsError::Timeout { .. }) && error.is_transient(), "{error}");
                hung = Some(id);
                break;
            }
        }
    }
    let hung = hung.unwrap();
    assert_eq!(
        ess.status("t", &hung).await.unwrap(),
        Some(ObjectStatus::Ready),
        "stored, though the PUT did not end"
    );
    fixture.hub.hub_up().await.unwrap();
    eventually("the PUT goes through again", async || ess.put("t", &hung, b"alerts").await.ok()).await;
    let css = fixture.css().unwrap();
    eventually("the hub has it", async || {
        css.list("t").await.unwrap().into_iter().find(|meta| meta.object_id == hung)
    })
    .await;
}
