//! These tests give `hzn-armor-agent` outputs that cannot be written and files that are not regular files.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Output, Stdio};

fn agent(dir: &Path, arguments: &str, stdout: Stdio) -> Output {
    // A command that waits forever fails instead of hanging the test.
    let mut command = Command::new("timeout");
    command.args(["60", env!("CARGO_BIN_EXE_hzn-armor-agent")]).args(arguments.split_whitespace());
    command.current_dir(dir).env_clear().env("PATH", "/usr/bin:/bin").stdout(stdout).stderr(Stdio::piped());
    command.spawn().unwrap().wait_with_output().unwrap()
}

fn node() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().display();
    let settings = format!("state_dir = \"{path}/state\"\npin_dir = \"{path}/pins\"\n");
    fs::write(dir.path().join("agent.toml"), settings).unwrap();
    dir
}

#[test]
fn an_output_that_takes_nothing_ends_every_command() {
    let dir = node();
    for command in ["--help", "--version", "probe", "probe --json", "status", "status --json", "detach"] {
        let command = if command.starts_with('-') {
            command.to_owned()
        } else {
            format!("--config agent.toml {command}")
        };
        let full = agent(dir.path(), &command, File::options().write(true).open("/dev/full").unwrap().into());
        let said = String::from_utf8(full.stderr).unwrap();
        assert_eq!(full.status.code(), Some(1), "{command}: {said}");
        assert!(said.starts_with("hzn-armor-agent: standard output: No space left"), "{command}: {said}");
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let closed = agent(dir.path(), &command, writer.into());
        let said = String::from_utf8(closed.stderr).unwrap();
        assert_eq!((closed.status.code(), said.as_str()), (Some(1), ""), "{command}");
        let script = format!("exec {} {command} >&-", env!("CARGO_BIN_EXE_hzn-armor-agent"));
        let never = Command::new("sh").args(["-c", &script]).current_dir(dir.path()).output().unwrap();
        let said = String::from_utf8(never.stderr).unwrap();
        assert_eq!((never.status.code(), said.as_str()), (Some(1), ""), "{command}");
    }
}

#[test]
fn the_version_names_the_program() {
    let said = agent(node().path(), "--version", Stdio::piped());
    assert!(String::from_utf8(said.stdout).unwrap().starts_with("hzn-armor-agent "));
}

#[test]
fn files_that_are_not_regular_are_refused_at_once() {
    let dir = node();
    rustix::fs::mkfifoat(rustix::fs::CWD, dir.path().join("pipe"), rustix::fs::Mode::RWXU).unwrap();
    for (file, kind) in [("pipe", "pipe (FIFO)"), ("/dev/zero", "device"), ("state", "directory")] {
        fs::create_dir_all(dir.path().join("state")).unwrap();
        for command in [format!("--config {file} status"), format!("try --policy {file} -- true")] {
            let said = agent(dir.path(), &command, Stdio::piped());
            let text = String::from_utf8(said.stderr).unwrap();
            assert_eq!(said.status.code(), Some(125), "{command}: {text}");
            assert!(text.contains(&format!("{file}: a {kind}, not a regular file")), "{command}: {text}");
        }
    }
}

#[test]
fn pipes_and_devices_at_the_agents_own_paths_are_named_at_once() {
    let policy = "apiVersion: security.kubearmor.com/v1\nkind: KubeArmorPolicy\nmetadata: {name: p}\nspec:\n  selector: \
                  {matchLabels: {a: b}}\n  file: {matchPaths: [{path: /no/such}]}\n";
    let pipe = |at: &Path| rustix::fs::mkfifoat(rustix::fs::CWD, at, rustix::fs::Mode::RWXU).unwrap();
    for (place, command, said) in [
        ("state/status.json", "status", "status.json: a KIND, not a regular file: remove it"),
        ("state/lock", "status", "lock: a KIND, not a regular file: remove it"),
        ("state/lock", "detach", "lock: a KIND, not a regular file: remove it"),
        ("state/lock", "run", "lock: a KIND, not a regular file: remove it"),
        ("pins", "detach", "pins: not a directory: remove what is there, or choose another `pin_dir`"),
        (
            "alerts",
            "try --policy p.yaml --alerts alerts -- true",
            "--alerts alerts: a KIND, not a regular file: name",
        ),
    ] {
        for (kind, make) in [
            ("pipe (FIFO)", &pipe as &dyn Fn(&Path)),
            ("device", &|at: &Path| symlink("/dev/zero", at).unwrap()),
        ] {
            let dir = node();
            fs::create_dir(dir.path().join("state")).unwrap();
            fs::write(dir.path().join("p.yaml"), policy).unwrap();
            make(&dir.path().join(place));
            let done = agent(dir.path(), &format!("--config agent.toml {command}"), Stdio::piped());
            let text = String::from_utf8(done.stderr).unwrap();
            assert_eq!(done.status.code(), Some(125), "{command}, {place}: {text}");
            assert!(text.contains(&said.replace("KIND", kind)), "{command}, {place}: {text}");
        }
    }
}

#[test]
fn names_that_are_no_text_are_taken_and_shown_as_their_bytes() {
    let dir = node();
    let name = OsStr::from_bytes(b"a\xff\x1b[31m");
    let command = |arguments: &[&OsStr]| {
        let done = Command::new(env!("CARGO_BIN_EXE_hzn-armor-agent"))
            .args(arguments)
            .current_dir(dir.path())
            .output();
        String::from_utf8(done.unwrap().stderr).unwrap()
    };
    let [tried, policy, end] = ["try", "--policy", "--"].map(OsStr::new);
    for arguments in
        [&[OsStr::new("--config"), name, OsStr::new("status")][..], &[tried, policy, name, end, name]]
    {
        let said = command(arguments);
        assert!(said.contains(r"a\xff\x1b[31m: No such file"), "{said}");
    }
}

#[test]
fn alerts_are_not_written_over_a_policy() {
    let dir = node();
    fs::write(dir.path().join("policy.yaml"), "content").unwrap();
    fs::hard_link(dir.path().join("policy.yaml"), dir.path().join("hard")).unwrap();
    for alerts in ["policy.yaml", "./policy.yaml", "hard"] {
        let said =
            agent(dir.path(), &format!("try --policy policy.yaml --alerts {alerts} -- true"), Stdio::piped());
        let text = String::from_utf8(said.stderr).unwrap();
        assert!(said.status.code() == Some(125) && text.contains("is one of the policy files"), "{text}");
    }
    assert_eq!(fs::read_to_string(dir.path().join("policy.yaml")).unwrap(), "content");
}
