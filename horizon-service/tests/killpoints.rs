//! Agent and collector are killed at every step of an alert's way, the hub goes away and returns, and a meddler overwrites,
//! deletes and consumes alert objects, as anyone in the org can. The collector's output must hold each alert exactly once,
//! in order, and name the meddling.
//!
//! A kill is a stop at a named step, after which everything in memory is dropped and the program starts again on a copy of its
//! directory as it was at that moment, with SQLite's log as a SIGKILL leaves it. Kills, outages and meddling follow from a seed,
//! which a failure prints.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::{BTreeSet, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use armor_agent::spool::{Spool, SpoolConfig};
use armor_agent::uplink::{Uplink, UplinkConfig, UplinkError};
use armor_contract_tests::{DevHub, DevHubConfig, Hub, RealHub, Role};
use armor_hub_client::alert::Alert;
use armor_hub_client::batch::Sealer;
use armor_hub_client::collector::{
    Collector, CollectorConfig, CollectorError, Finding, OutputConfig, OutputError, ReceiptRoute,
};
use armor_hub_client::css::{CssClient, CssConfig};
use armor_hub_client::ess::{EssAddress, EssClient, EssConfig};
use armor_hub_client::keys::{KeyType, PrivateKey};
use armor_hub_client::mms::ALERTS_TYPE;
use armor_hub_client::status::AgentReport;
use armor_hub_client::steps::{Steps, Stopped};
use jiff::Timestamp;
use tokio::sync::watch;

/// Every step of the way; the suite must stop at each.
const NODE_STEPS: [&str; 8] =
    ["written-to-spool", "batch", "put", "taken", "receipt", "pruned", "deleted", "status"];
const COLLECTOR_STEPS: [&str; 7] =
    ["written", "accepted", "held", "consumed", "signed", "published", "cleared"];
/// Longest a scenario may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// A small generator (splitmix64): the same seed, the same scenario.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// Stops at the step that is armed, once, and notes every stop.
#[derive(Clone, Default)]
struct Kills(Arc<Mutex<KillState>>);

#[derive(Default)]
struct KillState {
    armed: Option<(&'static str, u64)>,
    stops: Vec<&'static str>,
}

impl Kills {
    /// Stops when one of `steps` is reached, after `skip` times, unless another stop is still to come.
    fn arm(&self, steps: &[&'static str], random: &mut Random) {
        let mut state = self.0.lock().unwrap();
        let step = steps[random.below(steps.len() as u64) as usize];
        state.armed.get_or_insert((step, random.below(2)));
    }

    fn stops(&self) -> Vec<&'static str> {
        self.0.lock().unwrap().stops.clone()
    }
}

impl Steps for Kills {
    fn reached(&mut self, step: &'static str) -> Result<(), Stopped> {
        let mut state = self.0.lock().unwrap();
        match &mut state.armed {
            Some((armed, skip)) if *armed == step => {
                if *skip > 0 {
                    *skip -= 1;
                    return Ok(());
                }
            }
            _ => return Ok(()),
        }
        state.armed = None;
        state.stops.push(step);
        Err(Stopped(step))
    }
}

/// A directory that a program is killed in: a new copy takes its place.
struct Home {
    root: PathBuf,
    lives: u32,
}

impl Home {
    fn new(root: PathBuf) -> Self {
        fs::create_dir_all(root.join("0")).unwrap();
        Self { root, lives: 0 }
    }

    fn dir(&self) -> PathBuf {
        self.root.join(self.lives.to_string())
    }

    /// Copies the directory as it is now, with everything open; what was written stays as a killed process leaves it.
    fn freeze(&mut self) {
        let old = self.dir();
        self.lives += 1;
        fs::create_dir_all(self.dir()).unwrap();
        for entry in fs::read_dir(old).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), self.dir().join(entry.file_name())).unwrap();
        }
    }
}

struct Node<'h, H> {
    hub: &'h H,
    files: PathBuf,
    home: Home,
    sealer: Arc<Sealer>,
    receipt_keys: watch::Receiver<Vec<armor_hub_client::keys::PublicKey>>,
    report: watch::Receiver<AgentReport>,
    kills: Kills,
    running: Option<(Arc<Mutex<Spool>>, Uplink<Kills>)>,
    /// Alerts handed to the spool.
    appended: u64,
    /// Objects in the order in which the node made them.
    made: Vec<String>,
}

impl<H: Hub> Node<'_, H> {
    fn start(&mut self) {
        let spool = Spool::open(&self.home.dir(), SpoolConfig { max_bytes: 1 << 20 }).unwrap();
        assert_eq!(spool.recovered(), None, "a kill damages nothing");
        let spool = Arc::new(Mutex::new(spool));
        let ess = EssClient::new(EssConfig {
            address: EssAddress::Unix(self.hub.ess_socket()),
            auth_file: self.files.join("auth.json"),
            cert_file: self.files.join("cert.pem"),
            timeout: Duration::from_secs(2),
        });
        let config = UplinkConfig {
            poll: Duration::from_millis(50),
            resend_after: Duration::from_millis(1500),
            receipt_grace: Duration::from_millis(1500),
            ..UplinkConfig::default()
        };
        let uplink = Uplink::with_steps(
            config,
            ess.unwrap(),
            Arc::clone(&spool),
            Arc::clone(&self.sealer),
            self.receipt_keys.clone(),
            self.report.clone(),
            self.kills.clone(),
        );
        self.running = Some((spool, uplink));
    }

    fn kill(&mut self) {
        self.home.freeze();
        self.running = None;
        self.start();
    }

    /// Appends `count` alerts. A kill right after is a kill before anybody was told the numbers.
    fn append(&mut self, count: u64) {
        let alerts: Vec<_> = (0..count)
            .map(|n| {
                let resource = format!("/etc/secret-{}", self.appended + n + 1);
                Alert { severity: "5".into(), resource, ..Alert::at(Timestamp::now()) }
            })
            .collect();
        let range = self.running.as_ref().unwrap().0.lock().unwrap().append(&alerts).unwrap();
        assert_eq!(range, self.appended + 1..=self.appended + count, "numbers go on without a gap");
        self.appended += count;
        if self.kills.clone().reached("written-to-spool").is_err() {
            self.kill();
        }
    }

    async fn pass(&mut self) {
        match self.running.as_mut().unwrap().1.pass(Timestamp::now()).await {
            Err(UplinkError::Stopped(_)) => self.kill(),
            Err(UplinkError::Mms(error)) if error.is_transient() => {}
            result => result.unwrap(),
        }
        let batches = self.running.as_ref().unwrap().0.lock().unwrap().batches().unwrap();
        let fresh = batches.into_iter().map(|batch| batch.id).filter(|id| !self.made.contains(id));
        let fresh: Vec<_> = fresh.collect();
        self.made.extend(fresh);
    }

    fn receipted(&self) -> u64 {
        self.running.as_ref().unwrap().0.lock().unwrap().stats().unwrap().receipted
    }

    /// A service on the node sees its objects' ids; so does the meddler.
    fn object_ids(&self) -> Vec<String> {
        let batches = self.running.as_ref().unwrap().0.lock().unwrap().batches().unwrap();
        batches.into_iter().filter(|batch| batch.taken.is_none()).map(|batch| batch.id).collect()
    }
}

struct Hubside {
    css: CssConfig,
    home: Home,
    key: String,
    kills: Kills,
    running: Option<Collector<Kills>>,
    findings: Arc<Mutex<Vec<Finding>>>,
}

impl Hubside {
    fn start(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        self.running = Some(loop {
            match self.open() {
                // A process that another test is just starting still has the file's lock, inherited, until it runs.
                Err(CollectorError::Output(OutputError::InUse(_))) if Instant::now() < deadline => {}
                collector => break collector.unwrap(),
            }
        });
    }

    fn open(&self) -> Result<Collector<Kills>, CollectorError> {
        let config = CollectorConfig {
            org: self.css.org.clone(),
            state_dir: self.home.dir(),
            output: OutputConfig::File(self.output()),
            route: ReceiptRoute::Node("openhorizon.edgenode".into()),
            accept_keys: vec![],
        };
        let findings = Arc::clone(&self.findings);
        let report = Box::new(move |finding: &Finding| {
            if !matches!(finding, Finding::Status(_)) {
                findings.lock().unwrap().push(finding.clone());
            }
        });
        let key = PrivateKey::from_pem(self.key.as_bytes()).unwrap();
        Collector::with_steps(config, CssClient::new(&self.css).unwrap(), key, report, self.kills.clone())
    }

    fn output(&self) -> PathBuf {
        // Beside the copies, for its inode must last.
        self.home.root.join("alerts.ndjson")
    }

    async fn pass(&mut self) {
        match self.running.as_mut().unwrap().collect_once().await {
            Err(CollectorError::Stopped(_)) => {
                self.home.freeze();
                self.running = None;
                self.start();
            }
            Err(CollectorError::Mms(error)) if error.is_transient() => {}
            result => drop(result.unwrap()),
        }
    }

    fn collected(&self) -> Vec<(u64, String)> {
        let text = fs::read_to_string(self.output()).unwrap();
        let alerts = text.lines().map(|line| serde_json::from_str::<Alert>(line).unwrap());
        alerts.map(|alert| (alert.sequence, alert.resource)).collect()
    }
}

/// Someone in the org.
struct Meddler {
    css: CssClient,
    ess: EssClient,
    /// Objects meddled with.
    touched: BTreeSet<String>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Meddling {
    Overwrite,
    Delete,
    Consume,
}

impl Meddler {
    /// True if the object was at the hub, and the meddling done.
    async fn meddle(&mut self, id: &str, how: Meddling) -> bool {
        let listed = self.css.list(ALERTS_TYPE).await.unwrap_or_default();
        if !listed.iter().any(|object| object.object_id == id && !object.deleted) {
            return false;
        }
        let done = match how {
            // Another service on the same node writes under the id that it read there.
            Meddling::Overwrite => self.ess.put(ALERTS_TYPE, id, b"nothing to see here").await,
            Meddling::Delete => self.css.delete(ALERTS_TYPE, id).await,
            Meddling::Consume => self.css.consumed(ALERTS_TYPE, id).await,
        };
        if done.is_ok() {
            self.touched.insert(id.to_owned());
        }
        done.is_ok()
    }
}

struct World<'h, H> {
    node: Node<'h, H>,
    hubside: Hubside,
    meddler: Meddler,
}

impl<'h, H: Hub> World<'h, H> {
    fn new(hub: &'h H, root: &Path) -> Self {
        let id = hub.add_service("hzn-armor", "1.0.0", "service-token").unwrap();
        let other = hub.add_service("other-service", "1.0.0", "other-token").unwrap();
        let user = hub.add_user("operator", "operator-password", Role::User).unwrap();
        let mallory = hub.add_user("mallory", "mallory-password", Role::User).unwrap();
        hub.write_horizon_files(&root.join("ess"), &id, "service-token", "1.0.0").unwrap();
        hub.write_horizon_files(&root.join("other"), &other, "other-token", "1.0.0").unwrap();
        let css = |user: &str, password: &str| CssConfig {
            url: hub.css_url(),
            org: hub.org(),
            user: format!("{user}:{password}"),
            ca_file: None,
            timeout: Duration::from_secs(5),
        };
        let ess = EssClient::new(EssConfig {
            address: EssAddress::Unix(hub.ess_socket()),
            auth_file: root.join("other/auth.json"),
            cert_file: root.join("other/cert.pem"),
            timeout: Duration::from_secs(2),
        });
        let [node_key, collector_key] = [(); 2].map(|()| PrivateKey::generate(KeyType::Ed25519).unwrap());
        let pem = root.join("collector.key");
        collector_key.save_new(&pem).unwrap();
        let (keys, receipt_keys) = watch::channel(vec![collector_key.public().clone()]);
        let (reports, report) =
            watch::channel(AgentReport { state: "enforcing".into(), ..AgentReport::default() });
        drop((keys, reports));
        let mut node = Node {
            hub,
            files: root.join("ess"),
            home: Home::new(root.join("node")),
            sealer: Arc::new(Sealer { org: hub.org(), node: hub.node(), key: node_key }),
            receipt_keys,
            report,
            kills: Kills::default(),
            running: None,
            appended: 0,
            made: Vec::new(),
        };
        node.start();
        let mut hubside = Hubside {
            css: css(&user, "operator-password"),
            home: Home::new(root.join("hub")),
            key: fs::read_to_string(pem).unwrap(),
            kills: Kills::default(),
            running: None,
            findings: Arc::default(),
        };
        hubside.start();
        let css = CssClient::new(&css(&mallory, "mallory-password")).unwrap();
        let meddler = Meddler { css, ess: ess.unwrap(), touched: BTreeSet::new() };
        Self { node, hubside, meddler }
    }

    /// Passes on both sides until `done`, or panics with what is not.
    async fn until(&mut self, what: &str, mut done: impl FnMut(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !done(self) {
            assert!(
                Instant::now() < deadline,
                "{what}: appended {}, receipted {}, collected {:?}, findings {:?}",
                self.node.appended,
                self.node.receipted(),
                self.hubside.collected().len(),
                self.hubside.findings.lock().unwrap(),
            );
            self.node.pass().await;
            self.hubside.pass().await;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn until_delivered(&mut self) {
        self.until("every alert is receipted", |world| world.node.receipted() == world.node.appended).await;
    }

    fn assert_exactly_once_in_order(&self) {
        let expected: Vec<_> = (1..=self.node.appended).map(|n| (n, format!("/etc/secret-{n}"))).collect();
        assert_eq!(self.hubside.collected(), expected);
    }

    /// Each object meddled with is named, unless nobody missed it: the genuine one was taken, as the node, started again, put
    /// it again under its id; or the collector had taken an object that the node made of the same alerts before.
    fn assert_meddling_is_named(&mut self) {
        self.hubside.running = None;
        let ledger = rusqlite::Connection::open(self.hubside.home.dir().join("collector.db")).unwrap();
        let mut query = ledger.prepare("SELECT id FROM accepted").unwrap();
        let taken: HashSet<String> =
            query.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
        let range = |id: &str| id.rsplit('.').nth(1).unwrap().to_owned();
        let made = &self.node.made;
        let named = self.named();
        for id in &self.meddler.touched {
            let at = made.iter().position(|other| other == id).unwrap();
            let is_missed =
                !made[..=at].iter().any(|other| range(other) == range(id) && taken.contains(other));
            assert!(
                !is_missed || named.contains(id),
                "{id} is not named: {:?}",
                self.hubside.findings.lock().unwrap()
            );
        }
    }

    /// Object ids that findings name.
    fn named(&self) -> HashSet<String> {
        let findings = self.hubside.findings.lock().unwrap();
        let named = findings.iter().filter_map(|finding| match finding {
            Finding::Forged { object, .. }
            | Finding::Copied { object, .. }
            | Finding::Removed { object, .. }
            | Finding::Intercepted { object, .. } => Some(object.clone()),
            _ => None,
        });
        named.collect()
    }
}

/// One scenario: alerts, kills, an outage and meddling as the seed says. Answers where it was killed.
async fn scenario<H: Hub>(hub: &H, root: &Path, seed: u64) -> Vec<&'static str> {
    let mut world = World::new(hub, root);
    let mut random = Random(seed);
    for _ in 0..5 {
        world.node.kills.arm(&NODE_STEPS, &mut random);
        world.hubside.kills.arm(&COLLECTOR_STEPS, &mut random);
        world.node.append(1 + random.below(5));
        world.node.pass().await;
        if random.below(3) == 0 {
            hub.hub_down().await.unwrap();
            world.node.append(1 + random.below(3));
            world.node.pass().await;
            world.hubside.pass().await;
            if random.below(2) == 0 {
                hub.restart_ess().await.unwrap();
            }
            hub.hub_up().await.unwrap();
        }
        let how = [Meddling::Overwrite, Meddling::Delete, Meddling::Consume][random.below(3) as usize];
        for id in world.node.object_ids() {
            world.meddler.meddle(&id, how).await;
        }
        world.node.append(1 + random.below(3));
        for _ in 0..random.below(4) {
            world.node.pass().await;
            world.hubside.pass().await;
        }
    }
    world.until_delivered().await;
    world.assert_exactly_once_in_order();
    world.assert_meddling_is_named();
    let mut stops = world.node.kills.stops();
    stops.extend(world.hubside.kills.stops());
    stops
}

fn dev_hub_config(dir: &Path) -> DevHubConfig {
    DevHubConfig { agbot: false, poll: Duration::from_millis(20), ..DevHubConfig::new(dir) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_alert_arrives_once_whatever_is_killed_on_the_development_hub() {
    let mut stops = Vec::new();
    for seed in 0..24 {
        println!("seed {seed}");
        let dir = tempfile::tempdir().unwrap();
        let hub = DevHub::start(dev_hub_config(dir.path())).await.unwrap();
        stops.extend(scenario(&hub, dir.path(), seed).await);
    }
    println!("{} kills: {stops:?}", stops.len());
    assert!(stops.len() >= 50, "{} kills only: {stops:?}", stops.len());
    for step in NODE_STEPS.iter().chain(&COLLECTOR_STEPS) {
        assert!(stops.contains(step), "never killed at {step}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_alert_arrives_once_whatever_is_killed_on_the_real_hub() {
    if no_real_hub() {
        return;
    }
    let mut stops = Vec::new();
    for seed in 100..104 {
        println!("seed {seed}");
        let dir = tempfile::tempdir().unwrap();
        let hub = RealHub::start(dir.path()).await.unwrap();
        stops.extend(scenario(&hub, dir.path(), seed).await);
    }
    assert!(stops.len() >= 8, "{stops:?}");
}

/// People without Go leave the real hub out, knowingly.
fn no_real_hub() -> bool {
    let left_out = std::env::var_os("ARMOR_NO_REAL_HUB").is_some_and(|value| value == "1");
    if left_out {
        eprintln!("left out (no real hub)");
    }
    left_out
}

/// Each way to meddle, with nobody killed: the alerts arrive, and the object is named.
async fn meddling_is_named<H: Hub>(hub: &H, root: &Path) {
    let mut world = World::new(hub, root);
    world.node.append(1);
    world.until_delivered().await;
    for how in [Meddling::Overwrite, Meddling::Delete, Meddling::Consume] {
        world.node.append(2);
        world.node.pass().await;
        let deadline = Instant::now() + PATIENCE;
        let id = loop {
            let ids = world.node.object_ids();
            let id = ids.first().expect("a batch is on its way").clone();
            if world.meddler.meddle(&id, how).await {
                break id;
            }
            assert!(Instant::now() < deadline, "{id} does not reach the hub");
            tokio::time::sleep(Duration::from_millis(10)).await;
        };
        if how == Meddling::Overwrite {
            // The collector must see the overwritten one.
            let deadline = Instant::now() + PATIENCE;
            while world.meddler.css.data(ALERTS_TYPE, &id, 1 << 20).await.ok().as_deref()
                != Some(b"nothing to see here")
            {
                assert!(Instant::now() < deadline, "{id} is not overwritten");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
        world.until_delivered().await;
        assert!(world.named().contains(&id), "{how:?} of {id}: {:?}", world.hubside.findings.lock().unwrap());
    }
    world.assert_exactly_once_in_order();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_way_to_meddle_is_named_on_the_development_hub() {
    let dir = tempfile::tempdir().unwrap();
    let hub = DevHub::start(dev_hub_config(dir.path())).await.unwrap();
    meddling_is_named(&hub, dir.path()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_way_to_meddle_is_named_on_the_real_hub() {
    if no_real_hub() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let hub = RealHub::start(dir.path()).await.unwrap();
    meddling_is_named(&hub, dir.path()).await;
}
