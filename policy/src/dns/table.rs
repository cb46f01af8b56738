//! Defines the table that decides, for each subject class, on questions for names.

use super::model::{DnsName, backwards};
use crate::automaton::Automaton;
use crate::decision::Decision;
use crate::keyed::KeyedTable;

/// A `NameTable` decides on questions for names. Without rules it is empty, and decides nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameTable {
    /// The automaton from a name to its class. It reads a slash, then the name's bytes in lower case from its end, each dot as
    /// a slash.
    pub names: Automaton,
    /// The decisions on classes. What is no class stands for what asks for no certain name: the decision is the strictest
    /// of all.
    pub cells: KeyedTable,
}

impl Default for NameTable {
    fn default() -> Self {
        let names = Automaton { slots: Vec::new(), jumps: Vec::new(), start: 0 };
        Self { names, cells: KeyedTable::default() }
    }
}

impl NameTable {
    /// Returns the decision on a question for a subject class. Without rules everything is permitted silently.
    #[must_use]
    pub fn decision(&self, subject: u16, name: &DnsName) -> Decision {
        if self.cells.rows.is_empty() {
            return Decision::ALLOW;
        }
        let class = self.names.class(self.names.walk(&backwards(name.as_str())));
        self.cells.decision(subject, usize::from(class))
    }

    /// Returns the decision for a subject class on what asks for no certain name.
    #[must_use]
    pub fn decision_on_any_name(&self, subject: u16) -> Decision {
        self.cells.decision(subject, usize::MAX)
    }
}
