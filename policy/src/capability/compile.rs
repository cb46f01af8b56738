//! Compiles the rules for capabilities to the table that decides their use.

use super::model::Capability;
use crate::decision::PostureClass;
use crate::keyed::KeyedTable;
use crate::model::Rule;
use crate::precedence::error::CompileError;
use crate::precedence::rules::Rules;
use crate::precedence::subjects::Subjects;

pub(crate) fn compile(rules: &Rules<'_>, subjects: &Subjects) -> Result<KeyedTable, CompileError> {
    let of_rule = |rule: &Rule| Some(((), vec![rule.body.as_capability()?.capability.number()]));
    KeyedTable::compile(rules, subjects, PostureClass::Capabilities, Capability::COUNT, of_rule)
}
