//! Compiles the rules for system calls to the table that says which are reported.

use super::model::Syscall;
use crate::decision::PostureClass;
use crate::keyed::KeyedTable;
use crate::model::Rule;
use crate::precedence::error::CompileError;
use crate::precedence::rules::Rules;
use crate::precedence::subjects::Subjects;

pub(crate) fn compile(rules: &Rules<'_>, subjects: &Subjects) -> Result<KeyedTable, CompileError> {
    // No rule is an allow-list's, so no posture counts.
    let of_rule = |rule: &Rule| Some(((), vec![rule.body.as_syscall()?.number()]));
    KeyedTable::compile(rules, subjects, PostureClass::File, Syscall::COUNT, of_rule)
}
