//! Compiles the policies of one domain to the tables of a [`Domain`].
//!
//! Rules have the following meaning:
//!
//! - **Sections.** `process` rules decide [`Permission::Exec`] and [`Permission::Map`], `file` rules decide
//!   [`Permission::Read`] and [`Permission::Write`]. In each section, the first matching rule in the order
//!   below decides both permissions of an object.
//! - **Order.** Rules whose `fromSource` names the program come before rules without `fromSource`. Then come
//!   exact paths; patterns, those with more literal bytes first; `execname`; directories, the deepest first.
//!   At equal specificity, Block comes before Allow and Allow before Audit, then the rule that ownerOnly and
//!   readOnly make stricter. Last, the name of the policy and the place of the rule decide, so that the order
//!   of documents never matters.
//! - **Outcome.** Block refuses, Audit permits with an alert, Allow permits. With `readOnly`, reads are
//!   permitted silently, and writes are refused, or under Audit permitted with an alert. With `ownerOnly`,
//!   the file's owner is permitted silently, and others are refused, or under Audit permitted with an alert.
//!   With both, only reads by the owner are permitted silently. So Audit never refuses, and raises alerts
//!   exactly where Block would refuse.
//! - **Allow-list.** An Allow rule without `fromSource` makes its section an allow-list for every program, a
//!   rule with `fromSource` for these programs, unless it is an exception ([`Policy::is_exception`]).
//!   Accesses that no rule matches then get the posture. `Map` never does, because otherwise no library could
//!   be loaded.
//! - **Paths.** A path rule matches the file or the directory of that path. A directory rule matches the
//!   directory itself and its direct entries, a recursive one everything below it.
//! - **Links.** If [`CompileOptions::links`] says that a rule's path resolves to another path in the
//!   workload's root, the rule matches both.
//! - **No path.** An access to a file without a path (a memfd), or to a file whose path cannot be determined,
//!   is refused if the section has any rule other than Audit rules, and audited if it has only Audit rules.
//!   Reading and writing a file without a path is always permitted. Mapping it is permitted too, unless
//!   `process` is an allow-list with the posture Block.

pub(crate) mod rules;
pub(crate) mod subjects;

use crate::automaton::comb;
use crate::decision::Posture;
use crate::domain::Domain;
use crate::model::{Location, Policy, RuleBody};
use crate::path::compile::classes::Classes;
use crate::path::compile::objects;
use crate::path::{OBJECT_FIRST, Target};
use rules::Rules;
use std::collections::{BTreeMap, BTreeSet};

#[cfg(doc)]
use crate::path::Permission;

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

/// Returns all paths that [`CompileOptions::links`] may resolve, without a last `/`: those of rules and
/// sources, and the directory of each pattern.
pub fn literal_paths(policies: &[&Policy]) -> BTreeSet<String> {
    let mut paths = BTreeSet::new();
    for rule in policies.iter().flat_map(|policy| &policy.rules) {
        paths.extend(rule.common.sources.iter().cloned());
        let RuleBody::Path(path) = &rule.body;
        match &path.target {
            Target::Path(path) | Target::Directory { path, .. } => paths.insert(trimmed(path).to_owned()),
            Target::Glob(glob) => paths.insert(trimmed(&glob.directory()).to_owned()),
            Target::Name(_) => false,
        };
    }
    paths.remove("");
    paths
}

/// Returns the path without its last `/`; the root directory becomes the empty string.
pub(crate) fn trimmed(path: &str) -> &str {
    path.strip_suffix('/').unwrap_or(path)
}

/// Compiles the policies of one domain.
///
/// # Errors
/// Fails if the tables would be too large, naming the policy to blame, or if a link leads to an invalid path.
pub fn compile(policies: &[&Policy], options: &CompileOptions) -> Result<Domain, CompileError> {
    let rules = Rules::new(policies, options)?;
    let subjects = subjects::Subjects::new(&rules);
    let mut classes = Classes::new(&rules, &subjects, options.posture);
    let objects = objects::build(&rules, &mut classes)?;

    let too_many = || CompileError::Classes { policy: rules.largest_policy() };
    let numbered = classes.number(&objects).ok_or_else(too_many)?;
    let states: Vec<comb::State<'_>> = objects
        .iter()
        .map(|state| comb::State {
            class: numbered.class(state.label),
            below: if state.after_slash { numbered.class(state.below) } else { 0 },
            default: state.default,
            transitions: state.transitions,
        })
        .collect();
    let too_large = || CompileError::Slots { policy: rules.largest_policy() };
    let automaton = comb::pack(&states, objects.start(), MAX_SLOTS).ok_or_else(too_large)?;
    let subject_automaton = subjects.automaton(MAX_SLOTS).ok_or_else(too_large)?;

    let object_count = u32::from(OBJECT_FIRST) + numbered.assigned;
    let cells = numbered.cells(&classes);
    Ok(Domain {
        objects: automaton,
        subjects: subject_automaton,
        object_count,
        subject_count: subjects.count() as u32,
        cells,
        vectors: classes.into_vectors(),
        rules: rules.infos(),
    })
}

/// Returns `file:line`, which names a rule in alerts.
pub(crate) fn place(file: &str, location: Location) -> String {
    format!("{file}:{}", location.line)
}
