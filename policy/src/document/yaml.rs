//! Parses YAML text into trees of nodes that have their places.
//!
//! Sizes are bounded before anything is built, by [`MAX_TEXT`], [`MAX_DEPTH`] and [`MAX_NODES`]. Aliases are
//! refused, so that no document can grow beyond its text. Duplicate keys, keys that are lists or mappings,
//! and tags are errors here. Scalars that need no decoding are borrowed from the text.

use super::diagnostics::Sink;
use super::text;
use crate::model::Location;
use saphyr_parser::{Event, Parser, ScalarStyle, Span};
use std::borrow::Cow;
use std::collections::HashSet;

/// Size of the largest policy file, in bytes.
pub const MAX_TEXT: usize = 1 << 20;
/// Deepest nesting of mappings and lists; a policy needs 7.
pub const MAX_DEPTH: usize = 32;
/// Largest number of mappings, lists, keys and values in one file.
pub const MAX_NODES: usize = 200_000;

#[derive(Debug)]
pub(crate) struct Node<'t> {
    pub(crate) at: Location,
    pub(crate) value: Value<'t>,
}

#[derive(Debug)]
pub(crate) enum Value<'t> {
    Scalar {
        text: Cow<'t, str>,
        /// The scalar is not quoted, so that `true`, `5` and `null` are not strings.
        plain: bool,
    },
    List(Vec<Node<'t>>),
    Map(Vec<(Key<'t>, Node<'t>)>),
}

#[derive(Debug)]
pub(crate) struct Key<'t> {
    pub(crate) at: Location,
    pub(crate) name: Cow<'t, str>,
}

impl Node<'_> {
    pub(crate) fn is_null(&self) -> bool {
        matches!(&self.value, Value::Scalar { text, plain: true } if matches!(text.as_ref(), "" | "~" | "null" | "Null" | "NULL"))
    }

    /// Returns the node's kind, for a message.
    pub(crate) fn kind(&self) -> &'static str {
        match &self.value {
            _ if self.is_null() => "nothing",
            Value::Scalar { text, plain: true } if matches!(text.as_ref(), "true" | "True" | "TRUE") => {
                "a boolean"
            }
            Value::Scalar { text, plain: true } if matches!(text.as_ref(), "false" | "False" | "FALSE") => {
                "a boolean"
            }
            Value::Scalar { text, plain: true } if is_number(text) => "a number",
            Value::Scalar { .. } => "a string",
            Value::List(_) => "a list",
            Value::Map(_) => "a mapping",
        }
    }
}

fn is_number(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.'))
        && (text.parse::<f64>().is_ok() || text.starts_with("0x") || text.starts_with("0o"))
}

/// An `Open` is a mapping or list that is still being read.
enum Open<'t> {
    List(Location, Vec<Node<'t>>),
    Map { at: Location, entries: Vec<(Key<'t>, Node<'t>)>, seen: HashSet<Cow<'t, str>>, key: Option<Key<'t>> },
}

/// Returns the documents of a file without the empty ones. Errors go to the sink. After a syntax error or an
/// alias, only the documents before it are returned.
pub(crate) fn documents<'t>(text: &'t str, sink: &mut Sink) -> Vec<Node<'t>> {
    let mut documents = Vec::new();
    if text.len() > MAX_TEXT {
        let message = format!("the file has {} bytes, more than {MAX_TEXT}", text.len());
        sink.error(Location { line: 1, column: 1 }, message, "split it");
        return documents;
    }
    // Any other error in such a file would only follow from this one.
    if let Some((at, placeholder)) = text::first_placeholder(text) {
        refuse_placeholder(placeholder, at, sink);
        return documents;
    }
    let mut parser = Parser::new_from_str(text);
    let mut source = Source { text, byte: 0, character: 0 };
    let mut open: Vec<Open<'_>> = Vec::new();
    let mut nodes = 0;
    while let Some(event) = parser.next_event() {
        let (event, span) = match event {
            Ok(event) => event,
            Err(error) => {
                let (at, message, help) = text::no_yaml(text, location(error.marker()), error.info());
                sink.error(at, message, help);
                return documents;
            }
        };
        let at = start(&span);
        nodes += 1;
        if nodes > MAX_NODES {
            sink.error(at, format!("the file has more than {MAX_NODES} YAML nodes"), "split it");
            return documents;
        }
        let node = match event {
            Event::MappingStart(_, tag) => {
                refuse_tag(tag.is_some(), at, sink);
                open.push(Open::Map { at, entries: Vec::new(), seen: HashSet::new(), key: None });
                None
            }
            Event::SequenceStart(_, tag) => {
                refuse_tag(tag.is_some(), at, sink);
                open.push(Open::List(at, Vec::new()));
                None
            }
            Event::MappingEnd | Event::SequenceEnd => open.pop().map(|container| match container {
                Open::List(at, items) => Node { at, value: Value::List(items) },
                Open::Map { at, entries, .. } => Node { at, value: Value::Map(entries) },
            }),
            Event::Scalar(text, style, _, tag) => {
                refuse_tag(tag.is_some(), at, sink);
                if let Some(placeholder) = text::placeholder_in(&text) {
                    refuse_placeholder(placeholder, at, sink);
                }
                let plain = style == ScalarStyle::Plain;
                let text = source
                    .borrowed(&text, &span, plain)
                    .map_or_else(|| text.into_owned().into(), Cow::Borrowed);
                Some(Node { at, value: Value::Scalar { text, plain } })
            }
            Event::Alias(_) => {
                sink.error(at, "YAML aliases (*name) are not accepted", "write the value out");
                return documents;
            }
            Event::Nothing
            | Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(_)
            | Event::DocumentEnd => None,
        };
        if open.len() > MAX_DEPTH {
            sink.error(at, format!("nested deeper than {MAX_DEPTH} levels"), "a policy needs 7");
            return documents;
        }
        let Some(node) = node else { continue };
        match open.last_mut() {
            None if node.is_null() => {}
            None => documents.push(node),
            Some(Open::List(_, items)) => items.push(node),
            Some(Open::Map { entries, seen, key, .. }) => match key.take() {
                Some(name) => entries.push((name, node)),
                None => *key = Some(read_key(node, seen, sink)),
            },
        }
    }
    documents
}

/// A `Source` is the text and the position of the last scalar in it, in bytes and, as the parser counts, in
/// characters.
struct Source<'t> {
    text: &'t str,
    byte: usize,
    character: usize,
}

impl<'t> Source<'t> {
    /// Returns the scalar as it stands in the text, or `None` if escapes, folding or indentation make it
    /// differ.
    fn borrowed(&mut self, scalar: &str, span: &Span, plain: bool) -> Option<&'t str> {
        let ahead = span.start.index().checked_sub(self.character)?;
        let rest = self.text.get(self.byte..)?;
        let skipped = match rest.as_bytes().get(..ahead) {
            Some(bytes) if bytes.is_ascii() => ahead,
            _ => rest.char_indices().nth(ahead)?.0,
        };
        self.byte += skipped;
        self.character += ahead;
        let from = if plain { self.byte } else { self.byte + 1 };
        let text = self.text.get(from..from.checked_add(scalar.len())?)?;
        (text == scalar).then_some(text)
    }
}

fn read_key<'t>(node: Node<'t>, seen: &mut HashSet<Cow<'t, str>>, sink: &mut Sink) -> Key<'t> {
    let at = node.at;
    let name = match node.value {
        Value::Scalar { text, .. } => text,
        Value::List(_) | Value::Map(_) => {
            sink.error(at, "a key must be a word, not a list or a mapping", "");
            Cow::default()
        }
    };
    if !seen.insert(name.clone()) {
        sink.error(at, format!("`{name}` is given twice"), "keep one of them");
    }
    Key { at, name }
}

fn refuse_tag(tagged: bool, at: Location, sink: &mut Sink) {
    if tagged {
        sink.error(at, "YAML tags (!name) are not accepted", "remove it");
    }
}

fn refuse_placeholder(placeholder: &str, at: Location, sink: &mut Sink) {
    let message = format!("`{placeholder}` is the placeholder of a template that was not rendered");
    sink.error(at, message, "render it first, for Helm: helm template CHART > policies.yaml");
}

fn start(span: &Span) -> Location {
    location(&span.start)
}

fn location(marker: &saphyr_parser::Marker) -> Location {
    let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    Location { line: number(marker.line()), column: number(marker.col() + 1) }
}
