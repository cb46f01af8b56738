//! What a policy document says, validated and with every inherited value filled in.
//!
//! Invariants, which the parser establishes:
//! - Paths are absolute and normal: no `//`, `.` or `..`, no NUL, at most [`MAX_PATH`](crate::glob::MAX_PATH) bytes.
//!   Only directories end in `/`.
//! - Every rule carries its own action, severity, tags and message: the section's or the spec's where it gives none.
//! - A policy has at least one rule.

use crate::glob::Glob;

/// A place in a policy file, both counted from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Location {
    /// The line.
    pub line: u32,
    /// The column, in characters.
    pub column: u32,
}

/// Which workloads a document is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// `KubeArmorPolicy`: containers.
    Container,
    /// `KubeArmorHostPolicy`: the node itself.
    Host,
}

/// One document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Containers or the host.
    pub kind: Kind,
    /// `metadata.name`.
    pub name: String,
    /// `metadata.namespace`.
    pub namespace: Option<String>,
    /// `spec.selector` or `spec.nodeSelector`.
    pub selector: Selector,
    /// The rules in the order of the document, at least one.
    pub rules: Vec<Rule>,
    /// The name of the file it was read from.
    pub file: String,
    /// Where the document begins.
    pub location: Location,
}

/// Which workloads a policy applies to: those for which everything in here holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector {
    /// `matchLabels`, in the order of the document.
    pub labels: Vec<(String, String)>,
    /// `matchExpressions` (container policies only).
    pub expressions: Vec<Expression>,
}

/// One entry of `matchExpressions`; its key is always `label`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expression {
    /// Whether the workload must carry one of the labels (`In`) or none of them (`NotIn`).
    pub operator: Operator,
    /// The labels, each a key and a value (`values: ["key=value"]`).
    pub labels: Vec<(String, String)>,
}

/// The operator of an [`Expression`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    /// Carries at least one of the labels.
    In,
    /// Carries none of the labels.
    NotIn,
}

/// What happens to an access that a rule matches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// Refuse it, with an alert. The order of the variants is the precedence at equal specificity.
    #[default]
    Block,
    /// Permit it silently, and make the section an allow-list.
    Allow,
    /// Permit it, with an alert.
    Audit,
}

/// The section of a rule: what kind of access it governs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Section {
    /// `process`: starting a program and mapping it executable.
    Process,
    /// `file`: reading and changing files.
    File,
}

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The section it stands in.
    pub section: Section,
    /// What it matches.
    pub target: Target,
    /// The programs it applies to (`fromSource`), by exact path; empty for all.
    pub sources: Vec<String>,
    /// The file's owner is permitted, others are not. What Audit only tells of, Block and Allow refuse them.
    pub owner_only: bool,
    /// Reads are permitted, writes are not, in the same way. Always false in `process`.
    pub read_only: bool,
    /// What happens.
    pub action: Action,
    /// 1 (least) to 10; 0 where the policy gives none.
    pub severity: u8,
    /// For the alert.
    pub tags: Vec<String>,
    /// For the alert; empty where the policy gives none.
    pub message: String,
    /// Where the rule stands in its file.
    pub location: Location,
}

/// The most bytes of tags and messages that the rules of a file, or of a bundle, may have: one that is inherited counts
/// with each rule.
pub const MAX_DESCRIPTIONS: usize = 4 << 20;

impl Rule {
    /// What its tags and its message take in memory.
    #[must_use]
    pub fn description_bytes(&self) -> usize {
        self.message.len() + self.tags.iter().map(|tag| size_of::<String>() + tag.len()).sum::<usize>()
    }
}

/// What a rule matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// `path`: this file, or this directory itself.
    Path(String),
    /// `dir`: the directory itself, what lies directly in it, and if recursive everything below.
    Directory {
        /// Ends in `/`.
        path: String,
        /// Everything below, at any depth.
        recursive: bool,
    },
    /// `pattern`.
    Glob(Glob),
    /// `execname`: any program whose last path component is this.
    Name(String),
}

impl Policy {
    /// Whether an Allow rule with sources is an exception rather than an allow-list.
    ///
    /// It is one if a Block or Audit rule for all programs, in the same section of the same policy, covers what it
    /// names: the same target, a directory above it, or its `execname`. Such a rule lifts the other one for its sources
    /// and restricts them in nothing else.
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
    /// Whether everything that `other` matches plainly lies in this; patterns are only compared as written.
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
