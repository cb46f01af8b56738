//! Compiles the rules for networks to the table that decides the use of sockets.

use super::model::SocketKind;
use crate::decision::PostureClass;
use crate::keyed::KeyedTable;
use crate::model::Rule;
use crate::precedence::error::CompileError;
use crate::precedence::rules::Rules;
use crate::precedence::subjects::Subjects;

pub(crate) fn compile(rules: &Rules<'_>, subjects: &Subjects) -> Result<KeyedTable, CompileError> {
    let of_rule = |rule: &Rule| {
        let protocol = rule.body.as_network()?.protocol;
        Some((protocol.specificity(), protocol.kinds().iter().map(|kind| *kind as usize).collect()))
    };
    KeyedTable::compile(rules, subjects, PostureClass::Network, SocketKind::ALL.len(), of_rule)
}
