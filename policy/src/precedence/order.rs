//! Orders the rules that match one object: the first of them decides.

use super::rules::Rules;
use crate::model::Action;
use std::cmp::Reverse;

/// A `Precedence` orders rules that match the same object and apply to the same programs: the least one
/// decides. Each kind of rule has its own measure `S` of specificity, the most specific first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Precedence<S> {
    specificity: S,
    action: Action,
    strictness: Reverse<u32>,
    rule: u32,
}

impl<S> Precedence<S> {
    /// Returns the precedence of a rule, given its index in [`Rules::list`]. Its `strictness` is the sum of its
    /// verdicts on the permissions that it decides.
    pub(crate) fn new(rules: &Rules<'_>, rule: u32, specificity: S, strictness: u32) -> Self {
        let action = rules.list[rule as usize].rule.common.action;
        Self { specificity, action, strictness: Reverse(strictness), rule }
    }

    /// Returns the rule's index in [`Rules::list`].
    pub(crate) fn rule(&self) -> u32 {
        self.rule
    }
}
