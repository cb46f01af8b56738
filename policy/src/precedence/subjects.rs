//! Groups the programs that `fromSource` names into subject classes, by the rules that name them.

use super::rules::Rules;
use crate::automaton::states::States;
use crate::automaton::trie::{ROOT, Trie};
use crate::automaton::{Automaton, comb};
use crate::domain::SUBJECT_NONE;
use std::collections::{BTreeMap, HashMap};

pub(crate) struct Subjects {
    /// The class of each path.
    paths: Vec<(String, u32)>,
    /// For each rule, the classes that it applies to, or `None` for all.
    of_rule: Vec<Option<Vec<u32>>>,
    /// Number of classes, [`SUBJECT_NONE`] included.
    count: u32,
}

impl Subjects {
    pub(crate) fn new(rules: &Rules<'_>) -> Self {
        let mut rules_of: BTreeMap<&str, Vec<u32>> = BTreeMap::new();
        for (index, rule) in (0..).zip(&rules.list) {
            for source in &rule.sources {
                let list = rules_of.entry(source).or_default();
                if list.last() != Some(&index) {
                    list.push(index);
                }
            }
        }
        let mut of_rule: Vec<Option<Vec<u32>>> =
            rules.list.iter().map(|rule| (!rule.sources.is_empty()).then(Vec::new)).collect();
        let mut count = u32::from(SUBJECT_NONE) + 1;
        let mut classes: HashMap<Vec<u32>, u32> = HashMap::new();
        let mut paths = Vec::with_capacity(rules_of.len());
        for (path, list) in rules_of {
            let class = *classes.entry(list).or_insert_with_key(|list| {
                for &rule in list {
                    of_rule[rule as usize].get_or_insert_default().push(count);
                }
                count += 1;
                count - 1
            });
            paths.push((path.to_owned(), class));
        }
        Self { paths, of_rule, count }
    }

    /// Returns the number of classes, [`SUBJECT_NONE`] included.
    pub(crate) fn count(&self) -> u32 {
        self.count
    }

    /// Returns for each class whether a section is an allow-list for it, given the rules of the section that
    /// restrict ([`DomainRule::restricts`](super::rules::DomainRule::restricts)).
    pub(crate) fn allow_lists(&self, restricting: impl Iterator<Item = u32>) -> Vec<bool> {
        let mut lists = vec![false; self.count as usize];
        for rule in restricting {
            match &self.of_rule[rule as usize] {
                Some(classes) => classes.iter().for_each(|&class| lists[class as usize] = true),
                None => lists.fill(true),
            }
        }
        lists
    }

    /// Returns which of some entries decides for each class. The entries, each with its rule, match the same
    /// object in the same section and come in the order of their
    /// [`Precedence`](super::order::Precedence).
    pub(crate) fn deciding(&self, entries: impl Iterator<Item = (u32, u32)>) -> Deciding {
        let mut deciding = Deciding { for_all: None, by_class: HashMap::new() };
        for (entry, rule) in entries {
            match &self.of_rule[rule as usize] {
                Some(classes) => classes.iter().for_each(|&class| {
                    deciding.by_class.entry(class).or_insert(entry);
                }),
                None => {
                    deciding.for_all.get_or_insert(entry);
                }
            }
        }
        deciding
    }

    /// Returns the automaton from paths to classes, or `None` if it takes more than `limit` slots.
    pub(crate) fn automaton(&self, limit: usize) -> Option<Automaton> {
        let mut trie = Trie::new();
        let mut labels: HashMap<u32, u32> = HashMap::new();
        for (path, class) in &self.paths {
            labels.insert(trie.insert(path.as_bytes()), *class);
        }
        let none = u32::from(SUBJECT_NONE);
        let mut states = States::new();
        let dead = states.add(none, 0, &[], |_| 0);
        let mut state_of = vec![dead; trie.len() as usize];
        for node in (0..trie.len()).rev() {
            let mut row: Vec<(u8, u32)> =
                trie.children(node).map(|(byte, child)| (byte, state_of[child as usize])).collect();
            row.sort_unstable();
            let label = labels.get(&node).copied().unwrap_or(none);
            state_of[node as usize] = states.add(label, dead, &row, |_| 0);
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
        comb::pack(&packed, states.start(), limit)
    }
}

/// A `Deciding` says which entry decides on an object for each subject class. An entry whose `fromSource`
/// names the class's programs comes before one for all programs, whatever their precedence.
pub(crate) struct Deciding {
    for_all: Option<u32>,
    by_class: HashMap<u32, u32>,
}

impl Deciding {
    pub(crate) fn for_class(&self, class: u32) -> Option<u32> {
        self.by_class.get(&class).copied().or(self.for_all)
    }

    /// Returns the entry for the classes that no matching entry's `fromSource` names.
    pub(crate) fn for_others(&self) -> Option<u32> {
        self.for_all
    }
}
