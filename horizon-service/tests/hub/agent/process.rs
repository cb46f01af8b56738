//! Runs the agent as a process, with directories of its own.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use armor_bundle::dsse::Envelope;
use armor_bundle::keys::{KeyType, PrivateKey};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use serde_json::Value;

pub const PATIENCE: Duration = Duration::from_secs(60);
const AGENT: &str = env!("CARGO_BIN_EXE_hzn-armor-agent");

pub struct Running(Child);

impl Running {
    pub fn pid(&self) -> String {
        self.0.id().to_string()
    }

    pub fn stop(mut self) {
        let pid = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        assert!(self.0.wait().unwrap().success());
    }

    pub fn kill(mut self) {
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
pub struct Agent {
    pub dir: PathBuf,
    pub state: PathBuf,
    pub pins: PathBuf,
    pub log: PathBuf,
    pub variables: Vec<(&'static str, OsString)>,
}

impl Agent {
    /// Returns an agent in the environment of a Horizon service.
    pub fn new(dir: &Path, socket: PathBuf) -> Self {
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

    pub fn with_variables(dir: &Path, variables: Vec<(&'static str, OsString)>) -> Self {
        // Not on a bpf filesystem, so that nothing stays pinned after the test.
        let pins = dir.join("pins");
        Self { dir: dir.to_owned(), state: dir.join("state"), pins, log: dir.join("log"), variables }
    }

    pub fn logged(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
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

    pub fn start(&self) -> Running {
        let log = fs::File::options().create(true).append(true).open(&self.log).unwrap();
        Running(self.command(&["run"]).stdout(Stdio::null()).stderr(log).spawn().unwrap())
    }

    pub fn output(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    pub fn status(&self) -> Value {
        serde_json::from_slice(&self.output(&["status", "--json"]).stdout).unwrap()
    }

    pub async fn until(&self, expected: impl Fn(&Value) -> bool) -> Value {
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

pub fn bundle(key: &PrivateKey, serial: u64) -> Vec<u8> {
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
pub fn pinned_key(agent: &Agent) -> PrivateKey {
    let key = PrivateKey::generate(KeyType::Ed25519).unwrap();
    let trust = agent.state.join("trust/trust.d");
    fs::create_dir_all(&trust).unwrap();
    fs::write(trust.join("operator.pem"), key.public().to_pem()).unwrap();
    key
}

pub struct BpfFilesystem(pub PathBuf);

impl BpfFilesystem {
    pub fn mount(on: PathBuf) -> Self {
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
