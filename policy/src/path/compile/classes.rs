//! Builds access vectors, and from them the columns that make object classes.
//!
//! A column holds the vectors of one kind of object, one for each subject class. Columns are interned, so
//! equal outcomes have one number; number 0 is the column of objects that no rule matches. The object classes
//! are the columns that the finished automaton uses.

use super::entries::Entries;
use crate::automaton::states::States;
use crate::decision::PostureClass;
use crate::decision::{Decision, Verdict};
use crate::model::Action;
use crate::path::Section;
use crate::path::tables::{OBJECT_FIRST, Permission, Vector};
use crate::precedence::error::MAX_CELLS;
use crate::precedence::postures::{stricter, unmatched};
use crate::precedence::subjects::{Deciding, Subjects};
use crate::preset::{self, Preset};
use std::collections::HashMap;
use std::rc::Rc;

#[cfg(doc)]
use crate::path::PathTables;

pub(super) struct Classes<'r> {
    entries: &'r Entries<'r>,
    subjects: &'r Subjects,
    /// For each section, the decision for each subject class on what no rule matches.
    unmatched: [Vec<Decision>; 2],
    /// The number of each subject class's pair of such decisions.
    pairs: Vec<usize>,
    vectors: Vec<Vector>,
    vector_ids: HashMap<Vector, u32>,
    columns: Vec<Rc<[u32]>>,
    column_ids: HashMap<Rc<[u32]>, u32>,
    vector_joins: HashMap<(u32, u32), u32>,
    column_joins: HashMap<(u32, u32), u32>,
    /// The columns of objects without a path: classes of their own, even if they equal other columns.
    anonymous: Vec<u32>,
    unresolved: Vec<u32>,
    /// Set once there are more columns than allowed; all later results are meaningless.
    overflow: bool,
}

const SECTIONS: [Section; 2] = [Section::Process, Section::File];

/// Returns the permissions of a section, in the order of a rule's `effect`.
const fn permissions(section: Section) -> [Permission; 2] {
    match section {
        Section::Process => [Permission::Exec, Permission::Map],
        Section::File => [Permission::Read, Permission::Write],
    }
}

impl<'r> Classes<'r> {
    pub(super) fn new(entries: &'r Entries<'r>, subjects: &'r Subjects) -> Self {
        let unmatched = SECTIONS.map(|section| {
            let restricting = entries.rules_of(section).filter(|(_, rule)| rule.restricts);
            unmatched(entries.rules, subjects, PostureClass::File, restricting.map(|(index, _)| index))
        });
        let mut numbers = HashMap::new();
        let pairs = std::iter::zip(&unmatched[0], &unmatched[1]).map(|pair| {
            let next = numbers.len();
            *numbers.entry(pair).or_insert(next)
        });
        let pairs = pairs.collect();
        let mut classes = Self {
            entries,
            subjects,
            unmatched,
            pairs,
            vectors: Vec::new(),
            vector_ids: HashMap::new(),
            columns: Vec::new(),
            column_ids: HashMap::new(),
            vector_joins: HashMap::new(),
            column_joins: HashMap::new(),
            anonymous: Vec::new(),
            unresolved: Vec::new(),
            overflow: false,
        };
        classes.column(&mut Vec::new());
        let process = classes.without_path(Section::Process);
        // What the preset says names it in the alert.
        let fileless = preset::compile::decision(entries.rules, Preset::FilelessExec);
        let or_fileless =
            |other: Decision| if fileless.verdict() < other.verdict() { other } else { fileless };
        let file = classes.without_path(Section::File);
        let vector = |read_write: Decision, exec: Decision, map: Decision| {
            Vector([read_write, read_write, read_write, read_write, exec, exec, map, map], 0)
        };
        for subject in 0..subjects.count() as usize {
            let process_unmatched = classes.unmatched[Section::Process as usize][subject];
            let map = if process_unmatched.verdict() == Verdict::Block {
                Decision::new(Verdict::Block, Decision::RULE_UNRESOLVED)
            } else {
                Decision::ALLOW
            };
            let anonymous = classes.vector(vector(Decision::ALLOW, or_fileless(process), or_fileless(map)));
            classes.anonymous.push(anonymous);
            let unresolved = classes.vector(vector(file, process, process));
            classes.unresolved.push(unresolved);
        }
        classes
    }

    /// Returns the decision of a section for objects without a path, which no rule can match.
    fn without_path(&self, section: Section) -> Decision {
        // Rules other than Audit are meant to refuse accesses, so an access that cannot be judged is refused.
        let strictest = self.entries.rules_of(section).map(|(_, rule)| match rule.rule.common.action {
            Action::Audit => Verdict::Audit,
            Action::Allow | Action::Block => Verdict::Block,
        });
        strictest.max().map_or(Decision::ALLOW, |verdict| Decision::new(verdict, Decision::RULE_UNRESOLVED))
    }

    /// Returns the column of objects that match exactly these entries, and sorts the entries by rank.
    pub(super) fn column(&mut self, entries: &mut Vec<u32>) -> u32 {
        if self.overflow {
            return 0;
        }
        entries.sort_unstable();
        entries.dedup();
        let deciding = SECTIONS.map(|section| {
            let of_section = entries.iter().map(|&rank| (rank, self.entries.at(rank)));
            let of_section = of_section.filter(|(_, entry)| entry.section == section);
            self.subjects.deciding(of_section.map(|(rank, entry)| (rank, entry.rule)))
        });
        let for_others = deciding.each_ref().map(Deciding::for_others);
        // Most subject classes get the same vector as others with the same allow-lists.
        let mut common: Vec<Option<u32>> = Vec::new();
        let mut column = Vec::with_capacity(self.subjects.count() as usize);
        for subject in 0..self.subjects.count() {
            let own = deciding.each_ref().map(|section| section.for_class(subject));
            let subject = subject as usize;
            let pair = self.pairs[subject];
            if common.len() <= pair {
                common.resize(pair + 1, None);
            }
            let vector = match common[pair] {
                Some(vector) if own == for_others => vector,
                _ => {
                    let vector = self.decide(own, subject);
                    let vector = self.vector(vector);
                    if own == for_others {
                        common[pair] = Some(vector);
                    }
                    vector
                }
            };
            column.push(vector);
        }
        self.intern(&column)
    }

    /// Returns the vector of a subject class, given the entries that decide for it, one for each section.
    fn decide(&self, deciding: [Option<u32>; 2], subject: usize) -> Vector {
        let mut vector = Vector([Decision::ALLOW; 8], 0);
        for section in SECTIONS {
            let entry = deciding[section as usize].map(|rank| self.entries.at(rank));
            vector.1 = vector.1.max(entry.map_or(0, |entry| entry.list));
            for (nth, permission) in permissions(section).into_iter().enumerate() {
                for owner in 0..2 {
                    vector.0[2 * permission as usize + owner] = match entry {
                        Some(entry) => self.entries.rules.decided(entry.effect[2 * nth + owner], entry.rule),
                        None if permission == Permission::Map => Decision::ALLOW,
                        None => self.unmatched[section as usize][subject],
                    };
                }
            }
        }
        vector
    }

    /// Returns the column with the stricter decision of two columns for each subject class, permission and
    /// ownership.
    pub(super) fn join(&mut self, a: u32, b: u32) -> u32 {
        if a == b || self.overflow {
            return a;
        }
        let key = (a.min(b), a.max(b));
        if let Some(&known) = self.column_joins.get(&key) {
            return known;
        }
        let (left, right) = (Rc::clone(&self.columns[a as usize]), Rc::clone(&self.columns[b as usize]));
        let joined: Vec<u32> =
            left.iter().zip(right.iter()).map(|(&a, &b)| self.join_vectors(a, b)).collect();
        let joined = self.intern(&joined);
        self.column_joins.insert(key, joined);
        joined
    }

    fn join_vectors(&mut self, a: u32, b: u32) -> u32 {
        if a == b {
            return a;
        }
        let key = (a.min(b), a.max(b));
        if let Some(&known) = self.vector_joins.get(&key) {
            return known;
        }
        let (left, right) = (self.vectors[a as usize], self.vectors[b as usize]);
        let rules = self.entries.rules;
        // What is below a directory is never started by the directory's name, so either list will do.
        let decisions = std::array::from_fn(|i| stricter(rules, left.0[i], right.0[i]));
        let joined = self.vector(Vector(decisions, left.1.max(right.1)));
        self.vector_joins.insert(key, joined);
        joined
    }

    fn vector(&mut self, vector: Vector) -> u32 {
        *self.vector_ids.entry(vector).or_insert_with(|| {
            self.vectors.push(vector);
            self.vectors.len() as u32 - 1
        })
    }

    fn intern(&mut self, column: &[u32]) -> u32 {
        if let Some(&known) = self.column_ids.get(column) {
            return known;
        }
        if self.columns.len() * column.len() > MAX_CELLS {
            self.overflow = true;
            return 0;
        }
        let column: Rc<[u32]> = column.into();
        let new = self.columns.len() as u32;
        self.columns.push(Rc::clone(&column));
        self.column_ids.insert(column, new);
        new
    }

    /// Numbers the columns that a finished automaton uses, or returns `None` if there are too many for
    /// classes or cells.
    pub(super) fn number(&self, objects: &States) -> Option<Numbered> {
        let mut numbered =
            Numbered { class_of: vec![0; self.columns.len()], columns: Vec::new(), assigned: 0 };
        let mut known = vec![false; self.columns.len()];
        known[0] = true;
        for state in objects.iter() {
            let below = state.after_slash.then_some(state.below);
            for column in std::iter::once(state.label).chain(below) {
                if !std::mem::replace(&mut known[column as usize], true) {
                    let class = u32::from(OBJECT_FIRST) + numbered.assigned;
                    numbered.class_of[column as usize] = u16::try_from(class).ok()?;
                    numbered.columns.push(column);
                    numbered.assigned += 1;
                }
            }
        }
        let cells = self.subjects.count() as usize * (usize::from(OBJECT_FIRST) + numbered.columns.len());
        let subjects_fit = self.subjects.count() <= u32::from(u16::MAX);
        (!self.overflow && subjects_fit && cells <= MAX_CELLS).then_some(numbered)
    }

    pub(super) fn into_vectors(self) -> Vec<Vector> {
        self.vectors
    }
}

/// A `Numbered` says which columns are object classes.
pub(super) struct Numbered {
    class_of: Vec<u16>,
    columns: Vec<u32>,
    /// Number of object classes without the reserved ones.
    pub(super) assigned: u32,
}

impl Numbered {
    pub(super) fn class(&self, column: u32) -> u16 {
        self.class_of[column as usize]
    }

    /// Returns [`PathTables::cells`].
    pub(super) fn cells(&self, classes: &Classes<'_>) -> Vec<u32> {
        let mut cells = Vec::with_capacity(classes.subjects.count() as usize * (self.columns.len() + 3));
        for subject in 0..classes.subjects.count() as usize {
            cells.push(classes.columns[0][subject]);
            cells.push(classes.anonymous[subject]);
            cells.push(classes.unresolved[subject]);
            cells.extend(self.columns.iter().map(|&column| classes.columns[column as usize][subject]));
        }
        cells
    }
}
