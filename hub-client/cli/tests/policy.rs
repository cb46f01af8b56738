//! Checks what `policy explain` and `policy check` say of policies, and what `policy migrate` makes of them.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
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
  process: {matchPaths: [{path: /usr/bin/curl, action: Audit}, {path: /usr/bin/python3, allowedArgs: [-m, random]}]}
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
  file: {matchPaths: [{path: /etc/kept, pts: false}]}
---
apiVersion: security.kubearmor.com/v1
kind: KubeArmorNetworkPolicy
metadata: {name: visitors}
spec:
  selector: {matchLabels: {app: web}}
  ingress: [{from: [{ipBlock: {cidr: 10.2.0.0/16}}], ports: [{port: http}]}]
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
  Audit by p.yaml:37 (policy names)
  otherwise Block by p.yaml:36 (policy names)
containers: dns example.org
  Allow: no rule is about it
hosts: dns www.free.example.com
  Allow: no rule is about it
hosts: dns example.org
  Allow: no rule is about it
",
        ),
        (
            &["--file", "/etc/kept"],
            "containers: read /etc/kept
  Allow: no rule is about it
containers: read /etc/kept on a terminal
  Block by p.yaml:38 (policy names)
  otherwise Allow: no rule is about it
hosts: read /etc/kept
  Allow: no rule is about it
",
        ),
        (
            &["--exec", "/usr/bin/python3"],
            "containers: exec /usr/bin/python3
  Allow by p.yaml:8 (policy web)
  otherwise Allow: no rule is about it
hosts: exec /usr/bin/python3
  Allow by p.yaml:27 (policy node)
  otherwise Allow: no rule is about it
hosts: exec /usr/bin/python3 with arguments that its list does not have
  Block by p.yaml:27 (policy node)
  otherwise Allow: no rule is about it
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
        (&["--accept", "10.2.0.1:80"], "accept 10.2.0.1:80\n  Block by p.yaml:45"),
        (&["--accept", "10.2.0.1:81"], "accept 10.2.0.1:81\n  Allow: no rule is about it"),
        (&["--accept", "10.1.0.1:80/udp"], "accept 10.1.0.1:80/udp\n  Audit by p.yaml:16"),
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
        (&[][..], "give --exec, --file, --connect, --accept, --dns or --capability"),
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

const NEARLY: &str = "\
apiVersion: security.kubearmor.com/v1
kind: KubeArmorPolicy
metadata:
  name: nearly
  namespace: shop
spec:
  selector:
    matchLabels:
      app: web # the front end
  action: Audit
  process:
    matchDirectories:
    - dir: \"/usr/local/bin\" # no slash
      recursive: true
    matchPaths:
    - path: /bin/sh
  file:
    matchPaths: [{path: /etc/shadow}]
    severity: 5
    serverity: 5
  action:
    Audit
";

fn migrate(dir: &Path, arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hzn-armor"));
    let output = command.args(["policy", "migrate"]).args(arguments).current_dir(dir).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn a_migration_shows_what_it_mends_and_what_it_leaves() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("p.yaml"), NEARLY).unwrap();
    let (status, out, err) = migrate(dir.path(), &["p.yaml"]);
    let expected = "\
p.yaml:5:14: metadata.namespace `shop` selects nothing (--map metadata.namespace=shop:horizon.service.org=ORG makes a \
condition of it) [note]
p.yaml:9:7: `app: web` selects by a label of the container or its image (--map app=web:KEY=VALUE makes it another \
condition, by kubearmor.io/container.name, horizon.service.url or another key) [note]
p.yaml:13:12: dir `/usr/local/bin` does not end in '/' (write /usr/local/bin/) [mended]
p.yaml:16:13: /bin is a symlink to /usr/bin on most systems (it stays: it matches with and without this link, /usr/bin \
only with it) [note]
p.yaml:20:5: file cannot have `serverity` (did you mean `severity`?) [left]
p.yaml:21:3: `action` is given twice (keep one of them) [mended]
--- p.yaml
+++ p.yaml
@@ -10,7 +10,7 @@
   action: Audit
   process:
     matchDirectories:
-    - dir: \"/usr/local/bin\" # no slash
+    - dir: \"/usr/local/bin/\" # no slash
       recursive: true
     matchPaths:
     - path: /bin/sh
@@ -18,5 +18,3 @@
     matchPaths: [{path: /etc/shadow}]
     severity: 5
     serverity: 5
-  action:
-    Audit
p.yaml: 1 error left, 2 places to mend
";
    assert_eq!((status, out.as_str(), err.as_str()), (Some(1), expected, ""));
    assert_eq!(fs::read_to_string(dir.path().join("p.yaml")).unwrap(), NEARLY);
}

#[test]
fn a_migration_writes_files_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("p.yaml");
    let text = NEARLY.replace("    severity: 5\n", "");
    fs::write(&path, &text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    let options = [
        "--map",
        "app=web:horizon.service.url=shop/web",
        "--map",
        "metadata.namespace:horizon.service.org",
        "--accept",
        "spelling",
        "--write",
        ".",
    ];
    let (status, out, err) = migrate(dir.path(), &options);
    assert_eq!(status, Some(0), "{out}{err}");
    assert!(out.ends_with("./p.yaml: ok, 5 places mended, written\n"), "{out}");
    let mended = text
        .replace("app: web", "horizon.service.org: shop\n      horizon.service.url: shop/web")
        .replace("/bin\"", "/bin/\"")
        .replace("serverity", "severity")
        .replace("  action:\n    Audit\n", "");
    assert_eq!(fs::read_to_string(&path).unwrap(), mended);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);

    let (status, out, _) = migrate(dir.path(), &options);
    assert_eq!(status, Some(0));
    assert!(out.ends_with("[note]\n./p.yaml: ok, nothing mended\n") && !out.contains("@@"), "{out}");
    assert_eq!(fs::read_to_string(&path).unwrap(), mended);
}

#[test]
fn a_migration_that_cannot_be_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("latin.yaml"), b"\xfc").unwrap();
    fs::write(dir.path().join("bad.yaml"), "a: [").unwrap();
    fs::write(dir.path().join("escape.yaml"), "# \u{1b}[31m\u{202e}\nmetadata: {name: 5}\n").unwrap();
    for (arguments, expected_status, expected) in [
        (&["latin.yaml"][..], 1, "not UTF-8"),
        (&["missing.yaml"], 1, "missing.yaml: "),
        (&["bad.yaml"], 1, "bad.yaml: 1 error left, nothing mended\n"),
        (
            &["escape.yaml"],
            1,
            "\n # \\x1b[31m\\xe2\\x80\\xae\n-metadata: {name: 5}\n+metadata: {name: \"5\"}\n",
        ),
        (&["--map", "app:", "bad.yaml"], 2, "write LABEL:KEY=VALUE"),
        (&["--map", "app:horizon.image=", "bad.yaml"], 2, "`horizon.image` would select nothing"),
        (&["--accept", "all", "bad.yaml"], 2, "spelling"),
        (&[], 2, "FILES"),
    ] {
        let (status, out, err) = migrate(dir.path(), arguments);
        assert_eq!(status, Some(expected_status), "{arguments:?}: {out}{err}");
        assert!(format!("{out}{err}").contains(expected), "{arguments:?}: {out}{err}");
    }
}
