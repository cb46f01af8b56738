//! Says what becomes of accesses that no rule matches, and which of two decisions is the stricter one.

use super::rules::Rules;
use super::subjects::Subjects;
use crate::decision::{Decision, PostureClass};
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// Returns for each subject class the decision of a section on what no rule matches: the strictest posture of
/// the rules that make the section an allow-list, of equally strict ones that of the bundle with the first name.
/// `restricting` are the rules of the section that [restrict](super::rules::DomainRule::restricts).
pub(crate) fn unmatched(
    rules: &Rules<'_>,
    subjects: &Subjects,
    class: PostureClass,
    restricting: impl Iterator<Item = u32>,
) -> Vec<Decision> {
    let mut by_bundle: BTreeMap<usize, Vec<(Decision, Vec<u32>)>> = BTreeMap::new();
    for rule in restricting {
        let posture = rules.posture(rule, class);
        let postures = by_bundle.entry(rules.list[rule as usize].bundle).or_default();
        match postures.iter_mut().find(|(known, _)| *known == posture) {
            Some((_, list)) => list.push(rule),
            None => postures.push((posture, vec![rule])),
        }
    }
    let mut unmatched = vec![Decision::ALLOW; subjects.count() as usize];
    for (posture, list) in by_bundle.into_values().flatten() {
        let lists = subjects.allow_lists(list.into_iter());
        for (unmatched, _) in unmatched.iter_mut().zip(lists).filter(|(_, is_list)| *is_list) {
            if posture.verdict() > unmatched.verdict() {
                *unmatched = posture;
            }
        }
    }
    unmatched
}

/// Returns the stricter decision; of equally strict ones a rule's before a posture's, and the first rule's.
pub(crate) fn stricter(rules: &Rules<'_>, a: Decision, b: Decision) -> Decision {
    let key = |d: Decision| (d.verdict(), !rules.is_posture(d.rule()), Reverse(d.rule()));
    if key(b) > key(a) { b } else { a }
}
