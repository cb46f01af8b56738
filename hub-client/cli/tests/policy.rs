//! Checks what `policy explain` and `policy check` say of policies.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::Command;

const POLICIES: &str = "\
apiVersion: security.kubearmor.com/v1
kind: KubeArmorPolicy
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  process:
    matchDirectories:
    - {dir: /usr/bin/, recursive: true, action: Allow}
    matchPaths:
    - {path: /usr/bin/curl, message: no curl}
    - {path: /usr/bin/curl, action: Allow, fromSource: [{path: /usr/bin/bash}]}
  file:
    matchPaths:
    - {path: /etc/secret, ownerOnly: true}
  network:
    matchProtocols: [{protocol: udp, action: Audit}]
    matchDestinations:
    - {cidr: 10.0.0.0/8, action: Allow}
    - {cidr: 10.1.0.0/16, ports: [53]}
  capabilities: {matchCapabilities: [{capability: net_raw}]}
---
apiVersion: security.kubearmor.com/v1
kind: KubeArmorHostPolicy
metadata: {name: node}
spec:
  nodeSelector: {matchLabels: {kubernetes.io/os: linux}}
  process: {matchPaths: [{path: /usr/bin/curl, action: Audit}]}
---
apiVersion: security.kubearmor.com/v1
kind: KubeArmorPolicy
metadata: {name: names}
spec:
  selector: {matchLabels: {app: web}}
  network:
    matchDNSQueries:
    - {domain: example.com}
    - {domain: free.example.com, action: Audit}
";

fn explain(arguments: &[&str]) -> (Option<i32>, String, String) {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("p.yaml"), POLICIES).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_hzn-armor"));
    let output =
        command.args(["policy", "explain", "p.yaml"]).args(arguments).current_dir(&dir).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn each_answer_names_the_rule_and_what_would_decide_without_it() {
    for (arguments, expected) in [
        (
            &["--exec", "/usr/bin/curl"][..],
            "containers: exec /usr/bin/curl
  Block by p.yaml:10 (policy web): no curl
  otherwise Allow by p.yaml:8 (policy web)
hosts: exec /usr/bin/curl
  Audit by p.yaml:27 (policy node)
  otherwise Allow: no rule is about it
",
        ),
        (
            &["--dns", "www.Free.example.com.", "--dns", "example.org"],
            "containers: dns www.free.example.com
  Audit by p.yaml:36 (policy names)
  otherwise Block by p.yaml:35 (policy names)
containers: dns example.org
  Allow: no rule is about it
hosts: dns www.free.example.com
  Allow: no rule is about it
hosts: dns example.org
  Allow: no rule is about it
",
        ),
        (
            &["--exec", "/bin/x", "--posture", "block", "--from", "/usr/bin/bash", "--from", "/bin/other"],
            "containers: exec /bin/x from /usr/bin/bash
  Block by the posture of an allow-list
containers: exec /bin/x from /bin/other
  Block by the posture of an allow-list
hosts: exec /bin/x from /usr/bin/bash
  Allow: no rule is about it
hosts: exec /bin/x from /bin/other
  Allow: no rule is about it
",
        ),
    ] {
        let (status, out, err) = explain(arguments);
        assert_eq!((status, &*out), (Some(0), expected), "{err}");
    }
}

#[test]
fn every_kind_of_access_can_be_asked_about() {
    for (arguments, expected) in [
        (&["--file", "/etc/secret"][..], "read /etc/secret\n  Block by p.yaml:14"),
        (&["--file", "/etc/secret", "--op", "write"], "write /etc/secret as its owner\n  Allow by p.yaml:14"),
        (&["--exec", "/usr/bin/curl", "--from", "/usr/bin/bash"], "from /usr/bin/bash\n  Allow by p.yaml:11"),
        (&["--connect", "10.1.2.3:53"], "connect 10.1.2.3:53\n  Block by p.yaml:19"),
        (&["--connect", "10.1.2.3:54"], "connect 10.1.2.3:54\n  Allow by p.yaml:18"),
        (&["--connect", "10.1.2.3:54/udp"], "connect 10.1.2.3:54/udp\n  Audit by p.yaml:16"),
        (&["--connect", "[::1]:80"], "connect [::1]:80\n  Audit by the posture"),
        (&["--capability", "net_raw"], "capability CAP_NET_RAW\n  Block by p.yaml:20"),
        (&["--capability", "CAP_KILL", "--json"], r#""decision": "Allow""#),
    ] {
        let (status, out, err) = explain(arguments);
        assert_eq!(status, Some(0), "{err}");
        assert!(out.contains(expected), "{arguments:?}: {out}");
    }
}

#[test]
fn a_question_that_cannot_be_answered_is_an_error() {
    for (arguments, expected) in [
        (&[][..], "give --exec, --file, --connect or --capability"),
        (&["--exec", "curl"], "a path begins with '/'"),
        (&["--connect", "example.com:80"], "10.0.0.1:443"),
        (&["--connect", "10.0.0.1:80/icmp"], "'/udp'"),
        (&["--capability", "everything"], "no capability has this name"),
        (&["--op", "write", "--exec", "/x"], "--file"),
    ] {
        let (status, _, err) = explain(arguments);
        assert_ne!(status, Some(0));
        assert!(err.contains(expected), "{arguments:?}: {err}");
    }
}

#[test]
fn rules_that_contradict_each_other_are_named_with_both_places() {
    let dir = tempfile::tempdir().unwrap();
    let policy = |name: &str, selector: &str, rule: &str| {
        format!(
            "apiVersion: security.kubearmor.com/v1\nkind: KubeArmorPolicy\nmetadata: {{name: {name}}}\nspec:\n  \
             selector: {{matchLabels: {{app: {selector}}}}}\n  file: {{matchPaths: [{rule}]}}\n"
        )
    };
    let files = [
        ("1.yaml", policy("one", "web", "{path: /a}, {path: /b}, {path: /c, fromSource: [{path: /x}]}")),
        ("2.yaml", policy("two", "web", "{path: /a, action: Allow}, {path: /b}, {path: /c, action: Audit}")),
        (
            "3.yaml",
            policy("three", "db", "{path: /a, action: Audit}, {path: /a, action: Allow, readOnly: true}"),
        ),
    ];
    for (name, text) in &files {
        std::fs::write(dir.path().join(name), text).unwrap();
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_hzn-armor"));
    let output = command.args(["policy", "check", "."]).current_dir(&dir).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let warnings: Vec<&str> = said.lines().filter(|line| line.contains("warning")).collect();
    assert_eq!(
        warnings,
        [
            "./2.yaml:6:23: the rule says Allow, and of the same says ./1.yaml:6 Block, in policy one (keep one of them: \
          Block comes before Allow and Allow before Audit) [warning]"
        ]
    );
    assert!(output.status.success());
}
