//! Compiles the policies of one domain to the tables of a [`Domain`]. What rules mean is said in
//! [`crate::precedence`], and for each kind of rule in its own module.

use crate::domain::Domain;
use crate::model::Policy;
use crate::path;
use crate::precedence::error::{CompileError, CompileOptions, MAX_SLOTS};
use crate::precedence::links::trimmed;
use crate::precedence::rules::Rules;
use crate::precedence::subjects::Subjects;
use std::collections::BTreeSet;

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
