//! Groups the programs that `fromSource` names into subject classes, by the rules that name them.

use super::rules::Rules;
use crate::automaton::states::States;
use crate::automaton::trie::{ROOT, Trie};
use crate::automaton::{Automaton, comb};
use crate::domain::SUBJECT_NONE;
use crate::path::Section;
use std::collections::{BTreeMap, HashMap};

pub(crate) struct Subjects {
    /// The class of each path.
    paths: Vec<(String, u32)>,
    /// For each rule with sources, the classes that it applies to.
    of_rule: Vec<Vec<u32>>,
    /// For each class, true for `process` and for `file` if the section is an allow-list.
    allow_lists: Vec<[bool; 2]>,
}

impl Subjects {
    pub(crate) fn new(rules: &Rules<'_>) -> Self {
        let mut rules_of: BTreeMap<&str, Vec<u32>> = BTreeMap::new();
        for (index, ruled) in rules.rules.iter().enumerate() {
            for source in &ruled.sources {
                let list = rules_of.entry(source).or_default();
                if list.last() != Some(&(index as u32)) {
                    list.push(index as u32);
                }
            }
        }
        let mut for_all = [false; 2];
        for ruled in rules.rules.iter().filter(|ruled| ruled.restricts && ruled.sources.is_empty()) {
            for_all[ruled.path.section as usize] = true;
        }
        let mut subjects = Self {
            paths: Vec::new(),
            of_rule: vec![Vec::new(); rules.rules.len()],
            allow_lists: vec![for_all],
        };
        let mut classes: HashMap<Vec<u32>, u32> = HashMap::new();
        for (path, list) in rules_of {
            let next = subjects.allow_lists.len() as u32;
            let class = *classes.entry(list).or_insert_with_key(|list| {
                let mut allow_lists = for_all;
                for &rule in list {
                    subjects.of_rule[rule as usize].push(next);
                    let ruled = &rules.rules[rule as usize];
                    allow_lists[ruled.path.section as usize] |= ruled.restricts;
                }
                subjects.allow_lists.push(allow_lists);
                next
            });
            subjects.paths.push((path.to_owned(), class));
        }
        subjects
    }

    /// Returns the number of classes, [`SUBJECT_NONE`] included.
    pub(crate) fn count(&self) -> usize {
        self.allow_lists.len()
    }

    /// Returns the classes that a rule with sources applies to.
    pub(crate) fn of_rule(&self, rule: u32) -> &[u32] {
        &self.of_rule[rule as usize]
    }

    pub(crate) fn is_allow_list(&self, subject: usize, section: Section) -> bool {
        self.allow_lists[subject][section as usize]
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
