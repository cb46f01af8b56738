//! Compiles the rules for names of DNS to the table that decides on questions for them.
//!
//! Each name of a rule has a class, which is also that of the names below it down to the next name of a rule. All other names
//! have the class [`hierarchy::ELSEWHERE`].

use super::model::{DnsName, backwards, with_above};
use super::table::NameTable;
use crate::automaton::hierarchy::{self, Place};
use crate::decision::PostureClass;
use crate::keyed::KeyedTable;
use crate::model::Rule;
use crate::precedence::error::CompileError;
use crate::precedence::rules::Rules;
use crate::precedence::subjects::Subjects;
use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};

pub(crate) fn compile(rules: &Rules<'_>, subjects: &Subjects) -> Result<NameTable, CompileError> {
    let mut classes: BTreeMap<&str, u16> = BTreeMap::new();
    for name in rules.list.iter().filter_map(|rule| rule.rule.body.as_dns()) {
        let next = u16::try_from(classes.len() + 1).map_err(|_| rules.too_many_classes())?;
        classes.entry(name.as_str()).or_insert(next);
    }
    if classes.is_empty() {
        return Ok(NameTable::default());
    }
    let mut below: HashMap<&str, Vec<usize>> = HashMap::new();
    for (name, class) in &classes {
        for above in with_above(name).filter(|above| classes.contains_key(above)) {
            below.entry(above).or_default().push(usize::from(*class));
        }
    }
    let of_rule = |rule: &Rule| {
        let name = rule.body.as_dns().map(DnsName::as_str)?;
        let labels = with_above(name).count();
        Some((Reverse(labels), below.get(name).cloned().unwrap_or_default()))
    };
    let cells = KeyedTable::compile(rules, subjects, PostureClass::Network, classes.len() + 1, of_rule)?;
    let place = |(name, class): (&&str, &u16)| (backwards(name), Place { own: *class, below: *class });
    let places = classes.iter().map(place).collect();
    Ok(NameTable {
        names: hierarchy::automaton(&places).ok_or_else(|| rules.too_many_slots())?,
        cells: cells.with_strictest_for_others(rules),
    })
}
