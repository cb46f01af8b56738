//! Compiles presets to the table that decides on them.

use super::model::Preset;
use crate::decision::{Decision, PostureClass};
use crate::keyed::KeyedTable;
use crate::precedence::error::CompileError;
use crate::precedence::postures::stricter;
use crate::precedence::rules::Rules;
use crate::precedence::subjects::Subjects;

pub(crate) fn compile(rules: &Rules<'_>, subjects: &Subjects) -> Result<KeyedTable, CompileError> {
    // No preset is an allow-list, so no posture counts.
    KeyedTable::compile(rules, subjects, PostureClass::File, Preset::ALL.len(), |rule| {
        Some(((), vec![rule.body.as_preset()? as usize]))
    })
}

/// Returns the strictest decision of the rules for a preset, a silent permission if there is none.
pub(crate) fn decision(rules: &Rules<'_>, preset: Preset) -> Decision {
    let of_preset = (0u32..).zip(&rules.list).filter(|(_, rule)| rule.rule.body.as_preset() == Some(preset));
    of_preset.map(|(at, _)| rules.decision(at)).fold(Decision::ALLOW, |a, b| stricter(rules, a, b))
}
