//! Keeps the facts about the agent in one place and turns them into reports.
//!
//! The state's name follows from the facts and is never set: `degraded` if there is a [`Problem`] or the
//! bundle has policies but none of them selects anything, `starting` while no bundle was accepted or the
//! enforcement proof is missing, else `enforcing`. The hub gets [`AgentReport`]; only the node itself knows
//! whether it is `offline`.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use armor_alerts::status::{AgentReport, Refused};
use armor_bundle::payload::{AlreadyHeld, OnAgentStop};
use armor_policy::model::Kind;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

/// Maximum number of refused bundles kept.
const MAX_REFUSED: usize = 16;
/// Maximum length of a reported reason, in characters; a bundle may be wrong in many places.
const MAX_REASON: usize = 2000;

/// A `Problem` keeps the node from its work; each is present at most once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Problem {
    /// The kernel does not enforce at all.
    Kernel,
    /// Enforcement ends with the agent.
    Pins,
    /// The bundle accepted last is not in force.
    Swap,
    /// Not all containers can be put under their rules.
    Containers,
    /// The container runtime does not answer.
    Runtime,
    /// The agent itself is not exempt from the rules.
    Exemption,
    /// Files of the state directory are damaged.
    State,
    /// The status cannot be written to the state directory.
    Unwritten,
    /// Bundles cannot be stored or processed.
    Intake,
    /// Files in the bundle directory cannot be used.
    Directory,
    /// Pinned keys cannot be read or changed.
    Trust,
    /// Alerts cannot be stored.
    Spool,
    /// The node has no key to sign with; alerts and status are not sent.
    NodeKey,
    /// Horizon's variables are missing or invalid.
    Horizon,
}

/// `InForce` describes the bundle in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InForce {
    /// The bundle's name.
    pub bundle: String,
    /// The bundle's serial.
    pub serial: u64,
    /// Time of expiry; an expired bundle stays in force.
    pub expires: Timestamp,
    /// Number of policies that select something on this node.
    pub selected: usize,
    /// Names of the policies that select nothing.
    pub idle: Vec<String>,
    /// True if there are policies for containers, which may come at any time.
    pub for_containers: bool,
    /// Number of containers under the bundle's rules.
    pub containers: usize,
    /// The bundle's policies.
    pub policies: Arc<[PolicyInForce]>,
    /// All containers, each with the names of its policies.
    pub ruled: Arc<[ContainerRules]>,
    /// Notes on rules without effect, and what to write instead.
    pub notes: Vec<String>,
    /// The bundle's setting for enforcement after an orderly stop of the agent.
    pub on_agent_stop: OnAgentStop,
    /// The bundle's setting for processes with preexisting handles that the policies refuse.
    pub already_held: AlreadyHeld,
}

/// A `PolicyInForce` is a policy of the bundle in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyInForce {
    /// The policy's name.
    pub name: String,
    /// Kind of the policy, for hosts or containers.
    pub kind: Kind,
    /// Number of workloads under the policy: containers, or the host.
    pub workloads: usize,
}

/// `ContainerRules` is a container with its policies.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ContainerRules {
    /// The container's id, 64 hexadecimal digits.
    pub id: String,
    /// The container's name.
    pub name: String,
    /// Names of the policies that select it.
    pub policies: Vec<String>,
}

/// An `Offline` says since when and why ESS or hub do not answer, or nothing reaches the hub.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Offline {
    /// Time of the hub's last known answer, or of the first failure if there is none.
    pub since: Timestamp,
    /// The latest reason.
    pub reason: String,
}

impl Offline {
    /// Returns the start of an outage that is noticed now: that of `before` if it is the same outage, else
    /// the time `reached` of the last contact.
    pub fn since(before: Option<Self>, reached: Option<Timestamp>) -> Timestamp {
        before.map(|offline| offline.since).or(reached).unwrap_or_else(Timestamp::now)
    }
}

/// `HealthFacts` are the facts that the report follows from.
#[derive(Debug, Clone, Default)]
pub struct HealthFacts {
    /// True if an access was seen to be refused; only then the agent reports that it enforces.
    pub proven: bool,
    /// The present problems, each with its reason.
    pub problems: BTreeMap<Problem, String>,
    /// The bundle in force.
    pub in_force: Option<InForce>,
    /// The latest refused bundles.
    pub refused: VecDeque<Refused>,
    /// Set while the ESS, or the hub, does not answer.
    pub offline: Option<Offline>,
}

impl HealthFacts {
    /// Adds a refused bundle.
    pub fn refuse(&mut self, object: &str, code: &str, reason: &str) {
        self.refused.retain(|refused| refused.object != object);
        if self.refused.len() == MAX_REFUSED {
            self.refused.pop_front();
        }
        let (object, code) = (object.to_owned(), code.to_owned());
        self.refused.push_back(Refused { object, code, reason: shortened(reason), at: Timestamp::now() });
    }

    fn report(&self) -> AgentReport {
        let mut reasons: Vec<String> = self.problems.values().map(|reason| shortened(reason)).collect();
        let mut degraded = !reasons.is_empty();
        match &self.in_force {
            None => reasons.push("no bundle was accepted so far: nothing is enforced".to_owned()),
            Some(in_force) => {
                let count = in_force.idle.len();
                if in_force.selected == 0 && !in_force.for_containers {
                    degraded |= count > 0;
                    reasons.push(format!(
                        "nothing is enforced: none of the bundle's {count} policies selects this node"
                    ));
                } else if in_force.expires <= Timestamp::now() {
                    reasons.push(format!("the bundle expired at {}", in_force.expires));
                }
                reasons
                    .extend(in_force.idle.iter().map(|name| format!("policy {name}: no workload selected")));
                reasons.extend(in_force.notes.iter().map(|note| shortened(note)));
            }
        }
        let state = match (degraded, &self.in_force) {
            (true, _) => "degraded",
            (false, Some(_)) if self.proven => "enforcing",
            (false, _) => "starting",
        };
        let (bundle, bundle_serial) =
            self.in_force.as_ref().map(|bundle| (bundle.bundle.clone(), bundle.serial)).unwrap_or_default();
        let refused = self.refused.iter().cloned().collect();
        AgentReport { state: state.to_owned(), since: None, reasons, bundle, bundle_serial, refused }
    }
}

fn shortened(text: &str) -> String {
    let mut short: String = text.chars().take(MAX_REASON).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

/// A `Reporter` turns the facts, which any task may change, into reports.
pub struct Reporter {
    facts: Mutex<HealthFacts>,
    report: watch::Sender<AgentReport>,
}

impl Reporter {
    /// Creates a reporter without facts.
    pub fn new() -> Self {
        let first = AgentReport { since: Some(Timestamp::now()), ..HealthFacts::default().report() };
        Self { facts: Mutex::default(), report: watch::Sender::new(first) }
    }

    /// Returns a receiver of the reports from now on.
    pub fn reports(&self) -> watch::Receiver<AgentReport> {
        self.report.subscribe()
    }

    /// Returns a copy of the facts.
    pub fn facts(&self) -> HealthFacts {
        self.read(HealthFacts::clone)
    }

    /// Reads facts without a copy of all of them. `read` must not call this reporter.
    pub fn read<T>(&self, read: impl FnOnce(&HealthFacts) -> T) -> T {
        read(&self.facts.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Changes facts, and publishes the report if it differs. `change` must not call this reporter.
    pub fn change(&self, change: impl FnOnce(&mut HealthFacts)) {
        // Locked until the report is published, so that no older one comes after it.
        let mut facts = self.facts.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut facts);
        let mut new = facts.report();
        self.report.send_if_modified(|old| {
            let is_same_state =
                (&new.state, &new.bundle, new.bundle_serial) == (&old.state, &old.bundle, old.bundle_serial);
            new.since = if is_same_state { old.since } else { Some(Timestamp::now()) };
            if *old == new {
                return false;
            }
            if old.state != new.state {
                tracing::info!(reasons = ?new.reasons, "state: {}", new.state);
            }
            *old = new;
            true
        });
    }

    /// Sets or clears one problem, and returns whether its reason changed. Only a changed reason belongs in
    /// the log, however often the failing attempt is repeated.
    pub fn problem(&self, problem: Problem, reason: Option<String>) -> bool {
        let mut is_news = false;
        self.change(|facts| {
            is_news = facts.problems.get(&problem) != reason.as_ref();
            match reason {
                Some(reason) => facts.problems.insert(problem, reason),
                None => facts.problems.remove(&problem),
            };
        });
        is_news
    }
}

impl Default for Reporter {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn in_force(selected: usize, idle: &[&str]) -> Option<InForce> {
        Some(InForce {
            bundle: "edge".into(),
            serial: 2,
            expires: "2099-01-01T00:00:00Z".parse().unwrap(),
            selected,
            idle: idle.iter().map(|name| (*name).to_owned()).collect(),
            for_containers: false,
            containers: 0,
            policies: Arc::default(),
            ruled: Arc::default(),
            notes: Vec::new(),
            on_agent_stop: OnAgentStop::Keep,
            already_held: AlreadyHeld::Report,
        })
    }

    #[test]
    fn the_state_follows_from_the_facts() {
        let word = |facts: &HealthFacts| facts.report().state;
        let mut facts = HealthFacts::default();
        assert_eq!(word(&facts), "starting");
        facts.in_force = in_force(1, &["web"]);
        assert_eq!(word(&facts), "starting", "nobody saw a denial so far");
        facts.proven = true;
        assert_eq!(word(&facts), "enforcing");
        assert_eq!(facts.report().reasons, ["policy web: no workload selected"]);
        facts.in_force = in_force(0, &["web"]);
        assert_eq!(word(&facts), "degraded", "nothing is enforced although the bundle has policies");
        facts.in_force = in_force(0, &["web"]).map(|bundle| InForce { for_containers: true, ..bundle });
        assert_eq!(word(&facts), "enforcing", "its containers may come");
        facts.in_force = in_force(0, &[]);
        assert_eq!(word(&facts), "enforcing", "lifted, as the bundle says");
        facts.problems.insert(Problem::Kernel, "no BPF".into());
        assert_eq!((word(&facts).as_str(), facts.report().reasons[0].as_str()), ("degraded", "no BPF"));
    }

    #[test]
    fn only_news_are_reported_and_since_is_that_of_the_state() {
        let reporter = Reporter::new();
        let mut reports = reporter.reports();
        reporter.change(|_| {});
        assert!(!reports.has_changed().unwrap());
        let since = reports.borrow().since;
        reporter.change(|facts| facts.refuse("edge.1.x", "unsigned", &"x".repeat(5000)));
        assert!(reports.has_changed().unwrap());
        let report = reports.borrow_and_update().clone();
        assert_eq!((report.since, report.refused.len()), (since, 1));
        assert!(report.refused[0].reason.chars().count() <= MAX_REASON + 1);
        let problem = |reason: &str| reporter.problem(Problem::Containers, Some(reason.to_owned()));
        assert_eq!(["full", "full", "failing"].map(problem), [true, false, true]);
        assert_eq!([0; 2].map(|_| reporter.problem(Problem::Containers, None)), [true, false]);
        reporter.change(|facts| facts.in_force = in_force(1, &[]));
        assert!(reports.borrow().since > since);
        for n in 0..40 {
            reporter.change(|facts| facts.refuse(&format!("o{n}"), "unsigned", ""));
        }
        assert_eq!(reports.borrow().refused.len(), MAX_REFUSED);
    }
}
