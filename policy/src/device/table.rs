//! Holds the table that decides on devices.

use super::model::{DeviceRule, Function};
use crate::decision::{Decision, Verdict};

/// A `DeviceTable` decides on devices; without rules it permits all of them silently.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceTable {
    /// The rules in the order of their precedence: the first one that matches decides.
    pub(super) rules: Vec<(DeviceRule, Decision)>,
    /// The decision if no rule matches.
    pub(super) unmatched: Decision,
}

impl Default for DeviceTable {
    fn default() -> Self {
        Self { rules: Vec::new(), unmatched: Decision::ALLOW }
    }
}

impl DeviceTable {
    /// Returns the decision on one function of a device at that level.
    #[must_use]
    pub fn decision(&self, function: Function, level: u8) -> Decision {
        let deciding = self.rules.iter().find(|(rule, _)| rule.matches(function, level));
        deciding.map_or(self.unmatched, |(_, decision)| *decision)
    }

    /// Returns the decision on a device with these functions: the strictest one, and the first function that it is about.
    #[must_use]
    pub fn strictest(&self, functions: &[Function], level: u8) -> (Decision, Function) {
        let decided = functions.iter().map(|function| (self.decision(*function, level), *function));
        let stricter = |a: (Decision, Function), b: (Decision, Function)| {
            if b.0.verdict() > a.0.verdict() { b } else { a }
        };
        decided.reduce(stricter).unwrap_or((Decision::ALLOW, Function::default()))
    }

    /// Returns whether there are no rules.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Returns whether the table may refuse a device.
    #[must_use]
    pub fn refuses(&self) -> bool {
        self.decisions().any(|decision| decision.verdict() == Verdict::Block)
    }

    /// Returns all decisions.
    pub fn decisions(&self) -> impl Iterator<Item = Decision> {
        self.rules.iter().map(|(_, decision)| *decision).chain([self.unmatched])
    }
}
