//! Defines what a rule for paths says.

use super::glob::Glob;
use crate::model::Policy;

/// Largest number of arguments of a list, and of those that a program whose list it is may be given.
pub const MAX_ARGS: usize = 20;
/// Largest number of bytes of an argument in a list.
pub const MAX_ARG_BYTES: usize = 104;

/// A `Section` of a policy determines the kind of access that its rules govern.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Section {
    /// `process`: starting a program, and mapping it executable.
    Process,
    /// `file`: reading and changing files.
    File,
}

/// A `PathRule` is a rule of the sections `process` and `file`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathRule {
    /// The section that the rule belongs to.
    pub section: Section,
    /// The paths that the rule matches.
    pub target: Target,
    /// Permits only the file's owner. Block and Allow refuse others, Audit permits them with an alert.
    pub owner_only: bool,
    /// Permits only reads. Block and Allow refuse writes, Audit permits them with an alert. Always false in
    /// `process`.
    pub read_only: bool,
    /// Permits only starts with arguments that are all of this list, with at least one; empty: with any. Block and
    /// Allow refuse others, Audit permits them with an alert. Always empty but in `matchPaths` of `process`.
    pub allowed_args: Vec<String>,
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

/// Returns the rules for paths of several policies.
pub fn path_rules<'a>(policies: &[&'a Policy]) -> impl Iterator<Item = &'a PathRule> {
    policies.iter().flat_map(|policy| &policy.rules).filter_map(|rule| rule.body.as_path())
}

impl PathRule {
    /// Returns whether this rule is in the same section as `other`, and its target obviously covers the
    /// other's.
    pub(crate) fn covers(&self, other: &Self) -> bool {
        self.section == other.section && self.target.covers(&other.target)
    }
}

impl Target {
    /// Returns the literal path that the target names: for a pattern its directory, for a name `None`.
    pub(crate) fn literal_path(&self) -> Option<String> {
        match self {
            Self::Path(path) | Self::Directory { path, .. } => Some(path.clone()),
            Self::Glob(glob) => Some(glob.directory()),
            Self::Name(_) => None,
        }
    }

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
