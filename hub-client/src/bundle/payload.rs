//! The payload of a bundle: the JSON whose bytes are signed.
//!
//! A field that is not known is an error, so that a node never enforces less than was signed. What a newer agent would understand
//! is asked for in `requires`, which is read first.

use std::collections::BTreeSet;

use armor_policy::diagnostics::Diagnostic;
use armor_policy::model::{MAX_DESCRIPTIONS, Rule};
use armor_policy::{Diagnostics, Policy};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::constraint::{Constraint, ConstraintError};
use super::version::Version;
use crate::mms::check_name;
use crate::trust::TrustChanges;

/// The format that this version reads and writes; no other document of the same signer has it.
pub const FORMAT: &str = "horizon-armor.bundle/1";
/// The version that `requires.agent` is compared with.
pub const AGENT_VERSION: &str = env!("CARGO_PKG_VERSION");
/// The longest name of a bundle, so that the object's id stays short, in bytes.
pub const MAX_BUNDLE_NAME: usize = 100;
/// How far a serial may be ahead of the time, in seconds since 1970: a hundred years.
///
/// A node keeps the highest serial that it accepted for ever, so one that nothing passes would end all updates of the name. The
/// bound rises with the time: whatever was accepted, a second later the serial above it is acceptable. It is so wide that a
/// clock which stands at 1970, as without a battery, refuses no serial that is the time.
pub const MAX_AHEAD: u64 = 100 * 31_557_600;
/// The most policy files in a bundle.
pub const MAX_FILES: usize = 1000;

/// What a bundle says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Payload {
    /// [`FORMAT`].
    pub format: String,
    /// Serials count per name.
    pub name: String,
    /// Rises with every bundle of the name.
    pub serial: u64,
    /// When it was made.
    pub created: Timestamp,
    /// Not accepted after this; goes on being enforced.
    pub expires: Timestamp,
    /// Which nodes it is for.
    pub target: Target,
    /// What the node must be able to do.
    #[serde(default, skip_serializing_if = "Requires::is_empty")]
    pub requires: Requires,
    /// How the policies are enforced.
    #[serde(default)]
    pub settings: Settings,
    /// The policies. None at all lifts the enforcement of earlier bundles of the name.
    pub policies: Vec<PolicyFile>,
    /// Changes to the keys that the node believes.
    #[serde(default, skip_serializing_if = "TrustChanges::is_empty")]
    pub trust: TrustChanges,
}

/// Which nodes a bundle is for: those that fulfil every part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// The nodes' org.
    pub org: String,
    /// Node ids; every node where empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<String>,
    /// Constraints on node properties, all of which must hold.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub constraints: Vec<String>,
}

/// What a node must be able to do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Requires {
    /// The lowest version of the agent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
}

impl Requires {
    fn is_empty(&self) -> bool {
        self.agent.is_none()
    }
}

/// How the policies are enforced.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
pub struct Settings {
    /// What happens to what an allow-list does not list.
    pub posture: Postures,
    /// The most alerts per second and rule; the rest is counted. The agent's own limit where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alerts_per_second: Option<u32>,
    /// What becomes of enforcement when the agent is stopped in good order.
    pub on_agent_stop: OnAgentStop,
    /// What becomes of a process that holds what the policies refuse, from before they came.
    pub already_held: AlreadyHeld,
    /// Whether a program that has rights by `fromSource` starts as if it were setuid: the dynamic loader then takes no library,
    /// and no path to one, from who starts it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub secure_sources: bool,
}

/// Default postures.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Postures {
    /// For files and programs.
    pub file: Posture,
}

/// What happens to what an allow-list does not list.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Posture {
    /// It is permitted and reported.
    #[default]
    Audit,
    /// It is denied.
    Block,
}

/// What becomes of enforcement when the agent is stopped in good order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnAgentStop {
    /// It stays.
    #[default]
    Keep,
    /// It ends.
    Lift,
}

/// What becomes of a process that holds what the policies refuse: a descriptor, a mapping or its own program, from before
/// they came.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AlreadyHeld {
    /// It is reported and goes on.
    #[default]
    Report,
    /// It is reported and killed, but for process 1.
    Kill,
}

/// One file of policies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyFile {
    /// Its name, `[A-Za-z0-9._-]`; what diagnostics call it.
    pub file: String,
    /// Its YAML, comments kept.
    pub text: String,
}

/// Why a payload is not one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PayloadError {
    /// More than [`super::MAX_PAYLOAD`] bytes.
    #[error("the payload has {0} bytes, {max} are allowed", max = super::MAX_PAYLOAD)]
    TooLarge(usize),
    /// It asks for something that this agent does not do.
    #[error("{0}")]
    Unsupported(String),
    /// JSON that does not have the payload's fields.
    #[error("not a payload: {0}")]
    Json(String),
    /// A value that cannot be meant.
    #[error("{field}: {problem}")]
    Value {
        /// The field.
        field: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// A serial that no later one could pass.
    #[error(
        "serial {got} is above {most}, the highest of today: no later one could pass it. Count from 1, or leave it out for the \
         seconds since 1970"
    )]
    SerialTooHigh {
        /// The serial.
        got: u64,
        /// The highest that is acceptable now.
        most: u64,
    },
    /// A constraint of the target that does not read.
    #[error("target: {0}")]
    Constraint(#[from] ConstraintError),
}

/// What is read before everything else.
#[derive(Deserialize)]
struct Head {
    format: String,
    #[serde(default)]
    requires: HeadRequires,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct HeadRequires {
    agent: Option<String>,
}

impl Payload {
    /// Reads and checks a payload; its policies are not parsed yet.
    pub fn parse(bytes: &[u8]) -> Result<Self, PayloadError> {
        if bytes.len() > super::MAX_PAYLOAD {
            return Err(PayloadError::TooLarge(bytes.len()));
        }
        let json = |e: serde_json::Error| PayloadError::Json(e.to_string());
        // A newer payload may have fields that are unknown here; what it requires is the better answer then.
        let head: Head = serde_json::from_slice(bytes).map_err(json)?;
        if head.format != FORMAT {
            return Err(PayloadError::Unsupported(format!(
                "the format {:?} is not {FORMAT}, the one that agent {AGENT_VERSION} reads",
                head.format
            )));
        }
        if let Some(wanted) = &head.requires.agent {
            check_agent(wanted)?;
        }
        let payload: Self = serde_json::from_slice(bytes).map_err(json)?;
        payload.check()?;
        Ok(payload)
    }

    /// The bytes to sign.
    pub fn to_bytes(&self) -> Result<Vec<u8>, PayloadError> {
        self.check()?;
        let mut bytes = serde_json::to_vec_pretty(self).map_err(|e| PayloadError::Json(e.to_string()))?;
        bytes.push(b'\n');
        if bytes.len() > super::MAX_PAYLOAD { Err(PayloadError::TooLarge(bytes.len())) } else { Ok(bytes) }
    }

    /// Whether the serial leaves room for later ones at `now` ([`MAX_AHEAD`]).
    ///
    /// # Errors
    /// [`PayloadError::SerialTooHigh`].
    pub fn check_serial(&self, now: Timestamp) -> Result<(), PayloadError> {
        let most = u64::try_from(now.as_second()).unwrap_or(0).saturating_add(MAX_AHEAD);
        if self.serial > most { Err(PayloadError::SerialTooHigh { got: self.serial, most }) } else { Ok(()) }
    }

    /// The constraints of the target.
    pub fn constraints(&self) -> Result<Vec<Constraint>, ConstraintError> {
        self.target.constraints.iter().map(|text| Constraint::parse(text)).collect()
    }

    /// Parses every policy; the findings of all files where one is bad.
    pub fn parse_policies(&self) -> Result<Vec<Policy>, Diagnostics> {
        let mut policies = Vec::new();
        let mut findings = Diagnostics::default();
        let mut descriptions = 0_usize;
        for PolicyFile { file, text } in &self.policies {
            match armor_policy::parse(file, text) {
                Ok(parsed) => {
                    let rules = parsed.iter().flat_map(|policy| &policy.rules);
                    descriptions += rules.map(Rule::description_bytes).sum::<usize>();
                    if descriptions > MAX_DESCRIPTIONS {
                        findings.list.push(Diagnostic::too_described(file));
                        break;
                    }
                    policies.extend(parsed);
                }
                Err(found) => {
                    findings.list.extend(found.list);
                    findings.more += found.more;
                }
            }
        }
        if findings.list.len() > armor_policy::diagnostics::MAX_DIAGNOSTICS {
            findings.more += findings.list.len() - armor_policy::diagnostics::MAX_DIAGNOSTICS;
            findings.list.truncate(armor_policy::diagnostics::MAX_DIAGNOSTICS);
        }
        if findings.list.is_empty() { Ok(policies) } else { Err(findings) }
    }

    fn check(&self) -> Result<(), PayloadError> {
        let value = |field, problem: String| Err(PayloadError::Value { field, problem });
        let name = |field, name: &str| {
            check_name(name).map_err(|e| PayloadError::Value { field, problem: e.to_string() })
        };
        name("name", &self.name)?;
        if self.name.len() > MAX_BUNDLE_NAME {
            return value("name", format!("longer than {MAX_BUNDLE_NAME} bytes"));
        }
        if self.serial == 0 {
            return value("serial", "serials begin with 1".to_owned());
        }
        if self.expires <= self.created {
            return value("expires", format!("{} is not after created, {}", self.expires, self.created));
        }
        name("target.org", &self.target.org)?;
        for node in &self.target.nodes {
            name("target.nodes", node)?;
        }
        self.constraints()?;
        if let Some(wanted) = &self.requires.agent
            && Version::parse(wanted).is_none()
        {
            return value("requires.agent", format!("{wanted:?} is not a version such as 0.1.0"));
        }
        if self.settings.alerts_per_second == Some(0) {
            return value(
                "settings.alertsPerSecond",
                "0 would hide every alert; leave it out or name at least 1".to_owned(),
            );
        }
        if self.policies.len() > MAX_FILES {
            return value("policies", format!("{} files, {MAX_FILES} are allowed", self.policies.len()));
        }
        let mut files = BTreeSet::new();
        for PolicyFile { file, .. } in &self.policies {
            name("policies.file", file)?;
            if !files.insert(file) {
                return value("policies.file", format!("{file:?} is there twice"));
            }
        }
        Ok(())
    }
}

fn check_agent(wanted: &str) -> Result<(), PayloadError> {
    let enough = Version::parse(wanted)
        .zip(Version::parse(AGENT_VERSION))
        .is_some_and(|(wanted, have)| have >= wanted);
    if enough {
        Ok(())
    } else {
        Err(PayloadError::Unsupported(format!(
            "it requires agent {wanted} or newer, this is {AGENT_VERSION}: upgrade it"
        )))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) const POLICY: &str = "apiVersion: security.kubearmor.com/v1
kind: KubeArmorHostPolicy
metadata:
  name: protect-certs
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

    /// A payload for node `node1` of org `myorg`.
    pub(crate) fn payload(serial: u64) -> Payload {
        Payload {
            format: FORMAT.to_owned(),
            name: "edge".to_owned(),
            serial,
            created: "2026-01-01T00:00:00Z".parse().unwrap(),
            expires: "2027-01-01T00:00:00Z".parse().unwrap(),
            target: Target { org: "myorg".to_owned(), nodes: vec!["node1".to_owned()], constraints: vec![] },
            requires: Requires::default(),
            settings: Settings::default(),
            policies: vec![PolicyFile { file: "certs.yaml".to_owned(), text: POLICY.to_owned() }],
            trust: TrustChanges::default(),
        }
    }

    #[test]
    fn a_payload_survives_its_bytes() {
        let mut full = payload(7);
        full.requires.agent = Some("0.1.0".to_owned());
        full.settings.alerts_per_second = Some(10);
        full.settings.on_agent_stop = OnAgentStop::Lift;
        full.settings.already_held = AlreadyHeld::Kill;
        full.settings.secure_sources = true;
        full.settings.posture.file = Posture::Block;
        full.target.constraints = vec!["openhorizon.arch == amd64".to_owned()];
        assert_eq!(Payload::parse(&full.to_bytes().unwrap()).unwrap(), full);
        assert_eq!(full.parse_policies().unwrap().len(), 1);
    }

    #[test]
    fn fields_that_are_unknown_anywhere_are_refused() {
        let good = String::from_utf8(payload(1).to_bytes().unwrap()).unwrap();
        for (place, with) in [
            (r#""name""#, r#""extra": 1, "name""#),
            (r#""org""#, r#""extra": 1, "org""#),
            (r#""onAgentStop""#, r#""extra": 1, "onAgentStop""#),
            (r#""posture": {"#, r#""posture": {"network": "block","#),
            (r#""file": "certs.yaml""#, r#""file": "certs.yaml", "extra": 1"#),
        ] {
            let bad = good.replacen(place, with, 1);
            assert_ne!(bad, good, "{place}");
            assert!(matches!(Payload::parse(bad.as_bytes()), Err(PayloadError::Json(_))), "{with}");
        }
    }

    #[test]
    fn values_that_cannot_be_meant_are_refused() {
        type Change = fn(&mut Payload);
        let cases: [(&str, Change); 10] = [
            ("name", |p| p.name = "a/b".to_owned()),
            ("name", |p| p.name = "a".repeat(MAX_BUNDLE_NAME + 1)),
            ("serial", |p| p.serial = 0),
            ("expires", |p| p.expires = p.created),
            ("target.org", |p| p.target.org = String::new()),
            ("target.nodes", |p| p.target.nodes = vec!["a b".to_owned()]),
            ("requires.agent", |p| p.requires.agent = Some("new".to_owned())),
            ("settings.alertsPerSecond", |p| p.settings.alerts_per_second = Some(0)),
            ("policies.file", |p| p.policies[0].file = "../x".to_owned()),
            ("policies.file", |p| p.policies.push(p.policies[0].clone())),
        ];
        for (name, spoil) in cases {
            let mut bad = payload(1);
            spoil(&mut bad);
            assert!(
                matches!(bad.to_bytes(), Err(PayloadError::Value { field, .. }) if field == name),
                "{name}"
            );
        }
        let mut bad = payload(1);
        bad.target.constraints = vec!["purpose".to_owned()];
        assert!(matches!(bad.to_bytes(), Err(PayloadError::Constraint(_))));
    }

    #[test]
    fn a_newer_agents_payload_says_what_it_needs() {
        let good = String::from_utf8(payload(1).to_bytes().unwrap()).unwrap();
        let newer =
            good.replacen(r#""name""#, r#""requires": {"agent": "99.0"}, "hologram": true, "name""#, 1);
        let error = Payload::parse(newer.as_bytes()).unwrap_err();
        assert!(matches!(&error, PayloadError::Unsupported(text) if text.contains("99.0")), "{error}");
        let other = good.replacen(FORMAT, "horizon-armor.bundle/2", 1);
        assert!(matches!(Payload::parse(other.as_bytes()), Err(PayloadError::Unsupported(_))));
    }
}
