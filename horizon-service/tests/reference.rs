//! These tests check that `docs/reference.md` lists the commands, settings and exit statuses of
//! `hzn-armor-agent`.
#![allow(clippy::unwrap_used)]

use std::process::{Command, Output};

use armor_contract_tests::reference::{compare, help, table};

const AGENT: &str = env!("CARGO_BIN_EXE_hzn-armor-agent");

fn agent(arguments: &[&str]) -> Output {
    Command::new(AGENT).args(arguments).env_clear().output().unwrap()
}

#[test]
fn commands() {
    compare("hzn-armor-agent", &help("hzn-armor-agent", AGENT).unwrap()).unwrap();
}

#[test]
fn settings() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("agent.toml");
    std::fs::write(&file, "no_such = 1\n").unwrap();
    let said = agent(&["--config", file.to_str().unwrap(), "status"]);
    assert_eq!(said.status.code(), Some(125));
    let said = String::from_utf8(said.stderr).unwrap();
    let (_, keys) = said.trim().split_once("there are ").unwrap();
    let rows = table("## Settings of the agent").unwrap();
    let mut documented: Vec<&str> = rows.iter().map(|row| row[0].as_str()).collect();
    documented.sort_unstable();
    assert_eq!(documented.join(", "), keys);
    // The agent.toml that is shipped names the same settings, with their defaults.
    let sample = include_str!("../agent.toml");
    for row in &rows {
        let line = format!("#{} = {}", row[0], row[1]);
        assert!(sample.lines().any(|found| found == line), "agent.toml does not have {line}");
    }
    assert_eq!(
        sample.lines().filter(|line| line.contains(" = ") && !line.starts_with("# ")).count(),
        rows.len()
    );
}

#[test]
fn statuses() {
    let documented = |status: &str| {
        let rows = table("## Exit statuses").unwrap();
        assert!(rows.iter().any(|row| row[0] == "hzn-armor-agent" && row[1] == status), "{status}");
    };
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("agent.toml");
    std::fs::write(&file, format!("state_dir = \"{}\"\n", dir.path().display())).unwrap();
    let config = file.to_str().unwrap();
    for (arguments, status) in [
        (&["--help"][..], 0),
        (&["--config", config, "status"], 1),
        (&["no-such"], 2),
        (&["--config", "/no/such", "status"], 125),
    ] {
        assert_eq!(agent(arguments).status.code(), Some(status), "{arguments:?}");
        documented(&status.to_string());
    }
}
