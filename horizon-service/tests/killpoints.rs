//! These tests kill agent and collector at every step of an alert's delivery and at any moment between, take
//! the hub down and up again, and overwrite, delete and consume alert objects, as anyone in the org can. The
//! collector's output must hold each alert exactly once and in order, and its findings must name the
//! meddling.
//!
//! A kill is a SIGKILL of a process ([`harness`]), which is then started again with the files that it left.
//! Kills, outages and meddling follow from a seed, which is printed.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod harness;

use std::collections::{BTreeSet, HashSet};
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use armor_alerts::alert::Alert;
use armor_bundle::keys::{KeyType, PrivateKey};
use armor_contract_tests::{Fixture, Hub, Role as UserRole, Trial, both_hubs, run, run_all};
use armor_mms::ALERTS_TYPE;
use armor_mms::css::{CssClient, CssConfig};
use armor_mms::ess::{EssClient, EssConfig};
use harness::{Actor, Order, Role, Route, State};

/// Steps of a node, and below those of the collector; the suite must kill at each.
const NODE_STEPS: [&str; 8] =
    ["written-to-spool", "batch", "put", "taken", "receipt", "pruned", "deleted", "status"];
const COLLECTOR_STEPS: [&str; 7] =
    ["written", "accepted", "held", "consumed", "signed", "published", "cleared"];
/// Name in place of a step for a kill at any moment of a pass.
const SOMEWHERE: &str = "somewhere";
/// Longest time that a scenario may take.
const PATIENCE: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    if harness::play_role() {
        return ExitCode::SUCCESS;
    }
    let killed = vec![
        Trial::test("dev::each_alert_arrives_once_whatever_is_killed", || {
            let mut kills = scenarios(0..24, Fixture::on_dev_hub);
            assert!(kills.len() >= 100, "{} kills only: {kills:?}", kills.len());
            let steps: Vec<_> = NODE_STEPS.into_iter().chain(COLLECTOR_STEPS).chain([SOMEWHERE]).collect();
            // Timing also decides which steps a scenario goes through.
            for seed in (24..72).step_by(8) {
                if !steps.iter().all(|step| kills.contains(step)) {
                    kills.extend(scenarios(seed..seed + 8, Fixture::on_dev_hub));
                }
            }
            for step in steps {
                assert!(kills.contains(&step), "never killed at {step}");
            }
            Ok(())
        }),
        Trial::test("real::each_alert_arrives_once_whatever_is_killed", || {
            let kills = scenarios(100..104, Fixture::on_real_hub);
            assert!(kills.len() >= 8, "{kills:?}");
            Ok(())
        }),
    ];
    run_all([killed, both_hubs![each_way_to_meddle_is_named, each_way_to_meddle_at_the_css_is_named]])
}

/// A `Random` is a small generator (splitmix64), so that the same seed gives the same scenario.
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

/// A `Mortal` is a process that is killed, and started again with the files that it left.
struct Mortal {
    role: Role,
    life: Actor,
    steps: &'static [&'static str],
    armed: Option<&'static str>,
    /// Time after which the next pass is cut short.
    strike: Option<Duration>,
    /// Steps at which it was killed.
    kills: Vec<&'static str>,
}

impl Mortal {
    fn new(role: Role, steps: &'static [&'static str]) -> Self {
        Self { life: Actor::begin(&role), role, steps, armed: None, strike: None, kills: Vec::new() }
    }

    /// Arranges its next kill: at one of its steps, or at any moment of a pass.
    fn doom(&mut self, random: &mut Random) {
        if random.below(4) == 0 {
            self.strike = Some(Duration::from_micros(random.below(20_000)));
        } else if self.armed.is_none() {
            let step = self.steps[random.below(self.steps.len() as u64) as usize];
            self.armed = Some(step);
            self.life.order(&Order::Arm { step: step.to_owned(), skip: random.below(2) }).unwrap();
        }
    }

    /// Returns the state after an order; if the order killed the process, the state of the restarted one.
    fn order(&mut self, order: &Order) -> State {
        match self.strike.take_if(|_| matches!(order, Order::Pass)) {
            Some(after) => {
                self.life.order_and_kill(order, after);
                self.kills.push(SOMEWHERE);
            }
            None => match self.life.order(order) {
                Some(state) => return state,
                None => self.kills.push(self.armed.unwrap()),
            },
        }
        self.armed = None;
        self.life = Actor::begin(&self.role);
        self.life.order(&Order::Look).unwrap()
    }
}

struct Node {
    process: Mortal,
    state: State,
    /// Number of alerts handed to the spool.
    appended: u64,
    /// Ids of the objects in the order in which the node made them.
    made: Vec<String>,
}

impl Node {
    fn new(role: Role) -> Self {
        let process = Mortal::new(role, &NODE_STEPS);
        Self { process, state: State::default(), appended: 0, made: Vec::new() }
    }

    /// Appends `count` alerts. A kill right after that comes before anyone learns their numbers.
    fn append(&mut self, count: u64) {
        let numbers = self.appended + 1..=self.appended + count;
        let resources = numbers.map(resource).collect();
        self.state = self.process.order(&Order::Append { resources });
        self.appended += count;
        assert_eq!(self.state.last, self.appended, "numbers go on without a gap");
    }

    fn pass(&mut self) {
        self.state = self.process.order(&Order::Pass);
        for (id, _) in &self.state.batches {
            if !self.made.contains(id) {
                self.made.push(id.clone());
            }
        }
    }

    /// Returns the ids of the objects not taken yet, which services on the node and the meddler see.
    fn object_ids(&self) -> Vec<String> {
        let open = self.state.batches.iter().filter(|(_, taken)| !taken);
        open.map(|(id, _)| id.clone()).collect()
    }
}

fn resource(number: u64) -> String {
    format!("/etc/secret-{number}")
}

struct Hubside {
    process: Mortal,
    output: PathBuf,
    report: PathBuf,
    ledger: PathBuf,
}

impl Hubside {
    fn pass(&mut self) {
        self.process.order(&Order::Pass);
    }

    fn collected(&self) -> Vec<(u64, String)> {
        let text = fs::read_to_string(&self.output).unwrap();
        let alerts = text.lines().map(|line| serde_json::from_str::<Alert>(line).unwrap());
        alerts.map(|alert| (alert.sequence, alert.resource)).collect()
    }

    fn findings(&self) -> String {
        fs::read_to_string(&self.report).unwrap()
    }

    /// Returns the object ids that findings name.
    fn named(&self) -> HashSet<String> {
        let findings = self.findings();
        let findings = findings.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        let named = findings.filter_map(|finding| match finding["Finding"].as_str() {
            Some("Forged" | "Copied" | "Removed" | "Intercepted") => {
                finding["Object"].as_str().map(str::to_owned)
            }
            _ => None,
        });
        named.collect()
    }

    /// Ends the collector and returns the object ids that it took.
    fn into_taken(self) -> HashSet<String> {
        drop(self.process);
        let ledger = rusqlite::Connection::open(&self.ledger).unwrap();
        let mut query = ledger.prepare("SELECT id FROM accepted").unwrap();
        query.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    }
}

/// A `Meddler` is someone in the org who changes alert objects.
struct Meddler {
    css: CssClient,
    ess: EssClient,
    /// True if the alerts come from a machine at the CSS.
    at_css: bool,
    /// Ids of objects meddled with.
    touched: BTreeSet<String>,
}

const NOTHING: &[u8] = b"nothing to see here";

#[derive(Debug, Clone, Copy, PartialEq)]
enum Meddling {
    Overwrite,
    Delete,
    Consume,
}

impl Meddler {
    /// Returns true if the object was at the hub, and the meddling is done.
    async fn meddle(&mut self, id: &str, how: Meddling) -> bool {
        let mut listed = self.css.list(ALERTS_TYPE).await.unwrap_or_default();
        listed.extend(self.css.list_staying(ALERTS_TYPE, None).await.unwrap_or_default());
        if !listed.iter().any(|object| object.object_id == id && !object.deleted) {
            return false;
        }
        let done = match how {
            Meddling::Overwrite if self.at_css => self.css.put_staying(ALERTS_TYPE, id, "", NOTHING).await,
            // Another service on the same node writes under the id that it read there.
            Meddling::Overwrite => self.ess.put(ALERTS_TYPE, id, NOTHING).await,
            // An object made at the hub cannot be consumed there, so it is deleted.
            Meddling::Consume if !self.at_css => self.css.consumed(ALERTS_TYPE, id).await,
            Meddling::Delete | Meddling::Consume => self.css.delete(ALERTS_TYPE, id).await,
        };
        if done.is_ok() {
            self.touched.insert(id.to_owned());
        }
        done.is_ok()
    }
}

struct World {
    node: Node,
    hubside: Hubside,
    meddler: Meddler,
}

impl World {
    fn new<H: Hub>(hub: &Fixture<H>, at_css: bool) -> Self {
        let root = hub.dir();
        let mallory = hub.hub.add_user("mallory", "mallory-password", UserRole::User).unwrap();
        let other = hub.hub.add_service("other-service", "1.0.0", "other-token").unwrap();
        hub.hub.write_horizon_files(&root.join("other"), &other, "other-token", "1.0.0").unwrap();
        for name in ["node", "hubside"] {
            fs::create_dir(root.join(name)).unwrap();
        }
        let [node_key, collector_key] = ["node.key", "collector.key"].map(|name| {
            let path = root.join(name);
            PrivateKey::generate(KeyType::Ed25519).unwrap().save_new(&path).unwrap();
            path
        });
        let route = if at_css {
            let CssConfig { url, user, .. } = hub.machine_config().unwrap();
            Route::Css { url, user }
        } else {
            Route::Ess { socket: hub.hub.ess_socket(), horizon_files: hub.horizon_files() }
        };
        let node = Node::new(Role::Node {
            dir: root.join("node"),
            route,
            org: hub.hub.org(),
            node: hub.hub.node(),
            node_key,
            collector_key: collector_key.clone(),
        });
        let CssConfig { url, org, user, .. } = hub.css_config();
        let (output, report) = (root.join("alerts.ndjson"), root.join("report.ndjson"));
        let role = Role::Collector {
            dir: root.join("hubside"),
            url,
            org,
            user,
            key: collector_key,
            output: output.clone(),
            report: report.clone(),
        };
        let process = Mortal::new(role, &COLLECTOR_STEPS);
        let hubside = Hubside { process, output, report, ledger: root.join("hubside/collector.db") };
        let css = CssConfig { user: format!("{mallory}:mallory-password"), ..hub.css_config() };
        let ess = EssConfig {
            auth_file: root.join("other/auth.json"),
            cert_file: root.join("other/cert.pem"),
            ..hub.ess_config()
        };
        let meddler = Meddler {
            css: CssClient::new(&css).unwrap(),
            ess: EssClient::new(ess).unwrap(),
            at_css,
            touched: BTreeSet::new(),
        };
        Self { node, hubside, meddler }
    }

    /// Runs passes on both sides until a receipt covers every alert.
    async fn until_delivered(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        while self.node.state.receipted != self.node.appended {
            assert!(
                Instant::now() < deadline,
                "appended {}, receipted {}, collected {}, findings {}",
                self.node.appended,
                self.node.state.receipted,
                self.hubside.collected().len(),
                self.hubside.findings(),
            );
            self.node.pass();
            self.hubside.pass();
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    fn assert_exactly_once_in_order(&self) {
        let expected: Vec<_> = (1..=self.node.appended).map(|number| (number, resource(number))).collect();
        assert_eq!(self.hubside.collected(), expected);
    }

    /// Checks that findings name each object meddled with whose alerts were missed. They are not missed if
    /// the collector took the genuine object, as the restarted node put it again under its id, or had taken
    /// an object that the node made of the same alerts before.
    fn assert_meddling_is_named(self) {
        let Self { node: Node { made, .. }, hubside, meddler } = self;
        let (named, findings) = (hubside.named(), hubside.findings());
        // Releases the collector's lock.
        let taken = hubside.into_taken();
        let range = |id: &str| id.rsplit('.').nth(1).unwrap().to_owned();
        for id in &meddler.touched {
            let at = made.iter().position(|other| other == id).unwrap();
            let is_missed =
                !made[..=at].iter().any(|other| range(other) == range(id) && taken.contains(other));
            assert!(!is_missed || named.contains(id), "{id} is not named: {findings}");
        }
    }
}

/// Runs one scenario with what follows from the seed, for a node, or for a machine at the CSS if the seed is
/// odd. Returns the steps of its kills.
async fn scenario<H: Hub>(hub: Fixture<H>, seed: u64) -> Vec<&'static str> {
    let mut world = World::new(&hub, seed % 2 == 1);
    let mut random = Random(seed);
    for _ in 0..5 {
        world.node.process.doom(&mut random);
        world.hubside.process.doom(&mut random);
        world.node.append(1 + random.below(5));
        world.node.pass();
        if random.below(3) == 0 {
            hub.hub.hub_down().await.unwrap();
            world.node.append(1 + random.below(3));
            world.node.pass();
            world.hubside.pass();
            if random.below(2) == 0 {
                hub.hub.restart_ess().await.unwrap();
            }
            hub.hub.hub_up().await.unwrap();
        }
        let how = [Meddling::Overwrite, Meddling::Delete, Meddling::Consume][random.below(3) as usize];
        for id in world.node.object_ids() {
            world.meddler.meddle(&id, how).await;
        }
        world.node.append(1 + random.below(3));
        for _ in 0..random.below(4) {
            world.node.pass();
            world.hubside.pass();
        }
    }
    world.until_delivered().await;
    world.assert_exactly_once_in_order();
    let kills = [&world.node.process.kills[..], &world.hubside.process.kills[..]].concat();
    world.assert_meddling_is_named();
    kills
}

/// Runs the scenarios of these seeds, four at a time, and returns the steps of all kills.
fn scenarios<H: Hub>(
    seeds: std::ops::Range<u64>,
    hub: impl AsyncFn() -> Result<Fixture<H>, Box<dyn std::error::Error + Send + Sync>> + Sync,
) -> Vec<&'static str> {
    let (seeds, kills) = (Mutex::new(seeds), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                loop {
                    let Some(seed) = seeds.lock().unwrap().next() else { break };
                    run(async {
                        let killed = scenario(hub().await?, seed).await;
                        println!("seed {seed}: killed at {killed:?}");
                        kills.lock().unwrap().extend(killed);
                        Ok(())
                    })
                    .unwrap();
                }
            });
        }
    });
    kills.into_inner().unwrap()
}

/// Meddles in each way without kills: the alerts arrive, and findings name the object.
async fn each_way_to_meddle_is_named<H: Hub>(hub: Fixture<H>) {
    meddle_in_each_way(&hub, false).await;
}

async fn each_way_to_meddle_at_the_css_is_named<H: Hub>(hub: Fixture<H>) {
    meddle_in_each_way(&hub, true).await;
}

async fn meddle_in_each_way<H: Hub>(hub: &Fixture<H>, at_css: bool) {
    let mut world = World::new(hub, at_css);
    world.node.append(1);
    world.until_delivered().await;
    for how in [Meddling::Overwrite, Meddling::Delete, Meddling::Consume] {
        world.node.append(2);
        world.node.pass();
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
            // The collector must see the overwritten object.
            let deadline = Instant::now() + PATIENCE;
            while world.meddler.css.data(ALERTS_TYPE, &id, 1 << 20).await.ok().as_deref() != Some(NOTHING) {
                assert!(Instant::now() < deadline, "{id} is not overwritten");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
        world.until_delivered().await;
        assert!(world.hubside.named().contains(&id), "{how:?} of {id}: {}", world.hubside.findings());
    }
    world.assert_exactly_once_in_order();
}
