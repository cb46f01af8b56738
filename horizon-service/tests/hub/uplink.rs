//! These tests run the uplink on each hub, and against an ESS that does not answer.

use std::fs;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use armor_agent::delivery::spool::{Spool, SpoolConfig};
use armor_agent::delivery::uplink::{Uplink, UplinkConfig, UplinkError};
use armor_agent::hub::{Hub, HubConfig};
use armor_alerts::alert::Alert;
use armor_alerts::batch::{Mark, Sealer};
use armor_alerts::receipt::Receipt;
use armor_alerts::status::{self, AgentReport, NodeStatus};
use armor_bundle::NodeIdentity;
use armor_bundle::keys::{KeyType, PrivateKey, PublicKey};
use armor_cli::collector::{Collector, CollectorConfig, Finding, OutputConfig, ReceiptRoute};
use armor_contract_tests::{DevHub, Fixture, Trial, both_hubs, dev_hub};
use armor_mms::css::NewObject;
use armor_mms::ess::{EssAddress, EssClient, EssConfig};
use armor_mms::{ALERTS_TYPE, MmsError, ObjectStatus, RECEIPT_TYPE, STATUS_TYPE};
use jiff::Timestamp;
use tokio::sync::{Notify, watch};

const PATIENCE: Duration = Duration::from_secs(30);

/// Returns the tests of this module.
pub fn trials() -> Vec<Trial> {
    let mut trials = both_hubs![
        an_alert_is_sent_as_soon_as_it_is_appended,
        a_receipt_that_is_not_the_collectors_frees_nothing_and_is_reported,
        a_receipt_whose_name_cannot_be_used_is_in_nobodys_way,
        a_lost_hub_is_seen_by_answers_that_the_ess_withholds,
        a_status_consumed_before_its_put_is_answered_gets_a_successor,
        a_machine_at_the_css_sends_alerts_and_deletes_receipted_ones,
        what_others_took_from_the_css_is_sent_again,
        a_machine_at_the_css_notices_a_lost_hub_at_once,
    ];
    trials.extend(dev_hub![an_ess_that_hangs_up_is_asked_ever_less_often]);
    trials
}

fn spool(dir: &Path) -> Arc<Mutex<Spool>> {
    Arc::new(Mutex::new(Spool::open(dir, SpoolConfig { max_bytes: 1 << 20 }).unwrap()))
}

fn sealer() -> Arc<Sealer> {
    let key = PrivateKey::generate(KeyType::Ed25519).unwrap();
    Arc::new(Sealer { org: "myorg".into(), node: "node1".into(), key })
}

fn uplink(
    config: UplinkConfig,
    hub: Hub,
    spool: &Arc<Mutex<Spool>>,
    sealer: &Arc<Sealer>,
    pinned: Vec<PublicKey>,
) -> Uplink {
    let (_, keys) = watch::channel(pinned);
    let (_, report) = watch::channel(AgentReport { state: "enforcing".into(), ..AgentReport::default() });
    Uplink::new(config, Arc::new(hub), Arc::clone(spool), Arc::clone(sealer), keys, report)
}

/// Runs the uplink against an ESS that closes every connection. The hub only provides the certificate, which
/// must be readable before anything is tried.
async fn an_ess_that_hangs_up_is_asked_ever_less_often(hub: Fixture<DevHub>) {
    let socket = hub.dir().join("closing.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let connections = Arc::new(AtomicU32::new(0));
    let counter = Arc::clone(&connections);
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            drop(connection);
            counter.fetch_add(1, Ordering::SeqCst);
        }
    });
    let config = UplinkConfig {
        backoff: Duration::from_millis(20),
        backoff_limit: Duration::from_millis(100),
        ..UplinkConfig::default()
    };
    let spool = spool(hub.dir());
    let appended = Arc::new(Notify::new());
    let ess = EssConfig { address: EssAddress::Unix(socket), ..hub.ess_config() };
    let uplink = uplink(config, Hub::Ess(EssClient::new(ess).unwrap()), &spool, &sealer(), vec![]);
    let begin = Instant::now();
    let run = tokio::spawn(uplink.run(Arc::clone(&appended)));
    while connections.load(Ordering::SeqCst) < 8 {
        // Alerts appended meanwhile do not shorten the waits.
        appended.notify_one();
        assert!(begin.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    run.abort();
    // A pass may connect twice, so at least three waits lie between eight connections, each at most a quarter
    // shorter.
    assert!(begin.elapsed() >= Duration::from_millis((20 + 40 + 80) * 3 / 4), "{:?}", begin.elapsed());
}

async fn an_alert_is_sent_as_soon_as_it_is_appended<H: armor_contract_tests::Hub>(hub: Fixture<H>) {
    let css = hub.css().unwrap();
    let (spool, appended) = (spool(hub.dir()), Arc::new(Notify::new()));
    let config = UplinkConfig {
        poll: Duration::from_secs(3600),
        linger: Duration::from_millis(1),
        ..UplinkConfig::default()
    };
    let uplink = uplink(config, Hub::Ess(hub.ess().unwrap()), &spool, &sealer(), vec![]);
    let run = tokio::spawn(uplink.run(Arc::clone(&appended)));
    let deadline = Instant::now() + PATIENCE;
    while css.list(STATUS_TYPE).await.unwrap().is_empty() {
        assert!(Instant::now() < deadline, "the first pass ends with the status");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    spool.lock().unwrap().append(&[Alert::at(Timestamp::now())]).unwrap();
    appended.notify_one();
    while css.list(ALERTS_TYPE).await.unwrap().is_empty() {
        assert!(Instant::now() < deadline, "the alert does not arrive");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    run.abort();
}

async fn a_lost_hub_is_seen_by_answers_that_the_ess_withholds<H: armor_contract_tests::Hub>(hub: Fixture<H>) {
    let spool = spool(hub.dir());
    let config = UplinkConfig {
        poll: Duration::from_millis(20),
        linger: Duration::from_millis(1),
        resend_after: Duration::from_millis(200),
        backoff: Duration::from_millis(20),
        backoff_limit: Duration::from_millis(100),
        ..UplinkConfig::default()
    };
    let ess = EssConfig { timeout: Duration::from_millis(500), ..hub.ess_config() };
    let uplink = uplink(config, Hub::Ess(EssClient::new(ess).unwrap()), &spool, &sealer(), vec![]);
    hub.hub.hub_down().await.unwrap();
    spool.lock().unwrap().append(&[Alert::at(Timestamp::now())]).unwrap();
    let mut offline = uplink.offline();
    let run = tokio::spawn(uplink.run(Arc::default()));
    let away =
        tokio::time::timeout(PATIENCE, offline.wait_for(Option::is_some)).await.unwrap().unwrap().clone();
    let reason = away.unwrap().reason;
    assert!(reason.contains("gave no complete answer in 500 ms, which is what it does while"), "{reason}");
    hub.hub.hub_up().await.unwrap();
    tokio::time::timeout(PATIENCE, offline.wait_for(Option::is_none)).await.unwrap().unwrap();
    run.abort();
}

async fn a_receipt_that_is_not_the_collectors_frees_nothing_and_is_reported<H: armor_contract_tests::Hub>(
    hub: Fixture<H>,
) {
    let css = hub.css().unwrap();
    let (spool, sealer) = (spool(hub.dir()), sealer());
    let [collector, stranger] = [(); 2].map(|()| PrivateKey::generate(KeyType::Ed25519).unwrap());
    let config = UplinkConfig { status_every: Duration::ZERO, ..UplinkConfig::default() };
    let ess = Hub::Ess(hub.ess().unwrap());
    let mut uplink = uplink(config, ess, &spool, &sealer, vec![collector.public().clone()]);
    spool.lock().unwrap().append(&[Alert::at(Timestamp::now())]).unwrap();
    uplink.pass(Timestamp::now()).await.unwrap();

    let forged = Receipt {
        org: "myorg".into(),
        node: "node1".into(),
        key: sealer.key.public().id().clone(),
        up_to: Mark { sequence: 1, ..Mark::default() },
        held: vec![],
        serial: 1,
        issued: Timestamp::now(),
    };
    // A receipt signed by an unknown key, one whose chain the collector cannot have from this node, and data
    // that is no receipt.
    let objects = [
        forged.sign(&stranger).unwrap(),
        forged.sign(&collector).unwrap(),
        fs::read(hub.horizon_files().join("auth.json")).unwrap(),
    ];
    for (number, data) in objects.iter().enumerate() {
        let object = NewObject {
            object_id: format!("receipt-{number}"),
            object_type: RECEIPT_TYPE.into(),
            destination: Some(hub.destination()),
            ..NewObject::default()
        };
        css.publish(&object, data).await.unwrap();
    }
    let deadline = Instant::now() + PATIENCE;
    let refused = loop {
        assert!(Instant::now() < deadline, "three refusals reach the hub");
        uplink.pass(Timestamp::now()).await.unwrap();
        let mut most = Vec::new();
        for object in css.list(STATUS_TYPE).await.unwrap().iter().filter(|object| !object.deleted) {
            // The real ESS sends an object without data if it was deleted before its turn.
            if let Ok(data) = css.data(STATUS_TYPE, &object.object_id, status::MAX_OBJECT).await
                && let Ok((status, _)) = NodeStatus::verify(&data)
                && status.refused_receipts.len() > most.len()
            {
                most = status.refused_receipts;
            }
        }
        if most.len() == 3 {
            break most;
        }
    };
    let reason = |id: &str| refused.iter().find(|line| line.starts_with(id)).cloned().unwrap_or_default();
    assert!(reason("receipt-0").contains("not signed by a key"), "{refused:?}");
    assert!(reason("receipt-1").contains("chain"), "{refused:?}");
    assert!(reason("receipt-2").contains("not a signed document"), "{refused:?}");
    assert_eq!(spool.lock().unwrap().stats().unwrap().records, 1);
    assert!(css.list(RECEIPT_TYPE).await.unwrap().is_empty());
}

async fn a_receipt_whose_name_cannot_be_used_is_in_nobodys_way<H: armor_contract_tests::Hub>(
    hub: Fixture<H>,
) {
    let css = hub.css().unwrap();
    let meta = serde_json::json!({"objectID": "a@b", "objectType": RECEIPT_TYPE,
        "destinationType": "openhorizon.edgenode", "destinationID": "node1"});
    let body = serde_json::json!({"meta": meta, "data": "eA=="});
    assert_eq!(hub.operator.put(&format!("{RECEIPT_TYPE}/a@b"), body.to_string()).await.unwrap(), 204);
    let deadline = Instant::now() + PATIENCE;
    while hub.ess().unwrap().list(RECEIPT_TYPE, false).await.unwrap().is_empty() {
        assert!(Instant::now() < deadline, "it reaches the node");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let spool = spool(hub.dir());
    spool.lock().unwrap().append(&[Alert::at(Timestamp::now())]).unwrap();
    uplink(UplinkConfig::default(), Hub::Ess(hub.ess().unwrap()), &spool, &sealer(), vec![])
        .pass(Timestamp::now())
        .await
        .unwrap();
    while css.list(ALERTS_TYPE).await.unwrap().is_empty() {
        assert!(Instant::now() < deadline, "the alert does not arrive");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn a_status_consumed_before_its_put_is_answered_gets_a_successor<H: armor_contract_tests::Hub>(
    hub: Fixture<H>,
) {
    let css = hub.css().unwrap();
    let ess =
        || EssClient::new(EssConfig { timeout: Duration::from_millis(500), ..hub.ess_config() }).unwrap();
    let spool = spool(hub.dir());
    let mut uplink = uplink(UplinkConfig::default(), Hub::Ess(ess()), &spool, &sealer(), vec![]);
    // With the hub down, the ESS answers a few PUTs and then none.
    hub.hub.hub_down().await.unwrap();
    let deadline = Instant::now() + PATIENCE;
    for number in 0.. {
        if ess().put("filler", &number.to_string(), b"x").await.is_err() {
            break;
        }
        assert!(Instant::now() < deadline, "no PUT hangs");
    }
    assert!(matches!(uplink.pass(Timestamp::now()).await, Err(UplinkError::Mms(MmsError::Timeout { .. }))));
    hub.hub.hub_up().await.unwrap();
    let arrives = async |object_type: &str| {
        loop {
            let listed = css.list(object_type).await.unwrap_or_default();
            if let Some(object) = listed.into_iter().find(|object| !object.deleted) {
                break object.object_id;
            }
            assert!(Instant::now() < deadline, "{object_type} does not arrive");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let first = arrives(STATUS_TYPE).await;
    // The real hub forgets that an object is consumed if that happens just as it arrives. The arrival of a
    // later object shows that this moment is over.
    while ess().put("later", "later", b"x").await.is_err() {
        assert!(Instant::now() < deadline, "PUTs go on hanging");
    }
    arrives("later").await;
    css.consumed(STATUS_TYPE, &first).await.unwrap();
    while ess().status(STATUS_TYPE, &first).await.unwrap() != Some(ObjectStatus::ConsumedByDest) {
        assert!(Instant::now() < deadline, "the node does not hear of it");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    for _ in 0..2 {
        uplink.pass(Timestamp::now()).await.unwrap();
    }
    assert_ne!(arrives(STATUS_TYPE).await, first);
}

/// Returns a machine's connection to the CSS.
fn at_the_css<H: armor_contract_tests::Hub>(hub: &Fixture<H>) -> Hub {
    let node = NodeIdentity { org: "myorg".into(), id: "node1".into(), ..NodeIdentity::default() };
    Hub::new(HubConfig::Css(hub.machine_config().unwrap()), &node).unwrap()
}

/// Opens a collector and returns it with the list that gets its findings as text.
fn collector<H: armor_contract_tests::Hub>(
    hub: &Fixture<H>,
    key: PrivateKey,
) -> (Collector, Arc<Mutex<Vec<String>>>) {
    let config = CollectorConfig {
        org: "myorg".into(),
        state_dir: hub.dir().to_owned(),
        output: OutputConfig::File(hub.dir().join("alerts.ndjson")),
        route: ReceiptRoute::Node("openhorizon.edgenode".into()),
        accept_keys: vec![],
    };
    let findings = Arc::new(Mutex::new(Vec::new()));
    let list = Arc::clone(&findings);
    let report = Box::new(move |finding: &Finding| list.lock().unwrap().push(finding.to_string()));
    (Collector::open(config, hub.css().unwrap(), key, report).unwrap(), findings)
}

async fn a_machine_at_the_css_sends_alerts_and_deletes_receipted_ones<H: armor_contract_tests::Hub>(
    hub: Fixture<H>,
) {
    let key = PrivateKey::generate(KeyType::Ed25519).unwrap();
    let (spool, sealer) = (spool(hub.dir()), sealer());
    let mut uplink =
        uplink(UplinkConfig::default(), at_the_css(&hub), &spool, &sealer, vec![key.public().clone()]);
    let (mut collector, findings) = collector(&hub, key);
    for round in 1..=2 {
        let alerts = vec![Alert::at(Timestamp::now()); 3];
        spool.lock().unwrap().append(&alerts).unwrap();
        uplink.pass(Timestamp::now()).await.unwrap();
        let summary = collector.collect_once().await.unwrap();
        // The first batch does not wait for the node's key, which came with the status of the same pass.
        assert_eq!((summary.alerts, summary.receipts), (3, 1), "{:?}", findings.lock().unwrap());
        uplink.pass(Timestamp::now()).await.unwrap();
        let stats = spool.lock().unwrap().stats().unwrap();
        assert_eq!((stats.records, stats.receipted), (0, round * 3));
    }
    let findings = findings.lock().unwrap().clone();
    assert!(findings[0].contains("first key seen") && findings[1].contains("enforcing"), "{findings:?}");
    assert_eq!(findings.len(), 2, "{findings:?}");
    // The node's ESS got none of these objects, as the arrival of a later one shows.
    let object = NewObject {
        object_id: "later".into(),
        object_type: "later".into(),
        destination: Some(hub.destination()),
        ..NewObject::default()
    };
    hub.css().unwrap().publish(&object, b"x").await.unwrap();
    let deadline = Instant::now() + PATIENCE;
    while hub.ess().unwrap().list("later", true).await.unwrap().is_empty() {
        assert!(Instant::now() < deadline, "it does not reach the node");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    for object_type in [ALERTS_TYPE, STATUS_TYPE, RECEIPT_TYPE] {
        assert_eq!(hub.ess().unwrap().list(object_type, true).await.unwrap(), [], "{object_type}");
    }
}

async fn what_others_took_from_the_css_is_sent_again<H: armor_contract_tests::Hub>(hub: Fixture<H>) {
    let css = hub.css().unwrap();
    let key = PrivateKey::generate(KeyType::Ed25519).unwrap();
    let config = UplinkConfig {
        poll: Duration::from_millis(1),
        receipt_grace: Duration::from_millis(1),
        ..UplinkConfig::default()
    };
    let (spool, sealer) = (spool(hub.dir()), sealer());
    let mut uplink = uplink(config, at_the_css(&hub), &spool, &sealer, vec![key.public().clone()]);
    let (mut collector, findings) = collector(&hub, key);
    let the_only = async || {
        let listed = css.list_staying(ALERTS_TYPE, None).await.unwrap();
        assert_eq!(listed.len(), 1);
        listed[0].object_id.clone()
    };
    let deadline = Instant::now() + PATIENCE;
    for overwritten in [false, true] {
        spool.lock().unwrap().append(&[Alert::at(Timestamp::now())]).unwrap();
        uplink.pass(Timestamp::now()).await.unwrap();
        let first = the_only().await;
        if overwritten {
            css.put_staying(ALERTS_TYPE, &first, "", b"nothing to see here").await.unwrap();
            assert_eq!(collector.collect_once().await.unwrap().alerts, 0);
        } else {
            css.delete(ALERTS_TYPE, &first).await.unwrap();
        }
        while css.list_staying(ALERTS_TYPE, None).await.unwrap().is_empty() {
            assert!(Instant::now() < deadline, "nothing is sent again");
            uplink.pass(Timestamp::now()).await.unwrap();
        }
        assert_ne!(the_only().await, first);
        assert_eq!(collector.collect_once().await.unwrap().alerts, 1);
        uplink.pass(Timestamp::now()).await.unwrap();
        assert_eq!(spool.lock().unwrap().stats().unwrap().records, 0);
        let findings = std::mem::take(&mut *findings.lock().unwrap());
        let named =
            |part: &str| findings.iter().any(|finding| finding.contains(part) && finding.contains(&first));
        assert!(named("was consumed by somebody else"), "{findings:?}");
        assert_eq!(named("forged or overwritten"), overwritten, "{findings:?}");
    }
}

async fn a_machine_at_the_css_notices_a_lost_hub_at_once<H: armor_contract_tests::Hub>(hub: Fixture<H>) {
    let spool = spool(hub.dir());
    let config = UplinkConfig {
        backoff: Duration::from_millis(20),
        backoff_limit: Duration::from_millis(100),
        poll: Duration::from_millis(20),
        ..UplinkConfig::default()
    };
    let uplink = uplink(config, at_the_css(&hub), &spool, &sealer(), vec![]);
    spool.lock().unwrap().append(&[Alert::at(Timestamp::now())]).unwrap();
    let mut offline = uplink.offline();
    hub.hub.hub_down().await.unwrap();
    let run = tokio::spawn(uplink.run(Arc::default()));
    let away =
        tokio::time::timeout(PATIENCE, offline.wait_for(Option::is_some)).await.unwrap().unwrap().clone();
    let reason = away.unwrap().reason;
    assert!(reason.contains("CSS http") && reason.contains("cannot be reached"), "{reason}");
    hub.hub.hub_up().await.unwrap();
    tokio::time::timeout(PATIENCE, offline.wait_for(Option::is_none)).await.unwrap().unwrap();
    let css = hub.css().unwrap();
    let deadline = Instant::now() + PATIENCE;
    while css.list_staying(ALERTS_TYPE, None).await.unwrap().is_empty() {
        assert!(Instant::now() < deadline, "the alert does not arrive");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    run.abort();
}
