//! These tests check that on a full disk the spool keeps its alerts, counts and names those that it cannot
//! keep, reports that to the hub, and goes on once there is room again.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;
use std::process::{ExitCode, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use armor_agent::delivery::spool::{Spool, SpoolConfig, SpoolError};
use armor_agent::delivery::uplink::{Uplink, UplinkConfig};
use armor_alerts::alert::Alert;
use armor_alerts::batch::{self, LostReason, Sealer};
use armor_alerts::status::{self, AgentReport, NodeStatus, SpoolStats};
use armor_bundle::keys::{KeyType, PrivateKey};
use armor_contract_tests::disk::{SmallDisk, own_mounts};
use armor_contract_tests::{Fixture, Hub, both_hubs, no_hub, run_all};
use armor_mms::{ALERTS_TYPE, STATUS_TYPE};
use jiff::Timestamp;
use tokio::process::Command;
use tokio::sync::watch;

const PATIENCE: Duration = Duration::from_secs(30);

fn main() -> ExitCode {
    if let Err(error) = own_mounts() {
        eprintln!("full_disk: {error}");
        return ExitCode::FAILURE;
    }
    let alone = no_hub![
        what_cannot_be_kept_is_counted_and_named,
        a_spool_opens_on_a_full_disk_with_all_it_has,
        a_spool_that_cannot_begin_counts_and_begins_with_room,
    ];
    run_all([alone, both_hubs![the_hub_is_told, an_agent_without_spool_stays_up_and_tells_the_hub]])
}

fn sealer() -> Sealer {
    let key = PrivateKey::generate(KeyType::Ed25519).unwrap();
    Sealer { org: "myorg".into(), node: "node1".into(), key }
}

fn open(disk: &SmallDisk) -> Result<Spool, SpoolError> {
    Spool::open(disk.dir(), SpoolConfig { max_bytes: 64 << 20 })
}

fn disk(dir: &Path) -> SmallDisk {
    SmallDisk::mount(&dir.join("disk"), 1 << 20).unwrap()
}

/// Returns alerts that are too long for the room left in the files of a full disk.
fn alerts(count: usize) -> Vec<Alert> {
    vec![Alert { resource: "/etc/secret".repeat(1000), ..Alert::at(Timestamp::UNIX_EPOCH) }; count]
}

/// Fills the disk, appends until 30 alerts are lost, and returns how many were kept and how many were lost.
fn append_until_full(spool: &mut Spool, disk: &SmallDisk) -> (u64, u64) {
    disk.fill().unwrap();
    let (mut kept, mut lost) = (0, 0);
    while lost < 30 {
        match spool.append(&alerts(10)) {
            Ok(_) => kept += 10,
            Err(error) => {
                let said = error.to_string();
                assert!(matches!(error, SpoolError::Unwritten { count: 10, .. }), "{said}");
                let why = said.contains("full") || said.contains("No space");
                assert!(said.contains("disk/spool.") && why, "{said}");
                lost += 10;
            }
        }
    }
    (kept, lost)
}

fn counts(stats: &SpoolStats) -> (u64, u64, u64) {
    (stats.records, stats.last, stats.unwritten)
}

async fn what_cannot_be_kept_is_counted_and_named() {
    let (dir, sealer) = (tempfile::tempdir().unwrap(), sealer());
    let disk = disk(dir.path());
    let mut spool = open(&disk).unwrap();
    spool.append(&alerts(5)).unwrap();
    let sent = spool.next_batch(&sealer, Timestamp::UNIX_EPOCH).unwrap().unwrap();
    spool.append(&alerts(5)).unwrap();
    let (kept, lost) = append_until_full(&mut spool, &disk);
    assert_eq!(kept, 0, "all that is not kept is in one range");
    assert_eq!(counts(&spool.stats().unwrap()), (10, 10, lost));
    assert_eq!(spool.content(&sent.id).unwrap().as_ref(), Some(&sent.content));

    disk.free().unwrap();
    let range = spool.append(&alerts(2)).unwrap();
    assert_eq!(range, 11 + lost..=12 + lost, "numbers stand for what was not kept");
    assert_eq!(counts(&spool.stats().unwrap()), (12, 12 + lost, lost));
    let next = spool.next_batch(&sealer, Timestamp::UNIX_EPOCH).unwrap().unwrap();
    let next = batch::open(&next.content, sealer.key.public()).unwrap();
    let numbers: Vec<u64> = next.records.iter().map(|record| record.sequence).collect();
    assert_eq!(numbers, (6..=10).chain(range).collect::<Vec<_>>());
    let named = next.header.lost[0];
    assert_eq!((named.first, named.last, named.reason), (11, 10 + lost, LostReason::Unwritten));
}

async fn a_spool_opens_on_a_full_disk_with_all_it_has() {
    let (dir, sealer) = (tempfile::tempdir().unwrap(), sealer());
    let disk = disk(dir.path());
    let mut spool = open(&disk).unwrap();
    spool.append(&alerts(5)).unwrap();
    let sent = spool.next_batch(&sealer, Timestamp::UNIX_EPOCH).unwrap().unwrap();
    append_until_full(&mut spool, &disk);
    for _ in 0..2 {
        drop(spool);
        spool = open(&disk).unwrap();
        assert_eq!(spool.recovered(), None, "nothing is damaged");
        assert_eq!(counts(&spool.stats().unwrap()), (5, 5, 0));
        assert_eq!(spool.content(&sent.id).unwrap().as_ref(), Some(&sent.content));
        spool.append(&alerts(10)).unwrap_err();
    }
    disk.free().unwrap();
    assert_eq!(spool.append(&alerts(1)).unwrap(), 16..=16);
}

async fn a_spool_that_cannot_begin_counts_and_begins_with_room() {
    let dir = tempfile::tempdir().unwrap();
    let disk = disk(dir.path());
    disk.fill().unwrap();
    let error = open(&disk).err().unwrap().to_string();
    assert!(error.contains("disk/spool.db"), "{error}");
    let mut spool = Spool::new(disk.dir(), SpoolConfig { max_bytes: 64 << 20 });
    for _ in 0..3 {
        assert!(spool.ensure_open().unwrap_err().to_string().contains("disk/spool.db"));
        assert!(matches!(spool.append(&alerts(10)).unwrap_err(), SpoolError::Unwritten { count: 10, .. }));
    }
    assert_eq!(counts(&spool.stats().unwrap()), (0, 0, 30));
    disk.free().unwrap();
    assert_eq!(spool.append(&alerts(2)).unwrap(), 31..=32);
    assert_eq!((counts(&spool.stats().unwrap()), spool.recovered()), ((2, 32, 30), None));
}

/// Starts an agent again with a full disk and without its spool.
async fn an_agent_without_spool_stays_up_and_tells_the_hub<H: Hub>(hub: Fixture<H>) {
    let (css, disk) = (hub.css().unwrap(), SmallDisk::mount(&hub.dir().join("state"), 1 << 20).unwrap());
    let horizon = hub.horizon_files();
    let start = || {
        let mut agent = Command::new(env!("CARGO_BIN_EXE_hzn-armor-agent"));
        agent
            .arg("run")
            .env("HZN_ARMOR_STATE_DIR", disk.dir())
            // Not on a bpf filesystem, so that nothing stays pinned after the test.
            .env("HZN_ARMOR_PIN_DIR", hub.dir().join("pins"))
            .env("HZN_ARMOR_BUNDLE_DIR", hub.dir().join("bundles"))
            .env("HZN_ARMOR_POLL_SECONDS", "1")
            .env("HZN_ORGANIZATION", "myorg")
            .env("HZN_NODE_ID", "node1")
            .env("HZN_ESS_API_PROTOCOL", "secure-unix")
            .env("HZN_ESS_API_ADDRESS", hub.hub.ess_socket())
            .env("HZN_ESS_AUTH", horizon.join("auth.json"))
            .env("HZN_ESS_CERT", horizon.join("cert.pem"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap()
    };
    // Returns the time of the newest status at the hub, and whether it names the spool's error.
    let told = async || {
        let mut newest: Option<NodeStatus> = None;
        for object in css.list(STATUS_TYPE).await.unwrap().iter().filter(|object| !object.deleted) {
            if let Ok(data) = css.data(STATUS_TYPE, &object.object_id, status::MAX_OBJECT).await
                && let Ok((status, _)) = NodeStatus::verify(&data)
                && newest.as_ref().is_none_or(|newest| newest.created < status.created)
            {
                newest = Some(status);
            }
        }
        newest.map(|status| (status.created, status.agent.reasons.join("\n").contains("spool/spool.db")))
    };
    let deadline = Instant::now() + PATIENCE;
    let until = async |agent: &mut tokio::process::Child, after: Timestamp, trouble: bool| loop {
        match told().await {
            Some((created, told)) if created > after && told == trouble => break created,
            _ => {}
        }
        assert_eq!(agent.try_wait().unwrap(), None, "it ended");
        assert!(Instant::now() < deadline, "the hub does not hear of it");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    let mut first = start();
    let created = until(&mut first, Timestamp::UNIX_EPOCH, false).await;
    first.kill().await.unwrap();
    for file in fs::read_dir(disk.dir().join("spool")).unwrap() {
        fs::remove_file(file.unwrap().path()).unwrap();
    }
    disk.fill().unwrap();
    let mut second = start();
    let created = until(&mut second, created, true).await;
    let status = || {
        let mut asked = std::process::Command::new(env!("CARGO_BIN_EXE_hzn-armor-agent"));
        let said = asked.args(["status", "--json"]).env("HZN_ARMOR_STATE_DIR", disk.dir()).output().unwrap();
        serde_json::from_slice::<serde_json::Value>(&said.stdout).unwrap()
    };
    let said = status();
    assert_eq!((&said["Running"], &said["Current"]), (&true.into(), &false.into()), "{said:#}");
    assert_eq!((&said["State"], &said["Since"]), (&"degraded".into(), &serde_json::Value::Null), "{said:#}");
    assert!(said["Reasons"][0].as_str().unwrap().ends_with(": the disk is full"), "{said:#}");
    disk.free().unwrap();
    until(&mut second, created, false).await;
    while status()["Current"] != true {
        assert!(Instant::now() < deadline, "the status is not written again");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn the_hub_is_told<H: Hub>(hub: Fixture<H>) {
    let (css, disk) = (hub.css().unwrap(), disk(hub.dir()));
    let (spool, sealer) = (Arc::new(Mutex::new(open(&disk).unwrap())), Arc::new(sealer()));
    let (_, keys) = watch::channel(vec![]);
    let (_, report) = watch::channel(AgentReport::default());
    let config = UplinkConfig { status_every: Duration::ZERO, ..UplinkConfig::default() };
    let way = Arc::new(armor_agent::hub::Hub::Ess(hub.ess().unwrap()));
    let mut uplink = Uplink::new(config, way, Arc::clone(&spool), Arc::clone(&sealer), keys, report);
    let (_, lost) = append_until_full(&mut spool.lock().unwrap(), &disk);
    let deadline = Instant::now() + PATIENCE;
    let told = async || {
        for object in css.list(STATUS_TYPE).await.unwrap().iter().filter(|object| !object.deleted) {
            if let Ok(data) = css.data(STATUS_TYPE, &object.object_id, status::MAX_OBJECT).await
                && NodeStatus::verify(&data).is_ok_and(|(status, _)| status.spool.unwritten == lost)
            {
                return true;
            }
        }
        false
    };
    while !told().await {
        assert!(Instant::now() < deadline, "the hub does not hear of it");
        // Fails because the spool does; the uplink goes on.
        let _ = uplink.pass(Timestamp::now()).await;
    }
    disk.free().unwrap();
    spool.lock().unwrap().append(&alerts(1)).unwrap();
    while css.list(ALERTS_TYPE).await.unwrap().is_empty() {
        assert!(Instant::now() < deadline, "the alerts do not arrive");
        uplink.pass(Timestamp::now()).await.unwrap();
    }
}
