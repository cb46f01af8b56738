//! `status`: what the running agent last said about itself, and whether there is one.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::Path;

use anyhow::Context as _;
use armor_hub_client::console;
use armor_hub_client::status::{AgentReport, SpoolStats};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::owner::Claim;
use crate::report::{InForce, Offline};
use crate::runtime::RuntimeState;
use crate::state::write_whole;

const FILE: &str = "status.json";

/// What the kernel counted since its programs were loaded.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Figures {
    /// Accesses refused.
    pub blocked: u64,
    /// Accesses permitted with an alert.
    pub audited: u64,
    /// Alerts kept back by rate limits.
    pub suppressed: u64,
    /// Alerts that the ring had no room for.
    pub dropped: u64,
    /// Programs started in containers that the agent had not named yet.
    pub strangers: u64,
}

/// The node's containers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ContainerFigures {
    /// What runs them, in words.
    pub runtime: String,
    /// How many are known.
    pub known: usize,
    /// How many are under policies of their own.
    pub ruled: usize,
}

impl ContainerFigures {
    /// How it stands.
    pub fn new(runtime: &RuntimeState, known: usize, in_force: Option<&InForce>) -> Self {
        let runtime = match runtime {
            RuntimeState::Starting => "not asked yet".to_owned(),
            RuntimeState::Absent => "none".to_owned(),
            RuntimeState::Connected { engine, .. } => engine.clone(),
            RuntimeState::Lost { since, .. } => format!("lost since {since:.0}"),
        };
        Self { runtime, known, ruled: in_force.map_or(0, |bundle| bundle.containers) }
    }
}

/// What the agent says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Status {
    /// As told to the hub, but for `offline`, which the hub cannot be told.
    #[serde(flatten)]
    pub report: AgentReport,
    /// Since when and why nothing gets to the hub.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offline: Option<Offline>,
    /// The kernel's live generation of rules; 0 if none.
    pub generation: u32,
    /// What the kernel counted.
    pub kernel: Figures,
    /// The node's containers.
    pub containers: ContainerFigures,
    /// Alerts on disk.
    pub spool: SpoolStats,
    /// When this was written, which is whenever anything in it changes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub updated: Option<Timestamp>,
}

impl Status {
    /// The state in a word.
    fn word(&self) -> &str {
        match (&self.offline, self.report.state.as_str()) {
            (Some(_), "enforcing" | "starting") => "offline",
            (_, word) => word,
        }
    }
}

/// Writes the status for `status` to read, if it changed.
pub struct StatusFile<'a> {
    dir: &'a Path,
    last: Status,
}

impl<'a> StatusFile<'a> {
    /// The file in a state directory.
    pub fn new(dir: &'a Path) -> Self {
        Self { dir, last: Status::default() }
    }

    /// Writes `status` if it is not what was written last.
    pub fn write(&mut self, status: Status) {
        if status == self.last {
            return;
        }
        let stamped = Status { updated: Some(Timestamp::now()), ..status.clone() };
        let written = serde_json::to_vec_pretty(&stamped)
            .map_err(std::io::Error::other)
            .and_then(|text| write_whole(&self.dir.join(FILE), &text, false));
        match written {
            Ok(()) => self.last = status,
            Err(error) => tracing::error!("{}: {error}", self.dir.join(FILE).display()),
        }
    }
}

/// What `status` found.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Found {
    running: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<String>,
    /// Whether enforcement is pinned, and so goes on without an agent.
    pinned: bool,
    #[serde(flatten)]
    status: Status,
}

/// Prints the status; exit status 0 if an agent runs, 1 if not.
///
/// # Errors
/// If the state directory cannot be read.
pub fn show(state_dir: &Path, pin_dir: &Path, json: bool) -> anyhow::Result<u8> {
    let found = look(state_dir, pin_dir)?;
    let text = if json { serde_json::to_string_pretty(&found)? + "\n" } else { text(&found, pin_dir) };
    console::stdout().write_all(text.as_bytes())?;
    Ok(u8::from(!found.running))
}

fn look(state_dir: &Path, pin_dir: &Path) -> anyhow::Result<Found> {
    let pid = Claim::State(state_dir).holder()?.map(|holder| holder.pid);
    let path = state_dir.join(FILE);
    let mut status = match fs::read(&path) {
        Ok(text) => serde_json::from_slice(&text).with_context(|| format!("{}", path.display()))?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Status::default(),
        Err(error) => return Err(error).with_context(|| format!("{}", path.display())),
    };
    status.report.state = if pid.is_some() { status.word().to_owned() } else { "not running".to_owned() };
    let pinned = fs::read_dir(pin_dir).is_ok_and(|mut entries| entries.next().is_some());
    Ok(Found { running: pid.is_some(), pid, pinned, status })
}

fn text(found: &Found, pin_dir: &Path) -> String {
    let Status { report, offline, generation, kernel, containers, spool, updated } = &found.status;
    let at =
        |moment: &Option<Timestamp>| moment.map_or("unknown".to_owned(), |moment| format!("{moment:.0}"));
    let mut text = String::new();
    let mut line = |name: &str, value: &str| {
        // Writing into a String cannot fail.
        let _ = writeln!(text, "{name:<12}{value}");
    };
    if found.running {
        line("state", &format!("{} since {}", report.state, at(&report.since)));
    } else {
        line("state", &format!("the agent is NOT running; what follows it said last, at {}", at(updated)));
    }
    line(
        "pinned",
        &match (found.pinned, found.running) {
            (true, true) => format!("yes, below {}: enforcement outlives the agent", pin_dir.display()),
            (true, false) => {
                format!(
                    "yes, below {}: enforcement goes on; `hzn-armor-agent detach` ends it",
                    pin_dir.display()
                )
            }
            (false, _) => "no".to_owned(),
        },
    );
    match report.bundle.as_str() {
        "" => line("bundle", "none"),
        name => line("bundle", &format!("{name} serial {}, generation {generation}", report.bundle_serial)),
    }
    for reason in &report.reasons {
        line("because", reason);
    }
    if let Some(Offline { since, reason }) = offline {
        line("offline", &format!("since {since:.0}: {reason}"));
    }
    let ContainerFigures { runtime, known, ruled } = containers;
    line("containers", &format!("{known} known, {ruled} under policies; runtime: {runtime}"));
    if kernel.strangers > 0 {
        line(
            "strangers",
            &format!(
                "{} programs started in containers not named yet, under all policies for containers",
                kernel.strangers
            ),
        );
    }
    line("accesses", &format!("{} blocked, {} audited", kernel.blocked, kernel.audited));
    let waiting = spool.last.saturating_sub(spool.receipted);
    line(
        "alerts",
        &format!(
            "{waiting} spooled of {}, {} suppressed, {} dropped",
            spool.last, kernel.suppressed, kernel.dropped
        ),
    );
    if spool.evicted + spool.unwritten > 0 {
        line("lost", &format!("{} evicted, {} not written", spool.evicted, spool.unwritten));
    }
    for refused in &report.refused {
        line("refused", &format!("{} ({}): {}", refused.object, refused.code, refused.reason));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_whether_an_agent_runs_and_whether_enforcement_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let pins = dir.path().join("pins");
        let state = dir.path().join("state");
        let lock = Claim::State(&state).take().unwrap().unwrap();
        let mut file = StatusFile::new(&state);
        let report = AgentReport {
            state: "enforcing".into(),
            bundle: "edge".into(),
            bundle_serial: 7,
            ..AgentReport::default()
        };
        let mut status = Status { report, ..Status::default() };
        file.write(status.clone());
        let found = look(&state, &pins).unwrap();
        assert_eq!(
            (found.running, found.pinned, found.status.report.state.as_str()),
            (true, false, "enforcing")
        );
        status.offline = Some(Offline { since: Timestamp::now(), reason: "refused".into() });
        status.kernel.strangers = 3;
        file.write(status);
        assert_eq!(look(&state, &pins).unwrap().status.report.state, "offline");
        fs::create_dir_all(pins.join("v1")).unwrap();
        drop(lock);
        let found = look(&state, &pins).unwrap();
        assert!(!found.running && found.pinned);
        let text = text(&found, &pins);
        for part in
            ["NOT running", "enforcement goes on", "edge serial 7", "offline     since", "strangers   3"]
        {
            assert!(text.contains(part), "{part} in {text}");
        }
        let json = serde_json::to_value(&found).unwrap();
        assert_eq!((&json["State"], &json["BundleSerial"]), (&"not running".into(), &7.into()));
    }

    #[test]
    fn an_agent_that_never_ran_is_no_error() {
        let dir = tempfile::tempdir().unwrap();
        let found = look(&dir.path().join("no"), &dir.path().join("pins")).unwrap();
        assert!(!found.running && text(&found, dir.path()).contains("bundle      none"));
    }
}
