//! Packs the states of a DFA into the comb of an [`Automaton`].

use super::states::States;
use super::{Automaton, Jump, Slot};

/// A `State` is a state to pack. Other states refer to it by its index.
#[derive(Clone, Copy, Debug)]
pub(crate) struct State<'a> {
    pub(crate) class: u16,
    pub(crate) below: u16,
    pub(crate) default: u32,
    /// The bytes on which the state leads elsewhere than to `default`, and where; sorted, never byte 0.
    pub(crate) transitions: &'a [(u8, u32)],
}

/// Number of words that a search examines before it puts the state behind all others; bounds the work.
const MAX_PROBES: usize = 64;

/// Packs states whose labels are classes, or returns `None` if they take more than `limit` slots.
pub(crate) fn pack_classes(states: &States, limit: usize) -> Option<Automaton> {
    let of = states.iter().map(|state| State {
        class: state.label as u16,
        below: 0,
        default: state.default,
        transitions: state.transitions,
    });
    pack(&of.collect::<Vec<_>>(), states.start(), limit)
}

/// Packs `states`, the first of which is dead, or returns `None` if they take more than `limit` slots. A jump
/// counts as two.
pub(crate) fn pack(states: &[State<'_>], start: u32, limit: usize) -> Option<Automaton> {
    // The fullest states come first, while the comb is empty. The sort is stable, so the result is always the
    // same.
    let mut order: Vec<u32> = (1..states.len() as u32).collect();
    order.sort_by_key(|&state| std::cmp::Reverse(states[state as usize].transitions.len()));

    let mut free = Free::default();
    let mut bases = vec![0; states.len()];
    free.take(0);
    for state in order {
        let transitions = states[state as usize].transitions;
        let base = free.find(transitions);
        if base + 256 > limit {
            return None;
        }
        free.take(base);
        for (byte, _) in transitions {
            free.take(base + *byte as usize);
        }
        bases[state as usize] = base as u32;
    }

    let runs = Runs::find(states, start);
    let entry = |state: u32| match runs.of[state as usize] {
        Some(jump) => Slot::JUMP | jump,
        None => bases[state as usize],
    };
    let last = bases.iter().max().map_or(0, |base| *base as usize);
    let mut slots = vec![Slot::FREE; last + 256];
    for (state, &base) in states.iter().zip(&bases) {
        slots[base as usize] = Slot {
            check: Slot::RECORD | bases[state.default as usize],
            next: u32::from(state.below) << 16 | u32::from(state.class),
        };
        for &(byte, target) in state.transitions {
            slots[base as usize + byte as usize] = Slot { check: base, next: entry(target) };
        }
    }
    let jump = |run: &Run| Jump { bytes: run.bytes, from: bases[run.from as usize], to: entry(run.to) };
    let jumps: Vec<_> = runs.all.iter().map(jump).collect();
    (slots.len() + 2 * jumps.len() <= limit).then_some(Automaton { slots, jumps, start: entry(start) })
}

/// A `Run` is a chain of eight states, each of which has exactly one transition.
struct Run {
    bytes: [u8; 8],
    from: u32,
    to: u32,
}

/// `Runs` holds the runs that are worth a jump: they begin where paths part or where another run ends.
struct Runs {
    all: Vec<Run>,
    /// For each state, the index of the run that begins there.
    of: Vec<Option<u32>>,
}

impl Runs {
    fn find(states: &[State<'_>], start: u32) -> Self {
        let mut runs = Self { all: Vec::new(), of: vec![None; states.len()] };
        let parting = states.iter().filter(|state| state.transitions.len() != 1);
        let entries = parting.flat_map(|state| state.transitions).map(|(_, target)| *target);
        for entry in entries.chain([start]) {
            let mut from = entry;
            while runs.of[from as usize].is_none()
                && let Some(run) = run(states, from)
            {
                runs.of[from as usize] = Some(runs.all.len() as u32);
                from = run.to;
                runs.all.push(run);
            }
        }
        runs
    }
}

fn run(states: &[State<'_>], from: u32) -> Option<Run> {
    let (mut bytes, mut to) = ([0; 8], from);
    for byte in &mut bytes {
        let &[(only, target)] = states[to as usize].transitions else { return None };
        (*byte, to) = (only, target);
    }
    Some(Run { bytes, from, to })
}

/// A `Free` records which slots are taken, as a bit set without an end.
#[derive(Default)]
struct Free {
    taken: Vec<u64>,
    /// For each range of transition counts, the word where the last search ended: the words before it are too
    /// full.
    hints: [usize; 4],
}

impl Free {
    fn take(&mut self, slot: usize) {
        let word = slot / 64;
        if self.taken.len() <= word {
            self.taken.resize(word + 1, 0);
        }
        self.taken[word] |= 1 << (slot % 64);
    }

    /// Returns the slots `from..from + 64` as bits; a bit is set if the slot is taken.
    fn window(&self, from: usize) -> u64 {
        let word = |index: usize| self.taken.get(index).copied().unwrap_or(0);
        let (index, shift) = (from / 64, from % 64);
        let low = word(index) >> shift;
        if shift == 0 { low } else { low | word(index + 1) << (64 - shift) }
    }

    /// Returns a base for these transitions: a free slot with a free slot at the distance of each byte.
    fn find(&mut self, transitions: &[(u8, u32)]) -> usize {
        let hint = match transitions.len() {
            0 => 0,
            1 => 1,
            2..=8 => 2,
            _ => 3,
        };
        let first = self.hints[hint];
        for word in first..first + MAX_PROBES {
            let from = word * 64;
            let taken = transitions.iter().fold(self.window(from), |taken, &(byte, _)| {
                if taken == u64::MAX { taken } else { taken | self.window(from + byte as usize) }
            });
            if taken != u64::MAX {
                self.hints[hint] = word;
                return from + taken.trailing_ones() as usize;
            }
        }
        // No room nearby: the state certainly fits behind all others, and the next search begins further on.
        self.hints[hint] += MAX_PROBES / 2;
        self.taken.len() * 64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_comb_steps_as_its_states() {
        // The rows have many overlapping shapes, from empty to full.
        let rows: Vec<Vec<(u8, u32)>> = (0..600_u32)
            .map(|state| match state {
                0 => Vec::new(),
                _ => (1..=255_u8)
                    .filter(|&byte| (u32::from(byte) * 7 + state * 13).is_multiple_of(state % 97 + 1))
                    .map(|byte| (byte, (state * 31 + u32::from(byte)) % 600))
                    .collect(),
            })
            .collect();
        let states: Vec<State<'_>> = rows
            .iter()
            .enumerate()
            .map(|(i, transitions)| State {
                class: i as u16,
                below: 0,
                default: (i as u32 * 17) % 600,
                transitions,
            })
            .collect();
        let automaton = pack(&states, 599, usize::MAX).unwrap();
        let base_of = |state: usize| {
            (0..automaton.slots.len() - 255)
                .find(|&slot| {
                    let Slot { check, next } = automaton.slots[slot];
                    check != u32::MAX && check & Slot::RECORD != 0 && next as usize == state
                })
                .unwrap() as u32
        };
        let bases: Vec<u32> = (0..600).map(base_of).collect();
        assert_eq!((bases[0], automaton.walk(b"")), (0, bases[599]));
        for (state, row) in states.iter().zip(&rows) {
            for byte in 1..=255 {
                let target =
                    row.iter().find(|(b, _)| *b == byte).map_or(state.default, |(_, target)| *target);
                assert_eq!(automaton.step(bases[state.class as usize], byte), bases[target as usize]);
            }
        }
    }

    #[test]
    fn jumps_lead_where_steps_lead() {
        // Two chains of 20 states part after the first byte; a loop must not be followed forever.
        let state = |transitions| State { class: 0, below: 0, default: 0, transitions };
        let rows: Vec<Vec<(u8, u32)>> = (0..=43_u32)
            .map(|state| match state {
                0 | 21 => Vec::new(),
                1 => vec![(b'a', 2), (b'b', 22), (b'c', 43)],
                43 => vec![(b'c', 43)],
                42 => vec![(b'z', 21)],
                _ => vec![(b'a' + (state % 26) as u8, state + 1)],
            })
            .collect();
        let states: Vec<State<'_>> = rows.iter().map(|row| state(row.as_slice())).collect();
        let automaton = pack(&states, 1, usize::MAX).unwrap();
        assert_eq!(automaton.jumps.len(), 2 + 2 + 1);
        let path = |first: u8, from: u32| -> Vec<u8> {
            [first].into_iter().chain((from..from + 20).map(|state| b'a' + (state % 26) as u8)).collect()
        };
        for whole in [path(b'a', 2), path(b'b', 22), vec![b'c'; 30]] {
            for end in 0..whole.len() {
                for wrong in [None, Some(b'!')] {
                    let path: Vec<u8> = whole[..end].iter().copied().chain(wrong).collect();
                    let stepped = path.iter().fold(automaton.walk(b""), |at, &byte| automaton.step(at, byte));
                    assert_eq!(automaton.walk(&path), stepped, "{}", path.escape_ascii());
                }
            }
        }
    }

    #[test]
    fn stops_at_the_limit() {
        let dead = State { class: 0, below: 0, default: 0, transitions: &[] };
        assert!(pack(&[dead; 1000], 0, 1000).is_none());
    }
}
