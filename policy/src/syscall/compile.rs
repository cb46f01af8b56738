//! Compiles the rules for system calls to the table that says which are reported.

use super::model::{CallPath, Syscall};
use super::table::SyscallTable;
use crate::automaton::hierarchy::{self, Place};
use crate::decision::PostureClass;
use crate::keyed::KeyedTable;
use crate::model::Rule;
use crate::precedence::error::{CompileError, MAX_CELLS};
use crate::precedence::rules::Rules;
use crate::precedence::subjects::Subjects;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

/// A path that rules name with a call.
type Key<'a> = (Syscall, &'a str);

// No rule is an allow-list's, so no posture counts.
const CLASS: PostureClass = PostureClass::File;

pub(crate) fn compile(rules: &Rules<'_>, subjects: &Subjects) -> Result<SyscallTable, CompileError> {
    let of_call = |rule: &Rule| {
        let rule = rule.body.as_syscall().filter(|rule| rule.path.is_none())?;
        Some(((), vec![rule.call.number()]))
    };
    let calls = KeyedTable::compile(rules, subjects, CLASS, Syscall::COUNT, of_call)?;
    let mut places: BTreeMap<Key<'_>, Place> = BTreeMap::new();
    for rule in rules.list.iter().filter_map(|rule| rule.rule.body.as_syscall()) {
        let Some(CallPath { path, .. }) = &rule.path else { continue };
        let next = u16::try_from(2 * places.len() + 2).map_err(|_| rules.too_many_classes())?;
        places.entry((rule.call, path)).or_insert(Place { own: next - 1, below: next });
    }
    if places.is_empty() {
        return Ok(SyscallTable { calls, ..SyscallTable::default() });
    }
    let with_paths: BTreeSet<Syscall> = places.keys().map(|(call, _)| *call).collect();
    for call in &with_paths {
        let next = u16::try_from(2 * places.len() + 2).map_err(|_| rules.too_many_classes())?;
        places.insert((*call, SyscallTable::UNREADABLE), Place { own: next - 1, below: next });
    }
    // The paths below each path, itself included.
    let mut below: BTreeMap<Key<'_>, Vec<Place>> = BTreeMap::new();
    let mut pairs = 0;
    for ((call, path), place) in &places {
        for above in with_above(path).filter(|above| places.contains_key(&(*call, *above))) {
            below.entry((*call, above)).or_default().push(*place);
            pairs += 1;
        }
        if pairs > MAX_CELLS {
            return Err(rules.too_many_classes());
        }
    }
    let both = |place: &Place| [usize::from(place.own), usize::from(place.below)];
    let of_path = |rule: &Rule| {
        let rule = rule.body.as_syscall()?;
        let Some(CallPath { path, recursive }) = &rule.path else {
            let of_call = places.range((rule.call, "")..).take_while(|((call, _), _)| *call == rule.call);
            return Some(((Reverse(None), true), of_call.flat_map(|(_, place)| both(place)).collect()));
        };
        let key = (rule.call, path.as_str());
        let mut keys = if *recursive {
            below[&key].iter().flat_map(both).collect()
        } else {
            vec![usize::from(places[&key].own)]
        };
        keys.push(usize::from(places[&(rule.call, SyscallTable::UNREADABLE)].own));
        Some(((Reverse(Some(path.len())), *recursive), keys))
    };
    let cells = KeyedTable::compile(rules, subjects, CLASS, 2 * places.len() + 1, of_path)?;
    let bytes = |((call, path), place): (&Key<'_>, &Place)| {
        ([&SyscallTable::prefix(*call), path.as_bytes()].concat(), *place)
    };
    Ok(SyscallTable {
        calls,
        paths: hierarchy::automaton(&places.iter().map(bytes).collect())
            .ok_or_else(|| rules.too_many_slots())?,
        cells,
        with_paths,
    })
}

/// Returns a path and each path above it, the root last, all without a last `/`.
fn with_above(path: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(path), |path| path.rsplit_once('/').map(|(above, _)| above))
}
