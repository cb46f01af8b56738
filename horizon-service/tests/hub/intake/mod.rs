//! These tests bring bundles from each hub into force, with a kernel that only remembers what it was given.

mod node;

use std::fs;
use std::os::unix::fs::symlink;
use std::sync::Arc;
use std::time::{Duration, Instant};

use armor_agent::base::report::Problem;
use armor_agent::hub::directory::MAX_FILES;
use armor_agent::hub::{Hub as Route, HubConfig};
use armor_agent::workloads::links::Watched;
use armor_agent::workloads::workload::Workload;
use armor_bundle::MAX_BUNDLE;
use armor_bundle::dsse::Envelope;
use armor_bundle::keys::{KeyType, PrivateKey};
use armor_contract_tests::{Fixture, Hub, Trial, both_hubs};
use armor_mms::css::NewObject;
use armor_mms::{BUNDLE_TYPE, DestinationPolicy, ServiceId};
use serde_json::{Value, json};

use node::{FakeKernel, Node, PATIENCE, SHELL, identity, in_force, payload, policy, signed};

/// Returns the tests of this module.
pub fn trials() -> Vec<Trial> {
    both_hubs![
        a_bundle_comes_into_force_and_survives_a_restart_without_the_ess,
        bundles_of_several_names_are_in_force_together,
        a_bundle_that_does_not_compile_with_the_others_is_refused,
        a_stored_bundle_that_is_damaged_is_said_and_fetched_again,
        what_is_refused_changes_nothing_and_is_reported_once,
        a_key_that_is_pinned_later_makes_its_bundle_acceptable,
        keys_change_with_the_bundle_and_stay_changed,
        what_the_kernel_does_not_take_is_said_and_tried_again,
        an_ess_that_is_away_leaves_everything_in_force_and_comes_back,
        containers_get_their_policies_on_start_and_before_the_runtime_answers,
        a_container_whose_links_keep_its_policies_from_compiling_has_rules,
        a_machine_at_the_css_takes_bundles_without_changing_the_objects,
        files_are_judged_as_objects_are_and_beside_them,
        a_switched_link_is_followed_and_what_has_no_effect_is_said,
    ]
}

async fn a_bundle_comes_into_force_and_survives_a_restart_without_the_ess<H: Hub>(hub: Fixture<H>) {
    let mut node = Node::new(hub);
    let mut intake = node.start();
    assert_eq!(node.reporter.reports().borrow().state, "starting");
    node.publish("edge.1.a", &signed(&payload("edge", 1, &[policy(SHELL)]), &node.signer)).await;
    node.until_serial(&mut intake, 1).await;
    assert_eq!(node.live(), (1, 1));
    assert_eq!(node.reporter.reports().borrow().state, "enforcing");

    // The bundle is acknowledged: the next passes see nothing, nor does an agent that starts, which has the
    // bundle in force before it asks.
    intake.pass().await.unwrap();
    drop(intake);
    let mut intake = node.start();
    assert_eq!(node.live(), (2, 1));
    intake.pass().await.unwrap();
    let facts = node.reporter.facts();
    assert_eq!((node.live().0, facts.refused.len(), in_force(&facts, "edge").unwrap().serial), (2, 0, 1));

    // Deleting the object lifts no policy; a signed bundle without policies does.
    node.css.delete(BUNDLE_TYPE, "edge.1.a").await.unwrap();
    node.publish("other.1.a", &signed(&payload("other", 1, &[]), &node.signer)).await;
    node.publish("edge.2.b", &signed(&payload("edge", 2, &[]), &node.signer)).await;
    node.until_serial(&mut intake, 2).await;
    node.until_accepted(&mut intake, "other", 1).await;
    assert_eq!(node.live().1, 0);
    let report = node.reporter.reports().borrow().clone();
    let bundles: Vec<_> =
        report.bundles.iter().map(|bundle| (bundle.name.as_str(), bundle.serial, bundle.policies)).collect();
    assert_eq!((report.state.as_str(), bundles), ("enforcing", vec![("edge", 2, 0), ("other", 1, 0)]));
}

async fn bundles_of_several_names_are_in_force_together<H: Hub>(hub: Fixture<H>) {
    let mut node = Node::new(hub);
    let mut intake = node.start();
    let named = |name: &str, serial, spec: &str| {
        let mut bundle = payload(name, serial, &[policy(spec)]);
        bundle["settings"] = json!({"posture": {"file": "block"}});
        bundle
    };
    let shadow = "file: {matchPaths: [{path: /etc/shadow}]}";
    node.publish("edge.1.a", &signed(&named("edge", 1, SHELL), &node.signer)).await;
    node.until_serial(&mut intake, 1).await;
    node.publish("fleet.5.a", &signed(&named("fleet", 5, shadow), &node.signer)).await;
    node.until_accepted(&mut intake, "fleet", 5).await;

    // One generation has the rules of both, each with its bundle.
    assert_eq!(node.live(), (2, 1));
    let table = node.history().generation(2).unwrap();
    assert_eq!(table.bundles, [("edge".to_owned(), 1), ("fleet".to_owned(), 5)].into());
    let rules: Vec<_> =
        table.rules[0].iter().map(|rule| (rule.bundle.as_str(), rule.policy.as_str())).collect();
    let postures = ("edge", "DefaultPosture");
    assert_eq!(
        rules,
        [postures, ("", "UnresolvedPath"), ("edge", "h"), ("fleet", "h"), ("fleet", "DefaultPosture")]
    );
    let facts = node.reporter.facts().in_force.unwrap();
    let policies: Vec<String> = facts.policies.iter().map(|policy| policy.name.to_string()).collect();
    assert_eq!(policies, ["edge/h", "fleet/h"]);

    // What is refused of one touches no other, nor does an agent that starts.
    let bad = policy("process: {matchPahts: [{path: /x}]}");
    node.publish("fleet.6.b", &signed(&payload("fleet", 6, &[bad]), &node.signer)).await;
    assert_eq!(node.until_refused(&mut intake, "fleet.6.b").await, "bad-policy");
    assert_eq!(node.live(), (2, 1));
    let mut intake = node.start();
    assert_eq!(node.live(), (3, 1));
    let serials = |node: &Node<H>| -> Vec<(String, u64)> {
        let facts = node.reporter.facts().in_force.unwrap();
        facts.bundles.iter().map(|bundle| (bundle.name.clone(), bundle.serial)).collect()
    };
    assert_eq!(serials(&node), [("edge".to_owned(), 1), ("fleet".to_owned(), 5)]);

    // Each has serials of its own, and lifting one leaves the other.
    node.publish("fleet.4.c", &signed(&named("fleet", 4, shadow), &node.signer)).await;
    assert_eq!(node.until_refused(&mut intake, "fleet.4.c").await, "serial-too-low");
    node.publish("edge.2.b", &signed(&payload("edge", 2, &[]), &node.signer)).await;
    node.until_serial(&mut intake, 2).await;
    assert_eq!(node.live(), (4, 1));
    let table = node.history().generation(4).unwrap();
    assert_eq!(table.bundles, [("fleet".to_owned(), 5)].into());

    // There is room for a bounded number. A lifted one makes room, one in force does not.
    for number in 0..15 {
        let name = format!("n{number}");
        let bundle = named(&name, 1, &format!("file: {{matchPaths: [{{path: /{name}}}]}}"));
        node.publish(&format!("{name}.1.a"), &signed(&bundle, &node.signer)).await;
        node.until_accepted(&mut intake, &name, 1).await;
    }
    assert!(in_force(&node.reporter.facts(), "edge").is_none(), "it was lifted");
    let full = node.live();
    node.publish("edge.3.c", &signed(&named("edge", 3, SHELL), &node.signer)).await;
    assert_eq!(node.until_refused(&mut intake, "edge.3.c").await, "too-many-bundles");
    assert_eq!((node.live(), serials(&node).len()), (full, 16));
    node.publish("n0.2.b", &signed(&payload("n0", 2, &[]), &node.signer)).await;
    node.until_accepted(&mut intake, "n0", 2).await;
    node.publish("edge.4.d", &signed(&named("edge", 4, SHELL), &node.signer)).await;
    node.until_serial(&mut intake, 4).await;
    let before = serials(&node);
    assert!(before.len() == 16 && before[0] == ("edge".to_owned(), 4), "{before:?}");
    node.start();
    assert_eq!(serials(&node), before);
}

async fn a_bundle_that_does_not_compile_with_the_others_is_refused<H: Hub>(hub: Fixture<H>) {
    let mut node = Node::new(hub);
    let mut intake = node.start();
    // Together they must remember which of the last bytes were `a` and which were `b`.
    let heavy = |letter: char| {
        let pattern = |count: usize| format!("{{pattern: '/**{letter}{}'}}", "?".repeat(count));
        policy(&format!("file: {{matchPatterns: [{}]}}", pattern(13)))
    };
    node.publish("edge.1.a", &signed(&payload("edge", 1, &[heavy('a')]), &node.signer)).await;
    node.until_serial(&mut intake, 1).await;
    let live = node.live();
    node.publish("fleet.1.a", &signed(&payload("fleet", 1, &[heavy('b')]), &node.signer)).await;
    assert_eq!(node.until_refused(&mut intake, "fleet.1.a").await, "does-not-compile");
    let reason = node.reporter.facts().refused[0].reason.clone();
    assert!(reason.ends_with("(together with what is in force of edge)"), "{reason}");
    assert_eq!(node.live(), live);
    // Alone it would do, so it comes into force once the other is lifted.
    node.publish("edge.2.b", &signed(&payload("edge", 2, &[]), &node.signer)).await;
    node.until_accepted(&mut intake, "fleet", 1).await;
    assert!(node.reporter.facts().refused.is_empty());

    // Stored bundles that do not fit any more: the one accepted last is in force, and the other once it can be.
    let stored = node.hub.dir().join("state/bundles");
    fs::rename(stored.join("fleet"), node.hub.dir().join("aside")).unwrap();
    let mut intake = node.start();
    node.publish("edge.3.c", &signed(&payload("edge", 3, &[heavy('a')]), &node.signer)).await;
    node.until_serial(&mut intake, 3).await;
    fs::rename(node.hub.dir().join("aside"), stored.join("fleet")).unwrap();
    let mut intake = node.start();
    let left_out = |node: &Node<H>| node.reporter.facts().problems.get(&Problem::LeftOut).cloned();
    assert!(left_out(&node).unwrap().contains("the stored bundle fleet cannot be put in force"));
    let facts = node.reporter.facts();
    assert!(in_force(&facts, "edge").is_some() && in_force(&facts, "fleet").is_none());
    node.publish("edge.4.d", &signed(&payload("edge", 4, &[]), &node.signer)).await;
    node.until_accepted(&mut intake, "fleet", 1).await;
    assert_eq!(left_out(&node), None);
}

async fn a_stored_bundle_that_is_damaged_is_said_and_fetched_again<H: Hub>(hub: Fixture<H>) {
    let mut node = Node::new(hub);
    let mut intake = node.start();
    for name in ["edge", "fleet"] {
        let bundle = signed(&payload(name, 1, &[policy(SHELL)]), &node.signer);
        node.publish(&format!("{name}.1.a"), &bundle).await;
        node.until_accepted(&mut intake, name, 1).await;
    }
    drop(intake);
    fs::write(node.hub.dir().join("state/bundles/fleet/current"), "").unwrap();
    let mut intake = node.start_damaged();
    let facts = node.reporter.facts();
    assert!(in_force(&facts, "edge").is_some() && in_force(&facts, "fleet").is_none());
    assert!(facts.problems[&Problem::LeftOut].contains("the stored bundle fleet"));
    assert_eq!(node.reporter.reports().borrow().state, "degraded");
    node.until_accepted(&mut intake, "fleet", 1).await;
    assert!(!node.reporter.facts().problems.contains_key(&Problem::LeftOut));
}

async fn a_switched_link_is_followed_and_what_has_no_effect_is_said<H: Hub>(hub: Fixture<H>) {
    let mut node = Node::new(hub);
    let mut intake = node.start();
    let at = |name: &str| node.hub.dir().join(name).to_str().unwrap().to_owned();
    let (program, key, current) = (at("tool"), at("current/key"), at("current"));
    symlink("real-tool", &program).unwrap();
    symlink("v1", &current).unwrap();
    let rules =
        format!("process: {{matchPaths: [{{path: {program}}}]}}\n  file: {{matchPaths: [{{path: {key}}}]}}");
    node.publish("edge.1.a", &signed(&payload("edge", 1, &[policy(&rules)]), &node.signer)).await;
    node.until_serial(&mut intake, 1).await;
    let in_force = node.reporter.facts().in_force.unwrap();
    assert_eq!(in_force.notes.len(), 1, "{:?}", in_force.notes);
    assert!(in_force.notes[0].ends_with(&format!("write {}", at("real-tool"))), "{}", in_force.notes[0]);
    assert_eq!((in_force.policies.len(), in_force.policies[0].workloads), (1, 1));
    let report = node.reporter.reports().borrow().clone();
    assert_eq!((report.state.as_str(), &report.reasons), ("enforcing", &in_force.notes));

    let handle = node.handle.clone().unwrap();
    let look = async || -> Vec<(Watched, Vec<String>)> {
        let look = |watched: Watched| (watched.clone(), watched.moved());
        let watched = handle.watched_links().await.unwrap();
        watched.into_iter().map(look).filter(|(_, moved)| !moved.is_empty()).collect()
    };
    assert!(look().await.is_empty());
    let before = node.live().0;
    fs::remove_file(&current).unwrap();
    symlink("v2", &current).unwrap();
    let moved = look().await;
    assert_eq!(moved[0].1, [format!("{key} -> {}", at("v2/key"))]);
    handle.follow_links(moved.clone()).await.unwrap();
    assert_eq!(node.live().0, before + 1);
    assert!(look().await.is_empty());
    // A link that was read before this belongs to rules that are no longer in force.
    handle.follow_links(moved.clone()).await.unwrap();
    assert_eq!(node.live().0, before + 1);
}

async fn what_is_refused_changes_nothing_and_is_reported_once<H: Hub>(hub: Fixture<H>) {
    let mut node = Node::new(hub);
    let mut intake = node.start();
    node.publish("edge.5.a", &signed(&payload("edge", 5, &[policy(SHELL)]), &node.signer)).await;
    node.until_serial(&mut intake, 5).await;
    let live = node.live();

    let stranger = PrivateKey::generate(KeyType::Ed25519).unwrap();
    let good = signed(&payload("edge", 6, &[policy(SHELL)]), &node.signer);
    let mut altered: Value = serde_json::from_slice(&good).unwrap();
    altered["payload"] = Envelope::new(payload("edge", 7, &[]).to_string().as_bytes()).payload.into();
    let mut elsewhere = payload("edge", 6, &[]);
    elsewhere["target"]["nodes"] = json!(["node2"]);
    let mut expired = payload("edge", 6, &[]);
    expired["expires"] = json!("2026-01-02T00:00:00Z");
    let bad = [policy(SHELL), policy("process: {matchPahts: [{path: /x}]}")];
    // A DFA for this must remember which of the last thirty characters were `a`.
    let explosive = policy(&format!("file: {{matchPatterns: [{{pattern: '/*a{}'}}]}}", "?".repeat(30)));
    let objects = [
        ("truncated", good[..good.len() / 2].to_vec()),
        ("not-json", b"policies, please".to_vec()),
        ("unknown-signer", signed(&payload("edge", 6, &[]), &stranger)),
        ("bad-signature", serde_json::to_vec(&altered).unwrap()),
        ("serial-too-low", signed(&payload("edge", 4, &[]), &node.signer)),
        ("serial-reused", signed(&payload("edge", 5, &[]), &node.signer)),
        ("wrong-target", signed(&elsewhere, &node.signer)),
        ("expired", signed(&expired, &node.signer)),
        ("bad-policy", signed(&payload("edge", 6, &bad), &node.signer)),
        ("does-not-compile", signed(&payload("edge", 6, &[explosive]), &node.signer)),
        ("too-large", vec![b'{'; MAX_BUNDLE + 1]),
    ];
    for (code, data) in &objects {
        node.publish(code, data).await;
    }
    for (code, _) in &objects {
        assert_eq!(node.until_refused(&mut intake, code).await, *code);
        assert_eq!(node.live(), live, "{code}");
    }
    let report = node.reporter.reports().borrow().clone();
    assert_eq!((report.state.as_str(), report.bundles[0].serial), ("enforcing", 5));
    assert_eq!(report.refused.len(), objects.len());
    // All objects are acknowledged, and an agent that starts does not report them again.
    let mut intake = node.start();
    intake.pass().await.unwrap();
    assert!(node.reporter.facts().refused.is_empty());
}

async fn a_key_that_is_pinned_later_makes_its_bundle_acceptable<H: Hub>(hub: Fixture<H>) {
    let mut node = Node::new(hub);
    fs::remove_dir_all(node.hub.dir().join("trust")).unwrap();
    let mut intake = node.start();
    node.publish("edge.1.a", &signed(&payload("edge", 1, &[policy(SHELL)]), &node.signer)).await;
    assert_eq!(node.until_refused(&mut intake, "edge.1.a").await, "no-pinned-keys");
    node.pin("trust.d", node.signer.public());
    node.until_serial(&mut intake, 1).await;
    assert!(node.reporter.facts().refused.is_empty());
}

async fn keys_change_with_the_bundle_and_stay_changed<H: Hub>(hub: Fixture<H>) {
    let mut node = Node::new(hub);
    let [next, collector] = [(); 2].map(|()| PrivateKey::generate(KeyType::Ed25519).unwrap());
    let mut intake = node.start();
    let mut rotation = payload("edge", 1, &[policy(SHELL)]);
    rotation["trust"] = json!({
        "bundle": {"add": [next.public().to_pem()], "remove": [node.signer.public().id()]},
        "receipt": {"add": [collector.public().to_pem()]},
    });
    node.publish("edge.1.a", &signed(&rotation, &node.signer)).await;
    node.until_serial(&mut intake, 1).await;
    assert_eq!(*node.receipt_keys.borrow(), [collector.public().clone()]);
    let mut intake = node.start();
    node.publish("edge.2.b", &signed(&payload("edge", 2, &[]), &node.signer)).await;
    assert_eq!(node.until_refused(&mut intake, "edge.2.b").await, "unknown-signer");
    node.publish("edge.2.c", &signed(&payload("edge", 2, &[]), &next)).await;
    node.until_serial(&mut intake, 2).await;
}

async fn what_the_kernel_does_not_take_is_said_and_tried_again<H: Hub>(hub: Fixture<H>) {
    let mut node = Node::new(hub);
    let mut intake = node.start();
    node.kernel.state().refuses = true;
    node.publish("edge.1.a", &signed(&payload("edge", 1, &[policy(SHELL)]), &node.signer)).await;
    node.until_serial(&mut intake, 1).await;
    let report = node.reporter.reports().borrow().clone();
    assert_eq!(report.state, "degraded");
    assert!(report.reasons[0].contains("no memory"), "{report:?}");
    node.kernel.state().refuses = false;
    node.until(&mut intake, |facts| !facts.problems.contains_key(&Problem::Swap)).await;
    assert_eq!((node.live().1, node.reporter.reports().borrow().state.as_str()), (1, "enforcing"));
}

async fn an_ess_that_is_away_leaves_everything_in_force_and_comes_back<H: Hub>(hub: Fixture<H>) {
    let mut node = Node::new(hub);
    let mut intake = node.start();
    node.publish("edge.1.a", &signed(&payload("edge", 1, &[policy(SHELL)]), &node.signer)).await;
    node.until_serial(&mut intake, 1).await;
    let certificate = node.hub.horizon_files().join("cert.pem");
    let aside = node.hub.dir().join("cert.pem");
    fs::rename(&certificate, &aside).unwrap();
    let intake = node.start();
    let deadline = Instant::now() + PATIENCE;
    let reporter = Arc::clone(&node.reporter);
    let wait = |expected: bool| {
        let reporter = Arc::clone(&reporter);
        async move {
            while reporter.facts().offline.is_some() != expected {
                assert!(Instant::now() < deadline);
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    };
    let scenario = async {
        wait(true).await;
        assert_eq!(reporter.reports().borrow().state, "enforcing");
        fs::rename(&aside, &certificate).unwrap();
        wait(false).await;
    };
    tokio::select! {
        stopped = intake.run(Duration::from_millis(20)) => stopped.unwrap(),
        () = scenario => {}
    }
}

async fn containers_get_their_policies_on_start_and_before_the_runtime_answers<H: Hub>(hub: Fixture<H>) {
    let mut node = Node::new(hub);
    let mut intake = node.start();
    let web = Workload {
        id: "a".repeat(64),
        name: "web".into(),
        labels: [("app".to_owned(), "web".to_owned())].into(),
        ..Workload::default()
    };
    let db = Workload { id: "b".repeat(64), name: "db".into(), ..Workload::default() };
    let policy = policy(SHELL)
        .replace("KubeArmorHostPolicy", "KubeArmorPolicy")
        .replace("nodeSelector", "selector")
        .replace("kubearmor.io/hostname: '*'", "app: web");
    node.publish("edge.1.a", &signed(&payload("edge", 1, &[policy]), &node.signer)).await;
    node.until_serial(&mut intake, 1).await;
    assert_eq!((node.live(), node.reporter.reports().borrow().state.as_str()), ((1, 0), "enforcing"));
    assert_eq!(in_force(&node.reporter.facts(), "edge").unwrap().idle, ["h"]);

    node.follow(&[&db]).await;
    assert_eq!(
        (node.live(), node.known()),
        ((2, 1), vec![1]),
        "only those for containers that are not named"
    );
    node.follow(&[&db, &web]).await;
    assert_eq!((node.live(), node.known()), ((3, 2), vec![2, 1]));
    let facts = node.reporter.facts();
    let edge = in_force(&facts, "edge").unwrap();
    assert_eq!((edge.selected, edge.idle.len(), facts.in_force.unwrap().containers), (1, 0, 1));
    node.follow(&[&db, &web]).await;
    assert_eq!(node.live(), (3, 2), "nothing new");
    let named = node.history().generation(3).unwrap();
    assert_eq!(named.domains[0].container.as_ref().unwrap().name, "web");

    drop(intake);
    let intake = node.start();
    assert_eq!((node.live(), node.known()), ((4, 2), vec![2, 1]), "before the runtime answers");
    drop(intake);
    // After a reboot the kernel knows nothing.
    node.kernel = FakeKernel::default();
    let intake = node.start();
    assert_eq!((node.live(), node.known()), ((5, 2), vec![2, 1]), "after a reboot too");

    let renamed = Workload { labels: [("app".to_owned(), "shop".to_owned())].into(), ..web };
    node.follow(&[&renamed]).await;
    assert_eq!((node.live(), node.known()), ((6, 1), vec![2]), "the policy selects it no more");
    node.follow(&[]).await;
    assert_eq!((node.live(), node.known()), ((6, 1), vec![]));
    drop(intake);
}

async fn a_container_whose_links_keep_its_policies_from_compiling_has_rules<H: Hub>(hub: Fixture<H>) {
    let mut node = Node::new(hub);
    let mut intake = node.start();
    // With both patterns in one directory the tables would remember which of the last bytes were `a` or `b`.
    let pattern =
        |directory: char, letter: char| format!("{{pattern: '/{directory}/**{letter}{}'}}", "?".repeat(13));
    let policy = policy(&format!("file: {{matchPatterns: [{}, {}]}}", pattern('x', 'a'), pattern('y', 'b')))
        .replace("KubeArmorHostPolicy", "KubeArmorPolicy")
        .replace("nodeSelector", "selector")
        .replace("kubearmor.io/hostname: '*'", "app: web");
    let image = node.hub.dir().join("image");
    fs::create_dir_all(image.join("y")).unwrap();
    symlink("y", image.join("x")).unwrap();
    let web = Workload {
        id: "a".repeat(64),
        name: "web".into(),
        labels: [("app".to_owned(), "web".to_owned())].into(),
        layers: vec![image],
        ..Workload::default()
    };
    node.follow(&[&web]).await;
    for serial in 1..=2 {
        let bundle = payload("edge", serial, std::slice::from_ref(&policy));
        node.publish(&format!("edge.{serial}.a"), &signed(&bundle, &node.signer)).await;
        node.until_serial(&mut intake, serial).await;
        assert_eq!(node.live().1, 2, "the container's, and those for containers that are not named");
        assert!(node.reporter.facts().problems[&Problem::Containers].contains("web: "));
    }
}

async fn a_machine_at_the_css_takes_bundles_without_changing_the_objects<H: Hub>(hub: Fixture<H>) {
    let mut node = Node::new(hub);
    let (css, config) = (node.hub.css().unwrap(), node.hub.machine_config().unwrap());
    let route = || Some(Route::new(HubConfig::Css(config.clone()), &identity()).unwrap());
    let object = |id: &str| NewObject {
        object_id: id.into(),
        object_type: BUNDLE_TYPE.into(),
        ..NewObject::default()
    };
    // Publishes as `bundle publish` does.
    let publish = async |id: &str, constraints: &[&str], data: &[u8]| {
        let [org_id, arch, service_name, version] = ["myorg", "*", "hzn-armor", "0.0.0"].map(str::to_owned);
        let policy = DestinationPolicy {
            constraints: constraints.iter().map(|&text| text.to_owned()).collect(),
            services: vec![ServiceId { org_id, arch, service_name, version }],
            ..DestinationPolicy::default()
        };
        let object = NewObject { destination_policy: Some(policy), ..object(id) };
        css.publish(&object, data).await.unwrap();
    };
    let mut elsewhere = payload("other", 1, &[]);
    elsewhere["target"]["nodes"] = json!(["node7"]);
    let (elsewhere, edge) = (signed(&elsewhere, &node.signer), |node: &Node<H>, serial| {
        signed(&payload("edge", serial, &[policy(SHELL)]), &node.signer)
    });
    // Two objects for other nodes by their metadata, one by its payload alone, one for all nodes, and one for
    // this machine.
    publish("arm", &["openhorizon.arch == arm64"], b"x").await;
    let node7 = Some(("openhorizon.edgenode".to_owned(), "node7".to_owned()));
    css.publish(&NewObject { destination: node7, ..object("node7") }, b"x").await.unwrap();
    publish("other.1.a", &[], &elsewhere).await;
    css.publish(&object("junk"), b"policies, please").await.unwrap();
    publish("edge.1.a", &["openhorizon.arch == amd64", "what is this"], &edge(&node, 1)).await;
    let mut intake = node.start_with(route());
    node.until_serial(&mut intake, 1).await;
    let refused = |node: &Node<H>| -> Vec<String> {
        node.reporter.facts().refused.iter().map(|refused| refused.object.clone()).collect()
    };
    assert_eq!(refused(&node), ["junk"]);
    assert_eq!(node.live(), (1, 1));

    // Each object is handled once. An object published again is read again, and deleting one lifts nothing.
    node.reporter.change(|facts| facts.refused.clear());
    intake.pass().await.unwrap();
    assert!(refused(&node).is_empty());
    css.publish(&object("junk"), b"policies, please!").await.unwrap();
    node.until_refused(&mut intake, "junk").await;
    publish("edge.2.b", &[], &edge(&node, 2)).await;
    node.until_serial(&mut intake, 2).await;
    for id in ["edge.1.a", "edge.2.b"] {
        css.delete(BUNDLE_TYPE, id).await.unwrap();
    }
    intake.pass().await.unwrap();
    assert_eq!(node.live(), (2, 1));

    // The machine changed nothing at the hub: the node still gets the object for all nodes.
    let deadline = Instant::now() + PATIENCE;
    let ess = node.hub.ess().unwrap();
    while !ess.list(BUNDLE_TYPE, false).await.unwrap().iter().any(|object| object.object_id == "junk") {
        assert!(Instant::now() < deadline, "it does not reach the node");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // An agent that starts has its bundle in force before it asks, whether or not the hub answers.
    node.hub.hub.hub_down().await.unwrap();
    let mut intake = node.start_with(route());
    assert_eq!(node.live(), (3, 1));
    assert!(intake.pass().await.is_err());
    node.hub.hub.hub_up().await.unwrap();
    assert_eq!(node.until_refused(&mut intake, "junk").await, "not-json");
}

async fn files_are_judged_as_objects_are_and_beside_them<H: Hub>(hub: Fixture<H>) {
    let mut node = Node::new(hub);
    let dir = node.directory();
    let write = |name: &str, data: &[u8]| {
        // As rsync does, writes under another name until the file is complete.
        let new = dir.join(format!(".{name}"));
        fs::write(&new, data).unwrap();
        fs::rename(&new, dir.join(name)).unwrap();
    };
    let path = |name: &str| dir.join(name).to_str().unwrap().to_owned();
    let problem = |node: &Node<H>| node.reporter.facts().problems.get(&Problem::Directory).cloned();
    let edge = |node: &Node<H>, serial| signed(&payload("edge", serial, &[policy(SHELL)]), &node.signer);

    let mut intake = node.start_with(None);
    intake.pass().await.unwrap();
    assert!(problem(&node).unwrap().contains(dir.to_str().unwrap()), "no hub and no directory");
    fs::create_dir(&dir).unwrap();
    write("edge", &edge(&node, 1));
    node.until_serial(&mut intake, 1).await;
    assert_eq!((problem(&node), node.reporter.reports().borrow().state.as_str()), (None, "enforcing"));

    // Files are refused with the codes of objects, each once.
    let stranger = PrivateKey::generate(KeyType::Ed25519).unwrap();
    let mut elsewhere = payload("edge", 2, &[]);
    elsewhere["target"]["nodes"] = json!(["node2"]);
    let files = [
        ("not-json", b"policies, please".to_vec()),
        ("unsigned", payload("edge", 2, &[]).to_string().into_bytes()),
        ("unknown-signer", signed(&payload("edge", 2, &[]), &stranger)),
        ("serial-reused", signed(&payload("edge", 1, &[]), &node.signer)),
        ("wrong-target", signed(&elsewhere, &node.signer)),
        ("too-large", vec![b'{'; MAX_BUNDLE + 1]),
    ];
    for (code, data) in &files {
        write(code, data);
        assert_eq!(node.until_refused(&mut intake, &path(code)).await, *code);
    }
    node.reporter.change(|facts| facts.refused.clear());
    intake.pass().await.unwrap();
    assert!(node.reporter.facts().refused.is_empty());
    assert_eq!(node.live(), (1, 1));

    // A key pinned later makes a file acceptable, a replaced file is read again, and removing a file lifts
    // nothing.
    write("unknown-signer", &signed(&payload("edge", 3, &[policy(SHELL)]), &stranger));
    assert_eq!(node.until_refused(&mut intake, &path("unknown-signer")).await, "unknown-signer");
    node.pin("trust.d", stranger.public());
    node.until_serial(&mut intake, 3).await;
    assert!(node.reporter.facts().refused.is_empty());
    write("edge", &edge(&node, 4));
    node.until_serial(&mut intake, 4).await;
    for (code, _) in &files {
        fs::remove_file(dir.join(code)).unwrap();
    }
    fs::remove_file(dir.join("edge")).unwrap();
    intake.pass().await.unwrap();
    assert_eq!(node.live(), (3, 1));
    for number in 0..=MAX_FILES {
        write(&number.to_string(), b"x");
    }
    intake.pass().await.unwrap();
    assert!(problem(&node).unwrap().contains("more than 100 files"));
    for number in 0..=MAX_FILES {
        fs::remove_file(dir.join(number.to_string())).unwrap();
    }

    // A directory beside a hub: both share one floor of serials, and neither waits for the other.
    let mut intake = node.start();
    node.publish("edge.5.a", &edge(&node, 5)).await;
    node.until_serial(&mut intake, 5).await;
    write("edge", &edge(&node, 4));
    assert_eq!(node.until_refused(&mut intake, &path("edge")).await, "serial-too-low");
    node.hub.hub.ess_down().await.unwrap();
    write("edge", &edge(&node, 6));
    let deadline = Instant::now() + PATIENCE;
    while in_force(&node.reporter.facts(), "edge").unwrap().serial != 6 {
        assert!(Instant::now() < deadline);
        assert!(intake.pass().await.is_err());
    }
}
