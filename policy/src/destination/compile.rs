//! Compiles the rules for destinations to the table of one direction.

use super::model::{DestinationRule, Direction, Specificity, Transport};
use super::table::DestinationTable;
use super::trie::{Entry, insert};
use crate::decision::{Decision, PostureClass};
use crate::keyed::KeyedTable;
use crate::precedence::error::{CompileError, MAX_CELLS};
use crate::precedence::order::Precedence;
use crate::precedence::postures::{stricter, unmatched};
use crate::precedence::rules::Rules;
use crate::precedence::subjects::Subjects;
use ipnet::IpNet;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// A rule by its index in [`Rules::list`].
type Own<'a> = (u32, &'a DestinationRule);
/// The first bits of addresses, in the highest bits, and their number.
type Prefix = (u128, u8);

pub(crate) fn compile(
    rules: &Rules<'_>,
    subjects: &Subjects,
    direction: Direction,
) -> Result<DestinationTable, CompileError> {
    let own: Vec<Own<'_>> = (0u32..)
        .zip(&rules.list)
        .filter_map(|(at, rule)| Some((at, rule.rule.body.as_destination()?)))
        .filter(|(_, rule)| rule.direction == direction)
        .collect();
    if own.is_empty() {
        return Ok(DestinationTable::default());
    }
    let restricting = own.iter().map(|(at, _)| *at).filter(|at| rules.list[*at as usize].restricts);
    let unmatched = unmatched(rules, subjects, PostureClass::Network, restricting);
    let mut builder = Builder {
        rules,
        subjects,
        unmatched,
        table: DestinationTable::default(),
        cells: Vec::new(),
        known_lists: HashMap::new(),
        known_cells: HashMap::new(),
        work: 0,
    };
    let (mut everywhere, mut ipv4, mut ipv6) = (Vec::new(), BTreeMap::new(), BTreeMap::new());
    for (at, rule) in own {
        match rule.prefix {
            None => everywhere.push((at, rule)),
            Some(IpNet::V4(v4)) => {
                add(&mut ipv4, u128::from(v4.addr().to_bits()) << 96, v4.prefix_len(), (at, rule))
            }
            Some(IpNet::V6(v6)) => add(&mut ipv6, v6.addr().to_bits(), v6.prefix_len(), (at, rule)),
        }
    }
    builder.table.ipv4 = builder.trie(&everywhere, &ipv4)?;
    builder.table.ipv6 = builder.trie(&everywhere, &ipv6)?;
    if direction == Direction::Ingress {
        builder.table.anybody = builder.least_strict()?;
    }
    builder.finish()
}

fn add<'a>(prefixes: &mut BTreeMap<Prefix, Vec<Own<'a>>>, bits: u128, length: u8, rule: Own<'a>) {
    prefixes.entry((bits, length)).or_default().push(rule);
}

/// Returns whether all addresses of `other` begin as `prefix` does.
fn holds(prefix: Prefix, other: Prefix) -> bool {
    let behind = 128 - u32::from(prefix.1);
    prefix.1 <= other.1 && (prefix.0 ^ other.0).checked_shr(behind).unwrap_or(0) == 0
}

struct Builder<'r, 'a> {
    rules: &'r Rules<'a>,
    subjects: &'r Subjects,
    /// The decision for each subject class on what no rule matches.
    unmatched: Vec<Decision>,
    table: DestinationTable,
    /// The decisions on each cell, by subject class.
    cells: Vec<Vec<Decision>>,
    /// The indices of the table's lists and of `cells`.
    known_lists: HashMap<Vec<(u32, u32)>, u32>,
    known_cells: HashMap<Vec<Decision>, u32>,
    /// Number of decisions made, at most [`MAX_CELLS`].
    work: usize,
}

impl Builder<'_, '_> {
    /// Makes the trie of a family, given the rules for all addresses and those for each prefix.
    fn trie(
        &mut self,
        everywhere: &[Own<'_>],
        prefixes: &BTreeMap<Prefix, Vec<Own<'_>>>,
    ) -> Result<Entry, CompileError> {
        let mut root = Entry::Value(self.list(everywhere)?);
        let mut values: Vec<(u8, u128, u32)> = Vec::with_capacity(prefixes.len());
        // The prefixes that hold the current one, each with all rules for its addresses.
        let mut above: Vec<(Prefix, Vec<Own<'_>>)> = Vec::new();
        for (prefix, own) in prefixes {
            while above.last().is_some_and(|(of, _)| !holds(*of, *prefix)) {
                above.pop();
            }
            let inherited = above.last().map_or(everywhere, |(_, rules)| rules);
            let rules = [inherited, own].concat();
            values.push((prefix.1, prefix.0, self.list(&rules)?));
            above.push((*prefix, rules));
        }
        values.sort_unstable();
        for (length, bits, value) in values {
            insert(&mut self.table.nodes, &mut root, bits, length, value);
        }
        Ok(root)
    }

    /// Makes the list of ranges for addresses that these rules are about.
    fn list(&mut self, own: &[Own<'_>]) -> Result<u32, CompileError> {
        let mut begins: BTreeMap<u32, Vec<Precedence<Specificity>>> = BTreeMap::from([(0, Vec::new())]);
        let mut ends: BTreeMap<u32, Vec<Precedence<Specificity>>> = BTreeMap::new();
        for &(at, rule) in own {
            let precedence = Precedence::new(self.rules, at, rule.specificity(), 0);
            for (first, last) in ranges(rule) {
                begins.entry(first).or_default().push(precedence);
                begins.entry(last + 1).or_default();
                ends.entry(last + 1).or_default().push(precedence);
            }
        }
        let mut matching: BTreeSet<Precedence<Specificity>> = BTreeSet::new();
        let mut list: Vec<(u32, u32)> = Vec::new();
        for (key, begun) in begins {
            ends.remove(&key).into_iter().flatten().for_each(|ended| {
                matching.remove(&ended);
            });
            matching.extend(begun);
            let cell = self.cell(&matching)?;
            if list.last().is_none_or(|(_, last)| *last != cell) {
                list.push((key, cell));
            }
        }
        Ok(self.known_list(list))
    }

    fn known_list(&mut self, list: Vec<(u32, u32)>) -> u32 {
        let next = self.table.lists.len() as u32;
        *self.known_lists.entry(list).or_insert_with_key(|list| {
            self.table.lists.push(list.clone());
            next
        })
    }

    fn known_cell(&mut self, cell: Vec<Decision>) -> u32 {
        let next = self.cells.len() as u32;
        *self.known_cells.entry(cell).or_insert_with_key(|cell| {
            self.cells.push(cell.clone());
            next
        })
    }

    /// Makes the cell for what these rules match.
    fn cell(&mut self, matching: &BTreeSet<Precedence<Specificity>>) -> Result<u32, CompileError> {
        self.work += matching.len() + self.unmatched.len();
        if self.work > MAX_CELLS {
            return Err(self.rules.too_many_classes());
        }
        let deciding =
            self.subjects.deciding(matching.iter().map(|precedence| (precedence.rule(), precedence.rule())));
        let decide = |(class, otherwise): (u32, &Decision)| {
            deciding.for_class(class).map_or(*otherwise, |rule| self.rules.decision(rule))
        };
        let cell: Vec<Decision> = (0..).zip(&self.unmatched).map(decide).collect();
        Ok(self.known_cell(cell))
    }

    /// Makes the list of the least strict decisions of all addresses. Of equally strict ones the first counts, in the order
    /// of [`reached`].
    fn least_strict(&mut self) -> Result<u32, CompileError> {
        let reached = reached(&self.table);
        if let [list] = reached[..] {
            return Ok(list);
        }
        // The lists of which a range begins at a key, with its cell.
        let mut begins: BTreeMap<u32, Vec<(usize, u32)>> = BTreeMap::new();
        for (at, list) in reached.iter().enumerate() {
            for (key, cell) in &self.table.lists[*list as usize] {
                begins.entry(*key).or_default().push((at, *cell));
            }
        }
        // The cells at the current key, each with the lists that lead to it.
        let mut cells: HashMap<u32, BTreeSet<usize>> = HashMap::new();
        let mut cell_of: Vec<Option<u32>> = vec![None; reached.len()];
        let mut least: Vec<(u32, u32)> = Vec::new();
        for (key, begun) in begins {
            for (at, cell) in begun {
                if let Some(before) = cell_of[at].replace(cell)
                    && let Some(lists) = cells.get_mut(&before)
                {
                    lists.remove(&at);
                    if lists.is_empty() {
                        cells.remove(&before);
                    }
                }
                cells.entry(cell).or_default().insert(at);
            }
            let mut in_order: Vec<(usize, u32)> =
                cells.iter().filter_map(|(cell, lists)| Some((*lists.first()?, *cell))).collect();
            in_order.sort_unstable();
            let cell = self.least_strict_cell(&in_order)?;
            if least.last().is_none_or(|(_, last)| *last != cell) {
                least.push((key, cell));
            }
        }
        Ok(self.known_list(least))
    }

    /// Makes the cell of the least strict decisions of cells, each with its place in their order.
    fn least_strict_cell(&mut self, of: &[(usize, u32)]) -> Result<u32, CompileError> {
        self.work += of.len() * self.unmatched.len();
        if self.work > MAX_CELLS {
            return Err(self.rules.too_many_classes());
        }
        let decide = |class: usize| {
            let decisions = of.iter().map(|(_, cell)| self.cells[*cell as usize][class]);
            decisions.min_by_key(|decision| decision.verdict()).unwrap_or(self.unmatched[class])
        };
        let cell: Vec<Decision> = (0..self.unmatched.len()).map(decide).collect();
        Ok(self.known_cell(cell))
    }

    fn finish(mut self) -> Result<DestinationTable, CompileError> {
        let rows = (0..self.unmatched.len()).map(|class| {
            let mut row: Vec<Decision> = self.cells.iter().map(|cell| cell[class]).collect();
            let strictest = |strictest, decision: &Decision| stricter(self.rules, strictest, *decision);
            row.push(row.iter().fold(Decision::ALLOW, strictest));
            row
        });
        self.table.cells = KeyedTable::of_rows(rows).ok_or_else(|| self.rules.too_many_classes())?;
        Ok(self.table)
    }
}

/// Returns the lists that some address leads to, those of short prefixes first.
fn reached(table: &DestinationTable) -> Vec<u32> {
    let mut lists = Vec::new();
    let mut level = vec![table.ipv4, table.ipv6];
    while !level.is_empty() {
        let mut below = Vec::new();
        for entry in level {
            match entry {
                Entry::Value(list) => lists.push(list),
                Entry::Node(node) => below.extend(table.nodes[node as usize]),
            }
        }
        level = below;
    }
    let mut known = BTreeSet::new();
    lists.retain(|list| known.insert(*list));
    lists
}

/// Returns the first and the last key of each range that a rule is about.
fn ranges(rule: &DestinationRule) -> impl Iterator<Item = (u32, u32)> {
    let (ports, of) = (rule.ports, rule.transport);
    Transport::ALL.into_iter().filter_map(move |transport| {
        let is_about = of.map_or(ports.is_none() || transport.has_ports(), |of| of == transport);
        let (first, last) = ports.map_or((0, u16::MAX), |ports| (ports.first, ports.last));
        is_about.then(|| (DestinationTable::key(transport, first), DestinationTable::key(transport, last)))
    })
}
