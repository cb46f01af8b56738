//! Defines the content of a policy document, validated and with every inherited value filled in.
//!
//! The parser establishes these invariants:
//! - Paths are absolute and normal: no `//`, `.` or `..`, no NUL, at most [`MAX_PATH`](crate::path::glob::MAX_PATH)
//!   bytes. Only paths of directories end in `/`.
//! - Every rule carries an action, severity, tags and message; what it does not give, its section or the spec
//!   gives.
//! - A policy has at least one rule.

use crate::path::glob::Glob;

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

/// A `Section` of a policy determines the kind of access that its rules govern.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Section {
    /// `process`: starting a program, and mapping it executable.
    Process,
    /// `file`: reading and changing files.
    File,
}

/// A `Rule` is one rule of a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The section that the rule belongs to.
    pub section: Section,
    /// The paths that the rule matches.
    pub target: Target,
    /// The exact paths of the programs that the rule applies to (`fromSource`); empty for all.
    pub sources: Vec<String>,
    /// Permits only the file's owner. Block and Allow refuse others, Audit permits them with an alert.
    pub owner_only: bool,
    /// Permits only reads. Block and Allow refuse writes, Audit permits them with an alert. Always false in
    /// `process`.
    pub read_only: bool,
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

/// Largest number of bytes of tags and messages in the rules of a file or of a bundle. An inherited tag or
/// message counts once for each rule that inherits it.
pub const MAX_DESCRIPTIONS: usize = 4 << 20;

impl Rule {
    /// Returns the number of bytes that the tags and the message take in memory.
    #[must_use]
    pub fn description_bytes(&self) -> usize {
        self.message.len() + self.tags.iter().map(|tag| size_of::<String>() + tag.len()).sum::<usize>()
    }
}

/// A `Target` describes the paths that a rule matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// `path`: the file of this path, or the directory itself.
    Path(String),
    /// `dir`: the directory itself, its direct entries, and if recursive everything below it.
    Directory {
        /// The directory's path, which ends in `/`.
        path: String,
        /// Matches everything below the directory, at any depth.
        recursive: bool,
    },
    /// `pattern`: every path that the pattern matches.
    Glob(Glob),
    /// `execname`: every program whose path has this last component.
    Name(String),
}

impl Policy {
    /// Returns whether an Allow rule with sources is an exception rather than an allow-list.
    ///
    /// It is an exception if a Block or Audit rule for all programs, in the same section of the same policy,
    /// covers its target: names the same target, a directory above it, or its `execname`. An exception lifts
    /// that other rule for its sources and restricts them in nothing else.
    pub fn is_exception(&self, rule: &Rule) -> bool {
        rule.action == Action::Allow
            && !rule.sources.is_empty()
            && self.rules.iter().any(|other| {
                other.section == rule.section
                    && other.action != Action::Allow
                    && other.sources.is_empty()
                    && other.target.covers(&rule.target)
            })
    }
}

impl Target {
    /// Returns whether this target obviously covers `other`. Patterns are only compared as written.
    fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (
                Self::Directory { path, recursive: true },
                Self::Path(inner) | Self::Directory { path: inner, .. },
            ) => inner.starts_with(path.as_str()),
            (Self::Directory { path, recursive: true }, Self::Glob(glob)) => {
                glob.directory().starts_with(path.as_str())
            }
            (Self::Directory { path, recursive: false }, Self::Path(inner)) => {
                inner.strip_prefix(path.as_str()).is_some_and(|rest| !rest.contains('/'))
            }
            (Self::Name(name), Self::Path(path)) => path.rsplit('/').next() == Some(name.as_str()),
            _ => self == other,
        }
    }
}
