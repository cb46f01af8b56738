//! Builds one DFA for all patterns of a domain.

use super::entries::Entries;
use crate::automaton::states::{Row, minimise};
use crate::path::Target;
use crate::precedence::error::CompileError;
use regex_automata::dfa::{Automaton as _, StartKind, dense};
use regex_automata::nfa::thompson;
use regex_automata::util::primitives::StateID;
use regex_automata::util::syntax;
use regex_automata::{Anchored, MatchKind};
use std::collections::{BTreeMap, HashMap};

/// Largest size of the DFA of all patterns, and of the memory to build it with, in bytes.
const MAX_DFA: usize = 8 << 20;
/// Largest size of the NFA, in bytes.
const MAX_NFA: usize = 4 << 20;

/// A `Globs` is the DFA of all patterns: minimal, complete, and over byte classes.
pub(super) struct Globs {
    pub(super) start: u32,
    classes: [u8; 256],
    class_count: usize,
    next: Vec<u32>,
    /// For each state, an index into `sets`.
    set_of: Vec<u32>,
    /// The sets of entries that match, as ranks. The first set is empty.
    sets: Vec<Vec<u32>>,
}

impl Globs {
    /// Builds the DFA.
    ///
    /// # Errors
    /// Fails if the patterns need too large a DFA, naming the most complex pattern.
    pub(super) fn new(entries: &Entries<'_>) -> Result<Self, CompileError> {
        let mut by_regex: BTreeMap<String, Vec<u32>> = BTreeMap::new();
        for (rank, entry) in entries.list.iter().enumerate() {
            if let Target::Glob(glob) = &entry.target {
                by_regex.entry(glob.regex()).or_default().push(rank as u32);
            }
        }
        if by_regex.is_empty() {
            return Ok(Self {
                start: 0,
                classes: [0; 256],
                class_count: 1,
                next: vec![0],
                set_of: vec![0],
                sets: vec![Vec::new()],
            });
        }
        let regexes: Vec<&str> = by_regex.keys().map(String::as_str).collect();
        let dfa = build(&regexes).ok_or_else(|| entries.most_complex_pattern())?;
        let ranks: Vec<Vec<u32>> = by_regex.into_values().collect();
        Ok(Self::convert(&dfa, &ranks))
    }

    fn convert(dfa: &dense::DFA<Vec<u32>>, ranks: &[Vec<u32>]) -> Self {
        let mut classes = [0; 256];
        let mut samples: Vec<u8> = Vec::new();
        // Byte 0 is in no path, so its class does not matter.
        for byte in 1..=255_u8 {
            let class = dfa.byte_classes().get(byte);
            let known = samples.iter().position(|&sample| dfa.byte_classes().get(sample) == class);
            classes[byte as usize] = known.unwrap_or_else(|| {
                samples.push(byte);
                samples.len() - 1
            }) as u8;
        }
        let symbols = 0..=(samples.len() - 1) as u8;

        let mut numbers: HashMap<StateID, u32> = HashMap::new();
        let mut order: Vec<StateID> = Vec::new();
        let mut visit = |id: StateID, order: &mut Vec<StateID>| {
            *numbers.entry(id).or_insert_with(|| {
                order.push(id);
                order.len() as u32 - 1
            })
        };
        // Patterns have no look-around, so one start state serves all contexts.
        let start = dfa.universal_start_state(Anchored::Yes).unwrap_or_default();
        visit(start, &mut order);
        let mut set_ids: HashMap<Vec<u32>, u32> = HashMap::from([(Vec::new(), 0)]);
        let mut sets = vec![Vec::new()];
        let (mut rows, mut labels) = (Vec::new(), Vec::new());
        while let Some(&id) = order.get(rows.len()) {
            let targets: Vec<(u8, u32)> = symbols
                .clone()
                .map(|c| (c, visit(dfa.next_state(id, samples[c as usize]), &mut order)))
                .collect();
            rows.push(Row::new(targets.iter().copied()));
            let end = dfa.next_eoi_state(id);
            let mut set: Vec<u32> = Vec::new();
            if dfa.is_match_state(end) {
                let matched = (0..dfa.match_len(end)).map(|i| dfa.match_pattern(end, i));
                set.extend(matched.flat_map(|pattern| &ranks[pattern.as_usize()]));
                set.sort_unstable();
            }
            labels.push(*set_ids.entry(set).or_insert_with_key(|set| {
                sets.push(set.clone());
                sets.len() as u32 - 1
            }));
        }

        let blocks = minimise(&labels, &rows.iter().collect::<Vec<_>>(), &symbols);
        let (mut next, mut set_of) = (Vec::new(), Vec::new());
        for (state, row) in rows.iter().enumerate() {
            // The first state of a block represents the block.
            if blocks[state] as usize == set_of.len() {
                let mut targets = vec![blocks[row.default as usize]; samples.len()];
                for &(class, target) in &row.transitions {
                    targets[class as usize] = blocks[target as usize];
                }
                next.extend(targets);
                set_of.push(labels[state]);
            }
        }
        Self { start: blocks[0], classes, class_count: samples.len(), next, set_of, sets }
    }

    pub(super) fn step(&self, state: u32, byte: u8) -> u32 {
        self.step_class(state, self.class(byte))
    }

    pub(super) fn step_class(&self, state: u32, class: usize) -> u32 {
        self.next[state as usize * self.class_count + class]
    }

    pub(super) fn class(&self, byte: u8) -> usize {
        self.classes[byte as usize] as usize
    }

    pub(super) fn class_count(&self) -> usize {
        self.class_count
    }

    /// Returns the index of the set of entries that match at a state; set 0 is empty.
    pub(super) fn set(&self, state: u32) -> u32 {
        self.set_of[state as usize]
    }

    pub(super) fn entries(&self, set: u32) -> &[u32] {
        &self.sets[set as usize]
    }
}

fn build(regexes: &[&str]) -> Option<dense::DFA<Vec<u32>>> {
    let config = dense::Config::new()
        .match_kind(MatchKind::All)
        .start_kind(StartKind::Anchored)
        .accelerate(false)
        .dfa_size_limit(Some(MAX_DFA))
        .determinize_size_limit(Some(MAX_DFA));
    dense::Builder::new()
        .configure(config)
        .syntax(syntax::Config::new().unicode(false).utf8(false))
        .thompson(thompson::Config::new().utf8(false).nfa_size_limit(Some(MAX_NFA)))
        .build_many(regexes)
        .ok()
}
