//! Keeps the facts about the agent in one place and turns them into reports.
//!
//! The state's name follows from the facts and is never set: `degraded` if there is a [`Problem`], or if a
//! bundle has only policies for hosts and none of them selects this one, `starting` while no bundle was
//! accepted or the enforcement proof is missing, else `enforcing`. The hub gets [`AgentReport`]; only the
//! node itself knows whether it is `offline`.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use armor_alerts::status::{AgentReport, BundleReport, Refused};
use armor_bundle::payload::AlreadyHeld;
use armor_policy::model::Kind;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

/// Maximum number of refused bundles kept.
const MAX_REFUSED: usize = 16;
/// Maximum number of policies of a bundle that are reported to select nothing, so that the report stays small
/// enough for the collector.
const MAX_IDLE: usize = 32;
/// Maximum length of a reported reason, in characters; a bundle may be wrong in many places.
const MAX_REASON: usize = 2000;

/// A `Problem` keeps the node from its work; each is present at most once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Problem {
    /// The kernel does not enforce at all.
    Kernel,
    /// Enforcement ends with the agent.
    Pins,
    /// The accepted bundles are not in force.
    Swap,
    /// Stored bundles are left out, because they no longer compile with the others.
    LeftOut,
    /// Not all containers can be put under their rules.
    Containers,
    /// Rules for USB devices do not hold for all of them.
    Devices,
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

/// `InForce` describes what is in force.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InForce {
    /// The accepted bundles, ordered by name.
    pub bundles: Vec<BundleInForce>,
    /// Number of containers under rules.
    pub containers: usize,
    /// The policies of all bundles.
    pub policies: Arc<[PolicyInForce]>,
    /// All containers, each with its policies.
    pub ruled: Arc<[ContainerPolicyNames]>,
    /// Notes on rules without effect, and what to write instead.
    pub notes: Vec<String>,
}

/// A `BundleInForce` describes an accepted bundle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BundleInForce {
    /// The bundle's name.
    pub name: String,
    /// The bundle's serial.
    pub serial: u64,
    /// Time of expiry; an expired bundle stays in force.
    pub expires: Timestamp,
    /// Number of its policies that select something on this node.
    pub selected: usize,
    /// Names of its policies that select nothing.
    pub idle: Vec<String>,
    /// True if it has policies for containers, which may come at any time.
    pub for_containers: bool,
    /// The bundle's setting for processes with preexisting handles that the policies refuse.
    pub already_held: AlreadyHeld,
}

impl BundleInForce {
    /// Returns the number of its policies.
    pub fn policy_count(&self) -> usize {
        self.selected + self.idle.len()
    }
}

/// A `PolicyName` names a policy on the node, where two bundles may have policies of one name. It is shown as
/// `bundle/policy`.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct PolicyName {
    /// The name of the policy's bundle; empty for decisions that are of no bundle.
    pub bundle: String,
    /// The policy's name.
    pub policy: String,
}

impl fmt::Display for PolicyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.bundle.is_empty() {
            write!(f, "{}/", self.bundle)?;
        }
        f.write_str(&self.policy)
    }
}

/// A `PolicyInForce` is a policy of a bundle in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyInForce {
    /// The policy's name.
    pub name: PolicyName,
    /// Kind of the policy, for hosts or containers.
    pub kind: Kind,
    /// Number of workloads under the policy: containers, or the host.
    pub workloads: usize,
}

/// `ContainerPolicyNames` is a container with its policies.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ContainerPolicyNames {
    /// The container's id, 64 hexadecimal digits.
    pub id: String,
    /// The container's name.
    pub name: String,
    /// Names of the policies that select it, as `bundle/policy`.
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
    /// What is in force; `None` if no bundle was accepted so far, or no stored one compiles.
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
            None if self.problems.contains_key(&Problem::LeftOut) => {}
            None => reasons.push("no bundle was accepted so far: nothing is enforced".to_owned()),
            Some(in_force) => {
                for bundle in &in_force.bundles {
                    let BundleInForce { name, expires, idle, .. } = bundle;
                    if bundle.policy_count() == 0 {
                        reasons.push(format!(
                            "bundle {name} has no policies: what it enforced before is lifted"
                        ));
                    } else if bundle.selected == 0 && !bundle.for_containers {
                        degraded = true;
                        reasons.push(format!(
                            "bundle {name}: nothing is enforced: none of its {} policies selects this node",
                            idle.len()
                        ));
                    } else if *expires <= Timestamp::now() {
                        reasons.push(format!("bundle {name} expired at {expires}"));
                    }
                    reasons.extend(
                        idle.iter()
                            .take(MAX_IDLE)
                            .map(|policy| format!("policy {name}/{policy}: no workload selected")),
                    );
                    if idle.len() > MAX_IDLE {
                        let more = idle.len() - MAX_IDLE;
                        reasons.push(format!("{more} more policies of bundle {name}: no workload selected"));
                    }
                }
                reasons.extend(in_force.notes.iter().map(|note| shortened(note)));
            }
        }
        let state = match (degraded, &self.in_force) {
            (true, _) => "degraded",
            (false, Some(_)) if self.proven => "enforcing",
            (false, _) => "starting",
        };
        let bundles = self.in_force.iter().flat_map(|in_force| &in_force.bundles).map(|bundle| {
            BundleReport { name: bundle.name.clone(), serial: bundle.serial, policies: bundle.policy_count() }
        });
        let refused = self.refused.iter().cloned().collect();
        AgentReport { state: state.to_owned(), since: None, reasons, bundles: bundles.collect(), refused }
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
            let is_same_state = (&new.state, &new.bundles) == (&old.state, &old.bundles);
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
        Some(InForce { bundles: vec![bundle("edge", selected, idle)], ..InForce::default() })
    }

    fn bundle(name: &str, selected: usize, idle: &[&str]) -> BundleInForce {
        BundleInForce {
            name: name.to_owned(),
            serial: 2,
            expires: "2099-01-01T00:00:00Z".parse().unwrap(),
            selected,
            idle: idle.iter().map(|name| (*name).to_owned()).collect(),
            for_containers: false,
            already_held: AlreadyHeld::Report,
        }
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
        assert_eq!(facts.report().reasons, ["policy edge/web: no workload selected"]);
        facts.in_force = in_force(0, &["web"]);
        assert_eq!(word(&facts), "degraded", "nothing is enforced although the bundle has policies");
        let bundles = vec![BundleInForce { for_containers: true, ..bundle("edge", 0, &["web"]) }];
        facts.in_force = Some(InForce { bundles, ..InForce::default() });
        assert_eq!(word(&facts), "enforcing", "its containers may come");
        let bundles = vec![bundle("edge", 1, &[]), bundle("fleet", 0, &["db"])];
        facts.in_force = Some(InForce { bundles, ..InForce::default() });
        assert_eq!(word(&facts), "degraded", "one of two bundles enforces nothing");
        let reason = "bundle fleet: nothing is enforced: none of its 1 policies selects this node";
        assert_eq!(facts.report().reasons, [reason, "policy fleet/db: no workload selected"]);
        let many: Vec<String> = (0..50).map(|number| format!("p{number}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let idle = HealthFacts { in_force: in_force(1, &many), ..HealthFacts::default() }.report().reasons;
        assert_eq!(
            (idle.len(), idle[32].as_str()),
            (33, "18 more policies of bundle edge: no workload selected")
        );
        let reported = facts.report().bundles.into_iter().map(|bundle| (bundle.name, bundle.policies));
        assert_eq!(reported.collect::<Vec<_>>(), [("edge".to_owned(), 1), ("fleet".to_owned(), 1)]);
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
