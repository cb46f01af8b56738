//! This module defines the payload of a bundle: the JSON whose bytes are signed.
//!
//! An unknown field is an error, so that a node never enforces less than was signed. A payload for newer
//! agents says so in `requires`, which is read first.

use std::collections::BTreeSet;

use armor_base::name::check_name;
use armor_policy::document::diagnostics::MAX_DIAGNOSTICS;
use armor_policy::model::{MAX_DESCRIPTIONS, Rule};
use armor_policy::{Diagnostic, Diagnostics, Policy, Posture};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::constraint::{Constraint, ConstraintError};
use crate::trust::TrustChanges;
use crate::version::Version;

/// Format that this version reads and writes; no other document by the same signer has it.
pub const FORMAT: &str = "horizon-armor.bundle/1";
/// Version with which `requires.agent` is compared.
pub const AGENT_VERSION: &str = env!("CARGO_PKG_VERSION");
/// Maximum length of a bundle's name in bytes, so that the object's id stays short.
pub const MAX_BUNDLE_NAME: usize = 100;
/// Maximum distance between a serial and the current time in seconds since 1970: a hundred years.
///
/// A node keeps the highest serial that it accepted for ever, so a serial that nothing can exceed would end
/// all updates of the name. The bound rises with the time: one second after any serial was accepted, the next
/// higher one is acceptable. It is so wide that a node whose clock stands at 1970, for lack of a battery,
/// accepts every serial that is a present time.
pub const MAX_AHEAD: u64 = 100 * 31_557_600;
/// Maximum number of policy files in a bundle.
pub const MAX_FILES: usize = 1000;

/// A `Payload` is the signed content of a bundle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Payload {
    /// Format, [`FORMAT`].
    pub format: String,
    /// The bundle's name; serials count per name.
    pub name: String,
    /// Serial, which rises with every bundle of the name.
    pub serial: u64,
    /// Time at which the bundle was made.
    pub created: Timestamp,
    /// Time after which the bundle is no longer accepted; an accepted one stays enforced.
    pub expires: Timestamp,
    /// Nodes that the bundle is for.
    pub target: Target,
    /// Requirements on the node.
    #[serde(default, skip_serializing_if = "Requires::is_empty")]
    pub requires: Requires,
    /// Settings of the enforcement.
    #[serde(default)]
    pub settings: Settings,
    /// The policies. An empty list lifts the enforcement of earlier bundles of the name.
    pub policies: Vec<PolicyFile>,
    /// Changes to the keys that the node trusts.
    #[serde(default, skip_serializing_if = "TrustChanges::is_empty")]
    pub trust: TrustChanges,
}

/// A `Target` says which nodes a bundle is for: those that fulfil every field.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// The nodes' org.
    pub org: String,
    /// Node ids; empty means every node.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<String>,
    /// Constraints on node properties, all of which must hold.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub constraints: Vec<String>,
}

/// A `Requires` lists what a node must support.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Requires {
    /// Lowest version of the agent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
}

impl Requires {
    fn is_empty(&self) -> bool {
        self.agent.is_none()
    }
}

/// A `Settings` says how the policies are enforced.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "camelCase")]
pub struct Settings {
    /// Action for accesses that an allow-list does not list.
    pub posture: Postures,
    /// Maximum number of alerts per second and rule; the rest is only counted. If absent, the agent's own
    /// limit applies.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alerts_per_second: Option<u32>,
    /// Effect of an orderly stop of the agent on the enforcement.
    pub on_agent_stop: OnAgentStop,
    /// Action for processes with preexisting handles that the policies refuse.
    pub already_held: AlreadyHeld,
    /// Set if a program with rights by `fromSource` starts as if it were setuid: the dynamic loader then
    /// accepts no library or library path from the process that starts it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub secure_sources: bool,
}

/// A `Postures` contains the postures of allow-lists: `allow`, `audit` or `block`. A policy's annotations come before them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Postures {
    /// Posture for files and programs.
    pub file: Posture,
    /// Posture for networks; if absent, that for files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<Posture>,
    /// Posture for capabilities; if absent, that for files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capabilities: Option<Posture>,
    /// Posture for devices; if absent, that for files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<Posture>,
}

impl Postures {
    /// Returns them for the compiler.
    #[must_use]
    pub fn for_classes(&self) -> armor_policy::Postures {
        let Self { file, network, capabilities, device } = *self;
        armor_policy::Postures {
            file,
            network: network.unwrap_or(file),
            capabilities: capabilities.unwrap_or(file),
            device: device.unwrap_or(file),
        }
    }
}

/// An `OnAgentStop` says what happens to the enforcement when the agent is stopped in an orderly way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnAgentStop {
    /// The enforcement stays.
    #[default]
    Keep,
    /// The enforcement ends.
    Lift,
}

/// An `AlreadyHeld` is the action for processes with preexisting handles that the policies refuse: a
/// descriptor, a mapping or their own program.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AlreadyHeld {
    /// The process is reported and continues.
    #[default]
    Report,
    /// The process is reported and killed, unless it is process 1.
    Kill,
}

/// A `PolicyFile` is one file of policies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyFile {
    /// The file's name, `[A-Za-z0-9._-]`; diagnostics use it.
    pub file: String,
    /// The file's YAML with its comments.
    pub text: String,
}

/// A `PayloadError` says why a payload is invalid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PayloadError {
    /// The payload exceeds [`crate::MAX_PAYLOAD`] bytes.
    #[error("the payload has {0} bytes, {max} are allowed", max = crate::MAX_PAYLOAD)]
    TooLarge(usize),
    /// The payload requires something that this agent does not support.
    #[error("{0}")]
    Unsupported(String),
    /// The JSON does not have the payload's fields.
    #[error("not a payload: {0}")]
    Json(String),
    /// A value is invalid.
    #[error("{field}: {problem}")]
    Value {
        /// The field.
        field: &'static str,
        /// Description of the error.
        problem: String,
    },
    /// The serial is so high that no later one could exceed it.
    #[error(
        "serial {got} is above {most}, the highest of today: no later one could pass it. Count from 1, or leave it out for the \
         seconds since 1970"
    )]
    SerialTooHigh {
        /// The serial.
        got: u64,
        /// The highest serial that is acceptable now.
        most: u64,
    },
    /// A constraint of the target cannot be parsed.
    #[error("target: {0}")]
    Constraint(#[from] ConstraintError),
}

/// A `Head` contains the fields that are read before all others.
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
    /// Parses and checks a payload, but does not parse its policies yet.
    pub fn parse(bytes: &[u8]) -> Result<Self, PayloadError> {
        if bytes.len() > crate::MAX_PAYLOAD {
            return Err(PayloadError::TooLarge(bytes.len()));
        }
        let json = |e: serde_json::Error| PayloadError::Json(e.to_string());
        // A newer payload may have fields that are unknown here; then its requirement is the better error
        // message.
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

    /// Returns the bytes to sign.
    pub fn to_bytes(&self) -> Result<Vec<u8>, PayloadError> {
        self.check()?;
        let mut bytes = serde_json::to_vec_pretty(self).map_err(|e| PayloadError::Json(e.to_string()))?;
        bytes.push(b'\n');
        if bytes.len() > crate::MAX_PAYLOAD { Err(PayloadError::TooLarge(bytes.len())) } else { Ok(bytes) }
    }

    /// Checks that the serial leaves room for later ones at `now` ([`MAX_AHEAD`]).
    ///
    /// # Errors
    /// Fails with [`PayloadError::SerialTooHigh`] if it does not.
    pub fn check_serial(&self, now: Timestamp) -> Result<(), PayloadError> {
        let most = u64::try_from(now.as_second()).unwrap_or(0).saturating_add(MAX_AHEAD);
        if self.serial > most { Err(PayloadError::SerialTooHigh { got: self.serial, most }) } else { Ok(()) }
    }

    /// Parses the constraints of the target.
    pub fn constraints(&self) -> Result<Vec<Constraint>, ConstraintError> {
        self.target.constraints.iter().map(|text| Constraint::parse(text)).collect()
    }

    /// Parses every policy; if one is invalid, returns the findings of all files.
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
        if findings.list.len() > MAX_DIAGNOSTICS {
            findings.more += findings.list.len() - MAX_DIAGNOSTICS;
            findings.list.truncate(MAX_DIAGNOSTICS);
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

    /// Returns a payload for node `node1` of org `myorg`.
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
        full.settings.posture.network = Some(Posture::Allow);
        full.settings.posture.capabilities = Some(Posture::Audit);
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
            (r#""posture": {"#, r#""posture": {"devices": "block","#),
            (r#""file": "certs.yaml""#, r#""file": "certs.yaml", "extra": 1"#),
        ] {
            let bad = good.replacen(place, with, 1);
            assert_ne!(bad, good, "{place}");
            assert!(matches!(Payload::parse(bad.as_bytes()), Err(PayloadError::Json(_))), "{with}");
        }
    }

    #[test]
    fn postures_are_allow_audit_and_block_and_default_to_that_of_files() {
        let good = String::from_utf8(payload(1).to_bytes().unwrap()).unwrap();
        let parsed = |posture: &str| {
            let text = good.replacen(r#""file": "audit""#, posture, 1);
            Payload::parse(text.as_bytes()).map(|payload| payload.settings.posture.for_classes())
        };
        let (file, network) = (Posture::Block, Posture::Allow);
        assert_eq!(
            parsed(r#""file": "block", "network": "allow""#).unwrap(),
            armor_policy::Postures { file, network, capabilities: file, device: file }
        );
        for posture in ["Allow", "Block", "none", ""] {
            let bad = parsed(&format!(r#""file": "{posture}""#));
            assert!(matches!(bad, Err(PayloadError::Json(_))), "{posture}");
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
