//! Finds the edits of a file's text that mend what the parser reports, for a migration.
//!
//! Invariants:
//! - What is edited stands in the text as it reads: no escape, no folding. Where that is not so, there is no edit.
//! - A scalar keeps its quotes, unless they are what is wrong or its new value cannot do without.
//! - No edit covers a comment.

use super::choices::Choices;
use super::diagnostics::{Diagnostic, Diagnostics};
use super::yaml::{Key, Node, Value, is_string};
use crate::model::Location;
use std::collections::BTreeMap;

/// Largest number of mends, of errors and of remarks in one file.
pub(crate) const MAX_MENDS: usize = 10_000;

/// An `Edit` puts a text into the place of the bytes from `start` to before `end`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Edit {
    pub(crate) start: usize,
    pub(crate) end: usize,
    pub(crate) text: String,
}

/// A `Ground` says why an edit is what the author meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ground {
    /// The document can be read in no other way.
    OneReading,
    /// One known name is nearer to what is written than any other; another can be meant nevertheless.
    Spelling,
}

/// A `Mend` is what was reported, with the edits for it.
#[derive(Debug)]
pub(crate) struct Mend {
    pub(crate) diagnostic: Diagnostic,
    pub(crate) edits: Vec<Edit>,
}

/// A `Mender` collects the mends of one file.
#[derive(Debug)]
pub(crate) struct Mender<'t> {
    pub(crate) choices: &'t Choices,
    pub(crate) mends: Vec<Mend>,
    pub(crate) remarks: Diagnostics,
    text: &'t str,
    /// The offsets at which the lines begin.
    lines: Vec<usize>,
    line_break: &'static str,
}

/// A `Scalar` is the place of a scalar's content, which is within the quotes.
struct Scalar {
    start: usize,
    end: usize,
    quote: Option<u8>,
}

impl Scalar {
    /// Returns the place with the quotes.
    fn whole(&self) -> (usize, usize) {
        let quote = usize::from(self.quote.is_some());
        (self.start - quote, self.end + quote)
    }
}

impl<'t> Mender<'t> {
    pub(crate) fn new(text: &'t str, choices: &'t Choices) -> Self {
        let mut lines = vec![0];
        let bytes = text.as_bytes();
        for (at, byte) in bytes.iter().enumerate() {
            // As the YAML parser counts them.
            if *byte == b'\n' || (*byte == b'\r' && bytes.get(at + 1) != Some(&b'\n')) {
                lines.push(at + 1);
            }
        }
        let line_break = if text.contains("\r\n") { "\r\n" } else { "\n" };
        Self { choices, mends: Vec::new(), remarks: Diagnostics::default(), text, lines, line_break }
    }

    /// Returns the edits after which the scalar `old` at this place is the string `new`.
    pub(crate) fn replace(&self, at: Location, old: &str, new: &str) -> Option<Vec<Edit>> {
        let scalar = self.scalar(at, old)?;
        let text = match scalar.quote {
            Some(b'\'') if new.contains(['\'', '\n']) => return None,
            Some(b'\'') => new.to_owned(),
            None if stays_plain(old, new) => new.to_owned(),
            None | Some(_) if new.contains(['"', '\\', '\n']) => return None,
            None => format!("\"{new}\""),
            Some(_) => new.to_owned(),
        };
        Some(vec![Edit { start: scalar.start, end: scalar.end, text }])
    }

    /// Returns the edits that put another name for `old` into a list with commas, wherever `old` is in it.
    pub(crate) fn replace_entry(
        &self,
        (at, list): (Location, &str),
        old: &str,
        new: &str,
    ) -> Option<Vec<Edit>> {
        let scalar = self.scalar(at, list).filter(|_| stays_plain(new, new))?;
        let mut edits = Vec::new();
        let mut start = scalar.start;
        for entry in list.split(',') {
            let name = entry.trim();
            if name.eq_ignore_ascii_case(old) {
                let from = start + entry.len() - entry.trim_start().len();
                edits.push(Edit { start: from, end: from + name.len(), text: new.to_owned() });
            }
            start += entry.len() + 1;
        }
        Some(edits)
    }

    /// Returns the edits that write `value` without quotes for the scalar `text`, which may have some.
    pub(crate) fn plain(&self, at: Location, text: &str, value: &str) -> Option<Vec<Edit>> {
        let (start, end) = self.scalar(at, text)?.whole();
        Some(vec![Edit { start, end, text: value.to_owned() }])
    }

    /// Returns the edits that put the plain scalar `text` into quotes.
    pub(crate) fn quote(&self, at: Location, text: &str) -> Option<Vec<Edit>> {
        let Scalar { start, end, .. } = self.scalar(at, text).filter(|scalar| scalar.quote.is_none())?;
        Some(vec![Edit { start, end, text: format!("\"{text}\"") }])
    }

    /// Returns the edits that take away the lines of an entry of a mapping. There are none if something else is
    /// on these lines, or the value is no scalar.
    pub(crate) fn remove(&self, key: &Key<'_>, value: &Node<'_>) -> Option<Vec<Edit>> {
        let start = self.line_of(key)?;
        let (_, after_key) = self.scalar(key.at, &key.name)?.whole();
        let Value::Scalar { text, .. } = &value.value else { return None };
        let end = if text.is_empty() && value.is_null() {
            self.text.get(after_key..)?.starts_with(':').then_some(after_key + 1)?
        } else {
            let (from, to) = self.scalar(value.at, text)?.whole();
            self.text.get(after_key..from)?.trim().eq(":").then_some(to)?
        };
        let rest = self.text.get(end..)?;
        let line = rest.split_inclusive('\n').next().unwrap_or_default();
        line.trim().is_empty().then(|| vec![Edit { start, end: end + line.len(), text: String::new() }])
    }

    /// Returns the edits that move the given entries of a block mapping one level deeper, below a key that is
    /// inserted before them unless it is there.
    pub(crate) fn nest(&self, entries: &[&(Key<'_>, Node<'_>)], below: Option<&str>) -> Option<Vec<Edit>> {
        let mut edits = Vec::new();
        for (index, (key, value)) in entries.iter().enumerate() {
            let indent = key.at.column.checked_sub(1)? as usize;
            self.line_of(key).filter(|_| key.at.line == value.at.line)?;
            let Value::Scalar { text, .. } = &value.value else { return None };
            self.scalar(value.at, text)?;
            let start = self.offset(key.at)?;
            let text = match below.filter(|_| index == 0) {
                Some(parent) => format!("{parent}:{}{}", self.line_break, " ".repeat(indent + 2)),
                None => "  ".to_owned(),
            };
            edits.push(Edit { start, end: start, text });
        }
        Some(edits)
    }

    /// Returns the edits that insert lines before the first entry of a mapping, which is or becomes `deeper` than it
    /// stands. Each line comes with how much deeper than that it is.
    pub(crate) fn insert(
        &self,
        map: &Node<'_>,
        (first, _): &(Key<'_>, Node<'_>),
        deeper: usize,
        lines: &[(usize, String)],
    ) -> Option<Vec<Edit>> {
        let start = self.offset(first.at)?;
        if !is_block(map) {
            let [(_, line)] = lines else { return None };
            return Some(vec![Edit { start, end: start, text: format!("{line}, ") }]);
        }
        self.line_of(first)?;
        let indent = first.at.column.checked_sub(1)? as usize + deeper;
        let end = (0, String::new());
        let mut text = String::new();
        for ((_, line), (next, _)) in lines.iter().zip(lines.iter().skip(1).chain([&end])) {
            text.push_str(line);
            text.push_str(self.line_break);
            text.push_str(&" ".repeat(indent + next));
        }
        Some(vec![Edit { start, end: start, text }])
    }

    /// Returns the start of the line of a key, if nothing but blanks is before it.
    fn line_of(&self, key: &Key<'_>) -> Option<usize> {
        let start = *self.lines.get(key.at.line.checked_sub(1)? as usize)?;
        let (key, _) = self.scalar(key.at, &key.name)?.whole();
        self.text.get(start..key)?.bytes().all(|byte| byte == b' ').then_some(start)
    }

    fn offset(&self, at: Location) -> Option<usize> {
        let start = *self.lines.get(at.line.checked_sub(1)? as usize)?;
        let column = at.column.checked_sub(1)? as usize;
        let line = self.text.get(start..)?;
        match line.as_bytes().get(..column) {
            Some(before) if before.is_ascii() => Some(start + column),
            _ => Some(start + line.char_indices().nth(column)?.0),
        }
    }

    /// Returns the place of a scalar, or `None` if it does not stand at `at` as it reads.
    fn scalar(&self, at: Location, content: &str) -> Option<Scalar> {
        let begin = self.offset(at)?;
        let quote = self.text.as_bytes().get(begin).copied().filter(|byte| matches!(byte, b'\'' | b'"'));
        let start = begin + usize::from(quote.is_some());
        let after = self.text.get(start..)?.strip_prefix(content)?;
        let ends = match quote {
            Some(b'\'') => after.starts_with('\'') && !after.starts_with("''"),
            Some(_) => after.starts_with('"'),
            None => after.is_empty() || after.starts_with([' ', '\t', '\r', '\n', ',', ':', ']', '}']),
        };
        ends.then_some(Scalar { start, end: start + content.len(), quote })
    }
}

/// Returns whether a node is a mapping in block style, which begins with its first key.
pub(crate) fn is_block(map: &Node<'_>) -> bool {
    matches!(&map.value, Value::Map(entries) if entries.first().is_some_and(|(key, _)| key.at == map.at))
}

/// Returns the text of an entry of a mapping: `key: value`, in quotes as far as they need them.
pub(crate) fn entry(key: &str, value: &str) -> Option<String> {
    let written = |text: &str| match text {
        text if stays_plain(text, text) => Some(text.to_owned()),
        text if text.contains(['"', '\\', '\n']) => None,
        text => Some(format!("\"{text}\"")),
    };
    Some(format!("{}: {}", written(key)?, written(value)?))
}

/// Returns whether `new` is the same string without quotes where `old` is. What `old` has of characters that can mean
/// something is taken for harmless there, unless `old` is `new`.
fn stays_plain(old: &str, new: &str) -> bool {
    let is_safe = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '_' | '.' | '-' | '@' | '=' | '+');
    let begins = new.starts_with(|c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '_'));
    let is_known = |c: char| old != new && old.contains(c);
    begins
        && new.chars().all(|c| is_safe(c) || is_known(c))
        && !new.contains(": ")
        && !new.contains(" #")
        && !new.ends_with([':', ' '])
        && is_string(new)
}

/// Returns the text after the edits, or the place of the first of two that overlap. Of edits of the same bytes the
/// last one counts, which was found knowing the others.
pub(crate) fn apply(text: &str, edits: impl IntoIterator<Item = Edit>) -> Result<String, usize> {
    let mut sorted: BTreeMap<(usize, usize), String> = BTreeMap::new();
    for Edit { start, end, text } in edits {
        let place = sorted.entry((start, end)).or_default();
        // Insertions at one place follow each other.
        if start == end { place.push_str(&text) } else { *place = text }
    }
    let (mut out, mut done) = (String::with_capacity(text.len()), 0);
    for ((start, end), new) in sorted {
        let between = text.get(done..start).ok_or(start)?;
        out.push_str(between);
        out.push_str(&new);
        done = end;
    }
    out.push_str(text.get(done..).ok_or(done)?);
    Ok(out)
}
