//! Collects the errors and warnings of a policy file, each with its place and its remedy.

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
#[derive(Debug)]
pub(crate) struct Sink {
    file: String,
    descriptions: usize,
    errors: Diagnostics,
    warnings: Diagnostics,
}

impl Sink {
    pub(crate) fn new(file: &str) -> Self {
        Self {
            file: file.to_owned(),
            descriptions: 0,
            errors: Diagnostics::default(),
            warnings: Diagnostics::default(),
        }
    }

    pub(crate) fn file(&self) -> &str {
        &self.file
    }

    pub(crate) fn error(&mut self, at: Location, message: impl Into<String>, help: impl Into<String>) {
        push(&mut self.errors, &self.file, at, message.into(), help.into());
    }

    pub(crate) fn warn(&mut self, at: Location, message: impl Into<String>, help: impl Into<String>) {
        push(&mut self.warnings, &self.file, at, message.into(), help.into());
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

    /// Returns the errors and the warnings, each in the order of the file.
    pub(crate) fn finish(mut self) -> (Diagnostics, Diagnostics) {
        self.errors.list.sort_by_key(|d| d.location);
        self.warnings.list.sort_by_key(|d| d.location);
        (self.errors, self.warnings)
    }
}

fn push(to: &mut Diagnostics, file: &str, location: Location, message: String, help: String) {
    if to.list.len() < MAX_DIAGNOSTICS {
        let (message, help) = (shown(&message), shown(&help));
        to.list.push(Diagnostic { file: file.to_owned(), location, message, help });
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
