//! These tests run the agent as a process, on whatever kernel there is. Its pin directory is not on a bpf
//! filesystem unless a test mounts one, so that the agent is degraded everywhere.

mod process;

use std::collections::BTreeSet;
use std::fs;
use std::time::{Duration, Instant};

use armor_alerts::status::{self, NodeStatus};
use armor_bundle::keys::{KeyType, PrivateKey};
use armor_cli::collector::{Collector, CollectorConfig, Finding, OutputConfig, ReceiptRoute};
use armor_contract_tests::{Fixture, Hub, Trial, both_hubs, no_hub};
use armor_mms::css::NewObject;
use armor_mms::{BUNDLE_TYPE, DestinationPolicy, STATUS_TYPE};
use process::{Agent, BpfFilesystem, PATIENCE, Running, bundle, pinned_key};
use serde_json::Value;

/// Returns the tests of this module.
pub fn trials() -> Vec<Trial> {
    let mut trials = both_hubs![
        an_agent_reports_its_status_and_keeps_its_bundle_when_killed,
        a_machine_takes_bundles_from_css_and_files_and_reports_to_css,
    ];
    trials.extend(no_hub![
        bad_settings_and_policies_end_it_with_their_names,
        a_second_agent_stands_by_and_takes_over,
        an_agent_with_another_state_directory_stands_by_for_the_tables,
        pins_elsewhere_are_refused_before_anything_is_made_or_removed,
        a_repeated_write_failure_is_logged_once,
    ]);
    trials
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
    let status = agent.until(|status| status["Bundles"][0]["Serial"] == 1).await;
    assert_eq!((&status["State"], &status["Running"]), (&"degraded".into(), &true.into()), "{status:#}");
    assert!(!agent.output(&["detach"]).status.success(), "not under a running agent");

    // The signed status at the hub says the same.
    let deadline = Instant::now() + PATIENCE;
    'told: loop {
        for object in css.list(STATUS_TYPE).await.unwrap() {
            if let Ok(data) = css.data(STATUS_TYPE, &object.object_id, status::MAX_OBJECT).await
                && let Ok((told, _)) = NodeStatus::verify(&data)
                && told.agent.bundles.iter().any(|bundle| bundle.serial == 1)
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
    assert_eq!((&status["State"], &status["Bundles"][0]["Name"]), (&"not running".into(), &"edge".into()));
    assert_eq!(agent.output(&["status"]).status.code(), Some(1));

    // Without hub and ESS, the agent has the same bundle in force.
    hub.hub.ess_down().await.unwrap();
    hub.hub.hub_down().await.unwrap();
    fs::remove_file(dir.join("state/status.json")).unwrap();
    let second = agent.start();
    let status =
        agent.until(|status| status["Bundles"][0]["Serial"] == 1 && !status["Offline"].is_null()).await;
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
    agent.until(|status| status["Bundles"][0]["Serial"] == 1 && status["Offline"].is_null()).await;
    fs::create_dir(dir.join("bundles")).unwrap();
    fs::write(dir.join("bundles/edge"), bundle(&key, 2)).unwrap();
    agent.until(|status| status["Bundles"][0]["Serial"] == 2).await;

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
        agent.until(|status| status["Bundles"][0]["Serial"] == serial && told(status)).await;
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
