//! `hzn-armor` as an operator uses it, with each hub and a node's client at the other end.

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use armor_contract_tests::{Fixture, Hub, both_hubs, no_hub, run_all};
use armor_hub_client::bundle::dsse::Envelope;
use armor_hub_client::bundle::{NodeIdentity, SerialFloor, verify};
use armor_hub_client::css::CssConfig;
use armor_hub_client::keys::PrivateKey;
use armor_hub_client::mms::BUNDLE_TYPE;
use armor_hub_client::trust::TrustStore;

const POLICY: &str = "apiVersion: security.kubearmor.com/v1
kind: KubeArmorHostPolicy
metadata:
  name: protect-certs # the comment stays
spec:
  nodeSelector:
    matchLabels:
      kubernetes.io/hostname: '*'
  file:
    matchDirectories:
      - dir: /etc/ssl/certs/
        recursive: true
        readOnly: true
  action: Block
";

/// Tables for this must remember at which of the last bytes there was an `a`, or whatever `letter` is.
fn explosive(letter: char, bytes: usize) -> String {
    format!(
        "apiVersion: security.kubearmor.com/v1\nkind: KubeArmorPolicy\nmetadata: {{name: {letter}}}\nspec:\n  \
         selector: {{matchLabels: {{app: {letter}}}}}\n  action: Block\n  file: {{matchPatterns: [{{pattern: '/*{letter}{}'}}]}}\n",
        "?".repeat(bytes)
    )
}

fn main() -> ExitCode {
    let local = no_hub![
        policies_are_checked_with_places_and_exit_status,
        keys_are_made_once_and_shown,
        what_cannot_be_used_is_never_signed,
    ];
    run_all([local, both_hubs![a_bundle_goes_from_policy_files_to_the_node_and_replaces_its_elders]])
}

struct Output {
    code: i32,
    stdout: String,
    stderr: String,
}

struct Operator {
    dir: tempfile::TempDir,
    css: Option<CssConfig>,
}

impl Operator {
    /// With a hub to reach, or without.
    fn new(css: Option<CssConfig>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("certs.yaml"), POLICY).unwrap();
        std::fs::write(dir.path().join("bad.yaml"), POLICY.replace("readOnly", "readonly")).unwrap();
        Self { dir, css }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    async fn run(&self, arguments: &str) -> Output {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_hzn-armor"));
        command
            .args(arguments.split_whitespace())
            .current_dir(self.dir.path())
            .env("HZN_ORG_ID", "myorg")
            .env("HZN_MGMT_HUB_CERT_PATH", "");
        if let Some(css) = &self.css {
            command.env("HZN_EXCHANGE_USER_AUTH", &css.user).env("HZN_FSS_CSSURL", &css.url);
        }
        let output = command.output().await.unwrap();
        Output {
            code: output.status.code().unwrap(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    async fn good(&self, arguments: &str) -> String {
        let output = self.run(arguments).await;
        assert_eq!(output.code, 0, "{arguments}: {}", output.stderr);
        output.stdout
    }

    async fn fails(&self, arguments: &str, code: i32, says: &str) {
        let output = self.run(arguments).await;
        assert_eq!(output.code, code, "{arguments}: {}", output.stderr);
        assert!(output.stderr.contains(says), "{arguments}: {}", output.stderr);
    }
}

fn node_trust(dir: &Path, public: &Path) -> TrustStore {
    std::fs::create_dir_all(dir.join("trust.d")).unwrap();
    std::fs::copy(public, dir.join("trust.d").join(public.file_name().unwrap())).unwrap();
    TrustStore::load(dir).unwrap().0
}

async fn policies_are_checked_with_places_and_exit_status() {
    let operator = Operator::new(None);
    assert!(operator.good("policy check certs.yaml").await.contains("certs.yaml: ok, 1 policy"));
    let folder = operator.run("policy check .").await;
    assert_eq!(folder.code, 1);
    assert!(folder.stdout.contains("bad.yaml:13:"), "{}", folder.stdout);
    let json = operator.run("policy check --json certs.yaml bad.yaml").await;
    assert_eq!(json.code, 1);
    let report: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!((&report[0]["ok"], &report[0]["policies"][0]), (&true.into(), &"protect-certs".into()));
    assert_eq!((&report[1]["ok"], &report[1]["errors"][0]["line"]), (&false.into(), &13.into()));
    let missing = operator.run("policy check missing.yaml").await;
    assert!(missing.code == 1 && missing.stdout.starts_with("missing.yaml: "), "{}", missing.stdout);
    std::fs::write(operator.path("explosive.yaml"), explosive('a', 30)).unwrap();
    let json = operator.run("policy check --json missing.yaml explosive.yaml certs.yaml").await;
    let report: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
    assert!(report[0]["errors"][0]["message"].as_str().unwrap().contains("missing.yaml: No such file"));
    assert_eq!((&report[1]["errors"][0]["line"], &report[1]["errors"][0]["column"]), (&7.into(), &26.into()));
    assert_eq!((json.code, &report[2]["ok"]), (1, &true.into()));
    operator.fails("policy check", 2, "Usage").await;
}

async fn keys_are_made_once_and_shown() {
    let operator = Operator::new(None);
    for kind in ["ed25519", "p256"] {
        let made = operator.good(&format!("keys generate --type {kind} {kind}")).await;
        let id = made.split_whitespace().next().unwrap();
        for file in ["key", "pem"] {
            assert!(operator.good(&format!("keys show {kind}.{file}")).await.starts_with(id));
        }
        operator.fails(&format!("keys generate {kind}"), 1, "not overwritten").await;
    }
}

async fn what_cannot_be_used_is_never_signed() {
    let operator = Operator::new(None);
    operator.good("keys generate op").await;
    operator.fails("bundle build --name edge bad.yaml", 1, "bad.yaml:13:").await;
    operator.fails("bundle build --name edge", 2, "POLICIES").await;
    assert!(operator.good("bundle build --name edge --lift").await.contains("\"policies\": []"));
    operator.fails("bundle build --name a/b certs.yaml", 1, "name").await;
    operator.fails("bundle build --name edge --constraint purpose certs.yaml", 1, "operator").await;
    operator.fails("bundle build --name edge --constraint purpose=x certs.yaml", 1, "openhorizon.arch").await;
    operator.good("bundle build --name edge certs.yaml --out payload.json").await;
    let payload = std::fs::read_to_string(operator.path("payload.json")).unwrap();
    std::fs::write(operator.path("payload.json"), payload.replace("readOnly", "readonly")).unwrap();
    operator.fails("bundle sign -k op.key payload.json", 1, "certs.yaml:13:").await;
    operator.fails("bundle sign -k op.pem payload.json", 1, "public key").await;
    operator.fails("bundle inspect certs.yaml", 1, "not JSON").await;

    // Each is in order, and no container can have both.
    for letter in ['a', 'b'] {
        std::fs::write(operator.path(&format!("{letter}.yaml")), explosive(letter, 12)).unwrap();
        operator.good(&format!("policy check {letter}.yaml")).await;
    }
    operator.fails("bundle build --name edge a.yaml b.yaml", 1, "together").await;
    operator.good("bundle build --name edge a.yaml --out a.json").await;
    let payload = std::fs::read_to_string(operator.path("a.json")).unwrap();
    std::fs::write(operator.path("a.json"), payload.replace(&"?".repeat(12), &"?".repeat(30))).unwrap();
    operator.fails("bundle sign -k op.key a.json", 1, "too complex").await;
    let payload = std::fs::read(operator.path("a.json")).unwrap();
    let mut envelope = Envelope::new(&payload);
    envelope.sign(&payload, &PrivateKey::load(&operator.path("op.key")).unwrap()).unwrap();
    std::fs::write(operator.path("a.bundle"), serde_json::to_vec(&envelope).unwrap()).unwrap();
    node_trust(&operator.path("trust"), &operator.path("op.pem"));
    operator.fails("bundle verify --trust trust --node-id node1 a.bundle", 1, "does-not-compile").await;
}

async fn a_bundle_goes_from_policy_files_to_the_node_and_replaces_its_elders<H: Hub>(hub: Fixture<H>) {
    let (ess, css) = (hub.ess().unwrap(), hub.css().unwrap());
    let (kind, node) = hub.destination();
    let node = [format!("{kind}:{node}")];
    let listed = async |prefix: &str| {
        let deadline = Instant::now() + Duration::from_secs(30);
        // What the agbot does.
        for meta in css.list_all(BUNDLE_TYPE).await.unwrap() {
            if meta.object_id.starts_with(prefix) {
                css.set_destinations(BUNDLE_TYPE, &meta.object_id, &node).await.unwrap();
            }
        }
        loop {
            let list = ess.list(BUNDLE_TYPE, false).await.unwrap();
            let live: Vec<_> = list.into_iter().filter(|meta| !meta.deleted).collect();
            if let [meta] = &live[..]
                && meta.object_id.starts_with(prefix)
            {
                return meta.clone();
            }
            assert!(Instant::now() < deadline, "{prefix} is not the only bundle: {live:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };

    let operator = Operator::new(Some(hub.css_config()));
    operator.good("keys generate op").await;
    operator.good("keys generate second --type p256").await;
    operator.good("bundle build --name edge --serial 7 certs.yaml --out payload.json").await;
    operator.fails("bundle publish payload.json --service hzn-armor", 1, "not signed").await;
    operator.good("bundle sign -k op.key payload.json --out one.json").await;
    operator.good("bundle sign -k second.key one.json --out both.json").await;
    let inspected = operator.good("bundle inspect both.json").await;
    assert!(inspected.contains("serial:   7") && inspected.matches("claims:").count() == 2, "{inspected}");

    let trust = node_trust(&operator.path("node"), &operator.path("op.pem"));
    let accepted = operator.good("bundle verify --trust node --node-id node1 both.json").await;
    assert!(accepted.contains("edge serial 7, 1 policy"), "{accepted}");
    operator
        .fails("bundle verify --trust node --node-org other --node-id node1 both.json", 1, "wrong-target")
        .await;
    node_trust(&operator.path("stranger"), &operator.path("second.pem"));
    operator.fails("bundle verify --trust stranger --node-id node1 one.json", 1, "unknown-signer").await;

    let published = operator.good("bundle publish both.json --service hzn-armor").await;
    assert!(published.contains("published hzn-armor.bundle/edge.7."), "{published}");
    let meta = listed("edge.7.").await;
    let node = NodeIdentity { org: "myorg".to_owned(), id: "node1".to_owned(), ..NodeIdentity::default() };
    let data = ess.data(BUNDLE_TYPE, &meta.object_id, 1 << 20).await.unwrap();
    let bundle =
        verify(&data, Some(&meta), &trust, &node, &SerialFloor::new(), jiff::Timestamp::now()).unwrap();
    assert!(bundle.payload.policies[0].text.contains("# the comment stays"));
    assert_eq!(meta.object_id, format!("edge.7.{}", &bundle.digest[..12]));

    // The next serial, in hzn's own form, takes the place of the first.
    operator.good("keys generate hzn --type rsa").await;
    let trust = node_trust(&operator.path("node"), &operator.path("hzn.pem"));
    operator.good("bundle build --name edge --serial 8 certs.yaml --out payload.json").await;
    operator.fails("bundle publish payload.json --service hzn-armor --plain-key op.key", 1, "RSA").await;
    let published =
        operator.good("bundle publish payload.json --service hzn-armor --plain-key hzn.key").await;
    assert!(published.contains("removed hzn-armor.bundle/edge.7."), "{published}");
    let meta = listed("edge.8.").await;
    let data = ess.data(BUNDLE_TYPE, &meta.object_id, 1 << 20).await.unwrap();
    verify(&data, Some(&meta), &trust, &node, &SerialFloor::new(), jiff::Timestamp::now()).unwrap();

    // One that comes too late is published, with a word about the higher one.
    operator.good("bundle build --name edge --serial 6 certs.yaml --out payload.json").await;
    operator.good("bundle sign -k op.key payload.json --out late.json").await;
    let late = operator.run("bundle publish late.json --service hzn-armor").await;
    assert!(late.code == 0 && late.stderr.contains("higher serial"), "{}", late.stderr);
}
