//! Compiles the policies of one domain to the tables of a [`Domain`].
//!
//! Rules of every kind have the following meaning. Each kind says which objects a rule matches, which
//! permissions its sections decide, and what its own fields mean: for paths, [`crate::path`] does.
//!
//! - **Sections.** In each section of a spec, the first matching rule in the order below decides all of the
//!   section's permissions of an object.
//! - **Order.** Rules whose `fromSource` names the program come before rules without `fromSource`. Then come
//!   those with the more specific target. At equal specificity, Block comes before Allow and Allow before
//!   Audit, then the rule that its kind's fields make stricter. Last, the name of the policy and the place of
//!   the rule decide, so that the order of documents never matters.
//! - **Outcome.** Block refuses, Audit permits with an alert, Allow permits.
//! - **Allow-list.** An Allow rule without `fromSource` makes its section an allow-list for every program, a
//!   rule with `fromSource` for these programs, unless it is an exception ([`Policy::is_exception`]).
//!   Accesses that no rule matches then get the posture.

pub(crate) mod links;
pub(crate) mod rules;
pub(crate) mod subjects;

use crate::decision::Posture;
use crate::domain::Domain;
use crate::model::{Location, Policy};
use crate::path;
use links::trimmed;
use rules::Rules;
use std::collections::{BTreeMap, BTreeSet};
use subjects::Subjects;

/// Largest number of slots of one automaton, which take 32 MiB in the kernel.
pub const MAX_SLOTS: usize = 4 << 20;
/// Largest number of pairs of a subject class and an object class.
pub const MAX_CELLS: usize = 4 << 20;

/// A `CompileOptions` holds what a compilation depends on besides the policies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CompileOptions {
    /// The posture of allow-lists.
    pub posture: Posture,
    /// The paths without symlinks that a path resolves to in the workload's root. There are several if it
    /// resolves differently in the current root and in the image of the workload. The keys are those of
    /// [`literal_paths`]; a path that is missing here, or maps to itself, is not a link. Of a path that does
    /// not exist, the directories that do exist are resolved. The caller decides whether to resolve a last
    /// component that is a symlink: if it does, a rule for `/bin/wget` becomes one for all of `/bin/busybox`.
    pub links: BTreeMap<String, Vec<String>>,
}

/// A `CompileError` says why policies that are each valid cannot be compiled together.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CompileError {
    /// The patterns, together with the directories, need more states than the kernel tables may have.
    #[error(
        "{file}:{}: pattern `{pattern}` of policy `{policy}` is too complex with the others; use fewer '**', '*' or {{}}", .location.line
    )]
    Pattern {
        /// The policy of the most complex pattern.
        policy: String,
        /// The most complex pattern.
        pattern: String,
        /// The policy's file.
        file: String,
        /// The place of the pattern's rule in the file.
        location: Location,
    },
    /// The rules have more different outcomes than there are object classes, or than fit into [`MAX_CELLS`].
    #[error(
        "the rules tell apart more kinds of paths and programs than fit; the most of them are in policy `{policy}`"
    )]
    Classes {
        /// The policy with the most rules.
        policy: String,
    },
    /// The paths need more slots than [`MAX_SLOTS`].
    #[error("the paths need more than {MAX_SLOTS} table slots; the most of them are in policy `{policy}`")]
    Slots {
        /// The policy with the most rules.
        policy: String,
    },
    /// A value of [`CompileOptions::links`] is not an absolute path without `//`, `.` and `..`.
    #[error("`{from}` cannot resolve to `{to}`, which is not an absolute, normal path")]
    Link {
        /// The path as written in the rule.
        from: String,
        /// The path that it resolves to according to the caller.
        to: String,
    },
}

/// Returns all paths that [`CompileOptions::links`] may resolve, without a last `/`: those of sources, and
/// those that rules name.
pub fn literal_paths(policies: &[&Policy]) -> BTreeSet<String> {
    let mut paths = BTreeSet::new();
    for rule in policies.iter().flat_map(|policy| &policy.rules) {
        paths.extend(rule.common.sources.iter().cloned());
        let path = rule.body.as_path().and_then(|rule| rule.target.literal_path());
        paths.extend(path.map(|path| trimmed(&path).to_owned()));
    }
    paths.remove("");
    paths
}

/// Compiles the policies of one domain.
///
/// # Errors
/// Fails if the tables would be too large, naming the policy to blame, or if a link leads to an invalid path.
pub fn compile(policies: &[&Policy], options: &CompileOptions) -> Result<Domain, CompileError> {
    let rules = Rules::new(policies, options)?;
    let subjects = Subjects::new(&rules);
    let path = path::compile::compile(&rules, &subjects, options)?;
    Ok(Domain {
        subjects: subjects.automaton(MAX_SLOTS).ok_or_else(|| rules.too_many_slots())?,
        subject_count: subjects.count(),
        path,
        rules: rules.infos(),
    })
}

/// Returns `file:line`, which names a rule in alerts.
pub(crate) fn place(file: &str, location: Location) -> String {
    format!("{file}:{}", location.line)
}
