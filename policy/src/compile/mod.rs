//! Policies of one domain to the tables of [`crate::tables`].
//!
//! What the rules mean, and [`crate::reference`] says the same:
//!
//! - `process` rules decide [`Permission::Exec`] and [`Permission::Map`], `file` rules [`Permission::Read`] and
//!   [`Permission::Write`]. In each section the first rule in the order below decides both permissions of an object.
//! - **Order.** Rules whose `fromSource` names the program come before rules without `fromSource`. Then: exact path;
//!   pattern, more literal bytes first; `execname`; directory, deepest first. At equal specificity Block before
//!   Allow before Audit, the stricter use of ownerOnly and readOnly first, and last the name of the policy and the place
//!   of the rule, so that the order of documents never matters.
//! - **Outcome.** Block refuses, Audit permits with an alert, Allow permits. `readOnly`: reads are permitted silently;
//!   writes are refused, under Audit permitted with an alert. `ownerOnly`: the owner is permitted silently; who does not
//!   own the file is refused, under Audit permitted with an alert. With both, the owner may read and nothing else. So
//!   Audit never refuses, and tells of exactly what Block in its place would refuse.
//! - **Allow-list.** An Allow rule without `fromSource` makes its section an allow-list for every program, one with
//!   `fromSource` for these programs, unless it is an exception ([`Policy::is_exception`]). What no rule matches then
//!   gets the posture. `Map` never does, or no library could be loaded.
//! - **Paths.** A path rule matches the path and the directory of that name. A directory rule matches the directory
//!   itself and what is directly in it, a recursive one everything below.
//! - **Links.** Where [`CompileOptions::links`] says that a rule's path is another one in the workload's root, the rule
//!   matches both.
//! - **No path.** An access to a file without a path (a memfd), or to one whose path cannot be told, is refused where the
//!   section has any rule but Audit ones, and audited where it has only those. Reading and
//!   writing a file without a path is always permitted, and mapping it too, unless `process` is an allow-list with
//!   the posture Block.

mod classes;
mod globs;
mod objects;
mod rules;
mod states;
mod subjects;
mod trie;

use crate::comb;
use crate::model::{Location, Policy, Target};
use crate::tables::{Domain, OBJECT_FIRST};
use classes::Classes;
use rules::Rules;
use std::collections::{BTreeMap, BTreeSet};

#[cfg(doc)]
use crate::tables::Permission;

/// The most slots of one automaton: 32 MiB in the kernel.
pub const MAX_SLOTS: usize = 4 << 20;
/// The most pairs of a subject and an object class.
pub const MAX_CELLS: usize = 4 << 20;

/// What happens to what no rule of an allow-list matches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Posture {
    /// Permitted silently.
    Allow,
    /// Permitted, with an alert: KubeArmor's default.
    #[default]
    Audit,
    /// Refused, with an alert.
    Block,
}

/// What a compilation depends on besides the policies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CompileOptions {
    /// For allow-lists.
    pub posture: Posture,
    /// What paths resolve to in the workload's root, without symlinks; several where they do so in the image that it was made from and
    /// in what has become of it. Keys are those of [`literal_paths`]; a path that is missing here, or maps to itself, is no link. Of a path that does not exist resolve the directories that do.
    /// A last component that is a symlink itself is for the caller to decide: resolved, a rule for `/bin/wget` is
    /// one for all of `/bin/busybox`.
    pub links: BTreeMap<String, Vec<String>>,
}

/// Why policies that are each in order cannot be compiled together.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CompileError {
    /// The pattern needs, with those before it, more states than the kernel tables may have.
    #[error(
        "{file}:{}: pattern `{pattern}` of policy `{policy}` is too complex with the others; use fewer '**', '*' or {{}}", .location.line
    )]
    Pattern {
        /// The policy it stands in.
        policy: String,
        /// The pattern.
        pattern: String,
        /// The file.
        file: String,
        /// Where in it.
        location: Location,
    },
    /// The rules have more different outcomes than there are object classes, or than [`MAX_CELLS`] can hold.
    #[error(
        "the rules tell apart more kinds of paths and programs than fit; the most of them are in policy `{policy}`"
    )]
    Classes {
        /// The policy with the most rules.
        policy: String,
    },
    /// The paths need more than [`MAX_SLOTS`].
    #[error("the paths need more than {MAX_SLOTS} table slots; the most of them are in policy `{policy}`")]
    Slots {
        /// The policy with the most rules.
        policy: String,
    },
    /// A value of [`CompileOptions::links`] is not an absolute path without `//`, `.` and `..`.
    #[error("`{from}` cannot resolve to `{to}`, which is not an absolute, normal path")]
    Link {
        /// The path as the rule has it.
        from: String,
        /// What the caller says that it resolves to.
        to: String,
    },
}

/// All paths that [`CompileOptions::links`] may resolve: what rules and sources name, without a last `/`, and the
/// directory in which everything lies that a pattern matches.
pub fn literal_paths(policies: &[&Policy]) -> BTreeSet<String> {
    let mut paths = BTreeSet::new();
    for rule in policies.iter().flat_map(|policy| &policy.rules) {
        paths.extend(rule.sources.iter().cloned());
        match &rule.target {
            Target::Path(path) | Target::Directory { path, .. } => paths.insert(trimmed(path).to_owned()),
            Target::Glob(glob) => paths.insert(trimmed(&glob.directory()).to_owned()),
            Target::Name(_) => false,
        };
    }
    paths.remove("");
    paths
}

/// Without the last `/`: the root directory becomes the empty string.
pub(crate) fn trimmed(path: &str) -> &str {
    path.strip_suffix('/').unwrap_or(path)
}

/// Compiles the policies of one domain.
///
/// # Errors
/// If the tables would be too large, with the policy to blame, or if a link is no path.
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

/// `file:line`, as alerts name a rule.
pub(crate) fn place(file: &str, location: Location) -> String {
    format!("{file}:{}", location.line)
}
