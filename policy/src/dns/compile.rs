//! Compiles the rules for names of DNS to the table that decides on questions for them.
//!
//! Each name of a rule has a class, which is also that of the names below it down to the next name of a rule. All other names
//! have class 0.

use super::model::{DnsName, backwards, with_above};
use super::table::NameTable;
use crate::automaton::states::States;
use crate::automaton::trie::{ROOT, Trie};
use crate::automaton::{Automaton, comb};
use crate::decision::PostureClass;
use crate::keyed::KeyedTable;
use crate::model::Rule;
use crate::precedence::error::{CompileError, MAX_SLOTS};
use crate::precedence::rules::Rules;
use crate::precedence::subjects::Subjects;
use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};

/// The class of names that no rule is about.
const ELSEWHERE: u16 = 0;

pub(crate) fn compile(rules: &Rules<'_>, subjects: &Subjects) -> Result<NameTable, CompileError> {
    let mut classes: BTreeMap<&str, u16> = BTreeMap::new();
    for name in rules.list.iter().filter_map(|rule| rule.rule.body.as_dns()) {
        let next = u16::try_from(classes.len() + 1).map_err(|_| rules.too_many_classes())?;
        classes.entry(name.as_str()).or_insert(next);
    }
    if classes.is_empty() {
        return Ok(NameTable::default());
    }
    let mut below: HashMap<&str, Vec<usize>> = HashMap::new();
    for (name, class) in &classes {
        for above in with_above(name).filter(|above| classes.contains_key(above)) {
            below.entry(above).or_default().push(usize::from(*class));
        }
    }
    let of_rule = |rule: &Rule| {
        let name = rule.body.as_dns().map(DnsName::as_str)?;
        let labels = with_above(name).count();
        Some((Reverse(labels), below.get(name).cloned().unwrap_or_default()))
    };
    let cells = KeyedTable::compile(rules, subjects, PostureClass::Network, classes.len() + 1, of_rule)?;
    Ok(NameTable {
        names: automaton(&classes).ok_or_else(|| rules.too_many_slots())?,
        cells: cells.with_strictest_for_others(rules),
    })
}

/// Returns the automaton from names to classes, or `None` if it takes more than [`MAX_SLOTS`].
fn automaton(classes: &BTreeMap<&str, u16>) -> Option<Automaton> {
    let mut trie = Trie::new();
    let named: HashMap<u32, u16> =
        classes.iter().map(|(name, class)| (trie.insert(&backwards(name)), *class)).collect();
    // The class of what begins like a node but ends elsewhere.
    let mut inherited = vec![ELSEWHERE; trie.len() as usize];
    for node in 0..trie.len() {
        let own = named.get(&node).copied().unwrap_or(inherited[node as usize]);
        for (byte, child) in trie.children(node) {
            inherited[child as usize] = if byte == b'/' { own } else { inherited[node as usize] };
        }
    }
    let mut states = States::new();
    let dead = states.add(u32::from(ELSEWHERE), 0, &[], |_| 0);
    let mut rest: HashMap<u16, u32> = HashMap::from([(ELSEWHERE, dead)]);
    let mut state_of = vec![dead; trie.len() as usize];
    for node in (0..trie.len()).rev() {
        let mut row: Vec<(u8, u32)> =
            trie.children(node).map(|(byte, child)| (byte, state_of[child as usize])).collect();
        let inherited = inherited[node as usize];
        let own = named.get(&node).copied();
        if let Some(own) = own.filter(|_| trie.child(node, b'/').is_none()) {
            row.push((b'/', rest_of(&mut states, &mut rest, own)));
        }
        row.sort_unstable();
        let otherwise = rest_of(&mut states, &mut rest, inherited);
        state_of[node as usize] = states.add(u32::from(own.unwrap_or(inherited)), otherwise, &row, |_| 0);
    }
    comb::pack_classes(&states.reachable(state_of[ROOT as usize]), MAX_SLOTS)
}

/// Returns the state of all that has this class whatever follows. It leads to itself.
fn rest_of(states: &mut States, known: &mut HashMap<u16, u32>, class: u16) -> u32 {
    *known.entry(class).or_insert_with(|| {
        let state = states.len() as u32;
        states.append(u32::from(class), state, &[], 0);
        state
    })
}
