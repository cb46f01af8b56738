//! Says what becomes of accesses that no rule matches, and which of two decisions is the stricter one.

use super::rules::Rules;
use super::subjects::Subjects;
use crate::decision::Decision;
use std::cmp::Reverse;

/// Returns for each subject class the decision of a section on what no rule matches: the strictest posture of
/// those bundles whose rules make the section an allow-list, of equally strict ones that of the first name.
/// `restricting` are the rules of the section that [restrict](super::rules::DomainRule::restricts).
pub(crate) fn unmatched(
    rules: &Rules<'_>,
    subjects: &Subjects,
    restricting: impl Iterator<Item = u32>,
) -> Vec<Decision> {
    let restricting: Vec<u32> = restricting.collect();
    let mut unmatched = vec![Decision::ALLOW; subjects.count() as usize];
    for (bundle, posture) in rules.postures() {
        let own = restricting.iter().copied().filter(|rule| rules.list[*rule as usize].bundle == bundle);
        let lists = subjects.allow_lists(own);
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
