//! Defines the compiled form of one domain: the tables that the kernel side reads, and the descriptions of
//! rules for alerts.
//!
//! Each program's path leads to exactly one subject class. The tables of each kind of rule decide by it.

use crate::automaton::Automaton;
use crate::decision::RuleInfo;
use crate::path::Vector;
use serde::{Deserialize, Serialize};

/// The subject class of a program that no `fromSource` names.
pub const SUBJECT_NONE: u16 = 0;

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
