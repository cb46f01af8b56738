//! Compiles the lists of arguments that rules permit (`allowedArgs`).
//!
//! Each argument that some list has is a class of its own, and each rule with a list gives it a number, in the order
//! of the rules.

use super::entries::beyond;
use crate::automaton::states::States;
use crate::automaton::trie::{ROOT, Trie};
use crate::automaton::{Automaton, comb};
use crate::decision::Decision;
use crate::keyed::KeyedTable;
use crate::path::tables::ArgumentTables;
use crate::precedence::error::{CompileError, MAX_SLOTS};
use crate::precedence::rules::Rules;
use std::collections::{BTreeMap, HashMap};

/// A `Lists` holds the lists of a domain's rules.
pub(super) struct Lists {
    /// The number of the list of each rule that has one, by the rule's index in [`Rules::list`].
    numbers: HashMap<u32, u16>,
    pub(super) tables: ArgumentTables,
}

impl Lists {
    /// Fails if there are more arguments or lists than fit.
    pub(super) fn new(rules: &Rules<'_>) -> Result<Self, CompileError> {
        let of_rule = (0u32..).zip(&rules.list).filter_map(|(at, rule)| {
            let arguments = &rule.rule.body.as_path()?.allowed_args;
            (!arguments.is_empty()).then_some((at, rule.rule.common.action, arguments))
        });
        let lists: Vec<_> = of_rule.collect();
        let mut classes = BTreeMap::new();
        for argument in lists.iter().flat_map(|(.., arguments)| *arguments) {
            let next = classes.len() + 1;
            classes.entry(argument.as_str()).or_insert(next);
        }
        let most = usize::from(u16::MAX);
        if lists.len() > most || classes.len() > most {
            return Err(rules.too_many_classes());
        }

        let rows = lists.iter().map(|(at, action, arguments)| {
            // One more for class 0, and one for numbers that are no class.
            let mut row = vec![rules.decided(beyond(*action), *at); classes.len() + 2];
            for argument in *arguments {
                row[classes[argument.as_str()]] = Decision::ALLOW;
            }
            row
        });
        // The numbers begin with 1, as 0 is no list.
        let none = (!lists.is_empty()).then(|| vec![Decision::ALLOW; classes.len() + 2]);
        let table = KeyedTable::of_rows(none.into_iter().chain(rows));
        let tables = ArgumentTables {
            classes: automaton(&classes).ok_or_else(|| rules.too_many_slots())?,
            lists: table.ok_or_else(|| rules.too_many_classes())?,
        };
        Ok(Self { numbers: lists.iter().map(|(at, ..)| *at).zip(1..).collect(), tables })
    }

    /// Returns the number of a rule's list, 0 if it has none.
    pub(super) fn of_rule(&self, rule: u32) -> u16 {
        self.numbers.get(&rule).copied().unwrap_or(0)
    }
}

/// Returns the automaton from arguments to their classes; `None` if it takes too many slots.
fn automaton(classes: &BTreeMap<&str, usize>) -> Option<Automaton> {
    let mut trie = Trie::new();
    let class_of: HashMap<u32, u32> =
        classes.iter().map(|(argument, class)| (trie.insert(argument.as_bytes()), *class as u32)).collect();
    let mut states = States::new();
    let dead = states.add(0, 0, &[], |_| 0);
    let mut state_of = vec![dead; trie.len() as usize];
    for node in (0..trie.len()).rev() {
        let mut row: Vec<(u8, u32)> =
            trie.children(node).map(|(byte, child)| (byte, state_of[child as usize])).collect();
        row.sort_unstable();
        let class = class_of.get(&node).copied().unwrap_or(0);
        state_of[node as usize] = states.add(class, dead, &row, |_| 0);
    }
    let states = states.reachable(state_of[ROOT as usize]);
    let packed: Vec<comb::State<'_>> = states
        .iter()
        .map(|state| comb::State {
            class: state.label as u16,
            below: 0,
            default: state.default,
            transitions: state.transitions,
        })
        .collect();
    comb::pack(&packed, states.start(), MAX_SLOTS)
}
