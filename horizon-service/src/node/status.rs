//! Writes the agent's status to a file of the state directory, for the command `status`.
//!
//! Invariant: the agent holds a lock on the status file as long as its content is current. Thus an old status
//! never hides one that a full or failing disk keeps the agent from writing.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

use armor_alerts::status::{AgentReport, SpoolStats};
use armor_base::file;
use armor_base::replace::write_whole;
use armor_policy::model::Kind;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::base::disk::{DiskError, MAX_FILE, to_json};
use crate::base::report::{ContainerPolicyNames, InForce, Offline, PolicyName};
use crate::events::alerts::{AlertCounts, RESERVED};
use crate::workloads::runtime::RuntimeState;

/// Name of the status file in the state directory.
pub const FILE: &str = "status.json";

/// `Figures` are the kernel's counts since its BPF programs were loaded.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Figures {
    /// Number of refused accesses.
    pub blocked: u64,
    /// Number of accesses permitted with an alert.
    pub audited: u64,
    /// Number of alerts suppressed by rate limits.
    pub suppressed: u64,
    /// Number of alerts that the ring buffer had no room for.
    pub dropped: u64,
    /// Number of programs started in unidentified containers.
    pub unidentified: u64,
    /// Number of times that the kernel skipped a BPF program, and so permitted an access that might have been
    /// refused.
    pub skipped: u64,
}

/// `PolicyFigures` is a policy in force with its counts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct PolicyFigures {
    /// The name of the policy's bundle; empty for decisions that are of no bundle.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub bundle: String,
    /// The policy's name, or a reserved one for decisions without a policy: `DefaultPosture`,
    /// `UnresolvedPath`.
    pub name: String,
    /// True if the policy is for hosts; else it is for containers.
    pub host: bool,
    /// Number of workloads under the policy: containers, or the host.
    pub workloads: usize,
    /// The policy's alerts.
    #[serde(flatten)]
    pub seen: AlertCounts,
}

impl PolicyFigures {
    /// Returns the policies in force with what was `seen` of each, and those reserved names that have decided
    /// something.
    pub fn of(in_force: Option<&InForce>, seen: &BTreeMap<PolicyName, AlertCounts>) -> Vec<Self> {
        let Some(in_force) = in_force else { return Vec::new() };
        let figures = |name: &PolicyName, host, workloads| Self {
            bundle: name.bundle.clone(),
            name: name.policy.clone(),
            host,
            workloads,
            seen: seen.get(name).copied().unwrap_or_default(),
        };
        let policies = in_force
            .policies
            .iter()
            .map(|policy| figures(&policy.name, policy.kind == Kind::Host, policy.workloads));
        let reserved =
            RESERVED.into_iter().flat_map(|reserved| seen.keys().filter(move |name| name.policy == reserved));
        policies.chain(reserved.map(|name| figures(name, false, 0))).collect()
    }
}

/// `ContainerFigures` are the counts of the node's containers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ContainerFigures {
    /// Name or state of the container runtime.
    pub runtime: String,
    /// Number of known containers.
    pub known: usize,
    /// Number of containers under policies.
    pub ruled: usize,
    /// Each container with its policies.
    pub under: Vec<ContainerPolicyNames>,
}

impl ContainerFigures {
    /// Collects the figures.
    pub fn new(runtime: &RuntimeState, known: usize, in_force: Option<&InForce>) -> Self {
        let runtime = match runtime {
            RuntimeState::Starting => "not asked yet".to_owned(),
            RuntimeState::Absent => "none".to_owned(),
            RuntimeState::Connected { engine, .. } => engine.clone(),
            RuntimeState::Lost { since, .. } => format!("lost since {since:.0}"),
        };
        let (ruled, under) = in_force.map(|all| (all.containers, all.ruled.to_vec())).unwrap_or_default();
        Self { runtime, known, ruled, under }
    }
}

/// `Status` is the content of the status file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Status {
    /// The report as sent to the hub. It lacks `offline`, of which the hub could not be told.
    #[serde(flatten)]
    pub report: AgentReport,
    /// Since when and why nothing reaches the hub.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offline: Option<Offline>,
    /// The kernel's live generation of rules; 0 if none.
    pub generation: u32,
    /// The kernel's counts.
    pub kernel: Figures,
    /// The policies in force.
    pub policies: Vec<PolicyFigures>,
    /// The node's containers.
    pub containers: ContainerFigures,
    /// The spool's counts.
    pub spool: SpoolStats,
    /// Time of writing; the file is written whenever something in it changes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub updated: Option<Timestamp>,
}

impl Status {
    /// Returns the state's name.
    pub fn state_name(&self) -> &str {
        match (&self.offline, self.report.state.as_str()) {
            (Some(_), "enforcing" | "starting") => "offline",
            (_, state) => state,
        }
    }
}

/// A `StatusFile` writes the status file whenever the status changes.
pub struct StatusFile<'a> {
    dir: &'a Path,
    last: Status,
    /// The file with the content `last`, locked.
    current: Option<File>,
}

impl<'a> StatusFile<'a> {
    /// Creates a writer for the file in a state directory.
    pub fn new(dir: &'a Path) -> Self {
        Self { dir, last: Status::default(), current: None }
    }

    /// Writes `status` unless it equals the last one written.
    ///
    /// # Errors
    /// Fails with [`DiskError`] if the file cannot be written; its old content is no longer locked then.
    pub fn write(&mut self, status: Status) -> Result<(), DiskError> {
        if self.current.is_some() && status == self.last {
            return Ok(());
        }
        // The previous file's lock is released last, so that there is always a lock while all is well.
        let before = self.current.take();
        let path = self.dir.join(FILE);
        let text = to_json(&path, &Status { updated: Some(Timestamp::now()), ..status.clone() })?;
        let written = write_whole(&path, &text, false);
        self.current = Some(written.map_err(|error| DiskError::Io { path, error })?);
        self.last = status;
        drop(before);
        Ok(())
    }
}

/// Returns the offline state in the status of the previous run, since an outage does not end with the agent.
pub fn last_offline(state_dir: &Path) -> Option<Offline> {
    let text = file::read(&state_dir.join(FILE), MAX_FILE).ok()?;
    serde_json::from_slice::<Status>(&text).ok()?.offline
}
