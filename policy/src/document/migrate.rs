//! Mends documents that are nearly right, as texts.
//!
//! Invariants:
//! - Nothing is mended that can be read in two ways, but by the operator's [`Choices`].
//! - The mended text is returned only after it was read again: it then says exactly the policies that the parser read into
//!   the old text, has exactly the errors and warnings that no mend is for, and no further mend is for it.

use super::choices::Choices;
use super::diagnostics::{Diagnostic, Diagnostics, Sink};
use super::mend::{self, Mend, Mender};
use super::survey;
use crate::model::{Location, Policy};

/// A `Migration` is what was made of a file.
#[derive(Debug)]
pub struct Migration {
    /// The mended text; the old one if nothing was mended.
    pub text: String,
    /// What was mended. This and all others have the places of the old text, in its order.
    pub mended: Vec<Diagnostic>,
    /// The errors that are left.
    pub errors: Vec<Diagnostic>,
    /// What is right and stays, but may mean something else elsewhere.
    pub remarks: Vec<Diagnostic>,
}

/// A `MigrateError` says why nothing of a file can be mended.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// There are too many faults to keep them all.
    #[error("more than {} faults: correct or divide the file by hand", mend::MAX_MENDS)]
    TooMany,
    /// Two mends are of the same place.
    #[error("nothing is mended, for two mends are of one place: make one by hand: {0}")]
    Overlap(Diagnostic),
    /// The mended text would say something else than what the parser has read into the old one.
    #[error(
        "nothing is mended, for the file would have other {what} than it shall: mend by hand, first {first}"
    )]
    Unproven {
        /// What would differ.
        what: &'static str,
        /// The first mend.
        first: Diagnostic,
    },
}

/// Mends what a policy file has of faults with one remedy, and what the operator has chosen; `name` is the file's name in
/// diagnostics.
///
/// # Errors
/// Fails if it cannot be shown that the mended file would mean what it shall mean.
pub fn migrate(name: &str, text: &str, choices: &Choices) -> Result<Migration, MigrateError> {
    let before = survey(text, Sink::mending(name, text, choices));
    let Parts { errors, warnings, mends, remarks } =
        Parts::of(before.errors, before.warnings, before.mender)?;
    let Some(first) = mends.first().map(|mend| mend.diagnostic.clone()) else {
        return Ok(Migration { text: text.to_owned(), mended: Vec::new(), errors, remarks });
    };
    let edits = mends.iter().flat_map(|mend| mend.edits.iter().cloned());
    let mended = mend::apply(text, edits).map_err(|at| {
        let is_there = |mend: &&Mend| mend.edits.iter().any(|edit| edit.start <= at && at <= edit.end);
        MigrateError::Overlap(mends.iter().find(is_there).map_or(&first, |mend| &mend.diagnostic).clone())
    })?;
    let again = survey(&mended, Sink::mending(name, &mended, choices));
    let after = Parts::of(again.errors, again.warnings, again.mender)?;
    let is_proven = [
        ("policies", without_places(again.policies) == without_places(before.policies)),
        ("errors", messages(&after.errors) == messages(&errors)),
        ("warnings", messages(&after.warnings) == messages(&warnings)),
        ("mends", after.mends.is_empty()),
    ];
    if let Some((what, _)) = is_proven.iter().find(|(_, is)| !is) {
        return Err(MigrateError::Unproven { what, first });
    }
    let mut mended_places: Vec<Diagnostic> = mends.into_iter().map(|mend| mend.diagnostic).collect();
    mended_places.sort_by_key(|diagnostic| diagnostic.location);
    // An alias repeats what is said of its anchor.
    mended_places.dedup();
    Ok(Migration { text: mended, mended: mended_places, errors, remarks })
}

/// `Parts` are the findings of one reading; all of them were kept.
struct Parts {
    errors: Vec<Diagnostic>,
    warnings: Vec<Diagnostic>,
    mends: Vec<Mend>,
    remarks: Vec<Diagnostic>,
}

impl Parts {
    fn of(
        errors: Diagnostics,
        warnings: Diagnostics,
        mender: Option<Mender<'_>>,
    ) -> Result<Self, MigrateError> {
        let (mends, mut remarks) =
            mender.map_or_else(Default::default, |mender| (mender.mends, mender.remarks));
        if errors.more + warnings.more + remarks.more > 0 || mends.len() >= mend::MAX_MENDS {
            return Err(MigrateError::TooMany);
        }
        remarks.list.sort_by_key(|diagnostic| diagnostic.location);
        remarks.list.dedup();
        Ok(Self { errors: errors.list, warnings: warnings.list, mends, remarks: remarks.list })
    }
}

/// Returns what is said, in the order of the file. Where it is said, mends may have moved.
fn messages(diagnostics: &[Diagnostic]) -> Vec<(&str, &str)> {
    diagnostics.iter().map(|diagnostic| (diagnostic.message.as_str(), diagnostic.help.as_str())).collect()
}

fn without_places(mut policies: Vec<Policy>) -> Vec<Policy> {
    for policy in &mut policies {
        policy.location = Location::default();
        for rule in &mut policy.rules {
            rule.common.location = Location::default();
        }
    }
    policies
}
