//! Defines the content of a policy document, validated and with every inherited value filled in.
//!
//! The parser establishes these invariants:
//! - Paths are absolute and normal: no `//`, `.` or `..`, no NUL, at most [`MAX_PATH`] bytes. Only paths of
//!   directories end in `/`.
//! - Every rule carries an action, severity, tags and message; what it does not give, its section or the spec
//!   gives.
//! - A policy has at least one rule.

use crate::capability::CapabilityRule;
use crate::decision::{PerClass, Posture};
use crate::destination::DestinationRule;
use crate::device::DeviceRule;
use crate::dns::DnsName;
use crate::network::NetworkRule;
use crate::path::PathRule;
use crate::preset::Preset;
use crate::syscall::SyscallRule;

/// Length in bytes of the longest path that the kernel can walk (`PATH_MAX` without the NUL).
pub const MAX_PATH: usize = 4095;

/// Largest number of bytes of tags and messages in the rules of a file or of a bundle. An inherited tag or
/// message counts once for each rule that inherits it.
pub const MAX_DESCRIPTIONS: usize = 4 << 20;

/// A `Location` is a place in a policy file; line and column count from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Location {
    /// The line number.
    pub line: u32,
    /// The column number, in characters.
    pub column: u32,
}

/// A `Kind` says whether a document applies to containers or to the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// `KubeArmorPolicy`, for containers.
    Container,
    /// `KubeArmorHostPolicy`, for the node itself.
    Host,
}

/// A `Policy` is one document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// The document's kind.
    pub kind: Kind,
    /// `metadata.name`.
    pub name: String,
    /// `metadata.namespace`.
    pub namespace: Option<String>,
    /// `spec.selector` or `spec.nodeSelector`.
    pub selector: Selector,
    /// The postures of the allow-lists that its rules make, if its annotations give them (`kubearmor-file-posture` and so
    /// on); otherwise those of the bundle.
    pub postures: PerClass<Option<Posture>>,
    /// The rules in the order of the document; there is at least one.
    pub rules: Vec<Rule>,
    /// The name of the policy file.
    pub file: String,
    /// The place where the document begins.
    pub location: Location,
}

/// A `Selector` selects the workloads of a policy: those that satisfy all of its labels and expressions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector {
    /// `matchLabels` in the order of the document.
    pub labels: Vec<(String, String)>,
    /// `matchExpressions` (container policies only).
    pub expressions: Vec<Expression>,
}

/// An `Expression` is one entry of `matchExpressions`; its key is always `label`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expression {
    /// The operator.
    pub operator: Operator,
    /// The labels as pairs of key and value (`values: ["key=value"]`).
    pub labels: Vec<(String, String)>,
}

/// An `Operator` says how the labels of an [`Expression`] select.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    /// The workload carries at least one of the labels.
    In,
    /// The workload carries none of the labels.
    NotIn,
}

/// An `Action` says what happens to an access that a rule matches.
///
/// The order of the variants is the precedence at equal specificity.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// Refuse the access, with an alert.
    #[default]
    Block,
    /// Permit the access silently, and make the section an allow-list.
    Allow,
    /// Permit the access, with an alert.
    Audit,
}

/// A `Rule` is one rule of a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The part that rules of all kinds have.
    pub common: RuleCommon,
    /// The part that depends on the kind of the rule.
    pub body: RuleBody,
}

/// A `RuleCommon` holds what rules of all kinds have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleCommon {
    /// The programs that the rule applies to (`fromSource`); empty for all.
    pub sources: Vec<Source>,
    /// True if the rule applies only to programs that a terminal controls.
    pub terminal: bool,
    /// The action.
    pub action: Action,
    /// The severity from 1 (least) to 10, or 0 if the policy gives none.
    pub severity: u8,
    /// Tags for the alert.
    pub tags: Vec<String>,
    /// Message for the alert; empty if the policy gives none.
    pub message: String,
    /// The place of the rule in its file.
    pub location: Location,
}

/// A `Source` is an entry of `fromSource`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// `path`: the program of this exact path.
    Program(String),
    /// `dir`: the programs in a directory, and if recursive those at any depth below it.
    Directory {
        /// The directory's path, which ends in `/`.
        path: String,
        /// Names everything below the directory, at any depth.
        recursive: bool,
    },
}

impl Source {
    /// Returns the path of the program or directory.
    #[must_use]
    pub fn path(&self) -> &str {
        match self {
            Self::Program(path) | Self::Directory { path, .. } => path,
        }
    }

    /// Returns the same at another path, which has no last `/`.
    pub(crate) fn moved_to(&self, path: &str) -> Self {
        match self {
            Self::Program(_) => Self::Program(path.to_owned()),
            Self::Directory { recursive, .. } => {
                Self::Directory { path: format!("{path}/"), recursive: *recursive }
            }
        }
    }
}

/// A `RuleBody` says what a rule is about. Each kind of rule has a variant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RuleBody {
    /// A rule for paths.
    Path(PathRule),
    /// A rule for a capability.
    Capability(CapabilityRule),
    /// A rule for sockets.
    Network(NetworkRule),
    /// A rule for destinations.
    Destination(DestinationRule),
    /// A rule for a name of DNS and those below it.
    Dns(DnsName),
    /// A preset.
    Preset(Preset),
    /// A rule for a system call.
    Syscall(SyscallRule),
    /// A rule for devices.
    Device(DeviceRule),
}

impl Rule {
    /// Returns the number of bytes that the tags and the message take in memory.
    #[must_use]
    pub fn description_bytes(&self) -> usize {
        self.common.message.len()
            + self.common.tags.iter().map(|tag| size_of::<String>() + tag.len()).sum::<usize>()
    }
}

impl RuleBody {
    /// Returns the rule for paths, or `None` if it is of another kind.
    pub fn as_path(&self) -> Option<&PathRule> {
        if let Self::Path(rule) = self { Some(rule) } else { None }
    }

    /// Returns the rule for a capability, or `None` if it is of another kind.
    pub fn as_capability(&self) -> Option<&CapabilityRule> {
        if let Self::Capability(rule) = self { Some(rule) } else { None }
    }

    /// Returns the rule for sockets, or `None` if it is of another kind.
    pub fn as_network(&self) -> Option<&NetworkRule> {
        if let Self::Network(rule) = self { Some(rule) } else { None }
    }

    /// Returns the rule for destinations, or `None` if it is of another kind.
    pub fn as_destination(&self) -> Option<&DestinationRule> {
        if let Self::Destination(rule) = self { Some(rule) } else { None }
    }

    /// Returns the name of DNS, or `None` if it is of another kind.
    pub fn as_dns(&self) -> Option<&DnsName> {
        if let Self::Dns(name) = self { Some(name) } else { None }
    }

    /// Returns the preset, or `None` if it is of another kind.
    pub fn as_preset(&self) -> Option<Preset> {
        if let Self::Preset(preset) = self { Some(*preset) } else { None }
    }

    /// Returns the rule for a system call, or `None` if it is of another kind.
    pub fn as_syscall(&self) -> Option<&SyscallRule> {
        if let Self::Syscall(rule) = self { Some(rule) } else { None }
    }

    /// Returns the rule for devices, or `None` if it is of another kind.
    pub fn as_device(&self) -> Option<&DeviceRule> {
        if let Self::Device(rule) = self { Some(rule) } else { None }
    }

    /// Returns whether this body is in the same section as `other`, and obviously covers it.
    fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Path(rule), Self::Path(other)) => rule.covers(other),
            (Self::Capability(rule), Self::Capability(other)) => rule == other,
            (Self::Network(rule), Self::Network(other)) => rule.covers(other),
            (Self::Destination(rule), Self::Destination(other)) => rule.covers(other),
            (Self::Dns(name), Self::Dns(other)) => name.covers(other),
            (Self::Preset(preset), Self::Preset(other)) => preset == other,
            (Self::Syscall(rule), Self::Syscall(other)) => rule.covers(other),
            (Self::Device(rule), Self::Device(other)) => rule == other,
            (
                Self::Path(_)
                | Self::Capability(_)
                | Self::Network(_)
                | Self::Destination(_)
                | Self::Dns(_)
                | Self::Preset(_)
                | Self::Syscall(_)
                | Self::Device(_),
                _,
            ) => false,
        }
    }
}

impl Policy {
    /// Returns whether an Allow rule with sources is an exception rather than an allow-list.
    ///
    /// It is an exception if a Block or Audit rule for all programs, in the same section of the same policy,
    /// covers its target: names the same target, a directory above it, or its `execname`. An exception lifts
    /// that other rule for its sources and restricts them in nothing else.
    pub fn is_exception(&self, rule: &Rule) -> bool {
        rule.common.action == Action::Allow
            && !rule.common.sources.is_empty()
            && self.rules.iter().any(|other| {
                other.common.action != Action::Allow
                    && other.common.sources.is_empty()
                    && other.body.covers(&rule.body)
            })
    }
}
