//! These tests use `hzn-armor` as an operator does, with each hub and a node's client at the other end.

#![allow(clippy::unwrap_used)]

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::time::{Duration, Instant};

use armor_bundle::dsse::Envelope;
use armor_bundle::keys::PrivateKey;
use armor_bundle::plain::PlainFields;
use armor_bundle::trust::TrustStore;
use armor_bundle::{NodeIdentity, SerialFloor, verify};
use armor_contract_tests::{Fixture, Hub, both_hubs, no_hub, run_all};
use armor_mms::css::CssConfig;
use armor_mms::{BUNDLE_TYPE, MetaData};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

/// Time limit of a command.
const PATIENCE: Duration = Duration::from_secs(60);

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

/// Returns a policy whose tables must remember at which of the last `bytes` bytes `letter` occurred.
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
        files_that_are_not_regular_are_refused_at_once,
        what_a_directory_holds_beside_policies_is_said,
        names_that_are_no_text_never_look_alike_nor_like_another_line,
        what_is_no_text_or_not_rendered_is_refused,
        input_that_is_not_plain_utf8_says_how_to_convert_it,
        trust_that_holds_no_keys_says_why,
        nothing_is_built_over_or_out_of_what_it_would_lose,
        an_output_that_takes_nothing_ends_every_command,
        a_server_that_is_no_sync_service_is_named,
        what_cannot_be_used_is_never_signed,
    ];
    run_all([local, both_hubs![a_bundle_built_from_files_reaches_the_node_and_replaces_older_ones]])
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
    /// Makes an operator's directory, and sets the variables for a hub if there is one.
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
        self.run_with(arguments, None, None).await
    }

    /// Runs the command with another standard output or standard error.
    async fn run_with(&self, arguments: &str, stdout: Option<Stdio>, stderr: Option<Stdio>) -> Output {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_hzn-armor"));
        command.args(arguments.split_whitespace());
        command.stdout(stdout.unwrap_or_else(Stdio::piped)).stderr(stderr.unwrap_or_else(Stdio::piped));
        self.finish(command).await
    }

    /// Runs the command with a redirection made by a shell.
    async fn redirected(&self, arguments: &str, redirection: &str) -> Output {
        let mut command = tokio::process::Command::new("sh");
        command.args(["-c", &format!(r#"exec "$0" "$@" {redirection}"#), env!("CARGO_BIN_EXE_hzn-armor")]);
        command.args(arguments.split_whitespace()).stdout(Stdio::piped()).stderr(Stdio::piped());
        self.finish(command).await
    }

    async fn finish(&self, mut command: tokio::process::Command) -> Output {
        command
            .kill_on_drop(true)
            .current_dir(self.dir.path())
            .env("HZN_ORG_ID", "myorg")
            .env("HZN_MGMT_HUB_CERT_PATH", "");
        if let Some(css) = &self.css {
            command.env("HZN_EXCHANGE_USER_AUTH", &css.user).env("HZN_FSS_CSSURL", &css.url);
        }
        let child = command.spawn().unwrap();
        let output = timeout(PATIENCE, child.wait_with_output()).await;
        let output = output.unwrap().unwrap();
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
    let directory = operator.run("policy check .").await;
    assert_eq!(directory.code, 1);
    assert!(directory.stdout.contains("bad.yaml:13:"), "{}", directory.stdout);
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
    // Half a key is useless: if one file cannot be written, the other is not written either.
    std::os::unix::fs::symlink("missing", operator.path("one.pem")).unwrap();
    std::os::unix::fs::symlink("missing", operator.path("two.key")).unwrap();
    for name in ["one", "two"] {
        operator.fails(&format!("keys generate {name}"), 1, "exists already and is not overwritten").await;
    }
    for missing in ["one.key", "two.pem", "missing"] {
        assert!(!operator.path(missing).exists(), "{missing}");
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

    // Each is valid, but a container cannot have both.
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

async fn files_that_are_not_regular_are_refused_at_once() {
    let operator = Operator::new(None);
    operator.good("keys generate op").await;
    operator.good("bundle build --name edge certs.yaml --out payload.json").await;
    node_trust(&operator.path("trust"), &operator.path("op.pem"));
    rustix::fs::mkfifoat(rustix::fs::CWD, operator.path("pipe"), rustix::fs::Mode::RWXU).unwrap();
    let _listener = std::os::unix::net::UnixListener::bind(operator.path("socket")).unwrap();
    std::os::unix::fs::symlink("/dev/zero", operator.path("zero")).unwrap();
    for (name, kind) in [("pipe", "pipe (FIFO)"), ("socket", "socket"), ("zero", "device")] {
        let says = format!("{name}: a {kind}, not a regular file");
        let checked = operator.run(&format!("policy check {name} certs.yaml")).await;
        assert!(checked.code == 1 && checked.stdout.starts_with(&says), "{}", checked.stdout);
        assert!(checked.stdout.contains("certs.yaml: ok"), "{}", checked.stdout);
        for command in [
            format!("keys show {name}"),
            format!("bundle build --name edge {name}"),
            format!("bundle build --name edge certs.yaml --add-key {name}"),
            format!("bundle sign -k {name} payload.json"),
            format!("bundle sign -k op.key {name}"),
            format!("bundle inspect {name}"),
            format!("bundle verify --trust trust --node-id node1 {name}"),
            format!("bundle verify --trust trust --node-id node1 --meta {name} payload.json"),
            format!("bundle publish {name} --service s --css-url https://127.0.0.1:1 -u u:p"),
            format!(
                "bundle publish payload.json --plain-key {name} --service s --css-url https://127.0.0.1:1 -u u:p"
            ),
            format!("alerts collect --key {name} --state state --css-url https://127.0.0.1:1 -u u:p"),
            format!(
                "alerts collect --key op.key --state state --hub-cert {name} --css-url https://127.0.0.1:1 -u u:p"
            ),
        ] {
            operator.fails(&command, 1, &says).await;
        }
        // Such a file beside pinned keys is skipped, and the keys stay valid.
        let pinned = operator.path("trust/trust.d").join("other.pem");
        std::os::unix::fs::symlink(operator.path(name), &pinned).unwrap();
        let verify = "bundle verify --trust trust --node-id node1 payload.json";
        operator.fails(verify, 1, &format!("left out: trust/trust.d/other.pem: a {kind}")).await;
        operator.fails(verify, 1, "refused (unsigned)").await;
        std::fs::remove_file(&pinned).unwrap();
        // The record of changes cannot be skipped: a removed key would be trusted.
        let changes = operator.path("trust/trust-changes.json");
        std::os::unix::fs::symlink(operator.path(name), &changes).unwrap();
        operator.fails(verify, 1, &format!("trust-changes.json: a {kind}")).await;
        std::fs::remove_file(&changes).unwrap();
    }
    let collect = "alerts collect --key op.key --state state --css-url https://127.0.0.1:1 -u u:p";
    for (name, kind) in
        [("pipe", "pipe (FIFO)"), ("socket", "socket"), ("zero", "device"), (".", "directory")]
    {
        for command in [
            format!("bundle build --name edge certs.yaml --out {name}"),
            format!("bundle sign -k op.key payload.json --out {name}"),
            format!("{collect} --out {name}"),
            format!("{collect} --report {name}"),
        ] {
            operator.fails(&command, 1, &format!("{name}: no regular file but a {kind}")).await;
        }
    }
    assert!(!operator.path("state").exists());
    std::fs::write(operator.path("large.pem"), vec![b'#'; 1 << 20]).unwrap();
    operator.fails("keys show large.pem", 1, "large.pem: more than the 65536 bytes").await;
}

async fn what_a_directory_holds_beside_policies_is_said() {
    let operator = Operator::new(None);
    for directory in ["set/app/.git", "set/web", "set/empty"] {
        std::fs::create_dir_all(operator.path(directory)).unwrap();
    }
    std::fs::copy(operator.path("certs.yaml"), operator.path("set/app/certs.yaml")).unwrap();
    std::fs::write(operator.path("set/app/.git/hidden.yaml"), "x").unwrap();
    std::fs::write(operator.path("set/web/web.yml"), POLICY.replace("protect-certs", "web")).unwrap();
    std::fs::write(operator.path("set/README.md"), "x").unwrap();
    std::os::unix::fs::symlink("..", operator.path("set/web/up")).unwrap();
    let checked = operator.run("policy check set").await;
    assert_eq!(checked.code, 0, "{}", checked.stderr);
    assert_eq!(
        (checked.stdout.as_str(), checked.stderr.as_str()),
        (
            "set/app/certs.yaml: ok, 1 policy\nset/web/web.yml: ok, 1 policy\n",
            "left out: set/README.md: its name ends in neither .yaml nor .yml\n\
             left out: set/app/.git: a hidden directory\n\
             left out: set/web/up: a link to a directory\n"
        )
    );
    let built = operator.run("bundle build --name edge set").await;
    assert!(built.stdout.contains("web.yml") && built.stderr.contains("set/README.md"), "{}", built.stderr);
    operator.fails("policy check set/empty", 1, "set/empty: no .yaml or .yml file").await;
    for number in 0..30 {
        std::fs::write(operator.path(&format!("set/empty/{number:02}")), "").unwrap();
    }
    let many = operator.run("policy check set").await.stderr;
    assert!(many.lines().count() == 21 && many.ends_with("left out: 13 more\n"), "{many}");
}

async fn names_that_are_no_text_never_look_alike_nor_like_another_line() {
    let operator = Operator::new(None);
    std::fs::create_dir(operator.path("odd")).unwrap();
    std::fs::write(operator.path("odd/good.yaml"), POLICY).unwrap();
    let names: [(&[u8], &str); 4] = [
        (b"a\nb.yaml: ok", r"odd/a\x0ab.yaml: ok"),
        (b"\x1b[31m", r"odd/\x1b[31m"),
        (b"\xfe", r"odd/\xfe"),
        (b"\xff", r"odd/\xff"),
    ];
    for (name, shown) in names {
        let path = operator.path("odd").join(OsStr::from_bytes(name));
        std::fs::write(&path, "").unwrap();
        let said = operator.run("policy check odd").await.stderr;
        assert!(
            said.starts_with(&format!("left out: {shown}: its name")) && said.lines().count() == 1,
            "{said}"
        );
        std::fs::remove_file(&path).unwrap();
        let policy = operator.path("odd").join(OsStr::from_bytes(&[name, b".yaml"].concat()));
        std::fs::write(&policy, POLICY.replace("readOnly", "readonly")).unwrap();
        let shown = format!("{shown}.yaml");
        let said = operator.run("policy check odd").await.stdout;
        assert!(said.lines().any(|line| line.starts_with(&format!("{shown}:13:"))), "{said}");
        assert_eq!(said.lines().count(), 2, "{said}");
        let said = operator.run("policy check --json odd").await;
        let report: serde_json::Value = serde_json::from_str(&said.stdout).unwrap();
        let files = report.as_array().unwrap().iter().map(|of| of["file"].as_str().unwrap());
        assert_eq!(files.filter(|file| *file == shown).count(), 1, "{shown}: {}", said.stdout);
        operator.fails("bundle build --name edge odd", 1, &shown).await;
        std::fs::remove_file(policy).unwrap();
    }
}

async fn what_is_no_text_or_not_rendered_is_refused() {
    let operator = Operator::new(None);
    let wide: Vec<u8> = format!("\u{feff}{POLICY}").encode_utf16().flat_map(u16::to_le_bytes).collect();
    std::fs::write(operator.path("wide.yaml"), wide).unwrap();
    let latin: Vec<u8> = POLICY.replace("stays", "\u{fc}").chars().map(|c| c as u8).collect();
    std::fs::write(operator.path("latin.yaml"), latin).unwrap();
    let template = POLICY.replace("protect-certs", "{{ .Release.Name }}");
    std::fs::write(operator.path("template.yaml"), template).unwrap();
    for (file, place, help) in [
        ("wide.yaml", "1:1: the file is UTF-16", "iconv -f UTF-16 -t UTF-8"),
        ("latin.yaml", "4:37: not UTF-8: the byte 0xfc", "iconv -f ISO-8859-1 -t UTF-8"),
        ("template.yaml", "4:9: `{{ .Release.Name }}`", "helm template"),
    ] {
        let checked = operator.run(&format!("policy check {file}")).await;
        assert!(
            checked.code == 1 && checked.stdout.starts_with(&format!("{file}:{place}")),
            "{}",
            checked.stdout
        );
        assert!(checked.stdout.contains(help) && checked.stdout.lines().count() == 1, "{}", checked.stdout);
        operator.fails(&format!("bundle build --name edge {file}"), 1, &format!("{file}:{place}")).await;
    }
}

async fn input_that_is_not_plain_utf8_says_how_to_convert_it() {
    let operator = Operator::new(None);
    signed_bundle(&operator).await;
    let wide: fn(&str) -> Vec<u8> =
        |text| format!("\u{feff}{text}").encode_utf16().flat_map(u16::to_le_bytes).collect();
    let marked: fn(&str) -> Vec<u8> = |text| format!("\u{feff}{text}").into_bytes();
    for (make, says) in [
        (wide, "it is UTF-16, not UTF-8: convert it: iconv -f UTF-16 -t UTF-8 FILE > NEW"),
        (marked, "a byte order mark is before line 1, column 1: take it away: tail -c +4 FILE > NEW"),
    ] {
        for (name, odd) in [("payload.json", "odd.json"), ("op.key", "odd.key"), ("op.pem", "odd.pem")] {
            let text = std::fs::read_to_string(operator.path(name)).unwrap();
            std::fs::write(operator.path(odd), make(&text)).unwrap();
        }
        for (command, file) in [
            ("bundle sign -k op.key odd.json", "odd.json: the bundle is not JSON: "),
            ("bundle inspect odd.json", "odd.json: the bundle is not JSON: "),
            ("bundle sign -k odd.key payload.json", "odd.key: "),
            ("keys show odd.pem", "odd.pem: "),
            ("bundle build --name edge certs.yaml --add-key odd.pem", "odd.pem: "),
            (
                "bundle publish bundle --service s --css-url https://127.0.0.1:1 -u u:p --hub-cert odd.pem",
                "odd.pem: no PEM certificate in it: ",
            ),
        ] {
            operator.fails(command, 1, &format!("{file}{says}")).await;
        }
    }
}

async fn trust_that_holds_no_keys_says_why() {
    let operator = Operator::new(None);
    operator.good("keys generate op").await;
    operator.good("bundle build --name edge certs.yaml --out payload.json").await;
    operator.good("bundle sign -k op.key payload.json --out bundle").await;
    let verify = "bundle verify --trust trust --node-id node1 bundle";
    operator.fails(verify, 1, "trust: no such directory").await;
    std::fs::create_dir(operator.path("trust")).unwrap();
    operator.fails(verify, 1, "trust holds no directory trust.d").await;
    std::fs::create_dir(operator.path("trust/trust.d")).unwrap();
    std::fs::copy(operator.path("op.pem"), operator.path("trust/trust.d/op.pub")).unwrap();
    operator.fails(verify, 1, "left out: trust/trust.d/op.pub: its name does not end in .pem").await;
    operator.fails(verify, 1, "refused (no-pinned-keys)").await;
    node_trust(&operator.path("trust"), &operator.path("op.pem"));
    operator.good(verify).await;
}

async fn nothing_is_built_over_or_out_of_what_it_would_lose() {
    let operator = Operator::new(None);
    operator.good("keys generate op").await;
    operator.good("bundle build --name edge certs.yaml --out payload.json").await;
    std::fs::create_dir(operator.path("other")).unwrap();
    std::fs::hard_link(operator.path("certs.yaml"), operator.path("hard")).unwrap();
    std::os::unix::fs::symlink("certs.yaml", operator.path("soft")).unwrap();
    let key = std::fs::read(operator.path("op.key")).unwrap();
    for (command, says) in [
        (
            "bundle build --name edge certs.yaml --out certs.yaml",
            "--out certs.yaml is the policy file certs.yaml",
        ),
        ("bundle build --name edge certs.yaml --out other/../certs.yaml", "the policy file"),
        ("bundle build --name edge certs.yaml --out hard", "the policy file"),
        ("bundle build --name edge certs.yaml --out soft", "the policy file"),
        ("bundle build --name edge . --out certs.yaml", "the policy file"),
        ("bundle build --name edge certs.yaml --add-key op.pem --out op.pem", "the key op.pem"),
        ("bundle sign -k op.key payload.json --out ./op.key", "the key op.key"),
        ("bundle sign -k op.key payload.json --out ./payload.json", "the bundle payload.json"),
        ("bundle build --name edge certs.yaml ./certs.yaml", "the file certs.yaml once more"),
        ("bundle build --name edge certs.yaml --serial 18446744073709551615", "no later one could pass it"),
        ("bundle build --name edge certs.yaml --threshold 0", "nothing built: the threshold is 0: write"),
        // This serial is in milliseconds: later bundles with serials in seconds would be refused for 50,000
        // years.
        (
            "bundle build --name edge certs.yaml --serial 1790000000000",
            "leave it out for the seconds since 1970",
        ),
    ] {
        operator.fails(command, 1, says).await;
    }
    for (file, name) in
        [("other/certs.yaml", "twin"), ("other/same.yaml", "protect-certs"), ("other/a b.yaml", "c")]
    {
        std::fs::write(operator.path(file), POLICY.replace("protect-certs", name)).unwrap();
    }
    operator
        .fails("bundle build --name edge certs.yaml other/certs.yaml", 1, "has the name of certs.yaml")
        .await;
    let twins = "other/same.yaml:1:1: policy `protect-certs` stands already in certs.yaml, line 1";
    operator.fails("bundle build --name edge certs.yaml other/same.yaml", 1, twins).await;
    operator.fails("bundle build --name edge other", 1, "other/a b.yaml: rename the file").await;
    // `policy check` reports before what `bundle build` refuses.
    let namespaced = |space: &str| POLICY.replace("metadata:", &format!("metadata:\n  namespace: {space}"));
    std::fs::write(operator.path("spaces.yaml"), format!("{}---\n{}", namespaced("a"), namespaced("b")))
        .unwrap();
    for (file, says) in [
        ("other/a b.yaml", "other/a b.yaml: rename the file"),
        ("spaces.yaml", "spaces.yaml:17:1: policy `protect-certs` stands already in spaces.yaml, line 1"),
    ] {
        let directory = file.rsplit_once('/').map_or(file, |(directory, _)| directory);
        let checked = operator.run(&format!("policy check {directory}")).await;
        assert!(checked.code == 1 && checked.stdout.contains(says), "{}", checked.stdout);
        let says = says.split(": rename").next().unwrap();
        operator.fails(&format!("bundle build --name edge {directory}"), 1, says).await;
    }
    assert_eq!(std::fs::read_to_string(operator.path("certs.yaml")).unwrap(), POLICY);
    assert_eq!(std::fs::read(operator.path("op.key")).unwrap(), key);

    let id = operator.good("keys show op.pem").await.split_whitespace().next().unwrap().to_owned();
    let both = format!("nothing built: {id} is both added and removed: leave it out");
    for role in ["", "receipt-"] {
        let build =
            format!("bundle build --name edge certs.yaml --add-{role}key op.pem --remove-{role}key {id}");
        operator.fails(&build, 1, &both).await;
    }
    // A serial above the current time, which is the default, is accepted with a warning about later serials.
    let ahead = operator.run("bundle build --name edge certs.yaml --serial 4000000000").await;
    let says = "build later bundles of the name with a --serial above it, nodes refuse lower ones; by default they are until 2096-";
    assert!(ahead.code == 0 && ahead.stderr.contains(says), "{}", ahead.stderr);
    let counted = operator.run("bundle build --name edge certs.yaml --serial 7").await;
    assert_eq!((counted.code, counted.stderr.as_str()), (0, ""));

    // A payload that somebody else built is not signed either.
    let payload = std::fs::read_to_string(operator.path("payload.json")).unwrap();
    let mut absurd: serde_json::Value = serde_json::from_str(&payload).unwrap();
    absurd["serial"] = u64::MAX.into();
    std::fs::write(operator.path("absurd.json"), absurd.to_string()).unwrap();
    operator.fails("bundle sign -k op.key absurd.json", 1, "not signed: serial 18446744073709551615").await;
    absurd["serial"] = 1.into();
    absurd["trust"] = serde_json::json!({ "threshold": 0 });
    std::fs::write(operator.path("absurd.json"), absurd.to_string()).unwrap();
    operator.fails("bundle sign -k op.key absurd.json", 1, "not signed: the threshold is 0").await;

    let collect = "alerts collect --key op.key --state state --css-url https://127.0.0.1:1 -u u:p";
    std::os::unix::fs::symlink("alerts", operator.path("link")).unwrap();
    for (options, says) in [
        ("--out alerts --report alerts", "--report alerts is the file of --out, alerts"),
        ("--out alerts --report ./alerts", "the file of --out, alerts"),
        ("--out alerts --report link", "the file of --out, alerts"),
        ("--out link --report other/../alerts", "the file of --out, link"),
        ("--out op.key", "--out op.key is the key op.key"),
        ("--report op.key", "--report op.key is the key op.key"),
        ("--out state/collector.db", "the collector's state"),
        ("--report state/collector.db-wal", "the collector's state"),
        ("--out ./state/collector.db-shm", "the collector's state"),
    ] {
        operator.fails(&format!("{collect} {options}"), 1, says).await;
    }
    let collect = collect.replace("--state state", "--state certs.yaml");
    operator
        .fails(&collect, 1, "certs.yaml: no directory: --state names the one of the collector's state")
        .await;
    assert!(!operator.path("alerts").exists() && !operator.path("state").exists());
    assert_eq!(std::fs::read(operator.path("op.key")).unwrap(), key);
}

async fn an_output_that_takes_nothing_ends_every_command() {
    let operator = Operator::new(None);
    operator.good("keys generate op").await;
    operator.good("bundle build --name edge certs.yaml --out payload.json").await;
    operator.good("bundle sign -k op.key payload.json --out bundle").await;
    node_trust(&operator.path("trust"), &operator.path("op.pem"));
    assert!(operator.run("--version").await.stdout.starts_with("hzn-armor "));
    for (number, command) in [
        "--help",
        "--version",
        "bundle build --help",
        "keys generate full",
        "keys show op.pem",
        "policy check certs.yaml",
        "policy check --json certs.yaml",
        "bundle build --name edge certs.yaml",
        "bundle sign -k op.key payload.json",
        "bundle verify --trust trust --node-id node1 bundle",
        "bundle inspect bundle",
    ]
    .into_iter()
    .enumerate()
    {
        let full = || Stdio::from(std::fs::File::options().write(true).open("/dev/full").unwrap());
        let said = operator.run_with(command, Some(full()), None).await;
        assert_eq!(said.code, 1, "{command}: {}", said.stderr);
        assert!(
            said.stderr.starts_with("hzn-armor: standard output: No space left"),
            "{command}: {}",
            said.stderr
        );
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        // The key's file exists by then.
        let command = command.replace("full", &format!("closed{number}"));
        let said = operator.run_with(&command, Some(writer.into()), None).await;
        assert_eq!((said.code, said.stderr.as_str()), (1, ""), "{command}");
        for redirection in [">&-", "1</dev/null"] {
            let command = command.replace("closed", "never");
            let said = operator.redirected(&command, redirection).await;
            assert_eq!((said.code, said.stderr.as_str()), (1, ""), "{command} {redirection}");
        }
        for redirection in [">/dev/null", "1<>/dev/null"] {
            let command =
                command.replace("closed", if redirection.starts_with('1') { "read" } else { "null" });
            let said = operator.redirected(&command, redirection).await;
            assert_eq!(said.code, 0, "{command} {redirection}: {}", said.stderr);
        }
    }
    // An action that nobody would hear of is not done: the hub is not asked, and no state is created.
    let hub = "--css-url http://127.0.0.1:1 -u u:p";
    for command in [
        format!("bundle publish bundle --service s {hub}"),
        format!("alerts collect --key op.key --state state {hub}"),
    ] {
        let said = operator.redirected(&command, ">&-").await;
        assert_eq!((said.code, said.stderr.as_str()), (1, ""), "{command}");
    }
    assert!(!operator.path("state").exists() && !operator.path("never3.key").exists());
    assert!(operator.path("null3.key").exists());
    for command in
        ["bundle build --name edge certs.yaml --out built", "bundle sign -k op.key built --out signed"]
    {
        let said = operator.redirected(command, ">&-").await;
        assert_eq!(said.code, 0, "{command}: {}", said.stderr);
    }
    for command in ["keys show missing", "policy check set", "bundle build", "bundle inspect certs.yaml"] {
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let said = operator.run_with(command, None, Some(full.into())).await;
        assert!(matches!(said.code, 1 | 2), "{command}: {}", said.code);
    }
}

/// Makes the files op.key and bundle.
async fn signed_bundle(operator: &Operator) {
    operator.good("keys generate op").await;
    operator.good("bundle build --name edge certs.yaml --out payload.json").await;
    operator.good("bundle sign -k op.key payload.json --out bundle").await;
}

/// Starts a server that gives the same answer to every request, and returns its URL.
async fn monotonous(answer: &'static str) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = Vec::new();
            while !request.windows(4).any(|end| end == b"\r\n\r\n") {
                if stream.read_buf(&mut request).await.unwrap_or(0) == 0 {
                    break;
                }
            }
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    url
}

async fn a_server_that_is_no_sync_service_is_named() {
    for (answer, says) in [
        ("HTTP/1.1 404 Not Found\r\nconnection: close\r\ncontent-length: 0\r\n\r\n", "404"),
        ("HTTP/1.1 404 Not Found\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{}", "404"),
        (
            "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-type: text/html\r\ncontent-length: 6\r\n\r\n<html>",
            "HTML",
        ),
        ("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 6\r\n\r\n<html>", "no list of objects"),
        (
            "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-type: text/plain\r\ncontent-length: 6\r\n\r\n<html>",
            "no list of objects",
        ),
        ("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\n[]", "no objects"),
        ("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 4\r\n\r\nnull", "no objects"),
        ("HTTP/1.1 302 Found\r\nconnection: close\r\nlocation: /login\r\ncontent-length: 0\r\n\r\n", "302"),
    ] {
        let url = monotonous(answer).await;
        let operator = Operator::new(None);
        signed_bundle(&operator).await;
        for command in ["alerts collect --key op.key --state state", "bundle publish bundle --service s"] {
            let said = operator.run(&format!("{command} --css-url {url} -u u:p")).await;
            assert_eq!((said.code, said.stdout.as_str()), (1, ""), "{command}, {answer}: {}", said.stderr);
            let server = format!("{url} is no sync service of a hub, it answers");
            for says in [server.as_str(), says, "HZN_FSS_CSSURL"] {
                assert!(said.stderr.contains(says), "{command}, {answer}: {}", said.stderr);
            }
            assert_eq!(said.stderr.lines().count(), 1, "{}", said.stderr);
        }
    }
    let failing = "HTTP/1.1 500 x\r\nconnection: close\r\ncontent-length: 10\r\n\r\nboom\n\x1b[31m";
    let url = monotonous(failing).await;
    let operator = Operator::new(None);
    signed_bundle(&operator).await;
    for command in ["alerts collect --key op.key --state state", "bundle publish bundle --service s"] {
        let said = format!("CSS {url} answers 500: boom \\x1b[31m\n");
        operator.fails(&format!("{command} --css-url {url} -u u:p"), 1, &said).await;
    }
}

/// Returns the fields of the metadata that sign a bare payload.
fn plain(meta: &MetaData) -> PlainFields {
    let MetaData { hash_algorithm, public_key, signature, .. } = meta.clone();
    PlainFields { hash_algorithm, public_key, signature }
}

async fn a_bundle_built_from_files_reaches_the_node_and_replaces_older_ones<H: Hub>(hub: Fixture<H>) {
    let (ess, css) = (hub.ess().unwrap(), hub.css().unwrap());
    let (kind, node) = hub.destination();
    let node = [format!("{kind}:{node}")];
    let listed = async |prefix: &str| {
        let deadline = Instant::now() + Duration::from_secs(30);
        // The agbot does this on a real hub.
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

    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let unseen =
        operator.run_with("bundle publish both.json --service hzn-armor", Some(full.into()), None).await;
    assert!(unseen.code == 1 && unseen.stderr.contains("standard output"), "{}", unseen.stderr);
    let published = operator.good("bundle publish both.json --service hzn-armor").await;
    assert!(published.contains("published hzn-armor.bundle/edge.7."), "{published}");
    let meta = listed("edge.7.").await;
    let node = NodeIdentity { org: "myorg".to_owned(), id: "node1".to_owned(), ..NodeIdentity::default() };
    let data = ess.data(BUNDLE_TYPE, &meta.object_id, 1 << 20).await.unwrap();
    let bundle =
        verify(&data, Some(&plain(&meta)), &trust, &node, &SerialFloor::new(), jiff::Timestamp::now())
            .unwrap();
    assert!(bundle.payload.policies[0].text.contains("# the comment stays"));
    assert_eq!(meta.object_id, format!("edge.7.{}", &bundle.digest[..12]));

    // The next serial, in hzn's own form, replaces the first.
    operator.good("keys generate hzn --type rsa").await;
    let trust = node_trust(&operator.path("node"), &operator.path("hzn.pem"));
    operator.good("bundle build --name edge --serial 8 certs.yaml --out payload.json").await;
    operator.fails("bundle publish payload.json --service hzn-armor --plain-key op.key", 1, "RSA").await;
    let published =
        operator.good("bundle publish payload.json --service hzn-armor --plain-key hzn.key").await;
    assert!(published.contains("removed hzn-armor.bundle/edge.7."), "{published}");
    let meta = listed("edge.8.").await;
    let data = ess.data(BUNDLE_TYPE, &meta.object_id, 1 << 20).await.unwrap();
    verify(&data, Some(&plain(&meta)), &trust, &node, &SerialFloor::new(), jiff::Timestamp::now()).unwrap();

    // A bundle with a lower serial is published, with a warning about the higher one.
    operator.good("bundle build --name edge --serial 6 certs.yaml --out payload.json").await;
    operator.good("bundle sign -k op.key payload.json --out late.json").await;
    let late = operator.run("bundle publish late.json --service hzn-armor").await;
    assert!(late.code == 0 && late.stderr.contains("higher serial"), "{}", late.stderr);
}
