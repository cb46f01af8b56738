//! The uplink against the development hub, and against an ESS that does not answer.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use armor_agent::spool::{Spool, SpoolConfig};
use armor_agent::uplink::{Uplink, UplinkConfig};
use armor_contract_tests::Client;
use armor_dev_hub::{DevHub, DevHubConfig, Hub, Role};
use armor_hub_client::alert::Alert;
use armor_hub_client::batch::{Mark, Sealer};
use armor_hub_client::css::{CssClient, CssConfig, NewObject};
use armor_hub_client::ess::{EssAddress, EssClient, EssConfig};
use armor_hub_client::keys::{KeyType, PrivateKey, PublicKey};
use armor_hub_client::mms::{ALERTS_TYPE, RECEIPT_TYPE, STATUS_TYPE};
use armor_hub_client::receipt::Receipt;
use armor_hub_client::status::{self, AgentReport, NodeStatus};
use jiff::Timestamp;
use tokio::sync::{Notify, watch};

const PATIENCE: Duration = Duration::from_secs(30);

fn ess(socket: &Path, files: &Path) -> EssClient {
    let (auth_file, cert_file) = (files.join("auth.json"), files.join("cert.pem"));
    let address = EssAddress::Unix(socket.to_owned());
    EssClient::new(EssConfig { address, auth_file, cert_file, timeout: Duration::from_secs(2) }).unwrap()
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
    ess: EssClient,
    spool: &Arc<Mutex<Spool>>,
    sealer: &Arc<Sealer>,
    pinned: Vec<PublicKey>,
) -> Uplink {
    let (_, keys) = watch::channel(pinned);
    let (_, report) = watch::channel(AgentReport { state: "enforcing".into(), ..AgentReport::default() });
    Uplink::new(config, ess, Arc::clone(spool), Arc::clone(sealer), keys, report)
}

async fn hub(dir: &Path) -> (DevHub, CssClient) {
    let config = DevHubConfig { agbot: false, poll: Duration::from_millis(20), ..DevHubConfig::new(dir) };
    let hub = DevHub::start(config).await.unwrap();
    let service = hub.add_service("hzn-armor", "1.0.0", "token").unwrap();
    hub.write_horizon_files(&dir.join("ess"), &service, "token", "1.0.0").unwrap();
    let user = hub.add_user("operator", "password", Role::User).unwrap();
    let css = CssConfig {
        url: hub.css_url(),
        org: hub.org(),
        user: format!("{user}:password"),
        ca_file: None,
        timeout: Duration::from_secs(5),
    };
    (hub, CssClient::new(&css).unwrap())
}

#[tokio::test]
async fn an_ess_that_hangs_up_is_asked_ever_less_often() {
    let dir = tempfile::tempdir().unwrap();
    // The certificate must read before anything is tried.
    let (_hub, _) = hub(dir.path()).await;
    let socket = dir.path().join("closing.sock");
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
    let spool = spool(dir.path());
    let appended = Arc::new(Notify::new());
    let uplink = uplink(config, ess(&socket, &dir.path().join("ess")), &spool, &sealer(), vec![]);
    let begin = Instant::now();
    let run = tokio::spawn(uplink.run(Arc::clone(&appended)));
    while connections.load(Ordering::SeqCst) < 8 {
        // Alerts that come in meanwhile do not make it hurry.
        appended.notify_one();
        assert!(begin.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    run.abort();
    // A pass may connect twice. Three waits at least lie between eight connections, each a quarter shorter at most.
    assert!(begin.elapsed() >= Duration::from_millis((20 + 40 + 80) * 3 / 4), "{:?}", begin.elapsed());
}

#[tokio::test]
async fn an_alert_is_sent_as_soon_as_it_is_appended() {
    let dir = tempfile::tempdir().unwrap();
    let (hub, css) = hub(dir.path()).await;
    let (spool, appended) = (spool(dir.path()), Arc::new(Notify::new()));
    let config = UplinkConfig {
        poll: Duration::from_secs(3600),
        linger: Duration::from_millis(1),
        ..UplinkConfig::default()
    };
    let uplink = uplink(config, ess(&hub.ess_socket(), &dir.path().join("ess")), &spool, &sealer(), vec![]);
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

#[tokio::test]
async fn a_receipt_that_is_not_the_collectors_frees_nothing_and_is_reported() {
    let dir = tempfile::tempdir().unwrap();
    let (hub, css) = hub(dir.path()).await;
    let (spool, sealer) = (spool(dir.path()), sealer());
    let [collector, stranger] = [(); 2].map(|()| PrivateKey::generate(KeyType::Ed25519).unwrap());
    let config = UplinkConfig { status_every: Duration::ZERO, ..UplinkConfig::default() };
    let ess = ess(&hub.ess_socket(), &dir.path().join("ess"));
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
    // One that a stranger signed, one whose chain the collector cannot have from this node, one that is no receipt.
    let objects = [
        forged.sign(&stranger).unwrap(),
        forged.sign(&collector).unwrap(),
        fs::read(dir.path().join("ess/auth.json")).unwrap(),
    ];
    for (number, data) in objects.iter().enumerate() {
        let object = NewObject {
            object_id: format!("receipt-{number}"),
            object_type: RECEIPT_TYPE.into(),
            destination: Some(("openhorizon.edgenode".into(), "node1".into())),
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
            let Ok(data) = css.data(STATUS_TYPE, &object.object_id, status::MAX_OBJECT).await else {
                continue;
            };
            let refused = NodeStatus::verify(&data).unwrap().0.refused_receipts;
            most = if refused.len() > most.len() { refused } else { most };
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

#[tokio::test]
async fn a_receipt_whose_name_cannot_be_used_is_in_nobodys_way() {
    let dir = tempfile::tempdir().unwrap();
    let (hub, css) = hub(dir.path()).await;
    let mallory = Client::css(&hub, "myorg/operator", "password").unwrap();
    let meta = serde_json::json!({"objectID": "a@b", "objectType": RECEIPT_TYPE,
        "destinationType": "openhorizon.edgenode", "destinationID": "node1"});
    let body = serde_json::json!({"meta": meta, "data": "eA=="});
    assert_eq!(mallory.put(&format!("{RECEIPT_TYPE}/a@b"), body.to_string()).await.unwrap(), 204);
    let ess = || ess(&hub.ess_socket(), &dir.path().join("ess"));
    let deadline = Instant::now() + PATIENCE;
    while ess().list(RECEIPT_TYPE, false).await.unwrap().is_empty() {
        assert!(Instant::now() < deadline, "it reaches the node");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let spool = spool(dir.path());
    spool.lock().unwrap().append(&[Alert::at(Timestamp::now())]).unwrap();
    uplink(UplinkConfig::default(), ess(), &spool, &sealer(), vec![]).pass(Timestamp::now()).await.unwrap();
    while css.list(ALERTS_TYPE).await.unwrap().is_empty() {
        assert!(Instant::now() < deadline, "the alert does not arrive");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
