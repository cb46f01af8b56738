//! Compiles the policies of one domain to the tables of a [`Domain`]. What rules mean is said in
//! [`crate::precedence`], and for each kind of rule in its own module.

use crate::capability;
use crate::destination::{self, Direction};
use crate::device;
use crate::dns;
use crate::domain::Domain;
use crate::model::Policy;
use crate::network;
use crate::path;
use crate::precedence::error::{CompileError, MAX_SLOTS};
use crate::precedence::links::{Links, trimmed};
use crate::precedence::rules::Rules;
use crate::precedence::sets::PolicySet;
use crate::precedence::subjects::Subjects;
use crate::preset;
use crate::syscall;
use std::collections::BTreeSet;

/// Returns all paths that [`Links`] may resolve, without a last `/`: those of sources, and
/// those that rules name.
pub fn literal_paths(policies: &[&Policy]) -> BTreeSet<String> {
    let mut paths = BTreeSet::new();
    for rule in policies.iter().flat_map(|policy| &policy.rules) {
        paths.extend(rule.common.sources.iter().map(|source| trimmed(source.path()).to_owned()));
        let path = rule.body.as_path().and_then(|rule| rule.target.literal_path());
        paths.extend(path.map(|path| trimmed(&path).to_owned()));
    }
    paths.remove("");
    paths
}

/// Compiles the policies of one domain. In a domain under policies of several bundles, the rules of all have
/// one order of precedence; where several make an allow-list, the strictest of their postures counts.
///
/// # Errors
/// Fails if the tables would be too large, naming the policy to blame, or if a link leads to an invalid path.
pub fn compile(sets: &[PolicySet<'_>], links: &Links) -> Result<Domain, CompileError> {
    compile_rules(&Rules::new(sets, links, false)?, links)
}

/// Compiles like [`compile`], but a silent permission names the rule that grants it. It is for explanations: the tables
/// are larger.
///
/// # Errors
/// Fails like [`compile`].
pub fn compile_to_explain(sets: &[PolicySet<'_>], links: &Links) -> Result<Domain, CompileError> {
    compile_rules(&Rules::new(sets, links, true)?, links)
}

fn compile_rules(rules: &Rules<'_>, links: &Links) -> Result<Domain, CompileError> {
    let subjects = Subjects::new(rules);
    let path = path::compile::compile(rules, &subjects, links)?;
    Ok(Domain {
        subjects: subjects.automaton(MAX_SLOTS).ok_or_else(|| rules.too_many_slots())?,
        subject_count: subjects.count(),
        terminals: subjects.terminals(),
        path,
        capability: capability::compile::compile(rules, &subjects)?,
        network: network::compile::compile(rules, &subjects)?,
        egress: destination::compile::compile(rules, &subjects, Direction::Egress)?,
        ingress: destination::compile::compile(rules, &subjects, Direction::Ingress)?,
        dns: dns::compile::compile(rules, &subjects)?,
        presets: preset::compile::compile(rules, &subjects)?,
        syscalls: syscall::compile::compile(rules, &subjects)?,
        devices: device::compile::compile(rules, &subjects),
        rules: rules.infos(),
    })
}
