//! These tests run the agent as a process, on whatever kernel there is. Its pin directory is not on a bpf
//! filesystem unless a test mounts one, so that the agent is degraded everywhere.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Output, Stdio};
use std::time::{Duration, Instant};

use armor_alerts::status::{self, NodeStatus};
use armor_bundle::dsse::Envelope;
use armor_bundle::keys::{KeyType, PrivateKey};
use armor_cli::collector::{Collector, CollectorConfig, Finding, OutputConfig, ReceiptRoute};
use armor_contract_tests::disk::own_mounts;
use armor_contract_tests::{Fixture, Hub, both_hubs, no_hub, run_all};
use armor_mms::css::NewObject;
use armor_mms::{BUNDLE_TYPE, DestinationPolicy, STATUS_TYPE};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(60);
const AGENT: &str = env!("CARGO_BIN_EXE_hzn-armor-agent");

fn main() -> ExitCode {
    if let Err(error) = own_mounts() {
        eprintln!("agent: {error}");
        return ExitCode::FAILURE;
    }
    let both = both_hubs![
        an_agent_reports_its_status_and_keeps_its_bundle_when_killed,
        a_machine_takes_bundles_from_css_and_files_and_reports_to_css,
    ];
    let alone = no_hub![
        bad_settings_and_policies_end_it_with_their_names,
        a_second_agent_stands_by_and_takes_over,
        an_agent_with_another_state_directory_stands_by_for_the_tables,
        pins_elsewhere_are_refused_before_anything_is_made_or_removed,
        a_repeated_write_failure_is_logged_once,
    ];
    run_all([both, alone])
}

struct Running(Child);

impl Running {
    fn pid(&self) -> String {
        self.0.id().to_string()
    }

    fn stop(mut self) {
        let pid = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        assert!(self.0.wait().unwrap().success());
    }

    fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Fails if the process has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[derive(Clone)]
struct Agent {
    dir: PathBuf,
    state: PathBuf,
    pins: PathBuf,
    log: PathBuf,
    variables: Vec<(&'static str, OsString)>,
}

impl Agent {
    /// Returns an agent in the environment of a Horizon service.
    fn new(dir: &Path, socket: PathBuf) -> Self {
        let horizon = dir.join("horizon");
        Self::with_variables(
            dir,
            vec![
                ("HZN_ORGANIZATION", "myorg".into()),
                ("HZN_NODE_ID", "node1".into()),
                ("HZN_AGREEMENTID", "the-agreement".into()),
                ("HZN_ESS_API_PROTOCOL", "secure-unix".into()),
                ("HZN_ESS_API_ADDRESS", socket.into()),
                ("HZN_ESS_AUTH", horizon.join("auth.json").into()),
                ("HZN_ESS_CERT", horizon.join("cert.pem").into()),
            ],
        )
    }

    fn with_variables(dir: &Path, variables: Vec<(&'static str, OsString)>) -> Self {
        // Not on a bpf filesystem, so that nothing stays pinned after the test.
        let pins = dir.join("pins");
        Self { dir: dir.to_owned(), state: dir.join("state"), pins, log: dir.join("log"), variables }
    }

    fn logged(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(AGENT);
        command
            .args(arguments)
            .env("HZN_ARMOR_STATE_DIR", &self.state)
            .env("HZN_ARMOR_PIN_DIR", &self.pins)
            .env("HZN_ARMOR_BUNDLE_DIR", self.dir.join("bundles"))
            .env("HZN_ARMOR_POLL_SECONDS", "1")
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null());
        command
    }

    fn start(&self) -> Running {
        let log = fs::File::options().create(true).append(true).open(&self.log).unwrap();
        Running(self.command(&["run"]).stdout(Stdio::null()).stderr(log).spawn().unwrap())
    }

    fn output(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    fn status(&self) -> Value {
        serde_json::from_slice(&self.output(&["status", "--json"]).stdout).unwrap()
    }

    async fn until(&self, expected: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let status = self.status();
            if expected(&status) {
                return status;
            }
            assert!(Instant::now() < deadline, "{status:#}\n{}", self.logged());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

fn bundle(key: &PrivateKey, serial: u64) -> Vec<u8> {
    let policy = "apiVersion: security.kubearmor.com/v1\nkind: KubeArmorHostPolicy\nmetadata: {name: h}\nspec:\n  \
                  nodeSelector: {matchLabels: {kubearmor.io/hostname: node1}}\n  file: {matchPaths: [{path: /no/such/file}]}\n";
    let payload = serde_json::json!({
        "format": "horizon-armor.bundle/1", "name": "edge", "serial": serial, "created": "2026-01-01T00:00:00Z",
        "expires": "2099-01-01T00:00:00Z", "target": {"org": "myorg"}, "policies": [{"file": "h.yaml", "text": policy}],
    })
    .to_string();
    let mut envelope = Envelope::new(payload.as_bytes());
    envelope.sign(payload.as_bytes(), key).unwrap();
    serde_json::to_vec(&envelope).unwrap()
}

/// Generates a key for bundles and pins its public half in the agent's state directory.
fn pinned_key(agent: &Agent) -> PrivateKey {
    let key = PrivateKey::generate(KeyType::Ed25519).unwrap();
    let trust = agent.state.join("trust/trust.d");
    fs::create_dir_all(&trust).unwrap();
    fs::write(trust.join("operator.pem"), key.public().to_pem()).unwrap();
    key
}

async fn an_agent_reports_its_status_and_keeps_its_bundle_when_killed<H: Hub>(hub: Fixture<H>) {
    let (css, dir) = (hub.css().unwrap(), hub.dir());
    let agent = Agent::new(dir, hub.hub.ess_socket());
    let key = pinned_key(&agent);
    let object = NewObject {
        object_id: "edge.1.a".into(),
        object_type: BUNDLE_TYPE.into(),
        destination: Some(hub.destination()),
        ..NewObject::default()
    };
    css.publish(&object, &bundle(&key, 1)).await.unwrap();

    let first = agent.start();
    let status = agent.until(|status| status["BundleSerial"] == 1).await;
    assert_eq!((&status["State"], &status["Running"]), (&"degraded".into(), &true.into()), "{status:#}");
    assert!(!agent.output(&["detach"]).status.success(), "not under a running agent");

    // The signed status at the hub says the same.
    let deadline = Instant::now() + PATIENCE;
    'told: loop {
        for object in css.list(STATUS_TYPE).await.unwrap() {
            if let Ok(data) = css.data(STATUS_TYPE, &object.object_id, status::MAX_OBJECT).await
                && let Ok((told, _)) = NodeStatus::verify(&data)
                && told.agent.bundle_serial == 1
            {
                assert_eq!(told.agent.state, "degraded");
                assert!(!told.agent.reasons.is_empty());
                break 'told;
            }
        }
        assert!(Instant::now() < deadline, "no status reaches the hub");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }

    first.kill();
    let status = agent.until(|status| status["Running"] == false).await;
    assert_eq!((&status["State"], &status["Bundle"]), (&"not running".into(), &"edge".into()));
    assert_eq!(agent.output(&["status"]).status.code(), Some(1));

    // Without hub and ESS, the agent has the same bundle in force.
    hub.hub.ess_down().await.unwrap();
    hub.hub.hub_down().await.unwrap();
    fs::remove_file(dir.join("state/status.json")).unwrap();
    let second = agent.start();
    let status = agent.until(|status| status["BundleSerial"] == 1 && !status["Offline"].is_null()).await;
    assert_eq!(status["Running"], true);
    second.stop();
}

async fn a_machine_takes_bundles_from_css_and_files_and_reports_to_css<H: Hub>(hub: Fixture<H>) {
    let (css, dir, config) = (hub.css().unwrap(), hub.dir(), hub.machine_config().unwrap());
    let agent = Agent::with_variables(
        dir,
        vec![
            ("HZN_ORG_ID", config.org.clone().into()),
            ("HZN_EXCHANGE_USER_AUTH", config.user.into()),
            ("HZN_FSS_CSSURL", config.url.into()),
        ],
    );
    let key = pinned_key(&agent);
    let object = NewObject {
        object_id: "edge.1.a".into(),
        object_type: BUNDLE_TYPE.into(),
        destination_policy: Some(DestinationPolicy::default()),
        ..NewObject::default()
    };
    css.publish(&object, &bundle(&key, 1)).await.unwrap();
    let running = agent.start();
    agent.until(|status| status["BundleSerial"] == 1 && status["Offline"].is_null()).await;
    fs::create_dir(dir.join("bundles")).unwrap();
    fs::write(dir.join("bundles/edge"), bundle(&key, 2)).unwrap();
    agent.until(|status| status["BundleSerial"] == 2).await;

    let config = CollectorConfig {
        org: config.org,
        state_dir: dir.to_owned(),
        output: OutputConfig::File(dir.join("alerts")),
        route: ReceiptRoute::Node("openhorizon.edgenode".into()),
        accept_keys: vec![],
    };
    let (report, reported) = std::sync::mpsc::channel();
    let report = Box::new(move |finding: &Finding| report.send(finding.to_string()).unwrap());
    let receipts = PrivateKey::generate(KeyType::Ed25519).unwrap();
    let mut collector = Collector::open(config, hub.css().unwrap(), receipts, report).unwrap();
    let deadline = Instant::now() + PATIENCE;
    let mut said = Vec::new();
    while !said.iter().any(|finding: &String| finding.contains("bundle edge serial 2")) {
        assert!(Instant::now() < deadline, "{said:?}\n{}", agent.logged());
        collector.collect_once().await.unwrap();
        said.extend(reported.try_iter());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(said[0].contains("node1: first key seen"), "{said:?}");
    assert!(!agent.logged().contains("password"), "the password is in nobody's log");
    running.stop();
}

/// Starts an agent that must stand by for `first`, and checks that it says so and does nothing else.
async fn stands_by(agent: &Agent, first: &Running) -> Running {
    let second = agent.start();
    let deadline = Instant::now() + PATIENCE;
    while !agent.logged().contains("standing by") {
        assert!(Instant::now() < deadline, "{}", agent.logged());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let (said, holder) = (agent.logged(), format!("pid {} (agreement the-agreement)", first.pid()));
    assert!(said.contains(&holder) && said.lines().count() == 1, "{said}");
    let threads = fs::read_dir(format!("/proc/{}/task", second.pid())).unwrap();
    assert_eq!(threads.count(), 1, "labels are per task");
    second
}

async fn a_second_agent_stands_by_and_takes_over() {
    let dir = tempfile::tempdir().unwrap();
    let agent = Agent::new(dir.path(), dir.path().join("none"));
    let first = agent.start();
    agent.until(|status| status["State"] == "degraded" && !status["Offline"].is_null()).await;
    let seen = || {
        let names = fs::read_dir(&agent.state).unwrap().map(|entry| entry.unwrap().file_name());
        let files: BTreeSet<_> = names.filter(|name| !name.as_encoded_bytes().ends_with(b".new")).collect();
        (agent.status()["Pid"].clone(), files)
    };
    let before = seen();
    let others = ["second", "third"].map(|log| Agent { log: dir.path().join(log), ..agent.clone() });
    let second = stands_by(&others[0], &first).await;
    let third = stands_by(&others[1], &first).await;
    assert_eq!(seen(), before, "what the first one says and has is left alone");
    assert_eq!(before.0, first.pid());
    third.stop();

    first.kill();
    agent.until(|status| status["Pid"] == second.pid() && status["State"] == "degraded").await;
    second.stop();
    agent.until(|status| status["Running"] == false).await;
}

struct BpfFilesystem(PathBuf);

impl BpfFilesystem {
    fn mount(on: PathBuf) -> Self {
        fs::create_dir(&on).unwrap();
        mount("none", &on, "bpf", MountFlags::empty(), None).unwrap();
        Self(on)
    }
}

impl Drop for BpfFilesystem {
    fn drop(&mut self) {
        unmount(&self.0, UnmountFlags::DETACH).unwrap();
    }
}

async fn an_agent_with_another_state_directory_stands_by_for_the_tables() {
    let dir = tempfile::tempdir().unwrap();
    let bpf = BpfFilesystem::mount(dir.path().join("bpf"));
    let agent = Agent { pins: bpf.0.join("pins"), ..Agent::new(dir.path(), dir.path().join("none")) };
    let first = agent.start();
    agent.until(|status| status["State"] == "degraded").await;
    let other = Agent { state: dir.path().join("other"), log: dir.path().join("second"), ..agent.clone() };
    let second = stands_by(&other, &first).await;
    let status = other.until(|status| status["State"] == "degraded").await;
    let reason = status["Reasons"][0].as_str().unwrap();
    assert!(reason.contains("pins belongs to") && reason.contains(&first.pid()), "{reason}");
    assert_eq!(agent.status()["Pid"], first.pid());

    first.kill();
    let stands_by = |status: &Value| status["Reasons"].to_string().contains("standing by");
    other.until(|status| status["State"] == "degraded" && !stands_by(status)).await;
    let held = agent.output(&["detach"]);
    let said = String::from_utf8(held.stderr).unwrap();
    assert!(
        !held.status.success() && said.contains(&second.pid()),
        "not under another's running agent: {said}"
    );
    second.stop();
}

async fn pins_elsewhere_are_refused_before_anything_is_made_or_removed() {
    let dir = tempfile::tempdir().unwrap();
    let agent = Agent::new(dir.path(), dir.path().join("none"));
    let first = agent.start();
    agent.until(|status| status["State"] == "degraded").await;
    assert!(
        !agent.pins.exists() && agent.logged().contains("pins: there is no bpf filesystem"),
        "{}",
        agent.logged()
    );
    first.stop();
    let policy = dir.path().join("p.yaml");
    let text = "apiVersion: security.kubearmor.com/v1\nkind: KubeArmorPolicy\nmetadata: {name: p}\nspec:\n  selector: \
                {matchLabels: {a: b}}\n  file: {matchPaths: [{path: /no/such}]}\n";
    fs::write(&policy, text).unwrap();
    let keep = agent.pins.to_str().unwrap();
    let tried = agent.output(&["try", "--keep", keep, "--policy", policy.to_str().unwrap(), "--", "true"]);
    assert!(
        String::from_utf8_lossy(&tried.stderr).contains("no bpf filesystem") && !agent.pins.exists(),
        "{tried:?}"
    );
    fs::create_dir_all(agent.pins.join("theirs/links")).unwrap();
    fs::create_dir_all(agent.pins.join("0123456789abcdef-0123456789abcdef/links")).unwrap();
    assert_eq!(agent.status()["Pinned"], false);
    let detached = agent.output(&["detach"]);
    assert!(String::from_utf8_lossy(&detached.stderr).contains("no bpf filesystem"), "{detached:?}");
    assert!(agent.pins.join("theirs/links").is_dir());

    let bpf = BpfFilesystem::mount(dir.path().join("bpf"));
    let agent = Agent { pins: bpf.0.join("pins"), ..agent };
    fs::create_dir_all(agent.pins.join("theirs/links")).unwrap();
    for directory in ["links", "maps"] {
        fs::create_dir_all(agent.pins.join("0123456789abcdef-0123456789abcdef").join(directory)).unwrap();
    }
    assert_eq!(agent.status()["Pinned"], false, "there is no link");
    let detached = agent.output(&["detach"]);
    let said = String::from_utf8_lossy(&detached.stdout).into_owned();
    assert!(
        detached.status.success()
            && said.contains("Nothing was attached")
            && said.contains("Left there")
            && said.contains("pins/theirs"),
        "{detached:?}"
    );
    assert!(agent.pins.join("theirs/links").is_dir() && fs::read_dir(&agent.pins).unwrap().count() == 1);
}

async fn a_repeated_write_failure_is_logged_once() {
    let dir = tempfile::tempdir().unwrap();
    let agent = Agent::with_variables(dir.path(), vec![("HZN_ORG_ID", "myorg".into())]);
    let key = pinned_key(&agent);
    // A directory at the path of the file's next version makes writing fail, as a full disk does.
    fs::create_dir_all(agent.state.join("containers.json.new")).unwrap();
    fs::create_dir(dir.path().join("bundles")).unwrap();
    let running = agent.start();
    for serial in 1..=3 {
        fs::write(dir.path().join("bundles/edge"), bundle(&key, serial)).unwrap();
        let told = |status: &Value| status["Reasons"].to_string().contains("containers.json");
        agent.until(|status| status["BundleSerial"] == serial && told(status)).await;
    }
    let logged = agent.logged();
    let is_said = |line: &&str| line.contains("ERROR") && line.contains("containers.json");
    assert_eq!(logged.lines().filter(is_said).count(), 1, "{logged}");
    running.stop();
}

async fn bad_settings_and_policies_end_it_with_their_names() {
    let dir = tempfile::tempdir().unwrap();
    let agent = Agent::new(dir.path(), dir.path().join("none"));
    let settings = dir.path().join("agent.toml");
    fs::write(&settings, "stat_dir = '/x'").unwrap();
    let loud = dir.path().join("loud.toml");
    fs::write(&loud, "log = 'loud'").unwrap();
    let loud = loud.to_str().unwrap();
    let policy = dir.path().join("p.yaml");
    fs::write(&policy, "kind: KubeArmorPolicy\nspec: {proces: {}}\n").unwrap();
    let (settings, policy) = (settings.to_str().unwrap(), policy.to_str().unwrap());
    for (arguments, part) in [
        (&["--config", settings, "run"][..], "stat_dir"),
        (&["--config", loud, "run"], "loud.toml: log = loud: off, error"),
        (&["--config", "/no/such", "probe"], "/no/such: No such file"),
        (&["--config", "/no/such", "try", "--policy", policy, "--", "true"], "/no/such: No such file"),
        (&["try", "--policy", policy, "--", "true"], "p.yaml:2"),
        (&["try", "--policy", "/no/such", "--", "true"], "/no/such"),
    ] {
        let output = agent.output(arguments);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(125) && said.contains(part), "{said}");
    }
}
