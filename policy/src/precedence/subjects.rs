//! Groups the programs that `fromSource` names into subject classes, by the rules that name them and by whether a terminal
//! controls them.

use super::rules::Rules;
use crate::automaton::states::States;
use crate::automaton::trie::{ROOT, Trie};
use crate::automaton::{Automaton, comb};
use crate::domain::SUBJECT_NONE;
use crate::model::Source;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::rc::Rc;

/// The rules that name a program, sorted.
type RuleSet = Vec<u32>;

pub(crate) struct Subjects {
    /// The paths of sources. A directory's ends in `/`.
    trie: Trie,
    /// For each node, the class of the program that ends there, and what its descendants inherit.
    nodes: Vec<(u32, Inherited)>,
    /// The class of each set of rules.
    classes: HashMap<RuleSet, u32>,
    /// For each rule, the classes that it applies to, or `None` for all.
    of_rule: Vec<Option<Vec<u32>>>,
    /// Number of classes, [`SUBJECT_NONE`] included.
    count: u32,
    /// Number of classes of programs without a terminal, which those with one follow in the same order; 0 if it makes no
    /// difference.
    terminals: u32,
}

/// An `Inherited` has the rules that name the programs below a directory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Inherited {
    /// The rules that name those at any depth.
    recursive: Rc<[u32]>,
    /// The rules that name those right in it.
    direct: Rc<[u32]>,
}

impl Inherited {
    fn set(&self) -> RuleSet {
        union([&*self.recursive, &*self.direct])
    }

    /// Returns what a further directory inherits that no source names.
    fn deeper(&self) -> Self {
        Self { recursive: Rc::clone(&self.recursive), direct: Rc::default() }
    }
}

fn union<'a>(sets: impl IntoIterator<Item = &'a [u32]>) -> RuleSet {
    sets.into_iter().flatten().copied().collect::<BTreeSet<u32>>().into_iter().collect()
}

impl Subjects {
    pub(crate) fn new(rules: &Rules<'_>) -> Self {
        let mut trie = Trie::new();
        // The rules that name each node: as a program, as a directory, and as a directory with all that is below.
        let mut named: HashMap<u32, [RuleSet; 3]> = HashMap::new();
        let mut sources: BTreeMap<&Source, RuleSet> = BTreeMap::new();
        for (index, rule) in (0..).zip(&rules.list) {
            rule.sources.iter().for_each(|source| sources.entry(source).or_default().push(index));
        }
        for (source, rules) in sources {
            let kind = match source {
                Source::Program(_) => 0,
                Source::Directory { recursive: false, .. } => 1,
                Source::Directory { recursive: true, .. } => 2,
            };
            let node = trie.insert(source.path().as_bytes());
            named.entry(node).or_default()[kind].extend(rules);
        }
        let of_rule: Vec<Option<Vec<u32>>> =
            rules.list.iter().map(|rule| (!rule.sources.is_empty()).then(Vec::new)).collect();
        let count = u32::from(SUBJECT_NONE) + 1;
        let nodes = vec![(u32::from(SUBJECT_NONE), Inherited::default()); trie.len() as usize];
        let mut subjects = Self { trie, nodes, classes: HashMap::new(), of_rule, count, terminals: 0 };
        // Children come after their parents.
        for node in 0..subjects.trie.len() {
            let inherited = subjects.nodes[node as usize].1.clone();
            let programs = named.get(&node).map_or(&[][..], |[programs, ..]| programs);
            subjects.nodes[node as usize].0 = subjects.class_of(union([programs, &inherited.set()]));
            // Names that no source has are below them too.
            subjects.class_of(inherited.set());
            subjects.class_of(inherited.deeper().set());
            let children: Vec<(u8, u32)> = subjects.trie.children(node).collect();
            for (byte, child) in children {
                let mut below = inherited.clone();
                if byte == b'/' {
                    let (direct, recursive) =
                        named.get(&child).map_or((&[][..], &[][..]), |[_, direct, all]| (direct, all));
                    below.direct = direct.into();
                    if !recursive.is_empty() {
                        below.recursive = union([&*below.recursive, recursive]).into();
                    }
                }
                subjects.nodes[child as usize].1 = below;
            }
        }
        if rules.list.iter().any(|rule| rule.rule.common.terminal) {
            subjects.tell_terminals(rules);
        }
        subjects
    }

    /// Tells programs that a terminal controls from others.
    fn tell_terminals(&mut self, rules: &Rules<'_>) {
        let others = self.count;
        for (classes, rule) in self.of_rule.iter_mut().zip(&rules.list) {
            let with = |classes: &[u32]| classes.iter().map(|class| class + others).collect::<Vec<_>>();
            match (classes.as_mut(), rule.rule.common.terminal) {
                (None, false) => {}
                (None, true) => *classes = Some((others..2 * others).collect()),
                (Some(classes), false) => classes.extend(with(classes)),
                (Some(classes), true) => *classes = with(classes),
            }
        }
        self.terminals = others;
        self.count = 2 * others;
    }

    /// Returns what is added to the class of a program that a terminal controls.
    pub(crate) fn terminals(&self) -> u32 {
        self.terminals
    }

    /// Returns the class of the programs that these rules name.
    fn class_of(&mut self, set: RuleSet) -> u32 {
        if set.is_empty() {
            return u32::from(SUBJECT_NONE);
        }
        let Self { classes, of_rule, count, .. } = self;
        *classes.entry(set).or_insert_with_key(|set| {
            for &rule in set {
                of_rule[rule as usize].get_or_insert_default().push(*count);
            }
            *count += 1;
            *count - 1
        })
    }

    /// Returns the number of classes, [`SUBJECT_NONE`] included.
    pub(crate) fn count(&self) -> u32 {
        self.count
    }

    /// Returns for each class whether a section is an allow-list for it, given the rules of the section that
    /// restrict ([`DomainRule::restricts`](super::rules::DomainRule::restricts)).
    pub(crate) fn allow_lists(&self, restricting: impl Iterator<Item = u32>) -> Vec<bool> {
        let mut lists = vec![false; self.count as usize];
        for rule in restricting {
            match &self.of_rule[rule as usize] {
                Some(classes) => classes.iter().for_each(|&class| lists[class as usize] = true),
                None => lists.fill(true),
            }
        }
        lists
    }

    /// Returns which of some entries decides for each class. The entries, each with its rule, match the same
    /// object in the same section and come in the order of their
    /// [`Precedence`](super::order::Precedence).
    pub(crate) fn deciding(&self, entries: impl Iterator<Item = (u32, u32)>) -> Deciding {
        let mut deciding = Deciding { for_all: None, by_class: HashMap::new() };
        for (entry, rule) in entries {
            match &self.of_rule[rule as usize] {
                Some(classes) => classes.iter().for_each(|&class| {
                    deciding.by_class.entry(class).or_insert(entry);
                }),
                None => {
                    deciding.for_all.get_or_insert(entry);
                }
            }
        }
        deciding
    }

    /// Returns the automaton from paths to classes, or `None` if it takes more than `limit` slots.
    pub(crate) fn automaton(&self, limit: usize) -> Option<Automaton> {
        let mut states = States::new();
        let dead = states.add(u32::from(SUBJECT_NONE), 0, &[], |_| 0);
        let mut elsewhere = HashMap::from([(Inherited::default(), dead)]);
        let mut state_of = vec![dead; self.trie.len() as usize];
        for node in (0..self.trie.len()).rev() {
            let (class, inherited) = &self.nodes[node as usize];
            let mut row: Vec<(u8, u32)> =
                self.trie.children(node).map(|(byte, child)| (byte, state_of[child as usize])).collect();
            if !inherited.direct.is_empty() && self.trie.child(node, b'/').is_none() {
                row.push((b'/', self.elsewhere(&mut states, &mut elsewhere, &inherited.deeper())));
            }
            row.sort_unstable();
            let otherwise = self.elsewhere(&mut states, &mut elsewhere, inherited);
            state_of[node as usize] = states.add(*class, otherwise, &row, |_| 0);
        }
        comb::pack_classes(&states.reachable(state_of[ROOT as usize]), limit)
    }

    /// Returns the state of names that no source has, below directories that hand these rules down.
    fn elsewhere(
        &self,
        states: &mut States,
        known: &mut HashMap<Inherited, u32>,
        inherited: &Inherited,
    ) -> u32 {
        if let Some(state) = known.get(inherited) {
            return *state;
        }
        let set = inherited.set();
        let row = if inherited.direct.is_empty() {
            Vec::new()
        } else {
            vec![(b'/', self.elsewhere(states, known, &inherited.deeper()))]
        };
        // It leads to itself, whatever the next byte is.
        let state = states.len() as u32;
        states.append(self.classes[&set], state, &row, 0);
        known.insert(inherited.clone(), state);
        state
    }
}

/// A `Deciding` says which entry decides on an object for each subject class. An entry whose `fromSource`
/// names the class's programs comes before one for all programs, whatever their precedence.
pub(crate) struct Deciding {
    for_all: Option<u32>,
    by_class: HashMap<u32, u32>,
}

impl Deciding {
    pub(crate) fn for_class(&self, class: u32) -> Option<u32> {
        self.by_class.get(&class).copied().or(self.for_all)
    }

    /// Returns the entry for the classes that no matching entry's `fromSource` names.
    pub(crate) fn for_others(&self) -> Option<u32> {
        self.for_all
    }
}
