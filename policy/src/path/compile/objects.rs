//! Builds the automaton from paths to columns.
//!
//! A state is the position of a path in three machines at once: the trie of all literal paths, the trie of
//! `execname`s for the current path component, and the DFA of all patterns. Each node of the literal trie is
//! reached by one path only, so it makes exactly one state. A path that leaves the trie is *off*: of the
//! literal paths, only directories above it still matter. Off states never lead back into the trie, so they
//! are built and minimised first. The states of the trie then follow from its leaves up, and need no further
//! minimisation.

use super::classes::Classes;
use super::entries::Entries;
use super::globs::Globs;
use crate::automaton::states::{NONE, Row, States, minimise};
use crate::automaton::trie::{ROOT, Trie};
use crate::path::Target;
use crate::precedence::error::{CompileError, MAX_SLOTS};
use crate::precedence::links::trimmed;
use std::collections::HashMap;

/// Largest number of off states before they are minimised.
const MAX_OFF_STATES: usize = 1 << 18;
/// Largest number of transitions: of the off states before they are minimised, then of these and the trie.
const MAX_TRANSITIONS: usize = MAX_SLOTS;
/// Largest number of nodes of a trie: each makes a state, and a state takes two slots.
const MAX_NODES: u32 = (MAX_SLOTS / 2) as u32;
const BYTES: std::ops::RangeInclusive<u8> = 1..=255;

/// A `Course` determines how a path continues once it is off the trie.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Course {
    /// The node of the deepest directory above that has a recursive rule, or [`NONE`].
    recursive: u32,
    /// The node of the directory around the current component, if it has a rule for its direct entries.
    directory: u32,
    /// The node of the current component in the trie of `execname`s.
    name: u32,
    /// The state of the pattern DFA.
    glob: u32,
}

/// An `Off` is a state off the trie.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Off {
    course: Course,
    /// The `directory` of the component that a `/` has just ended.
    ended: u32,
}

const DEAD: u32 = 0;

pub(super) fn build(entries: &Entries<'_>, classes: &mut Classes<'_>) -> Result<States, CompileError> {
    let globs = Globs::new(entries)?;
    let literals = Literals::new(entries)?;
    let mut off = OffStates::new(entries, &literals, &globs);

    // Top down: the place of each node, its column, and the row of paths that leave the trie there.
    let nodes = literals.trie.len() as usize;
    let mut places = vec![literals.start(&globs); nodes];
    let mut columns = vec![0; nodes];
    let mut rows = vec![0; nodes];
    for node in 0..literals.trie.len() {
        let place = places[node as usize];
        columns[node as usize] = off.column(place, literals.exact_at(node), classes);
        rows[node as usize] = off.row(place.course);
        for (byte, child) in literals.trie.children(node) {
            places[child as usize] = literals.enter(child, step(&literals, &globs, place.course, byte));
        }
    }
    drop(places);
    off.complete(classes)?;
    let (mut states, rows_of_off) = off.finish(classes);

    // Bottom up: children have higher indices than their parents.
    let mut state_of = vec![DEAD; nodes];
    let mut row: Vec<(u8, u32)> = Vec::new();
    for node in (0..literals.trie.len()).rev() {
        let Row { default, transitions } = &rows_of_off[rows[node as usize] as usize];
        row.clear();
        row.extend_from_slice(transitions);
        for (byte, child) in literals.trie.children(node) {
            row.retain(|(b, _)| *b != byte);
            row.push((byte, state_of[child as usize]));
        }
        row.retain(|(_, target)| target != default);
        row.sort_unstable();
        let label = columns[node as usize];
        state_of[node as usize] = states.add(label, *default, &row, |states| {
            let targets = row.iter().map(|(_, target)| *target);
            let default = (row.len() < 255).then_some(*default);
            targets.chain(default).fold(label, |below, target| classes.join(below, states.below(target)))
        });
        if states.transition_count() > MAX_TRANSITIONS {
            return Err(entries.rules.too_many_slots());
        }
    }
    Ok(states.reachable(state_of[ROOT as usize]))
}

/// `Literals` holds the trie of literal paths and the trie of `execname`s.
struct Literals {
    trie: Trie,
    /// The entries of each node: of exact paths, of directories, and of recursive directories.
    exact: HashMap<u32, Vec<u32>>,
    directories: HashMap<u32, Vec<u32>>,
    recursive: HashMap<u32, Vec<u32>>,
    /// For each recursive directory, the next one above it.
    above: HashMap<u32, u32>,
    names: Trie,
    named: HashMap<u32, Vec<u32>>,
}

impl Literals {
    fn new(entries: &Entries<'_>) -> Result<Self, CompileError> {
        let mut literals = Self {
            trie: Trie::new(),
            exact: HashMap::new(),
            directories: HashMap::new(),
            recursive: HashMap::new(),
            above: HashMap::new(),
            names: Trie::new(),
            named: HashMap::new(),
        };
        for (rank, entry) in entries.list.iter().enumerate() {
            let rank = rank as u32;
            match &entry.target {
                Target::Path(path) => {
                    let node = literals.trie.insert(trimmed(path).as_bytes());
                    literals.exact.entry(node).or_default().push(rank);
                    let directory = literals.trie.insert_below(node, b"/");
                    literals.exact.entry(directory).or_default().push(rank);
                }
                Target::Directory { path, recursive } => {
                    let node = literals.trie.insert(path.as_bytes());
                    let of = if *recursive { &mut literals.recursive } else { &mut literals.directories };
                    of.entry(node).or_default().push(rank);
                }
                Target::Name(name) => {
                    let node = literals.names.insert(name.as_bytes());
                    literals.named.entry(node).or_default().push(rank);
                }
                Target::Glob(_) => {}
            }
            if literals.trie.len().max(literals.names.len()) > MAX_NODES {
                let policy = entries.rules.list[entry.rule as usize].policy;
                return Err(CompileError::Slots { policy: policy.name.clone() });
            }
        }
        literals.link_directories();
        Ok(literals)
    }

    fn link_directories(&mut self) {
        let mut stack = vec![(ROOT, NONE)];
        while let Some((node, mut above)) = stack.pop() {
            if self.recursive.contains_key(&node) {
                self.above.insert(node, above);
                above = node;
            }
            stack.extend(self.trie.children(node).map(|(_, child)| (child, above)));
        }
    }

    fn start(&self, globs: &Globs) -> Off {
        let course = Course { recursive: NONE, directory: NONE, name: NONE, glob: globs.start };
        Off { course, ended: NONE }
    }

    /// Returns the place of a node: `place`, where the step to it leads off the trie, and the directory that
    /// it is itself.
    fn enter(&self, node: u32, mut place: Off) -> Off {
        if self.recursive.contains_key(&node) {
            place.course.recursive = node;
        }
        if self.directories.contains_key(&node) {
            place.course.directory = node;
        }
        place
    }

    fn exact_at(&self, node: u32) -> u32 {
        if self.exact.contains_key(&node) { node } else { NONE }
    }

    fn step_name(&self, name: u32, byte: u8) -> u32 {
        match byte {
            _ if self.named.is_empty() => NONE,
            b'/' => ROOT,
            _ if name == NONE => NONE,
            _ => self.names.child(name, byte).unwrap_or(NONE),
        }
    }
}

/// Returns the place that a byte leads to off the trie.
fn step(literals: &Literals, globs: &Globs, from: Course, byte: u8) -> Off {
    let slash = byte == b'/';
    let course = Course {
        recursive: from.recursive,
        directory: if slash { NONE } else { from.directory },
        name: literals.step_name(from.name, byte),
        glob: globs.step(from.glob, byte),
    };
    Off { course, ended: if slash { from.directory } else { NONE } }
}

/// A `Matching` says what matches at a state: nodes of the tries and a set of patterns.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Matching {
    exact: u32,
    recursive: u32,
    directories: [u32; 2],
    name: u32,
    globs: u32,
}

struct OffStates<'a> {
    entries: &'a Entries<'a>,
    literals: &'a Literals,
    globs: &'a Globs,
    states: Vec<Off>,
    state_ids: HashMap<Off, u32>,
    /// For each state, the index of its course, and of its row once `rows` is complete.
    row_of: Vec<u32>,
    courses: Vec<Course>,
    course_ids: HashMap<Course, u32>,
    rows: Vec<Row>,
    columns: Vec<u32>,
    known_columns: HashMap<Matching, u32>,
}

impl<'a> OffStates<'a> {
    fn new(entries: &'a Entries<'a>, literals: &'a Literals, globs: &'a Globs) -> Self {
        let dead = Course { recursive: NONE, directory: NONE, name: NONE, glob: NONE };
        let mut off = Self {
            entries,
            literals,
            globs,
            states: Vec::new(),
            state_ids: HashMap::new(),
            row_of: Vec::new(),
            courses: Vec::new(),
            course_ids: HashMap::new(),
            rows: Vec::new(),
            columns: Vec::new(),
            known_columns: HashMap::new(),
        };
        // The dead state: no machine leads to it, but equal states are merged with it.
        off.state(Off { course: dead, ended: NONE });
        off.rows.push(Row { default: DEAD, transitions: Box::new([]) });
        off
    }

    fn state(&mut self, state: Off) -> u32 {
        if let Some(&known) = self.state_ids.get(&state) {
            return known;
        }
        let new = self.states.len() as u32;
        self.states.push(state);
        self.state_ids.insert(state, new);
        let row = self.row(state.course);
        self.row_of.push(row);
        new
    }

    /// Returns the index of a course's row.
    fn row(&mut self, course: Course) -> u32 {
        *self.course_ids.entry(course).or_insert_with(|| {
            self.courses.push(course);
            self.courses.len() as u32 - 1
        })
    }

    /// Returns the column of the entries that match at a place.
    fn column(&mut self, place: Off, exact: u32, classes: &mut Classes<'_>) -> u32 {
        let Off { course, ended } = place;
        if course.glob == NONE {
            return 0;
        }
        let literals = self.literals;
        let name = if literals.named.contains_key(&course.name) { course.name } else { NONE };
        let directories = [course.directory, ended];
        let globs = self.globs.set(course.glob);
        let matching = Matching { exact, recursive: course.recursive, directories, name, globs };
        if let Some(&known) = self.known_columns.get(&matching) {
            return known;
        }
        let mut entries = self.globs.entries(globs).to_vec();
        let mut add = |of: &HashMap<u32, Vec<u32>>, node: u32| {
            entries.extend(of.get(&node).into_iter().flatten());
        };
        add(&literals.exact, exact);
        add(&literals.named, name);
        add(&literals.directories, course.directory);
        add(&literals.directories, ended);
        let mut recursive = course.recursive;
        while recursive != NONE {
            add(&literals.recursive, recursive);
            recursive = literals.above.get(&recursive).copied().unwrap_or(NONE);
        }
        let column = classes.column(&mut entries);
        self.known_columns.insert(matching, column);
        column
    }

    /// Follows all courses until no new ones turn up.
    fn complete(&mut self, classes: &mut Classes<'_>) -> Result<(), CompileError> {
        let mut transitions = 0;
        while let Some(&course) = self.courses.get(self.rows.len()) {
            let row = self.follow(course);
            transitions += row.transitions.len();
            self.rows.push(row);
            let rows = self.courses.len();
            if self.states.len() > MAX_OFF_STATES || rows > 2 * MAX_SLOTS || transitions > MAX_TRANSITIONS {
                return Err(self.entries.most_complex_pattern());
            }
        }
        for state in 0..self.states.len() {
            let column = self.column(self.states[state], NONE, classes);
            self.columns.push(column);
        }
        Ok(())
    }

    fn follow(&mut self, course: Course) -> Row {
        // Bytes of the same pattern class lead to the same place, except `/` and bytes that continue an
        // `execname`.
        let mut special = [false; 256];
        special[b'/' as usize] = true;
        if course.name != NONE {
            for (byte, _) in self.literals.names.children(course.name) {
                special[byte as usize] = true;
            }
        }
        let mut by_class = vec![NONE; self.globs.class_count()];
        let mut targets = [0; 256];
        for byte in BYTES {
            let class = self.globs.class(byte);
            let ordinary = !special[byte as usize];
            if ordinary && by_class[class] != NONE {
                targets[byte as usize] = by_class[class];
                continue;
            }
            let target = self.state(step(self.literals, self.globs, course, byte));
            targets[byte as usize] = target;
            if ordinary {
                by_class[class] = target;
            }
        }
        Row::new(BYTES.map(|byte| (byte, targets[byte as usize])))
    }

    /// Returns the minimised states, and the rows between them.
    fn finish(self, classes: &mut Classes<'_>) -> (States, Vec<Row>) {
        let rows: Vec<&Row> = self.row_of.iter().map(|&row| &self.rows[row as usize]).collect();
        let blocks = minimise(&self.columns, &rows, &BYTES);
        let rows: Vec<Row> = self.rows.iter().map(|row| row.map(&blocks, BYTES)).collect();

        let mut firsts: Vec<usize> = Vec::new();
        for (state, &block) in blocks.iter().enumerate() {
            if block as usize == firsts.len() {
                firsts.push(state);
            }
        }
        // States lead to each other, so what lies below them is a fixed point. Later states are mostly later
        // in a path, so two rounds backwards usually suffice.
        let mut below: Vec<u32> = firsts.iter().map(|&state| self.columns[state]).collect();
        let mut changed = true;
        while std::mem::take(&mut changed) {
            for (block, &state) in firsts.iter().enumerate().rev() {
                let Row { default, transitions } = &rows[self.row_of[state] as usize];
                let default = (transitions.len() < 255).then_some(*default);
                let targets = transitions.iter().map(|(_, target)| *target).chain(default);
                let joined =
                    targets.fold(below[block], |sum, target| classes.join(sum, below[target as usize]));
                changed |= std::mem::replace(&mut below[block], joined) != joined;
            }
        }
        let mut states = States::new();
        for (block, &state) in firsts.iter().enumerate() {
            let Row { default, transitions } = &rows[self.row_of[state] as usize];
            states.append(self.columns[state], *default, transitions, below[block]);
        }
        (states, rows)
    }
}
