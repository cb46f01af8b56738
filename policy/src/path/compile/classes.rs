//! Builds access vectors, and from them the columns that make object classes.
//!
//! A column holds the vectors of one kind of object, one for each subject class. Columns are interned, so
//! equal outcomes have one number; number 0 is the column of objects that no rule matches. The object classes
//! are the columns that the finished automaton uses.

use crate::automaton::states::States;
use crate::compile::MAX_CELLS;
use crate::compile::rules::Rules;
use crate::compile::subjects::Subjects;
use crate::decision::{Decision, Posture, Verdict};
use crate::domain::Domain;
use crate::model::Action;
use crate::path::Section;
use crate::path::tables::{OBJECT_FIRST, Permission, Vector};
use std::collections::HashMap;
use std::rc::Rc;

pub(crate) struct Classes<'r> {
    rules: &'r Rules<'r>,
    subjects: &'r Subjects,
    posture: Posture,
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

/// A `Deciding` holds the rules that decide for one subject class, one of `process` and one of `file`.
type Deciding = [Option<u32>; 2];

const SECTIONS: [Section; 2] = [Section::Process, Section::File];

/// Returns the permissions of a section, in the order of a rule's `effect`.
const fn permissions(section: Section) -> [Permission; 2] {
    match section {
        Section::Process => [Permission::Exec, Permission::Map],
        Section::File => [Permission::Read, Permission::Write],
    }
}

const ALLOW: Decision = Decision::new(Verdict::Allow, Domain::RULE_DEFAULT);

impl<'r> Classes<'r> {
    pub(crate) fn new(rules: &'r Rules<'r>, subjects: &'r Subjects, posture: Posture) -> Self {
        let mut classes = Self {
            rules,
            subjects,
            posture,
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
        let file = classes.without_path(Section::File);
        let vector = |read_write: Decision, exec: Decision, map: Decision| {
            Vector([read_write, read_write, read_write, read_write, exec, exec, map, map])
        };
        for subject in 0..subjects.count() {
            let only_listed = posture == Posture::Block && subjects.is_allow_list(subject, Section::Process);
            let map =
                if only_listed { Decision::new(Verdict::Block, Domain::RULE_UNRESOLVED) } else { ALLOW };
            let anonymous = classes.vector(vector(ALLOW, process, map));
            classes.anonymous.push(anonymous);
            let unresolved = classes.vector(vector(file, process, process));
            classes.unresolved.push(unresolved);
        }
        classes
    }

    /// Returns the decision of a section for objects without a path, which no rule can match.
    fn without_path(&self, section: Section) -> Decision {
        let rules = self.rules.rules.iter().filter(|ruled| ruled.path.section == section);
        // Rules other than Audit are meant to refuse accesses, so an access that cannot be judged is refused.
        let strictest = rules.map(|ruled| match ruled.rule.common.action {
            Action::Audit => Verdict::Audit,
            Action::Allow | Action::Block => Verdict::Block,
        });
        strictest.max().map_or(ALLOW, |verdict| Decision::new(verdict, Domain::RULE_UNRESOLVED))
    }

    /// Returns the column of objects that match exactly these entries, and sorts the entries by rank.
    pub(crate) fn column(&mut self, entries: &mut Vec<u32>) -> u32 {
        if self.overflow {
            return 0;
        }
        entries.sort_unstable();
        entries.dedup();
        let mut for_all: Deciding = [None; 2];
        for &entry in entries.iter() {
            let ruled = self.rules.of_entry(entry);
            if ruled.sources.is_empty() {
                for_all[ruled.path.section as usize].get_or_insert(self.rules.entries[entry as usize].rule);
            }
        }
        let mut special: HashMap<u32, Deciding> = HashMap::new();
        for &entry in entries.iter() {
            let rule = self.rules.entries[entry as usize].rule;
            let section = self.rules.rules[rule as usize].path.section as usize;
            for &subject in self.subjects.of_rule(rule) {
                special.entry(subject).or_default()[section].get_or_insert(rule);
            }
        }
        // Most subject classes get the same vector as others with the same allow-lists.
        let mut common: [Option<u32>; 4] = [None; 4];
        let mut column = Vec::with_capacity(self.subjects.count());
        for subject in 0..self.subjects.count() {
            let vector = match special.get(&(subject as u32)) {
                Some(own) => {
                    let vector = self.decide([own[0].or(for_all[0]), own[1].or(for_all[1])], subject);
                    self.vector(vector)
                }
                None => {
                    let lists =
                        SECTIONS.map(|section| usize::from(self.subjects.is_allow_list(subject, section)));
                    let group = lists[0] * 2 + lists[1];
                    match common[group] {
                        Some(vector) => vector,
                        None => {
                            let vector = self.decide(for_all, subject);
                            *common[group].insert(self.vector(vector))
                        }
                    }
                }
            };
            column.push(vector);
        }
        self.intern(&column)
    }

    fn decide(&self, deciding: Deciding, subject: usize) -> Vector {
        let mut vector = Vector([ALLOW; 8]);
        for section in SECTIONS {
            for (nth, permission) in permissions(section).into_iter().enumerate() {
                for owner in 0..2 {
                    let verdict = match deciding[section as usize] {
                        Some(rule) => {
                            let verdict = self.rules.rules[rule as usize].effect[2 * nth + owner];
                            (verdict, Rules::table_index(rule))
                        }
                        None if permission != Permission::Map
                            && self.subjects.is_allow_list(subject, section) =>
                        {
                            let verdict = match self.posture {
                                Posture::Allow => Verdict::Allow,
                                Posture::Audit => Verdict::Audit,
                                Posture::Block => Verdict::Block,
                            };
                            (verdict, Domain::RULE_DEFAULT)
                        }
                        None => (Verdict::Allow, Domain::RULE_DEFAULT),
                    };
                    // Which rule permits an access makes no difference, and must not make classes differ.
                    let (verdict, rule) = verdict;
                    vector.0[2 * permission as usize + owner] =
                        if verdict == Verdict::Allow { ALLOW } else { Decision::new(verdict, rule) };
                }
            }
        }
        vector
    }

    /// Returns the column with the stricter decision of two columns for each subject class, permission and
    /// ownership.
    pub(crate) fn join(&mut self, a: u32, b: u32) -> u32 {
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
        let joined = self.vector(Vector(std::array::from_fn(|i| stricter(left.0[i], right.0[i]))));
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
    pub(crate) fn number(&self, objects: &States) -> Option<Numbered> {
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
        let cells = self.subjects.count() * (usize::from(OBJECT_FIRST) + numbered.columns.len());
        let subjects_fit = self.subjects.count() <= usize::from(u16::MAX);
        (!self.overflow && subjects_fit && cells <= MAX_CELLS).then_some(numbered)
    }

    pub(crate) fn into_vectors(self) -> Vec<Vector> {
        self.vectors
    }
}

/// Returns the stricter decision; of equally strict ones a rule's before the posture's, and the first rule's.
fn stricter(a: Decision, b: Decision) -> Decision {
    let key = |d: Decision| (d.verdict(), d.rule() != Domain::RULE_DEFAULT, std::cmp::Reverse(d.rule()));
    if key(b) > key(a) { b } else { a }
}

/// A `Numbered` says which columns are object classes.
pub(crate) struct Numbered {
    class_of: Vec<u16>,
    columns: Vec<u32>,
    /// Number of object classes without the reserved ones.
    pub(crate) assigned: u32,
}

impl Numbered {
    pub(crate) fn class(&self, column: u32) -> u16 {
        self.class_of[column as usize]
    }

    /// Returns [`Domain::cells`].
    pub(crate) fn cells(&self, classes: &Classes<'_>) -> Vec<u32> {
        let mut cells = Vec::with_capacity(classes.subjects.count() * (self.columns.len() + 3));
        for subject in 0..classes.subjects.count() {
            cells.push(classes.columns[0][subject]);
            cells.push(classes.anonymous[subject]);
            cells.push(classes.unresolved[subject]);
            cells.extend(self.columns.iter().map(|&column| classes.columns[column as usize][subject]));
        }
        cells
    }
}
