//! Builds the automaton from names that other names are below, as of paths, to classes.

use super::states::States;
use super::trie::{ROOT, Trie};
use super::{Automaton, comb};
use crate::precedence::error::MAX_SLOTS;
use std::collections::{BTreeMap, HashMap};

/// The class of names that are neither given nor below a given one.
pub(crate) const ELSEWHERE: u16 = 0;

/// A `Place` has the class of a name, and that of what is below it.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    pub(crate) own: u16,
    pub(crate) below: u16,
}

/// Returns the automaton from names to their classes; `None` if it takes more than [`MAX_SLOTS`]. What is below several names
/// has the class of the longest. Below a name is what goes on with a slash.
pub(crate) fn automaton(places: &BTreeMap<Vec<u8>, Place>) -> Option<Automaton> {
    let mut trie = Trie::new();
    let named: HashMap<u32, Place> = places.iter().map(|(name, place)| (trie.insert(name), *place)).collect();
    // The class of what begins like a node but ends elsewhere.
    let mut inherited = vec![ELSEWHERE; trie.len() as usize];
    for node in 0..trie.len() {
        let below = named.get(&node).map_or(inherited[node as usize], |place| place.below);
        for (byte, child) in trie.children(node) {
            inherited[child as usize] = if byte == b'/' { below } else { inherited[node as usize] };
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
        let place = named.get(&node).copied();
        if let Some(place) = place.filter(|_| trie.child(node, b'/').is_none()) {
            row.push((b'/', rest_of(&mut states, &mut rest, place.below)));
        }
        row.sort_unstable();
        let otherwise = rest_of(&mut states, &mut rest, inherited);
        let own = place.map_or(inherited, |place| place.own);
        state_of[node as usize] = states.add(u32::from(own), otherwise, &row, |_| 0);
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
