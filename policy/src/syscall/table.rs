//! Defines the table that says, for each subject class, which system calls are reported.

use super::model::Syscall;
use crate::automaton::Automaton;
use crate::automaton::hierarchy::ELSEWHERE;
use crate::decision::Decision;
use crate::keyed::KeyedTable;
use std::collections::BTreeSet;

/// A `SyscallTable` says which calls are reported. Without rules it is empty, and decides nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyscallTable {
    /// The decisions by [the calls' numbers](Syscall::number), whatever path they name.
    pub calls: KeyedTable,
    /// The automaton from a call and a path to their class. It reads the two bytes of [`SyscallTable::prefix`], then the path.
    pub paths: Automaton,
    /// The decisions on classes; where a call and its path have none, those on calls count.
    pub cells: KeyedTable,
    /// The calls that rules name with a path.
    pub with_paths: BTreeSet<Syscall>,
}

impl Default for SyscallTable {
    fn default() -> Self {
        Self {
            calls: KeyedTable::default(),
            paths: Automaton { slots: Vec::new(), jumps: Vec::new(), start: 0 },
            cells: KeyedTable::default(),
            with_paths: BTreeSet::new(),
        }
    }
}

impl SyscallTable {
    /// Stands for a path that cannot be read: each rule for the call with some path is about it.
    pub const UNREADABLE: &str = "\u{1}";

    /// Returns the bytes that stand for a call before its path. They are neither 0 nor a slash.
    #[must_use]
    pub const fn prefix(call: Syscall) -> [u8; 2] {
        [0x80 | (call.number() >> 7) as u8, 0x80 | (call.number() & 0x7f) as u8]
    }

    /// Returns the decision for a subject class on a call with a path, which is absolute, normal and without a last `/`.
    #[must_use]
    pub fn decision(&self, subject: u16, call: Syscall, path: Option<&str>) -> Decision {
        match path.map_or(ELSEWHERE, |path| self.class(call, path)) {
            ELSEWHERE => self.calls.decision(subject, call.number()),
            class => self.cells.decision(subject, usize::from(class)),
        }
    }

    fn class(&self, call: Syscall, path: &str) -> u16 {
        if self.with_paths.is_empty() {
            return ELSEWHERE;
        }
        self.paths.class(self.paths.walk(&[&Self::prefix(call), path.as_bytes()].concat()))
    }

    /// Returns whether a call is reported for some subject class.
    #[must_use]
    pub fn reports(&self, call: Syscall) -> bool {
        self.calls.decides(call.number()) || self.with_paths.contains(&call)
    }
}
