//! Runs node and collector as processes that can be killed: by themselves at an armed step, or from outside
//! at any moment. Both are a SIGKILL, and nothing but their files is left.
//!
//! The test's own program is started again in a [`Role`]; orders and answers pass as JSON lines through its
//! standard input and output.

use std::fs::OpenOptions;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use armor_agent::delivery::spool::{Spool, SpoolConfig};
use armor_agent::delivery::uplink::{Uplink, UplinkConfig, UplinkError};
use armor_agent::hub::{Hub, HubConfig};
use armor_alerts::alert::Alert;
use armor_alerts::batch::Sealer;
use armor_alerts::status::AgentReport;
use armor_alerts::steps::Steps;
use armor_bundle::NodeIdentity;
use armor_bundle::keys::PrivateKey;
use armor_cli::collector::{
    Collector, CollectorConfig, CollectorError, Finding, OutputConfig, ReceiptRoute, Report,
};
use armor_mms::css::{CssClient, CssConfig};
use armor_mms::ess::{EssAddress, EssConfig};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

/// Name of the variable that gives this program its role.
const ROLE: &str = "ARMOR_KILLPOINTS_ROLE";

/// A `Role` says which of the two sides a process plays, and where everything is that it needs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Role {
    /// The node: spool and uplink.
    Node {
        /// The spool's directory.
        dir: PathBuf,
        route: Route,
        org: String,
        node: String,
        /// Files of the private keys, of the node and of the collector.
        node_key: PathBuf,
        collector_key: PathBuf,
    },
    /// The collector, as `hzn-armor alerts collect` runs it.
    Collector {
        /// The ledger's directory.
        dir: PathBuf,
        url: String,
        org: String,
        user: String,
        key: PathBuf,
        output: PathBuf,
        /// File of the findings, a JSON line each.
        report: PathBuf,
    },
}

/// A `Route` is how a node reaches the hub.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Route {
    Ess { socket: PathBuf, horizon_files: PathBuf },
    Css { url: String, user: String },
}

impl Route {
    fn config(self, org: &str) -> HubConfig {
        let timeout = Duration::from_secs(2);
        match self {
            Self::Ess { socket, horizon_files } => HubConfig::Ess(EssConfig {
                address: EssAddress::Unix(socket),
                auth_file: horizon_files.join("auth.json"),
                cert_file: horizon_files.join("cert.pem"),
                timeout,
            }),
            Self::Css { url, user } => {
                HubConfig::Css(CssConfig { url, org: org.to_owned(), user, ca_file: None, timeout })
            }
        }
    }
}

/// An `Order` tells a process what to do.
#[derive(Debug, Serialize, Deserialize)]
pub enum Order {
    /// Only answer.
    Look,
    /// Kill yourself when this step is reached, after `skip` times.
    Arm { step: String, skip: u64 },
    /// Append an alert for each resource.
    Append { resources: Vec<String> },
    /// Run one pass.
    Pass,
}

/// A `State` describes a node's spool; a collector answers with the default.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct State {
    /// Highest alert number assigned.
    pub last: u64,
    /// Highest alert number that a receipt covers.
    pub receipted: u64,
    /// Ids of the batches without a receipt, and whether each was taken.
    pub batches: Vec<(String, bool)>,
}

pub struct Actor {
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Drop for Actor {
    fn drop(&mut self) {
        // Fails if the process is dead already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Actor {
    pub fn begin(role: &Role) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .env(ROLE, serde_json::to_string(role).unwrap())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (orders, answers) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        Self { child, orders, answers: BufReader::new(answers) }
    }

    /// Sends the order and returns the answer, or `None` if the process was killed before it answered.
    pub fn order(&mut self, order: &Order) -> Option<State> {
        self.send(order);
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        if line.ends_with('\n') {
            return Some(serde_json::from_str(&line).unwrap());
        }
        let status = self.child.wait().unwrap();
        assert_eq!(status.signal(), Some(9), "{order:?}: it ended by itself: {status}");
        None
    }

    /// Sends the order and kills the process `after` this time.
    pub fn order_and_kill(&mut self, order: &Order, after: Duration) {
        self.send(order);
        std::thread::sleep(after);
        self.child.kill().unwrap();
        let status = self.child.wait().unwrap();
        assert_eq!(status.signal(), Some(9), "{order:?}: it ended by itself: {status}");
    }

    fn send(&mut self, order: &Order) {
        writeln!(self.orders, "{}", serde_json::to_string(order).unwrap()).unwrap();
    }
}

/// A `Kills` kills this process at the armed step.
#[derive(Clone, Default)]
struct Kills(Arc<Mutex<Option<(String, u64)>>>);

impl Steps for Kills {
    fn reached(&mut self, step: &'static str) {
        match &mut *self.0.lock().unwrap() {
            Some((armed, skip)) if *armed == step && *skip > 0 => *skip -= 1,
            Some((armed, _)) if *armed == step => {
                let this = rustix::process::getpid();
                rustix::process::kill_process(this, rustix::process::Signal::KILL).unwrap();
            }
            _ => {}
        }
    }
}

/// Carries out orders until standard input closes. Returns false at once if this process has no role.
pub fn play_role() -> bool {
    let Some(role) = std::env::var_os(ROLE) else { return false };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let kills = Kills::default();
    let mut work: Box<dyn FnMut(Order) -> State> = match serde_json::from_str(role.to_str().unwrap()).unwrap()
    {
        role @ Role::Node { .. } => node(role, runtime, kills.clone()),
        role @ Role::Collector { .. } => collector(role, runtime, kills.clone()),
    };
    for line in std::io::stdin().lines() {
        let state = match serde_json::from_str(&line.unwrap()).unwrap() {
            Order::Arm { step, skip } => {
                *kills.0.lock().unwrap() = Some((step, skip));
                work(Order::Look)
            }
            order => work(order),
        };
        println!("{}", serde_json::to_string(&state).unwrap());
    }
    true
}

fn node(role: Role, runtime: tokio::runtime::Runtime, mut kills: Kills) -> Box<dyn FnMut(Order) -> State> {
    let Role::Node { dir, route, org, node, node_key, collector_key } = role else { unreachable!() };
    let spool = Spool::open(&dir, SpoolConfig { max_bytes: 1 << 20 }).unwrap();
    assert_eq!(spool.recovered(), None, "a kill damages nothing");
    let spool = Arc::new(Mutex::new(spool));
    let identity = NodeIdentity { org: org.clone(), id: node.clone(), ..NodeIdentity::default() };
    let hub = Arc::new(Hub::new(route.config(&org), &identity).unwrap());
    let config = UplinkConfig {
        poll: Duration::from_millis(50),
        resend_after: Duration::from_millis(1500),
        receipt_grace: Duration::from_millis(1500),
        ..UplinkConfig::default()
    };
    let (_, keys) = watch::channel(vec![PrivateKey::load(&collector_key).unwrap().public().clone()]);
    let (_, report) = watch::channel(AgentReport { state: "enforcing".into(), ..AgentReport::default() });
    let sealer = Arc::new(Sealer { org, node, key: PrivateKey::load(&node_key).unwrap() });
    let shared = Arc::clone(&spool);
    let mut uplink = Uplink::with_steps(config, hub, shared, sealer, keys, report, kills.clone());
    Box::new(move |order| {
        match order {
            Order::Append { resources } => {
                let alerts: Vec<_> = resources
                    .into_iter()
                    .map(|resource| Alert { severity: "5".into(), resource, ..Alert::at(Timestamp::now()) })
                    .collect();
                spool.lock().unwrap().append(&alerts).unwrap();
                kills.reached("written-to-spool");
            }
            Order::Pass => match runtime.block_on(uplink.pass(Timestamp::now())) {
                Err(UplinkError::Mms(error)) if error.is_transient() => {}
                result => result.unwrap(),
            },
            Order::Look | Order::Arm { .. } => {}
        }
        let mut spool = spool.lock().unwrap();
        let stats = spool.stats().unwrap();
        let batches = spool.batches().unwrap();
        State {
            last: stats.last,
            receipted: stats.receipted,
            batches: batches.into_iter().map(|batch| (batch.id, batch.taken.is_some())).collect(),
        }
    })
}

fn collector(role: Role, runtime: tokio::runtime::Runtime, kills: Kills) -> Box<dyn FnMut(Order) -> State> {
    let Role::Collector { dir, url, org, user, key, output, report } = role else { unreachable!() };
    let css = CssConfig { url, org, user, ca_file: None, timeout: Duration::from_secs(5) };
    let config = CollectorConfig {
        org: css.org.clone(),
        state_dir: dir,
        output: OutputConfig::File(output),
        route: ReceiptRoute::Node("openhorizon.edgenode".into()),
        accept_keys: vec![],
    };
    let mut report = OpenOptions::new().create(true).append(true).open(report).unwrap();
    let report: Report = Box::new(move |finding: &Finding| {
        let line = serde_json::to_string(finding).unwrap() + "\n";
        report.write_all(line.as_bytes()).unwrap();
    });
    let key = PrivateKey::load(&key).unwrap();
    let mut collector =
        Collector::with_steps(config, CssClient::new(&css).unwrap(), key, report, kills).unwrap();
    Box::new(move |order| {
        if let Order::Pass = order {
            match runtime.block_on(collector.collect_once()) {
                Err(CollectorError::Mms(error)) if error.is_transient() => {}
                result => drop(result.unwrap()),
            }
        }
        State::default()
    })
}
