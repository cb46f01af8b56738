//! `hzn-armor` as an operator uses it, with the development hub and a node's client at the other end.

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use armor_dev_hub::{DevHub, DevHubConfig, Hub as _, Role};
use armor_hub_client::bundle::{NodeIdentity, SerialFloor, verify};
use armor_hub_client::ess::{EssAddress, EssClient, EssConfig};
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

struct Output {
    code: i32,
    stdout: String,
    stderr: String,
}

struct Operator {
    dir: tempfile::TempDir,
    hub_url: String,
}

impl Operator {
    fn new(hub_url: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("certs.yaml"), POLICY).unwrap();
        std::fs::write(dir.path().join("bad.yaml"), POLICY.replace("readOnly", "readonly")).unwrap();
        Self { dir, hub_url: hub_url.to_owned() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    async fn run(&self, arguments: &str) -> Output {
        let output = tokio::process::Command::new(env!("CARGO_BIN_EXE_hzn-armor"))
            .args(arguments.split_whitespace())
            .current_dir(self.dir.path())
            .env("HZN_ORG_ID", "myorg")
            .env("HZN_EXCHANGE_USER_AUTH", "operator:password")
            .env("HZN_FSS_CSSURL", &self.hub_url)
            .env("HZN_MGMT_HUB_CERT_PATH", "")
            .output()
            .await
            .unwrap();
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

#[tokio::test]
async fn policies_are_checked_with_places_and_exit_status() {
    let operator = Operator::new("http://127.0.0.1:1");
    assert!(operator.good("policy check certs.yaml").await.contains("certs.yaml: ok, 1 policy"));
    let folder = operator.run("policy check .").await;
    assert_eq!(folder.code, 1);
    assert!(folder.stdout.contains("bad.yaml:13:"), "{}", folder.stdout);
    let json = operator.run("policy check --json certs.yaml bad.yaml").await;
    assert_eq!(json.code, 1);
    let report: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!((&report[0]["ok"], &report[0]["policies"][0]), (&true.into(), &"protect-certs".into()));
    assert_eq!((&report[1]["ok"], &report[1]["errors"][0]["line"]), (&false.into(), &13.into()));
    operator.fails("policy check missing.yaml", 1, "missing.yaml").await;
    operator.fails("policy check", 2, "Usage").await;
}

#[tokio::test]
async fn keys_are_made_once_and_shown() {
    let operator = Operator::new("http://127.0.0.1:1");
    for kind in ["ed25519", "p256"] {
        let made = operator.good(&format!("keys generate --type {kind} {kind}")).await;
        let id = made.split_whitespace().next().unwrap();
        for file in ["key", "pem"] {
            assert!(operator.good(&format!("keys show {kind}.{file}")).await.starts_with(id));
        }
        operator.fails(&format!("keys generate {kind}"), 1, "not overwritten").await;
    }
}

#[tokio::test]
async fn what_cannot_be_used_is_never_signed() {
    let operator = Operator::new("http://127.0.0.1:1");
    operator.good("keys generate op").await;
    operator.fails("bundle build --name edge bad.yaml", 1, "bad.yaml:13:").await;
    operator.fails("bundle build --name edge", 2, "POLICIES").await;
    assert!(operator.good("bundle build --name edge --lift").await.contains("\"policies\": []"));
    operator.fails("bundle build --name a/b certs.yaml", 1, "name").await;
    operator.fails("bundle build --name edge --constraint purpose certs.yaml", 1, "operator").await;
    operator.good("bundle build --name edge certs.yaml --out payload.json").await;
    let payload = std::fs::read_to_string(operator.path("payload.json")).unwrap();
    std::fs::write(operator.path("payload.json"), payload.replace("readOnly", "readonly")).unwrap();
    operator.fails("bundle sign -k op.key payload.json", 1, "certs.yaml:13:").await;
    operator.fails("bundle sign -k op.pem payload.json", 1, "public key").await;
    operator.fails("bundle inspect certs.yaml", 1, "not JSON").await;
}

#[tokio::test]
async fn a_bundle_goes_from_policy_files_to_the_node_and_replaces_its_elders() {
    let dir = tempfile::tempdir().unwrap();
    let hub = DevHub::start(DevHubConfig::new(dir.path().join("hub"))).await.unwrap();
    let service = hub.add_service("hzn-armor", "1.0.0", "token").unwrap();
    hub.add_user("operator", "password", Role::User).unwrap();
    let files = dir.path().join("ess");
    hub.write_horizon_files(&files, &service, "token", "1.0.0").unwrap();
    let ess = EssClient::new(EssConfig {
        address: EssAddress::Unix(hub.ess_socket()),
        auth_file: files.join("auth.json"),
        cert_file: files.join("cert.pem"),
        timeout: Duration::from_secs(20),
    })
    .unwrap();
    let listed = async |prefix: &str| {
        let deadline = Instant::now() + Duration::from_secs(20);
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

    let operator = Operator::new(&hub.css_url());
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
