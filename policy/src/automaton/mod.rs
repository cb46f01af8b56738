//! Defines automata over bytes in the form in which the kernel side walks them.
//!
//! An automaton is made from a `trie` or from rows, merged as `states`, and packed by `comb`; one of names that others are
//! below by `hierarchy`.

pub(crate) mod comb;
pub(crate) mod hierarchy;
pub(crate) mod states;
pub(crate) mod trie;

/// An `Automaton` is a DFA over bytes, stored as a comb: one array in which the rows of all states
/// interleave.
///
/// A state is the index of its record. The transition of state `s` on byte `b` (never 0) is `slots[s + b]` if
/// that slot's `check` is `s`; otherwise it is the state's default. State 0 is dead: its default is 0 and no
/// rule can match. `slots` is long enough that `s + 255` is in bounds for every state.
///
/// Long stretches of a path that rules name literally are walked eight bytes at a time: a transition to a
/// state that begins such a stretch names a [`Jump`] instead of the state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Automaton {
    /// The slots of the comb.
    pub slots: Vec<Slot>,
    /// The jumps that transitions name.
    pub jumps: Vec<Jump>,
    /// The state before the first byte, or the jump that begins there.
    pub start: u32,
}

/// A `Slot` is one slot of an [`Automaton`]: a state's record, a transition, or free ([`Slot::FREE`]).
///
/// A record holds `check = Slot::RECORD | default state` and `next = below class << 16 | class`. A transition
/// holds `check = the state it belongs to` and `next = the state it leads to`, or [`Slot::JUMP`] with the
/// index of the jump that begins there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// A transition's own state, or a record's default state.
    pub check: u32,
    /// A transition's target, or a record's classes.
    pub next: u32,
}

impl Slot {
    /// The bit that marks a state's record in `check`.
    pub const RECORD: u32 = 1 << 31;
    /// The bit that marks a jump in a transition's `next`.
    pub const JUMP: u32 = 1 << 31;
    /// A slot that no state uses.
    pub const FREE: Self = Self { check: u32::MAX, next: 0 };
}

/// A `Jump` leads from the state `from` to `to` if the next eight bytes of the path are exactly `bytes`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Jump {
    /// The bytes with which the path must continue.
    pub bytes: [u8; 8],
    /// The state from which to continue byte by byte otherwise.
    pub from: u32,
    /// The state after the bytes, or the jump that begins there.
    pub to: u32,
}

impl Automaton {
    /// Returns the state after one byte.
    pub fn step(&self, state: u32, byte: u8) -> u32 {
        self.state(self.next(self.state(state), byte))
    }

    /// Returns the state after a whole path, walking exactly as the kernel side does.
    pub fn walk(&self, path: &[u8]) -> u32 {
        let (mut at, mut rest) = (self.start, path);
        while let Some((&byte, tail)) = rest.split_first() {
            if let Some(jump) = self.jump(at)
                && let Some(behind) = rest.strip_prefix(&jump.bytes)
            {
                (at, rest) = (jump.to, behind);
            } else {
                (at, rest) = (self.next(self.state(at), byte), tail);
            }
        }
        self.state(at)
    }

    fn next(&self, state: u32, byte: u8) -> u32 {
        let slot = self.slots[state as usize + byte as usize];
        if slot.check == state { slot.next } else { self.slots[state as usize].check & !Slot::RECORD }
    }

    fn jump(&self, at: u32) -> Option<&Jump> {
        (at & Slot::JUMP != 0).then(|| &self.jumps[(at & !Slot::JUMP) as usize])
    }

    fn state(&self, at: u32) -> u32 {
        self.jump(at).map_or(at, |jump| jump.from)
    }

    /// Returns the class of a path that ends in this state.
    pub fn class(&self, state: u32) -> u16 {
        self.slots[state as usize].next as u16
    }

    /// Returns the class whose vectors are the most restrictive of a directory's own and of everything that
    /// can lie below it, for the state after the directory's `/`; otherwise 0. It decides whether a directory
    /// may get another path.
    pub fn below(&self, state: u32) -> u16 {
        (self.slots[state as usize].next >> 16) as u16
    }
}
