//! Compiles rules whose objects are numbers to a table from subject class and number to decision.
//!
//! The kernel side relies on this: a table has either no rows, and then decides nothing, or a row for each
//! subject class. Every row has a decision for each key, and one more for numbers that are no key.

use crate::decision::{Decision, PostureClass, Verdict};
use crate::model::Rule;
use crate::precedence::error::{CompileError, MAX_CELLS};
use crate::precedence::order::Precedence;
use crate::precedence::postures::{stricter, unmatched};
use crate::precedence::rules::Rules;
use crate::precedence::subjects::{Deciding, Subjects};
use std::collections::HashMap;

/// A `KeyedTable` decides, for each subject class, on objects that are numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyedTable {
    /// The index in `rows` of each subject class's row; empty if the domain has no rules of this kind.
    pub row_of: Vec<u32>,
    /// The distinct rows, all of the same length: the decision for each key, then that for other numbers.
    pub rows: Vec<Vec<Decision>>,
}

impl KeyedTable {
    /// Compiles the rules of one kind, whose allow-lists have the postures of `class`. `of_rule` returns how specific a
    /// rule is (the least first) and its keys, which are below `keys`; `None` if it is of another kind. Fails if there would
    /// be more than [`MAX_CELLS`] decisions.
    pub(crate) fn compile<S: Copy + Ord>(
        rules: &Rules<'_>,
        subjects: &Subjects,
        class: PostureClass,
        keys: usize,
        of_rule: impl Fn(&Rule) -> Option<(S, Vec<usize>)>,
    ) -> Result<Self, CompileError> {
        let own: Vec<(u32, S, Vec<usize>)> = (0u32..)
            .zip(&rules.list)
            .filter_map(|(at, rule)| of_rule(rule.rule).map(|(specificity, keys)| (at, specificity, keys)))
            .collect();
        if own.is_empty() {
            return Ok(Self::default());
        }
        let restricting = own.iter().map(|(at, ..)| *at).filter(|at| rules.list[*at as usize].restricts);
        let unmatched = unmatched(rules, subjects, class, restricting);
        let mut matching: Vec<Vec<Precedence<S>>> = vec![Vec::new(); keys];
        for (at, specificity, keys) in own {
            keys.into_iter().for_each(|key| matching[key].push(Precedence::new(rules, at, specificity, 0)));
        }
        let deciding: Vec<Deciding> = matching
            .iter_mut()
            .map(|matching| {
                matching.sort_unstable();
                subjects.deciding(matching.iter().map(|precedence| (precedence.rule(), precedence.rule())))
            })
            .collect();

        let table = Self::of_rows((0..subjects.count()).map(|class| {
            let otherwise = unmatched[class as usize];
            let decide = |deciding: &Deciding| {
                deciding.for_class(class).map_or(otherwise, |rule| rules.decision(rule))
            };
            deciding.iter().map(decide).chain([otherwise]).collect()
        }));
        table.ok_or_else(|| rules.too_many_classes())
    }

    /// Makes a table from the rows of all subject classes; `None` if it has more than [`MAX_CELLS`] decisions.
    pub(crate) fn of_rows(rows: impl Iterator<Item = Vec<Decision>>) -> Option<Self> {
        let mut table = Self::default();
        let mut known: HashMap<Vec<Decision>, u32> = HashMap::new();
        for row in rows {
            let next = table.rows.len() as u32;
            let index = *known.entry(row).or_insert_with_key(|row| {
                table.rows.push(row.clone());
                next
            });
            table.row_of.push(index);
            if table.rows.len() * table.rows[0].len() > MAX_CELLS {
                return None;
            }
        }
        Some(table)
    }

    /// Makes the decision on other numbers than the keys the strictest of all.
    pub(crate) fn with_strictest_for_others(mut self, rules: &Rules<'_>) -> Self {
        for row in &mut self.rows {
            let strictest = row.iter().fold(Decision::ALLOW, |of, decision| stricter(rules, of, *decision));
            row.last_mut().into_iter().for_each(|others| *others = strictest);
        }
        self
    }

    /// Returns the decision on a number for a subject class. Without rules everything is permitted silently.
    #[must_use]
    pub fn decision(&self, subject: u16, number: usize) -> Decision {
        let row = self.row_of.get(usize::from(subject)).map(|row| self.rows[*row as usize].as_slice());
        row.and_then(|row| row.get(number).or(row.last())).copied().unwrap_or(Decision::ALLOW)
    }

    /// Returns whether the table refuses or reports a number for some subject class.
    #[must_use]
    pub fn decides(&self, number: usize) -> bool {
        let decision = |row: &Vec<Decision>| row.get(number).or(row.last()).copied();
        self.rows.iter().filter_map(decision).any(|decision| decision.verdict() != Verdict::Allow)
    }

    /// Returns all decisions.
    pub fn decisions(&self) -> impl Iterator<Item = Decision> {
        self.rows.iter().flatten().copied()
    }

    /// Returns all decisions, to be changed.
    pub fn decisions_mut(&mut self) -> impl Iterator<Item = &mut Decision> {
        self.rows.iter_mut().flatten()
    }
}
