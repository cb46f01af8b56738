//! Compiles the rules for devices to the table that decides on them.

use super::table::DeviceTable;
use crate::decision::PostureClass;
use crate::domain::SUBJECT_NONE;
use crate::precedence::order::Precedence;
use crate::precedence::postures::unmatched;
use crate::precedence::rules::Rules;
use crate::precedence::subjects::Subjects;

pub(crate) fn compile(rules: &Rules<'_>, subjects: &Subjects) -> DeviceTable {
    let mut own: Vec<_> = (0u32..)
        .zip(&rules.list)
        .filter_map(|(at, rule)| Some((at, *rule.rule.body.as_device()?)))
        .map(|(at, rule)| (Precedence::new(rules, at, rule.specificity(), 0), rule))
        .collect();
    own.sort_unstable_by_key(|(precedence, _)| *precedence);
    let restricting = own.iter().map(|(precedence, _)| precedence.rule());
    let restricting = restricting.filter(|at| rules.list[*at as usize].restricts);
    // No rule has sources, so all subject classes are decided on alike.
    let unmatched = unmatched(rules, subjects, PostureClass::Device, restricting)[usize::from(SUBJECT_NONE)];
    let rules = own.iter().map(|(precedence, rule)| (*rule, rules.decision(precedence.rule()))).collect();
    DeviceTable { rules, unmatched }
}
