//! Compiles the rules for paths to the tables that decide accesses to them.

mod arguments;
mod classes;
mod entries;
mod globs;
mod objects;

use super::tables::{OBJECT_FIRST, PathTables};
use crate::automaton::comb;
use crate::precedence::error::{CompileError, MAX_SLOTS};
use crate::precedence::links::Links;
use crate::precedence::rules::Rules;
use crate::precedence::subjects::Subjects;
use arguments::Lists;
use classes::Classes;
use entries::Entries;

pub(crate) fn compile(
    rules: &Rules<'_>,
    subjects: &Subjects,
    links: &Links,
) -> Result<PathTables, CompileError> {
    let lists = Lists::new(rules)?;
    let entries = Entries::new(rules, &lists, links)?;
    let mut classes = Classes::new(&entries, subjects);
    let objects = objects::build(&entries, &mut classes)?;

    let numbered = classes.number(&objects).ok_or_else(|| rules.too_many_classes())?;
    let states: Vec<comb::State<'_>> = objects
        .iter()
        .map(|state| comb::State {
            class: numbered.class(state.label),
            below: if state.after_slash { numbered.class(state.below) } else { 0 },
            default: state.default,
            transitions: state.transitions,
        })
        .collect();
    let automaton = comb::pack(&states, objects.start(), MAX_SLOTS).ok_or_else(|| rules.too_many_slots())?;
    Ok(PathTables {
        objects: automaton,
        object_count: u32::from(OBJECT_FIRST) + numbered.assigned,
        cells: numbered.cells(&classes),
        vectors: classes.into_vectors(),
        arguments: lists.tables,
    })
}
