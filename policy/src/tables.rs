//! Defines the compiled form of one domain: the tables that the kernel side reads, and the descriptions of
//! rules for alerts.
//!
//! The compiler establishes these invariants, and the kernel side relies on them:
//! - Each path leads to exactly one object class, and each program's path to exactly one subject class.
//! - Every (subject, object) cell names a vector, and every vector decides every permission, so that the
//!   kernel side never resolves precedence, ownership or postures.
//! - A directory's path is walked with a trailing `/`; no other path ends in one.

use serde::{Deserialize, Serialize};

/// The object class of a path that no rule matches.
pub const OBJECT_NONE: u16 = 0;
/// The object class of a file without a path in any mount tree: memfd, pipe, or on another kernel-internal
/// mount.
pub const OBJECT_ANONYMOUS: u16 = 1;
/// The object class of a file whose path cannot be determined: on a detached mount, longer than 4096 bytes,
/// or renamed while the path was read.
pub const OBJECT_UNRESOLVED: u16 = 2;
/// The first object class that the compiler assigns.
pub const OBJECT_FIRST: u16 = 3;
/// The subject class of a program that no `fromSource` names.
pub const SUBJECT_NONE: u16 = 0;

/// A `Permission` is a kind of access of a task to an object. Its discriminant is the index of its pair of
/// decisions in a [`Vector`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[repr(u8)]
pub enum Permission {
    /// Opening for reading, listing a directory, or receiving a readable descriptor.
    Read = 0,
    /// Opening for writing, and changing a name, an attribute or a length.
    Write = 1,
    /// Starting as a program (`execve`), scripts and their interpreters included.
    Exec = 2,
    /// Mapping with `PROT_EXEC`, as `ld.so PROGRAM` does. The posture does not apply; otherwise no library
    /// could be loaded.
    Map = 3,
}

/// All permissions, in index order.
pub const PERMISSIONS: [Permission; 4] =
    [Permission::Read, Permission::Write, Permission::Exec, Permission::Map];

/// A `Verdict` says what happens to an access. The order, from mildest to strictest, defines "more
/// restrictive".
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[repr(u8)]
pub enum Verdict {
    /// The access is permitted silently.
    Allow = 0,
    /// The access is permitted, with an alert.
    Audit = 1,
    /// The access is refused with `EACCES`, with an alert.
    Block = 2,
}

/// A `Decision` holds a verdict in bits 30..=31 and, in the bits below, the index in [`Domain::rules`] of the
/// rule that decided.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Decision(pub u32);

impl Decision {
    /// Largest rule index that a decision can hold.
    pub const MAX_RULE: u32 = (1 << 30) - 1;

    /// Packs a verdict and a rule index, which is at most [`Self::MAX_RULE`].
    pub const fn new(verdict: Verdict, rule: u32) -> Self {
        Self((verdict as u32) << 30 | (rule & Self::MAX_RULE))
    }

    /// Returns the verdict.
    pub const fn verdict(self) -> Verdict {
        match self.0 >> 30 {
            0 => Verdict::Allow,
            1 => Verdict::Audit,
            _ => Verdict::Block,
        }
    }

    /// Returns the index in [`Domain::rules`] of the rule that decided.
    pub const fn rule(self) -> u32 {
        self.0 & Self::MAX_RULE
    }
}

impl std::fmt::Debug for Decision {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}#{}", self.verdict(), self.rule())
    }
}

/// A `Vector` holds the decisions for one subject class and one object class: at `[2 * permission + owner]`,
/// where `owner` is 1 if the task's filesystem uid owns the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Vector(pub [Decision; 8]);

impl Vector {
    /// Returns the decision for one permission.
    pub const fn decision(&self, permission: Permission, owner: bool) -> Decision {
        self.0[2 * permission as usize + owner as usize]
    }
}

/// An `Automaton` is a DFA over bytes, stored as a comb: one array in which the rows of all states
/// interleave.
///
/// A state is the index of its record. The transition of state `s` on byte `b` (never 0) is `slots[s + b]` if
/// that slot's `check` is `s`; otherwise it is the state's default. State 0 is dead: its default is 0 and no
/// rule can match. `slots` is long enough that `s + 255` is in bounds for every state.
///
/// Long stretches of a path that rules name literally are walked eight bytes at a time: a transition to a
/// state that begins such a stretch names a [`Jump`] instead of the state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
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

/// A `Domain` holds everything that the kernel side needs to know about one domain, and `rules` for alerts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Domain {
    /// The automaton from a path to its object class.
    pub objects: Automaton,
    /// The automaton from a program's path to its subject class.
    pub subjects: Automaton,
    /// Number of object classes, the reserved ones included.
    pub object_count: u32,
    /// Number of subject classes, [`SUBJECT_NONE`] included.
    pub subject_count: u32,
    /// Indices into `vectors`, at `[subject * object_count + object]`.
    pub cells: Vec<u32>,
    /// The distinct access vectors.
    pub vectors: Vec<Vector>,
    /// The description of each rule for alerts. Index 0 is the default posture, 1 the refusal of objects
    /// without a path.
    pub rules: Vec<RuleInfo>,
}

impl Domain {
    /// Rule index of a decision that the posture made, and no rule.
    pub const RULE_DEFAULT: u32 = 0;
    /// Rule index of a refusal because the object has no path.
    pub const RULE_UNRESOLVED: u32 = 1;

    /// Returns the vector for a subject class and an object class.
    pub fn vector(&self, subject: u16, object: u16) -> &Vector {
        &self.vectors[self.cells[subject as usize * self.object_count as usize + object as usize] as usize]
    }
}

/// A `RuleInfo` describes, for an alert, the rule that decided.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleInfo {
    /// The policy's `metadata.name`, or `DefaultPosture` or `UnresolvedPath` for the two reserved rules.
    pub policy: String,
    /// The rule's place as `file:line`; empty for the reserved rules.
    pub location: String,
    /// The severity from 1 to 10, or 0 if the policy gives none.
    pub severity: u8,
    /// The tags as written.
    pub tags: Vec<String>,
    /// The message as written; empty if the policy gives none.
    pub message: String,
}
