//! These tests check that the real `hzn` accepts every JSON file that this project ships, and what it sends
//! of them.
//!
//! The program is the one that `HZN` names or that is on `PATH`. Without it the tests do not run, as the end
//! of the output says; with `ARMOR_REQUIRE_HZN=1` that is a failure. `ARMOR_NO_REAL_HUB=1` leaves out
//! `real::...`, which need Go.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs};

use armor_bundle::keys::{KeyType, PrivateKey, PublicKey};
use armor_bundle::plain::PlainFields;
use armor_bundle::trust::TrustStore;
use armor_bundle::{NodeIdentity, Refusal, SerialFloor, VerifiedBundle, verify};
use armor_contract_tests::pages::{calls, unknown_option};
use armor_contract_tests::{Fixture, Hub as _, Outcome, RealHub, eventually, run};
use armor_mms::{BUNDLE_TYPE, MetaData};
use armor_real_tools_tests::{Hub, Hzn, Object, Registry, Said};
use jiff::Timestamp;
use libtest_mimic::{Arguments, Trial};
use serde_json::{Value, json};
use tempfile::TempDir;

const SERVICE: &str = "myorg/services/hzn-armor_0.1.0_amd64";
const PATIENCE: Duration = Duration::from_secs(60);

macro_rules! trials {
    ($prefix:literal: $($name:ident),* $(,)?) => {
        vec![$(Trial::test(concat!($prefix, stringify!($name)), || {
            run(async { Outcome::outcome($name().await) })
        })),*]
    };
}

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(4);
    let mut kept = trials![
        "": versions_agree,
        a_dry_run_names_only_files_that_are_there,
    ];
    let mut with_hzn = trials![
        "hzn::": the_service_is_published_and_its_signature_verifies,
        the_policies_are_taken_as_meant,
        the_image_is_pushed_and_all_is_published_and_removed,
        a_node_registers_with_the_node_policy_and_unregisters,
        deploycheck_finds_the_node_compatible_and_says_why_another_is_not,
        a_plain_bundle_verifies_against_the_operators_key_alone,
        a_signed_bundle_goes_as_it_is,
        older_serials_of_the_name_are_removed,
        what_no_node_would_accept_is_not_published,
        the_pages_call_it_as_it_is,
    ];
    let real = trials!["real::": a_plain_bundle_is_accepted_by_an_agent_at_the_real_hub];
    if env::var_os("ARMOR_NO_REAL_HUB").is_some_and(|value| value == "1") {
        for trial in real {
            eprintln!("left out (no real hub): {}", trial.name());
        }
    } else {
        with_hzn.extend(real);
    }
    let mut left_out = Vec::new();
    match Hzn::find() {
        Some(_) => kept.extend(with_hzn),
        None => left_out = with_hzn,
    }
    let code = libtest_mimic::run(&arguments, kept).exit_code();
    for trial in &left_out {
        println!("did not run (no hzn; name one with HZN): {}", trial.name());
    }
    let required = env::var_os("ARMOR_REQUIRE_HZN").is_some_and(|value| value == "1");
    if required && !left_out.is_empty() { ExitCode::FAILURE } else { code }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

struct Operator {
    hub: Hub,
    hzn: Hzn,
    dir: TempDir,
}

impl Operator {
    async fn new() -> Self {
        let (hub, dir) = (Hub::start().await.unwrap(), TempDir::new().unwrap());
        let [exchange, css, agent] = ["v1", "css", "agent"].map(|part| hub.url(part));
        let hzn = Hzn::new(Hzn::find().unwrap(), dir.path(), &exchange, &css, &agent, "me:password");
        good(hzn.make_key().await.unwrap());
        Self { hub, hzn, dir }
    }

    /// Returns the public key that nodes pin.
    fn public_key(&self) -> PublicKey {
        PrivateKey::load(&self.hzn.key()).unwrap().public().clone()
    }

    async fn hzn(&self, arguments: &[&str]) -> Said {
        self.hzn.run(arguments).await.unwrap()
    }

    async fn publish(&self, arguments: &[&str]) -> Said {
        self.hzn.publish(arguments).await.unwrap()
    }

    /// Publishes the service under the image tag in its definition, without pushing an image.
    async fn publish_service(&self) {
        let said = good(
            self.hzn(&["exchange", "service", "publish", "-I", "-O", "-f", "service.definition.json"]).await,
        );
        assert!(!said.to_string().contains("arning"), "{said}");
    }

    fn write(&self, name: &str, data: impl AsRef<[u8]>) -> String {
        let path = self.dir.path().join(name);
        fs::write(&path, data).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

/// Checks that a command succeeded and left no variable unexpanded, and returns its output.
fn good(said: Said) -> Said {
    assert!(said.success, "{said}");
    assert!(!said.to_string().contains("not defined in the environment"), "{said}");
    said
}

fn shipped(path: &str) -> Value {
    serde_json::from_slice(&fs::read(root().join(path)).unwrap()).unwrap()
}

async fn versions_agree() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let version = manifest.lines().find_map(|line| line.strip_prefix("version = ")).unwrap();
    assert_eq!(
        shipped("service-definition/hzn.json")["MetadataVars"]["SERVICE_VERSION"],
        version.trim_matches('"')
    );
    let dockerfile = fs::read_to_string(root().join("horizon-service/Dockerfile")).unwrap();
    assert!(dockerfile.contains("FROM scratch"));
}

/// Checks, without hzn, that a dry run of the script names only files of this project.
async fn a_dry_run_names_only_files_that_are_there() {
    let dir = TempDir::new().unwrap();
    let hzn =
        Hzn::new("hzn".into(), dir.path(), "http://x/v1", "http://x/css", "http://x/agent", "me:password");
    let steps =
        ["image", "service", "service-policy", "deployment-policy", "deploy-check", "register", "unregister"];
    let said = good(hzn.publish(&[&["--dry-run"], &steps[..]].concat()).await.unwrap());
    let commands: Vec<_> = said.out.lines().filter(|line| line.starts_with("hzn ")).collect();
    assert_eq!(commands.len(), 7, "{said}");
    let files = said.out.split_whitespace().filter(|word| word.ends_with(".json"));
    for file in files {
        assert!(root().join("service-definition").join(file).exists(), "{file}");
    }
    assert!(!hzn.publish(&["--dry-run", "nothing"]).await.unwrap().success);
}

async fn the_service_is_published_and_its_signature_verifies() {
    let operator = Operator::new().await;
    operator.publish_service().await;
    let sent = operator.hub.resource(SERVICE).unwrap();
    let changes = operator.hub.changes();
    let paths: Vec<_> = changes.iter().map(|change| (change.method.as_str(), change.path.as_str())).collect();
    let key_path = format!("/v1/orgs/{SERVICE}/keys/default.public.key");
    assert_eq!(paths, [("POST", "/v1/orgs/myorg/services"), ("PUT", &key_path)]);
    assert!(changes.iter().all(|change| change.credentials == "myorg/me:password"));
    assert!(!sent.to_string().contains('$'), "{sent:#}");
    assert_eq!((&sent["url"], &sent["arch"]), (&"hzn-armor".into(), &"amd64".into()));
    assert_eq!(sent["sharable"], "singleton");
    // The agent reads exactly the variables of this prefix as its settings.
    for input in sent["userInput"].as_array().unwrap() {
        assert!(input["name"].as_str().unwrap().starts_with("HZN_ARMOR_"), "{input}");
    }

    // A node checks the string as it stands, with the key that is stored beside it, which is the operator's.
    let (deployment, signature) =
        (sent["deployment"].as_str().unwrap(), sent["deploymentSignature"].as_str().unwrap());
    let stored = operator.hub.resource(&format!("{SERVICE}/keys/default.public.key")).unwrap();
    let stored = PublicKey::from_pem(stored.as_str().unwrap().as_bytes()).unwrap();
    assert_eq!(stored.id(), operator.public_key().id());
    let signature = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, signature).unwrap();
    assert!(stored.verifies(deployment.as_bytes(), &signature));
    assert!(!stored.verifies(deployment.replace("true", "null").as_bytes(), &signature));

    // The deployment arrives as it was written, with nothing else.
    let deployment: Value = serde_json::from_str(deployment).unwrap();
    let mut written = shipped("service-definition/service.definition.json")["deployment"].clone();
    written["services"]["hzn-armor-agent"]["image"] =
        "registry.example.com/hzn-armor-agent_amd64:0.1.0".into();
    assert_eq!(deployment, written);
    let service = &deployment["services"]["hzn-armor-agent"];
    assert_eq!((&service["privileged"], &service["pid"]), (&true.into(), &"host".into()));

    // hzn itself verifies the signature with this key, and not with another.
    let public = operator.write("public.pem", operator.public_key().to_pem());
    let other = PrivateKey::generate(KeyType::Rsa).unwrap();
    let other = operator.write("other.pem", other.public().to_pem());
    let check = async |key: &str| {
        let service = SERVICE.replace("services/", "");
        operator.hzn(&["exchange", "service", "verify", "-k", key, &service]).await
    };
    good(check(&public).await);
    assert!(!check(&other).await.success);
}

async fn the_policies_are_taken_as_meant() {
    let operator = Operator::new().await;
    operator.publish_service().await;
    good(operator.publish(&["service-policy", "deployment-policy"]).await);
    let service = operator.hub.resource(&format!("{SERVICE}/policy")).unwrap();
    assert_eq!(service["constraints"], json!(["openhorizon.allowPrivileged == true"]));
    let policy = operator.hub.resource("myorg/business/policies/policy-hzn-armor").unwrap();
    assert!(!policy.to_string().contains('$'), "{policy:#}");
    assert_eq!(policy["service"]["name"], "hzn-armor");
    assert_eq!(policy["service"]["serviceVersions"][0]["version"], "0.1.0");
    assert_eq!(policy["constraints"], json!(["hzn-armor == true"]));
    // hzn leaves out values of 0; a nodeHealth that is there keeps the Exchange from setting its own.
    let health = policy["service"]["nodeHealth"].as_object().unwrap();
    assert!(health.values().all(|seconds| seconds == 0), "{health:?}");
}

/// Runs the default steps of scripts/publish, with a real Docker and a real registry, and undoes them.
async fn the_image_is_pushed_and_all_is_published_and_removed() {
    let mut operator = Operator::new().await;
    let registry = Registry::start(operator.dir.path()).await.unwrap();
    let name = format!("{}/hzn-armor-agent", registry.address);
    operator.hzn.set("DOCKER_IMAGE_BASE", &name);
    // The file as 'docker login' leaves it: hzn pushes to no registry that is not in it.
    let auth = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, "me:password");
    fs::create_dir(operator.dir.path().join(".docker")).unwrap();
    let logins = json!({"auths": {&registry.address: {"auth": auth}}});
    operator.write(".docker/config.json", logins.to_string());
    good(operator.publish(&["image"]).await);
    let said = good(operator.publish(&["service", "service-policy", "deployment-policy"]).await);
    assert!(!said.to_string().contains("arning"), "{said}");

    let sent = operator.hub.resource(SERVICE).unwrap();
    let deployment: Value = serde_json::from_str(sent["deployment"].as_str().unwrap()).unwrap();
    let image = deployment["services"]["hzn-armor-agent"]["image"].as_str().unwrap();
    assert!(image.starts_with(&format!("{name}_amd64@sha256:")), "{image}");
    // Pulls the image as a node does, which has no image of that name yet.
    let docker = async |arguments: &[&str]| {
        let output = tokio::process::Command::new("docker").args(arguments).output().await.unwrap();
        assert!(output.status.success(), "docker {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    docker(&["image", "rm", &format!("{name}_amd64:0.1.0")]).await;
    docker(&["pull", "--quiet", image]).await;
    let title = "{{index .Config.Labels \"org.opencontainers.image.title\"}}";
    assert_eq!(docker(&["image", "inspect", "--format", title, image]).await.trim(), "hzn-armor-agent");
    docker(&["image", "rm", image]).await;

    let service_policy = format!("{SERVICE}/policy");
    for (step, path) in [
        ("remove-deployment-policy", "myorg/business/policies/policy-hzn-armor"),
        ("remove-service-policy", &service_policy),
        ("remove-service", SERVICE),
    ] {
        assert!(operator.hub.resource(path).is_some(), "{path}");
        good(operator.publish(&[step]).await);
        assert_eq!(operator.hub.resource(path), None, "{step}");
    }
}

async fn a_node_registers_with_the_node_policy_and_unregisters() {
    let operator = Operator::new().await;
    good(operator.publish(&["register"]).await);
    let changes = operator.hub.changes();
    let paths: Vec<_> = changes.iter().map(|change| change.path.as_str()).collect();
    let node = "/v1/orgs/myorg/nodes/node1";
    assert_eq!(paths, [node, &format!("{node}/policy"), "/agent/node", "/agent/node/configstate"]);
    let policy = operator.hub.resource("myorg/nodes/node1/policy").unwrap();
    assert_eq!(policy["properties"], shipped("deployment-policy/node.policy.json")["properties"]);
    assert_eq!(changes[3].json()["state"], "configured");

    good(operator.publish(&["unregister"]).await);
    let last = operator.hub.changes().pop().unwrap();
    assert_eq!((last.method.as_str(), last.path.as_str()), ("DELETE", "/agent/node"));
}

async fn deploycheck_finds_the_node_compatible_and_says_why_another_is_not() {
    let operator = Operator::new().await;
    let said = good(operator.publish(&["deploy-check"]).await);
    assert!(said.out.contains("\"compatible\": true"), "{said}");

    for (property, part) in [("hzn-armor", "hzn-armor"), ("openhorizon.allowPrivileged", "allowPrivileged")] {
        let mut policy = shipped("deployment-policy/node.policy.json");
        policy["properties"].as_array_mut().unwrap().retain(|entry| entry["name"] != property);
        let node = operator.write("node.json", policy.to_string());
        let said = operator
            .hzn(&[
                "deploycheck",
                "policy",
                "-c",
                "-t",
                "device",
                "--arch",
                "amd64",
                "--node-pol",
                &node,
                "--deployment-pol",
                "../deployment-policy/deployment.policy.json",
                "--service-pol",
                "../deployment-policy/service.policy.json",
                "--service",
                "service.definition.json",
            ])
            .await;
        let said = said.to_string();
        assert!(said.contains("\"compatible\": false") && said.contains(part), "{property}: {said}");
    }
}

/// Returns a payload for all nodes of `myorg`.
fn payload(name: &str, serial: u64) -> String {
    let policy = "apiVersion: security.kubearmor.com/v1\nkind: KubeArmorHostPolicy\nmetadata: {name: h}\nspec:\n  \
                  nodeSelector: {matchLabels: {kubearmor.io/hostname: node1}}\n  file: {matchPaths: [{path: /no/such/file}]}\n";
    json!({
        "format": "horizon-armor.bundle/1", "name": name, "serial": serial, "created": "2026-01-01T00:00:00Z",
        "expires": "2099-01-01T00:00:00Z", "target": {"org": "myorg"}, "policies": [{"file": "h.yaml", "text": policy}],
    })
    .to_string()
}

/// Verifies an object as a node of `myorg` that pinned `key` does.
fn judge(object: &Object, key: &PublicKey) -> Result<VerifiedBundle, Refusal> {
    let meta: MetaData = serde_json::from_value(object.meta.clone()).unwrap();
    let MetaData { hash_algorithm, public_key, signature, .. } = meta;
    let plain = PlainFields { hash_algorithm, public_key, signature };
    let node = NodeIdentity { org: "myorg".into(), id: "node1".into(), ..NodeIdentity::default() };
    let trust = TrustStore::of_bundle_keys([key.clone()]);
    verify(&object.data, Some(&plain), &trust, &node, &SerialFloor::new(), Timestamp::now())
}

fn only(objects: BTreeMap<String, Object>) -> (String, Object) {
    assert_eq!(objects.len(), 1, "{:?}", objects.keys());
    objects.into_iter().next().unwrap()
}

async fn a_plain_bundle_verifies_against_the_operators_key_alone() {
    let operator = Operator::new().await;
    let text = payload("edge", 7);
    let file = operator.write("edge.json", &text);
    good(operator.publish(&["bundle", &file]).await);

    let (path, object) = only(operator.hub.objects());
    assert_eq!(object.data, text.as_bytes());
    let accepted = judge(&object, &operator.public_key()).unwrap();
    assert_eq!((accepted.payload.serial, accepted.keys), (7, vec![operator.public_key().id().clone()]));
    assert_eq!(path, format!("myorg/{BUNDLE_TYPE}/edge.7.{}", &accepted.digest[..12]));
    let stranger = PrivateKey::generate(KeyType::Rsa).unwrap();
    assert!(matches!(judge(&object, stranger.public()), Err(Refusal::UnknownSigner { .. })));
    let altered = Object { data: text.replace("edge", "wedge").into_bytes(), ..object.clone() };
    assert!(matches!(judge(&altered, &operator.public_key()), Err(Refusal::BadSignature(_))));

    // The policy places it by service, on every architecture and version; it has no destination of its own.
    let policy = &object.meta["destinationPolicy"];
    let service = json!({"orgID": "myorg", "arch": "*", "serviceName": "hzn-armor", "version": "0.0.0"});
    assert_eq!(policy["services"], json!([service]));
    assert_eq!((&object.meta["destinationType"], &object.meta["destinationID"]), (&"".into(), &"".into()));
    assert_eq!((&object.meta["version"], &object.meta["public"]), (&"7".into(), &false.into()));
    assert!(!object.meta.to_string().contains('$'), "{:#}", object.meta);
}

async fn a_signed_bundle_goes_as_it_is() {
    let operator = Operator::new().await;
    let key = PrivateKey::generate(KeyType::Ed25519).unwrap();
    let text = payload("edge", 8);
    let mut envelope = armor_bundle::dsse::Envelope::new(text.as_bytes());
    envelope.sign(text.as_bytes(), &key).unwrap();
    let signed = serde_json::to_vec(&envelope).unwrap();
    let file = operator.write("edge.bundle", &signed);
    good(operator.publish(&["bundle", &file]).await);
    let (path, object) = only(operator.hub.objects());
    assert_eq!(object.data, signed);
    // If hzn signed it with a key that it made itself, the hub would call it verified.
    for field in ["hashAlgorithm", "publicKey", "signature"] {
        assert_eq!(object.meta[field], "", "{field}");
    }
    let digest = judge(&object, key.public()).unwrap().digest;
    assert_eq!(path, format!("myorg/{BUNDLE_TYPE}/edge.8.{}", &digest[..12]));
}

async fn older_serials_of_the_name_are_removed() {
    let operator = Operator::new().await;
    let kept = ["edge.9.0123456789ab", "edge.a.3.0123456789ab", "edges.3.0123456789ab", "edge.3.other"];
    for id in [&kept[..], &["edge.3.0123456789ab", "edge.6.ab0123456789"]].concat() {
        let meta = json!({"objectID": id, "objectType": BUNDLE_TYPE, "destinationOrgID": "myorg"});
        operator.hub.add_object(&format!("myorg/{BUNDLE_TYPE}/{id}"), Object { meta, ..Object::default() });
    }
    let file = operator.write("edge.json", payload("edge", 8));
    good(operator.publish(&["bundle", &file]).await);
    let left: Vec<_> =
        operator.hub.objects().into_keys().map(|path| path.rsplit_once('/').unwrap().1.to_owned()).collect();
    assert!(kept.iter().all(|id| left.iter().any(|other| other == id)), "{left:?}");
    assert_eq!(left.len(), kept.len() + 1, "{left:?}");
}

async fn what_no_node_would_accept_is_not_published() {
    let operator = Operator::new().await;
    for (text, part) in [
        (payload("edge", 1).replace("myorg", "other"), "other"),
        ("[]".to_owned(), "no bundle"),
        ("{}".to_owned(), "bundle build"),
    ] {
        let file = operator.write("edge.json", text);
        let said = operator.publish(&["bundle", &file]).await;
        assert!(!said.success && said.err.contains(part), "{said}");
    }
    fs::remove_file(operator.hzn.key()).unwrap();
    let file = operator.write("edge.json", payload("edge", 1));
    let said = operator.publish(&["bundle", &file]).await;
    assert!(!said.success && said.err.contains("hzn key create"), "{said}");
    assert!(operator.hub.objects().is_empty());
}

struct Agent(Child);

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Returns the command for the agent built beside this test, as a Horizon service.
fn agent(t: &Fixture<RealHub>) -> Command {
    let program = env::current_exe().unwrap().parent().unwrap().with_file_name("hzn-armor-agent");
    assert!(
        program.exists(),
        "{}: build it first, with the same profile: cargo build -p armor-agent",
        program.display()
    );
    let horizon = t.horizon_files();
    let mut command = Command::new(program);
    command
        .env("HZN_ARMOR_STATE_DIR", t.dir().join("state"))
        // Not on a bpf filesystem, so that nothing stays pinned after the test.
        .env("HZN_ARMOR_PIN_DIR", t.dir().join("pins"))
        .env("HZN_ARMOR_BUNDLE_DIR", t.dir().join("bundles"))
        .env("HZN_ARMOR_POLL_SECONDS", "1")
        .env("HZN_ORGANIZATION", "myorg")
        .env("HZN_NODE_ID", "node1")
        .env("HZN_ESS_API_PROTOCOL", "secure-unix")
        .env("HZN_ESS_API_ADDRESS", t.hub.ess_socket())
        .env("HZN_ESS_AUTH", horizon.join("auth.json"))
        .env("HZN_ESS_CERT", horizon.join("cert.pem"))
        .stdin(Stdio::null());
    command
}

/// Checks that the pages name only commands and options that `hzn` has.
async fn the_pages_call_it_as_it_is() {
    let home = TempDir::new().unwrap();
    let hzn = Hzn::new(
        Hzn::find().unwrap(),
        home.path(),
        "http://x/v1",
        "http://x/css",
        "http://x/agent",
        "me:password",
    );
    let calls = calls("hzn").unwrap();
    assert!(calls.len() > 5, "{calls:?}");
    for call in calls {
        let (options, mut command): (Vec<&str>, Vec<&str>) =
            call.words.iter().map(String::as_str).partition(|word| word.starts_with('-'));
        command.truncate(call.words.iter().take_while(|word| !word.starts_with('-')).count());
        command.push("--help");
        let help = good(hzn.run(&command).await.unwrap()).to_string();
        let unknown: Vec<_> =
            options.into_iter().filter_map(|option| unknown_option(&help, option)).collect();
        assert!(unknown.is_empty(), "{}: hzn has no {unknown:?}", call.place);
    }
}

async fn a_plain_bundle_is_accepted_by_an_agent_at_the_real_hub() {
    let t = Fixture::on_real_hub().await.unwrap();
    let home = TempDir::new().unwrap();
    let css = t.css_config();
    let hzn = Hzn::new(
        Hzn::find().unwrap(),
        home.path(),
        "http://127.0.0.1:9/v1",
        &css.url,
        "http://127.0.0.1:9",
        &css.user,
    );
    good(hzn.make_key().await.unwrap());
    let trust = t.dir().join("state/trust/trust.d");
    fs::create_dir_all(&trust).unwrap();
    fs::write(trust.join("operator.pem"), PrivateKey::load(&hzn.key()).unwrap().public().to_pem()).unwrap();
    let file = home.path().join("edge.json");
    fs::write(&file, payload("edge", 7)).unwrap();
    good(hzn.publish(&["bundle", file.to_str().unwrap()]).await.unwrap());

    // Sets the destination, as the agbot does when the service runs on the node.
    let ids = t.operator.ids(&format!("?filters=true&objectType={BUNDLE_TYPE}")).await.unwrap();
    let place = async || {
        let path = format!("{BUNDLE_TYPE}/{}/destinations", ids[0]);
        (t.operator.put(&path, json!(["openhorizon.edgenode:node1"]).to_string()).await.ok()? == 204)
            .then_some(())
    };
    eventually("the bundle has its destination", place).await.unwrap();

    let log = fs::File::create(t.dir().join("log")).unwrap();
    let _running = Agent(agent(&t).arg("run").stdout(Stdio::null()).stderr(log).spawn().unwrap());
    let deadline = Instant::now() + PATIENCE;
    loop {
        let said = agent(&t).args(["status", "--json"]).output().unwrap();
        let status: Value = serde_json::from_slice(&said.stdout).unwrap_or_default();
        if status["Bundles"][0]["Serial"] == 7 {
            assert_eq!(status["Bundles"][0]["Name"], "edge");
            return;
        }
        let log = || fs::read_to_string(t.dir().join("log")).unwrap();
        assert!(Instant::now() < deadline, "{status:#}\n{}", log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
