//! Defines the limits of a compilation, and why it fails.

use crate::model::Location;

/// Largest number of slots of one automaton, which take 32 MiB in the kernel.
pub const MAX_SLOTS: usize = 4 << 20;
/// Largest number of pairs of a subject class and an object class.
pub const MAX_CELLS: usize = 4 << 20;

/// A `CompileError` says why policies that are each valid cannot be compiled together.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CompileError {
    /// The patterns, together with the directories, need more states than the kernel tables may have.
    #[error(
        "{file}:{}: pattern `{pattern}` of policy `{policy}` is too complex with the others; use fewer '**', '*' or {{}}", .location.line
    )]
    Pattern {
        /// The policy of the most complex pattern.
        policy: String,
        /// The most complex pattern.
        pattern: String,
        /// The policy's file.
        file: String,
        /// The place of the pattern's rule in the file.
        location: Location,
    },
    /// The rules have more different outcomes than there are object classes, or than fit into [`MAX_CELLS`]; or for
    /// destinations more ranges would have to be decided on.
    #[error(
        "the rules tell apart more kinds of objects and programs than fit; the most of them are in policy `{policy}`"
    )]
    Classes {
        /// The policy with the most rules.
        policy: String,
    },
    /// The paths need more slots than [`MAX_SLOTS`].
    #[error("the paths need more than {MAX_SLOTS} table slots; the most of them are in policy `{policy}`")]
    Slots {
        /// The policy with the most rules.
        policy: String,
    },
    /// A value of [`Links`](crate::Links) is not an absolute path without `//`, `.` and `..`.
    #[error("`{from}` cannot resolve to `{to}`, which is not an absolute, normal path")]
    Link {
        /// The path as written in the rule.
        from: String,
        /// The path that it resolves to according to the caller.
        to: String,
    },
}
