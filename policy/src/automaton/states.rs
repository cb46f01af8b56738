//! Minimises and merges the states of a DFA over bytes, which are labelled sparse rows, and finds the
//! reachable ones.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

/// The index of no state and of no node.
pub(crate) const NONE: u32 = u32::MAX;

/// A transition is a byte, which is never 0, and the state that it leads to.
pub(crate) type Transition = (u8, u32);

/// A `Row` says where each byte leads: to `default`, except for the transitions, which are sorted by byte.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Row {
    pub(crate) default: u32,
    pub(crate) transitions: Box<[Transition]>,
}

impl Row {
    /// Returns the row with the fewest transitions for these targets, of which there is one for each symbol.
    pub(crate) fn new(targets: impl Iterator<Item = Transition> + Clone) -> Self {
        let mut counts: Vec<(u32, u32)> = Vec::new();
        for (_, target) in targets.clone() {
            match counts.iter_mut().find(|(t, _)| *t == target) {
                Some((_, count)) => *count += 1,
                None => counts.push((target, 1)),
            }
        }
        // At equal counts the lowest target wins, so that equal rows stay equal.
        let default =
            counts.iter().max_by_key(|(target, n)| (*n, std::cmp::Reverse(*target))).map_or(0, |(t, _)| *t);
        let mut transitions: Box<[Transition]> = targets.filter(|(_, target)| *target != default).collect();
        transitions.sort_unstable();
        Self { default, transitions }
    }

    /// Returns the same row with its states replaced by those in `to`. `symbols` is the whole alphabet.
    pub(crate) fn map(&self, to: &[u32], symbols: std::ops::RangeInclusive<u8>) -> Self {
        let default = to[self.default as usize];
        let others = self.transitions.iter().map(|&(byte, target)| (byte, to[target as usize]));
        let defaults = symbols.clone().count() - self.transitions.len();
        if self.transitions.len() < defaults {
            return Self { default, transitions: others.filter(|(_, target)| *target != default).collect() };
        }
        let mut targets = [default; 256];
        for (byte, target) in others {
            targets[byte as usize] = target;
        }
        Self::new(symbols.map(|byte| (byte, targets[byte as usize])))
    }
}

/// Largest number of transitions that [`minimise`] examines.
const MINIMISE_BUDGET: usize = 20_000_000;

/// Returns for each state the number of its block of equivalent states. Blocks are numbered by their first
/// states.
///
/// This is Moore's algorithm. If it would take too long, every state is its own block, which is correct but
/// larger.
pub(crate) fn minimise(labels: &[u32], rows: &[&Row], symbols: &std::ops::RangeInclusive<u8>) -> Vec<u32> {
    let mut blocks: Vec<u32> = number(labels.iter());
    let mut count = 0;
    let round: usize = rows.iter().map(|row| row.transitions.len() + 4).sum();
    let mut spent = 0;
    loop {
        let now = blocks.iter().max().map_or(0, |max| *max as usize + 1);
        if now == count {
            return blocks;
        }
        count = now;
        spent += round;
        if spent > MINIMISE_BUDGET {
            return (0..labels.len() as u32).collect();
        }
        let signatures: Vec<(u32, Row)> = rows
            .iter()
            .zip(&blocks)
            .map(|(row, block)| (*block, row.map(&blocks, symbols.clone())))
            .collect();
        blocks = number(signatures.iter());
    }
}

fn number<T: Hash + Eq>(items: impl Iterator<Item = T>) -> Vec<u32> {
    let mut numbers = HashMap::new();
    items
        .map(|item| {
            let next = numbers.len() as u32;
            *numbers.entry(item).or_insert(next)
        })
        .collect()
}

/// A `State` is one state of a finished automaton.
pub(crate) struct State<'a> {
    /// The label of paths that end here.
    pub(crate) label: u32,
    /// The join of all labels that can be reached.
    pub(crate) below: u32,
    /// True if a `/` leads here.
    pub(crate) after_slash: bool,
    pub(crate) default: u32,
    pub(crate) transitions: &'a [Transition],
}

struct Record {
    label: u32,
    below: u32,
    default: u32,
    first: u32,
    after_slash: bool,
}

fn hash(label: u32, default: u32, row: &[Transition]) -> u64 {
    let mut hasher = DefaultHasher::new();
    (label, default, row).hash(&mut hasher);
    hasher.finish()
}

/// A `States` is an automaton under construction. Equal states are merged; state 0 is dead.
pub(crate) struct States {
    records: Vec<Record>,
    transitions: Vec<Transition>,
    /// The states by their hash. If two collide, the earlier one is not found again, which only costs a
    /// duplicate.
    known: HashMap<u64, u32>,
    start: u32,
}

impl States {
    pub(crate) fn new() -> Self {
        Self { records: Vec::new(), transitions: Vec::new(), known: HashMap::new(), start: 0 }
    }

    pub(crate) fn len(&self) -> usize {
        self.records.len()
    }

    pub(crate) fn transition_count(&self) -> usize {
        self.transitions.len()
    }

    pub(crate) fn start(&self) -> u32 {
        self.start
    }

    pub(crate) fn below(&self, state: u32) -> u32 {
        self.records[state as usize].below
    }

    /// Returns the known or new state with this label and row, from which `below` follows.
    pub(crate) fn add(
        &mut self,
        label: u32,
        default: u32,
        row: &[Transition],
        below: impl FnOnce(&Self) -> u32,
    ) -> u32 {
        let hash = hash(label, default, row);
        if let Some(&known) = self.known.get(&hash) {
            let state = self.get(known);
            if (state.label, state.default, state.transitions) == (label, default, row) {
                return known;
            }
        }
        let below = below(self);
        let new = self.push(label, default, row, below);
        self.known.insert(hash, new);
        new
    }

    /// Adds a state that differs from all known ones, and may lead to states that are added later.
    pub(crate) fn append(&mut self, label: u32, default: u32, row: &[Transition], below: u32) {
        let hash = hash(label, default, row);
        let new = self.push(label, default, row, below);
        self.known.insert(hash, new);
    }

    fn push(&mut self, label: u32, default: u32, row: &[Transition], below: u32) -> u32 {
        let first = self.transitions.len() as u32;
        self.transitions.extend_from_slice(row);
        self.records.push(Record { label, below, default, first, after_slash: false });
        self.records.len() as u32 - 1
    }

    fn get(&self, state: u32) -> State<'_> {
        let Record { label, below, default, first, after_slash } = self.records[state as usize];
        let end =
            self.records.get(state as usize + 1).map_or(self.transitions.len(), |next| next.first as usize);
        State { label, below, after_slash, default, transitions: &self.transitions[first as usize..end] }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = State<'_>> {
        (0..self.records.len() as u32).map(|state| self.get(state))
    }

    /// Returns only state 0 and those reachable from `start`, in the order of a breadth-first walk.
    pub(crate) fn reachable(&self, start: u32) -> Self {
        let mut numbers = vec![NONE; self.len()];
        let mut order = vec![0];
        numbers[0] = 0;
        let mut visit = |state: u32, order: &mut Vec<u32>| {
            let number = &mut numbers[state as usize];
            if *number == NONE {
                *number = order.len() as u32;
                order.push(state);
            }
            *number
        };
        let mut kept = Self::new();
        kept.start = visit(start, &mut order);
        let mut at = 0;
        while let Some(&state) = order.get(at) {
            let State { label, below, default, transitions, .. } = self.get(state);
            let first = kept.transitions.len() as u32;
            let default = visit(default, &mut order);
            for &(byte, target) in transitions {
                kept.transitions.push((byte, visit(target, &mut order)));
            }
            kept.records.push(Record { label, below, default, first, after_slash: false });
            at += 1;
        }
        for state in 0..kept.len() as u32 {
            let State { default, transitions, .. } = kept.get(state);
            let target =
                transitions.iter().find(|(byte, _)| *byte == b'/').map_or(default, |(_, target)| *target);
            kept.records[target as usize].after_slash = true;
        }
        kept
    }
}
