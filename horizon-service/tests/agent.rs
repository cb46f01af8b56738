//! The daemon as a process, on whatever kernel the tests run on: with pins that cannot be made it is degraded everywhere.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, Output, Stdio};
use std::time::{Duration, Instant};

use armor_contract_tests::{Fixture, Hub, both_hubs, no_hub, run_all};
use armor_hub_client::bundle::dsse::Envelope;
use armor_hub_client::css::NewObject;
use armor_hub_client::keys::{KeyType, PrivateKey};
use armor_hub_client::mms::{BUNDLE_TYPE, STATUS_TYPE};
use armor_hub_client::status::{self, NodeStatus};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(60);
const AGENT: &str = env!("CARGO_BIN_EXE_hzn-armor-agent");

fn main() -> ExitCode {
    let both = both_hubs![the_daemon_takes_a_bundle_says_how_it_is_and_outlives_its_own_death];
    run_all([both, no_hub![bad_settings_and_policies_end_it_with_their_names]])
}

/// A daemon that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct Agent {
    dir: PathBuf,
    socket: PathBuf,
}

impl Agent {
    fn command(&self, arguments: &[&str]) -> Command {
        let horizon = self.dir.join("horizon");
        let mut command = Command::new(AGENT);
        command
            .args(arguments)
            .env("HZN_ARMOR_STATE_DIR", self.dir.join("state"))
            // No BPF file system: nothing of a test outlives it.
            .env("HZN_ARMOR_PIN_DIR", self.dir.join("pins"))
            .env("HZN_ARMOR_POLL_SECONDS", "1")
            .env("HZN_ORGANIZATION", "myorg")
            .env("HZN_NODE_ID", "node1")
            .env("HZN_ESS_API_PROTOCOL", "secure-unix")
            .env("HZN_ESS_API_ADDRESS", &self.socket)
            .env("HZN_ESS_AUTH", horizon.join("auth.json"))
            .env("HZN_ESS_CERT", horizon.join("cert.pem"))
            .stdin(Stdio::null());
        command
    }

    fn start(&self) -> Running {
        let log = fs::File::options().create(true).append(true).open(self.dir.join("log")).unwrap();
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
            let log = || fs::read_to_string(self.dir.join("log")).unwrap();
            assert!(Instant::now() < deadline, "{status:#}\n{}", log());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

fn bundle(key: &PrivateKey) -> Vec<u8> {
    let policy = "apiVersion: security.kubearmor.com/v1\nkind: KubeArmorHostPolicy\nmetadata: {name: h}\nspec:\n  \
                  nodeSelector: {matchLabels: {kubearmor.io/hostname: node1}}\n  file: {matchPaths: [{path: /no/such/file}]}\n";
    let payload = serde_json::json!({
        "format": "horizon-armor.bundle/1", "name": "edge", "serial": 1, "created": "2026-01-01T00:00:00Z",
        "expires": "2099-01-01T00:00:00Z", "target": {"org": "myorg"}, "policies": [{"file": "h.yaml", "text": policy}],
    })
    .to_string();
    let mut envelope = Envelope::new(payload.as_bytes());
    envelope.sign(payload.as_bytes(), key).unwrap();
    serde_json::to_vec(&envelope).unwrap()
}

async fn the_daemon_takes_a_bundle_says_how_it_is_and_outlives_its_own_death<H: Hub>(hub: Fixture<H>) {
    let (css, dir) = (hub.css().unwrap(), hub.dir());
    let agent = Agent { dir: dir.to_owned(), socket: hub.hub.ess_socket() };
    let key = PrivateKey::generate(KeyType::Ed25519).unwrap();
    let trust = dir.join("state/trust/trust.d");
    fs::create_dir_all(&trust).unwrap();
    fs::write(trust.join("operator.pem"), key.public().to_pem()).unwrap();
    let object = NewObject {
        object_id: "edge.1.a".into(),
        object_type: BUNDLE_TYPE.into(),
        destination: Some(hub.destination()),
        ..NewObject::default()
    };
    css.publish(&object, &bundle(&key)).await.unwrap();

    let mut first = agent.start();
    let status = agent.until(|status| status["BundleSerial"] == 1).await;
    assert_eq!((&status["State"], &status["Running"]), (&"degraded".into(), &true.into()), "{status:#}");
    let second = agent.output(&["run"]);
    let said = String::from_utf8(second.stderr).unwrap();
    assert!(!second.status.success() && said.contains(&first.0.id().to_string()), "{said}");
    assert!(!agent.output(&["detach"]).status.success(), "not under a running agent");

    // The hub hears the same, signed.
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

    first.0.kill().unwrap();
    first.0.wait().unwrap();
    let status = agent.until(|status| status["Running"] == false).await;
    assert_eq!((&status["State"], &status["Bundle"]), (&"not running".into(), &"edge".into()));
    assert_eq!(agent.output(&["status"]).status.code(), Some(1));

    // Without hub and ESS it is where it was.
    hub.hub.ess_down().await.unwrap();
    hub.hub.hub_down().await.unwrap();
    fs::remove_file(dir.join("state/status.json")).unwrap();
    let mut third = agent.start();
    let status = agent.until(|status| status["BundleSerial"] == 1 && !status["Offline"].is_null()).await;
    assert_eq!(status["Running"], true);
    let pid = rustix::process::Pid::from_child(&third.0);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert!(third.0.wait().unwrap().success());
}

async fn bad_settings_and_policies_end_it_with_their_names() {
    let dir = tempfile::tempdir().unwrap();
    let agent = Agent { dir: dir.path().to_owned(), socket: dir.path().join("none") };
    let settings = dir.path().join("agent.toml");
    fs::write(&settings, "stat_dir = '/x'").unwrap();
    let policy = dir.path().join("p.yaml");
    fs::write(&policy, "kind: KubeArmorPolicy\nspec: {proces: {}}\n").unwrap();
    let (settings, policy) = (settings.to_str().unwrap(), policy.to_str().unwrap());
    for (arguments, part) in [
        (&["--config", settings, "run"][..], "stat_dir"),
        (&["try", "--policy", policy, "--", "true"], "p.yaml:2"),
        (&["try", "--policy", "/no/such", "--", "true"], "/no/such"),
    ] {
        let output = agent.output(arguments);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(125) && said.contains(part), "{said}");
    }
}
