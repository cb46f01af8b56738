//! Collects the errors and warnings of a policy file, each with its place and its remedy.

use super::choices::Choices;
use super::mend::{Edit, Ground, MAX_MENDS, Mend, Mender};
use crate::model::{Location, MAX_DESCRIPTIONS, Rule};
use std::fmt;

/// Number of diagnostics that are kept for one file; further ones are only counted.
pub const MAX_DIAGNOSTICS: usize = 100;

/// Number of bytes of a message that are shown.
const MAX_MESSAGE: usize = 400;

/// A `Diagnostic` is one error or warning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// The name of the file, as given by the caller.
    pub file: String,
    /// The place in the file.
    pub location: Location,
    /// The problem.
    pub message: String,
    /// The remedy; empty if the message says it.
    pub help: String,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Location { line, column } = self.location;
        write!(f, "{}:{line}:{column}: {}", self.file, self.message)?;
        if self.help.is_empty() { Ok(()) } else { write!(f, " ({})", self.help) }
    }
}

/// A `Diagnostics` lists why a file was refused, one line each in the order of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq, thiserror::Error)]
pub struct Diagnostics {
    /// The first [`MAX_DIAGNOSTICS`] diagnostics; never empty in an error.
    pub list: Vec<Diagnostic>,
    /// Number of further diagnostics.
    pub more: usize,
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, diagnostic) in self.list.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}{diagnostic}")?;
        }
        if self.more > 0 { write!(f, "\n... and {} more", self.more) } else { Ok(()) }
    }
}

const SHORTEN: &str = "shorten those that many rules inherit";

fn too_described() -> String {
    format!("the rules up to here have more than {MAX_DESCRIPTIONS} bytes of tags and messages")
}

impl Diagnostic {
    /// Returns the error for more than [`MAX_DESCRIPTIONS`] bytes of tags and messages in a bundle's files up
    /// to `file`.
    #[must_use]
    pub fn too_described(file: &str) -> Self {
        let (location, message) = (Location { line: 1, column: 1 }, too_described());
        Self { file: file.to_owned(), location, message, help: SHORTEN.to_owned() }
    }
}

/// A `Sink` collects the diagnostics of one file, and counts the bytes of its rules' tags and messages.
///
/// For a migration it collects mends too. The parser reads what is mended as it will be, so that what it returns is what the
/// mended text says.
#[derive(Debug)]
pub(crate) struct Sink<'t> {
    file: String,
    descriptions: usize,
    errors: Diagnostics,
    warnings: Diagnostics,
    mender: Option<Mender<'t>>,
}

impl<'t> Sink<'t> {
    pub(crate) fn new(file: &str) -> Self {
        Self {
            file: file.to_owned(),
            descriptions: 0,
            errors: Diagnostics::default(),
            warnings: Diagnostics::default(),
            mender: None,
        }
    }

    /// Returns a sink that collects the mends of `text` too.
    pub(crate) fn mending(file: &str, text: &'t str, choices: &'t Choices) -> Self {
        Self { mender: Some(Mender::new(text, choices)), ..Self::new(file) }
    }

    pub(crate) fn file(&self) -> &str {
        &self.file
    }

    pub(crate) fn error(&mut self, at: Location, message: impl Into<String>, help: impl Into<String>) {
        let most = self.most();
        push(&mut self.errors, most, &self.file, at, message.into(), help.into());
    }

    pub(crate) fn warn(&mut self, at: Location, message: impl Into<String>, help: impl Into<String>) {
        let most = self.most();
        push(&mut self.warnings, most, &self.file, at, message.into(), help.into());
    }

    /// Reports an error that `edits` would mend. Returns whether they are made: then it is to be read as mended.
    pub(crate) fn mendable(
        &mut self,
        at: Location,
        message: impl Into<String>,
        help: impl Into<String>,
        ground: Ground,
        edits: impl FnOnce(&Mender<'_>) -> Option<Vec<Edit>>,
    ) -> bool {
        let (message, mut help) = (message.into(), help.into());
        if let Some(mender) = &mut self.mender
            && mender.mends.len() < MAX_MENDS
            && let Some(edits) = edits(mender)
        {
            if mender.choices.allow(ground) {
                let diagnostic = diagnostic(&self.file, at, &message, &help);
                mender.mends.push(Mend { diagnostic, edits });
                return true;
            }
            help.push_str(" --accept spelling takes it");
        }
        self.error(at, message, help);
        false
    }

    /// Remarks, in a migration alone, on what is right and may mean something else elsewhere. Returns whether `edits` are
    /// made for it.
    pub(crate) fn remark(
        &mut self,
        at: Location,
        message: impl Into<String>,
        help: impl Into<String>,
        edits: Option<Vec<Edit>>,
    ) -> bool {
        let Some(mender) = &mut self.mender else { return false };
        if mender.mends.len() < MAX_MENDS
            && let Some(edits) = edits
        {
            let diagnostic = diagnostic(&self.file, at, &message.into(), &help.into());
            mender.mends.push(Mend { diagnostic, edits });
            return true;
        }
        push(&mut mender.remarks, MAX_MENDS, &self.file, at, message.into(), help.into());
        false
    }

    /// Returns what finds edits, in a migration.
    pub(crate) fn mender(&self) -> Option<&Mender<'t>> {
        self.mender.as_ref()
    }

    /// Returns how many diagnostics of a kind are kept.
    fn most(&self) -> usize {
        if self.mender.is_some() { MAX_MENDS } else { MAX_DIAGNOSTICS }
    }

    /// Returns the rule, or `None` if tags and messages exceed [`MAX_DESCRIPTIONS`] with it, which is
    /// reported once.
    pub(crate) fn bounded(&mut self, rule: Rule) -> Option<Rule> {
        let before = self.descriptions;
        self.descriptions = before.saturating_add(rule.description_bytes());
        if self.descriptions <= MAX_DESCRIPTIONS {
            return Some(rule);
        }
        if before <= MAX_DESCRIPTIONS {
            self.error(rule.common.location, too_described(), SHORTEN);
        }
        None
    }

    /// Returns the number of errors so far.
    pub(crate) fn count(&self) -> usize {
        self.errors.list.len() + self.errors.more
    }

    /// Returns the errors and the warnings, each in the order of the file, and what a migration needs.
    pub(crate) fn finish(mut self) -> (Diagnostics, Diagnostics, Option<Mender<'t>>) {
        self.errors.list.sort_by_key(|d| d.location);
        self.warnings.list.sort_by_key(|d| d.location);
        (self.errors, self.warnings, self.mender)
    }
}

fn diagnostic(file: &str, location: Location, message: &str, help: &str) -> Diagnostic {
    Diagnostic { file: file.to_owned(), location, message: shown(message), help: shown(help) }
}

fn push(to: &mut Diagnostics, most: usize, file: &str, at: Location, message: String, help: String) {
    if to.list.len() < most {
        to.list.push(diagnostic(file, at, &message, &help));
    } else {
        to.more += 1;
    }
}

/// Makes a text fit for one line of a terminal, whatever a hostile document put into it.
fn shown(text: &str) -> String {
    let mut out = String::with_capacity(text.len().min(MAX_MESSAGE));
    for c in text.chars() {
        if out.len() >= MAX_MESSAGE {
            out.push_str("...");
            break;
        }
        if c.is_control() || is_reordering(c) { out.extend(c.escape_unicode()) } else { out.push(c) }
    }
    out
}

/// Returns whether a character changes the order in which a terminal shows others.
fn is_reordering(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}
