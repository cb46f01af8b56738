//! The compiled form of one domain: what the kernel reads, and nothing else.
//!
//! Invariants, which the compiler establishes and the kernel side relies on:
//! - A path reaches exactly one object class, an executable's path exactly one subject class.
//! - Every (subject, object) cell names a vector, and every vector decides every permission, so that the
//!   kernel never resolves precedence, ownership or postures.
//! - Directories are walked with a trailing `/`; nothing else ends in one.

use serde::{Deserialize, Serialize};

/// The object class of a path that no rule names.
pub const OBJECT_NONE: u16 = 0;
/// The object class of a file without a path in any mount tree: memfd, pipe, other kernel-internal mounts.
pub const OBJECT_ANONYMOUS: u16 = 1;
/// The object class of a file whose path cannot be told: detached mount, longer than 4096 bytes, torn by renames.
pub const OBJECT_UNRESOLVED: u16 = 2;
/// The first object class that the compiler assigns.
pub const OBJECT_FIRST: u16 = 3;
/// The subject class of a program that no `fromSource` names.
pub const SUBJECT_NONE: u16 = 0;

/// What a task does to an object. The discriminant is the permission's index in a [`Vector`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[repr(u8)]
pub enum Permission {
    /// Open for reading, list a directory, receive a readable descriptor.
    Read = 0,
    /// Open for writing, and every change of a name, an attribute or a length.
    Write = 1,
    /// Start as a program (`execve`), scripts and their interpreters included.
    Exec = 2,
    /// Map with `PROT_EXEC`, as `ld.so PROGRAM` does: `Exec` without the posture, or no library could be loaded.
    Map = 3,
}

/// All permissions, in index order.
pub const PERMISSIONS: [Permission; 4] =
    [Permission::Read, Permission::Write, Permission::Exec, Permission::Map];

/// What happens to an access, from the mildest to the strictest: the order is what "more restrictive" means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[repr(u8)]
pub enum Verdict {
    /// Permitted, silently.
    Allow = 0,
    /// Permitted, with an alert.
    Audit = 1,
    /// Refused with `EACCES`, with an alert.
    Block = 2,
}

/// A verdict and the index in [`Domain::rules`] of the rule that decided: verdict in bits 30..=31, rule below.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Decision(pub u32);

impl Decision {
    /// The largest rule index a decision can hold.
    pub const MAX_RULE: u32 = (1 << 30) - 1;

    /// Packs a verdict and a rule index of at most [`Self::MAX_RULE`].
    pub const fn new(verdict: Verdict, rule: u32) -> Self {
        Self((verdict as u32) << 30 | (rule & Self::MAX_RULE))
    }

    /// The verdict.
    pub const fn verdict(self) -> Verdict {
        match self.0 >> 30 {
            0 => Verdict::Allow,
            1 => Verdict::Audit,
            _ => Verdict::Block,
        }
    }

    /// The index in [`Domain::rules`] of the rule that decided.
    pub const fn rule(self) -> u32 {
        self.0 & Self::MAX_RULE
    }
}

impl std::fmt::Debug for Decision {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}#{}", self.verdict(), self.rule())
    }
}

/// What one subject class may do to one object class: for each permission the decision for a task whose
/// filesystem uid does not own the file, then for one whose does (`[2 * permission + owner]`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Vector(pub [Decision; 8]);

impl Vector {
    /// The decision for one permission.
    pub const fn decision(&self, permission: Permission, owner: bool) -> Decision {
        self.0[2 * permission as usize + owner as usize]
    }
}

/// A DFA over bytes as a comb: one array in which the rows of all states interleave.
///
/// A state is the index of its record. The transition of state `s` on byte `b` (never 0) is `slots[s + b]` if that
/// slot's `check` is `s`; otherwise the state's default. State 0 is dead: its default is 0 and no rule can match.
/// `slots` is long enough that `s + 255` is in bounds for every state.
///
/// Long stretches of a path that rules name literally are walked eight bytes at a time: where a transition leads to a state
/// that begins such a stretch, it names a [`Jump`] instead of the state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Automaton {
    /// The comb.
    pub slots: Vec<Slot>,
    /// The shortcuts that transitions name.
    pub jumps: Vec<Jump>,
    /// The state before the first byte, or the jump that begins there.
    pub start: u32,
}

/// One slot of an [`Automaton`]: a state's record, a transition, or free (`check == Slot::FREE`).
///
/// A record holds `check = Slot::RECORD | default state` and `next = below class << 16 | class`.
/// A transition holds `check = the state it belongs to` and `next = the state it leads to`, or [`Slot::JUMP`] with the index
/// of the jump that begins there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slot {
    /// Whose slot it is.
    pub check: u32,
    /// Where it leads, or a record's classes.
    pub next: u32,
}

impl Slot {
    /// Set in `check` of a state's record.
    pub const RECORD: u32 = 1 << 31;
    /// Set in `next` of a transition that names a jump.
    pub const JUMP: u32 = 1 << 31;
    /// `check` of a slot in nobody's use.
    pub const FREE: Self = Self { check: u32::MAX, next: 0 };
}

/// A shortcut: from the state `from` the next eight bytes, if they are exactly these, lead to `to`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Jump {
    /// What the path must go on with.
    pub bytes: [u8; 8],
    /// Where to go on, byte by byte, if it does not.
    pub from: u32,
    /// The state behind the bytes, or the jump that begins there.
    pub to: u32,
}

impl Automaton {
    /// The state after one byte.
    pub fn step(&self, state: u32, byte: u8) -> u32 {
        self.state(self.next(self.state(state), byte))
    }

    /// The state after a whole path, exactly as the kernel side walks.
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

    /// The class of what ends here.
    pub fn class(&self, state: u32) -> u16 {
        self.slots[state as usize].next as u16
    }

    /// After a directory's `/`: the class whose vectors are the most restrictive of the directory's own and of
    /// everything that can lie below it. Decides whether a directory may get another name. 0 elsewhere.
    pub fn below(&self, state: u32) -> u16 {
        (self.slots[state as usize].next >> 16) as u16
    }
}

/// Everything the kernel needs to know about one domain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Domain {
    /// Path to object class.
    pub objects: Automaton,
    /// Executable's path to subject class.
    pub subjects: Automaton,
    /// How many object classes there are, the reserved ones included.
    pub object_count: u32,
    /// How many subject classes there are, [`SUBJECT_NONE`] included.
    pub subject_count: u32,
    /// `[subject * object_count + object]`: an index into `vectors`.
    pub cells: Vec<u32>,
    /// The distinct access vectors.
    pub vectors: Vec<Vector>,
    /// What alerts say of each rule. Index 0 is the default posture, 1 the refusal of what has no path.
    pub rules: Vec<RuleInfo>,
}

impl Domain {
    /// Rule index of a decision that no rule but the posture made.
    pub const RULE_DEFAULT: u32 = 0;
    /// Rule index of a refusal because the object has no path.
    pub const RULE_UNRESOLVED: u32 = 1;

    /// The vector for a subject and an object class.
    pub fn vector(&self, subject: u16, object: u16) -> &Vector {
        &self.vectors[self.cells[subject as usize * self.object_count as usize + object as usize] as usize]
    }
}

/// What an alert says of the rule that decided.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleInfo {
    /// `metadata.name` of the policy, `DefaultPosture` or `UnresolvedPath` for the two reserved rules.
    pub policy: String,
    /// Where the rule stands: `file:line`; empty for the reserved rules.
    pub location: String,
    /// 1 to 10, 0 where the policy gives none.
    pub severity: u8,
    /// As written.
    pub tags: Vec<String>,
    /// As written; empty where the policy gives none.
    pub message: String,
}
