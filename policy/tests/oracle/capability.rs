//! Evaluates rules for capabilities.

use super::{By, SectionRules};
use armor_policy::capability::Capability;
use armor_policy::decision::Verdict;
use armor_policy::model::Action;
use armor_policy::{Links, PolicySet};

/// Returns what happens to a use of a capability by a program, and why.
pub fn evaluate<'a>(
    sets: &'a [PolicySet<'a>],
    links: &Links,
    program: &str,
    capability: Capability,
) -> (Verdict, By<'a>) {
    let rules = sets.iter().flat_map(|set| {
        let of_policy =
            set.policies.iter().flat_map(|policy| policy.rules.iter().map(|rule| (*policy, rule)));
        of_policy.map(move |(policy, rule)| (set, policy, rule))
    });
    let rules = rules.filter(|(.., rule)| rule.body.as_capability().is_some()).collect();
    let section = SectionRules { rules, program, links };
    let matching = section.first(|rule| {
        (rule.body.as_capability().is_some_and(|rule| rule.capability == capability)).then_some(((), 0))
    });
    match matching {
        Some(by @ By::Rule(_, _, rule)) => match rule.common.action {
            Action::Block => (Verdict::Block, by),
            Action::Audit => (Verdict::Audit, by),
            Action::Allow => (Verdict::Allow, By::Nobody),
        },
        _ => section.unmatched(),
    }
}
