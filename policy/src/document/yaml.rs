//! Parses YAML text into trees of nodes that have their places.
//!
//! Sizes are bounded before anything is built, by [`MAX_TEXT`], [`MAX_DEPTH`] and [`MAX_NODES`], which count what
//! aliases stand for. Aliases and merge keys (`<<`) are replaced by what they stand for, with the places where that is
//! written. Duplicate keys, keys that are lists or mappings, and tags are errors here. Scalars that need no decoding are
//! borrowed from the text.

use super::diagnostics::Sink;
use super::mend::Ground;
use super::text;
use crate::model::Location;
use saphyr_parser::{Event, Parser, ScalarStyle, Span};
use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

/// Size of the largest policy file, in bytes.
pub const MAX_TEXT: usize = 1 << 20;
/// Deepest nesting of mappings and lists; a policy needs 7.
pub const MAX_DEPTH: usize = 32;
/// Largest number of mappings, lists, keys and values in one file. What has an anchor counts once more, and so does each of
/// its aliases.
pub const MAX_NODES: usize = 200_000;
/// Number of bytes of text that count as a node more where they are copied, for an anchor or an alias.
const TEXT_OF_NODE: usize = 32;

#[derive(Clone, Debug)]
pub(crate) struct Node<'t> {
    pub(crate) at: Location,
    pub(crate) value: Value<'t>,
}

#[derive(Clone, Debug)]
pub(crate) enum Value<'t> {
    Scalar {
        text: Cow<'t, str>,
        /// The scalar is not quoted, so that `true`, `5` and `null` are not strings.
        plain: bool,
    },
    List(Vec<Node<'t>>),
    Map(Vec<(Key<'t>, Node<'t>)>),
}

#[derive(Clone, Debug)]
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

    /// Returns as how many nodes an alias of this one counts, itself and keys included, and how deep they are nested.
    fn size(&self) -> (usize, usize) {
        let of_text = |text: &str| 1 + text.len() / TEXT_OF_NODE;
        let sum = |(nodes, depth): (usize, usize), of: &Node<'_>| {
            let (more, below) = of.size();
            (nodes + more, depth.max(below + 1))
        };
        match &self.value {
            Value::Scalar { text, .. } => (of_text(text), 0),
            Value::List(items) => items.iter().fold((1, 1), sum),
            Value::Map(entries) => {
                let keys: usize = entries.iter().map(|(key, _)| of_text(&key.name)).sum();
                entries.iter().map(|(_, value)| value).fold((1 + keys, 1), sum)
            }
        }
    }
}

/// Returns whether a scalar of this text is a string without quotes.
pub(crate) fn is_string(text: &str) -> bool {
    let value = Value::Scalar { text: text.into(), plain: true };
    Node { at: Location::default(), value }.kind() == "a string"
}

fn is_number(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.'))
        && (text.parse::<f64>().is_ok() || text.starts_with("0x") || text.starts_with("0o"))
}

/// The number that the parser gives to nodes without an anchor.
const NO_ANCHOR: usize = 0;

/// An `Open` is a mapping or list that is still being read.
enum Open<'t> {
    List { at: Location, anchor: usize, items: Vec<Node<'t>> },
    Map { at: Location, anchor: usize, map: Map<'t> },
}

/// A `Map` is a mapping that is still being read.
#[derive(Default)]
struct Map<'t> {
    entries: Vec<(Key<'t>, Node<'t>)>,
    seen: HashSet<Cow<'t, str>>,
    /// What comes before the next value.
    key: Option<MapKey<'t>>,
    /// Values of merge keys. What the mapping itself gives takes precedence, then the earlier one.
    merged: Vec<Node<'t>>,
}

enum MapKey<'t> {
    Own(Key<'t>),
    /// `<<`
    Merge,
}

impl<'t> Map<'t> {
    fn push(&mut self, node: Node<'t>, sink: &mut Sink) {
        match self.key.take() {
            Some(MapKey::Own(key)) => {
                if !self.seen.insert(key.name.clone()) {
                    self.refuse_repeated(&key, &node, sink);
                }
                self.entries.push((key, node));
            }
            Some(MapKey::Merge) => self.merged.push(node),
            None => self.key = Some(self.read_key(node, sink)),
        }
    }

    fn read_key(&mut self, node: Node<'t>, sink: &mut Sink) -> MapKey<'t> {
        let at = node.at;
        let name = match node.value {
            Value::Scalar { text, plain: true } if text == "<<" => return MapKey::Merge,
            Value::Scalar { text, .. } => text,
            Value::List(_) | Value::Map(_) => {
                sink.error(at, "a key must be a word, not a list or a mapping", "");
                Cow::default()
            }
        };
        MapKey::Own(Key { at, name })
    }

    fn refuse_repeated(&self, key: &Key<'t>, node: &Node<'t>, sink: &mut Sink) {
        let said = |node: &Node<'_>| match &node.value {
            Value::Scalar { text, .. } => Some((text.to_string(), node.kind())),
            Value::List(_) | Value::Map(_) => None,
        };
        let first = self.entries.iter().find(|(other, _)| other.name == key.name);
        let is_same = first.and_then(|(_, first)| said(first)).is_some_and(|first| said(node) == Some(first));
        let message = format!("`{}` is given twice", key.name);
        let help = "keep one of them";
        if is_same {
            sink.mendable(key.at, message, help, Ground::OneReading, |mender| mender.remove(key, node));
        } else {
            sink.error(key.at, message, help);
        }
    }

    /// Returns the entries, with those that are merged into them.
    fn finish(mut self, sink: &mut Sink) -> Vec<(Key<'t>, Node<'t>)> {
        for node in std::mem::take(&mut self.merged) {
            match node.value {
                Value::List(items) => items.into_iter().for_each(|item| self.merge(item, sink)),
                Value::Map(_) | Value::Scalar { .. } => self.merge(node, sink),
            }
        }
        self.entries
    }

    fn merge(&mut self, node: Node<'t>, sink: &mut Sink) {
        let Value::Map(entries) = node.value else {
            sink.error(node.at, "`<<` merges mappings alone", "write << : *name, the anchor of a mapping");
            return;
        };
        for (key, value) in entries {
            if self.seen.insert(key.name.clone()) {
                self.entries.push((key, value));
            }
        }
    }
}

/// An `Anchored` is what the aliases of an anchor stand for.
struct Anchored<'t> {
    node: Node<'t>,
    /// What [`Node::size`] says.
    size: (usize, usize),
}

/// Returns the documents of a file without the empty ones. Errors go to the sink. After a syntax error, or where a file
/// becomes too large, only the documents before it are returned.
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
    let mut anchors: HashMap<usize, Anchored<'t>> = HashMap::new();
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
        let mut nested = 0;
        let node = match event {
            Event::MappingStart(anchor, tag) => {
                refuse_tag(tag.is_some(), at, sink);
                open.push(Open::Map { at, anchor, map: Map::default() });
                None
            }
            Event::SequenceStart(anchor, tag) => {
                refuse_tag(tag.is_some(), at, sink);
                open.push(Open::List { at, anchor, items: Vec::new() });
                None
            }
            Event::MappingEnd | Event::SequenceEnd => open.pop().map(|container| match container {
                Open::List { at, anchor, items } => (anchor, Node { at, value: Value::List(items) }),
                Open::Map { at, anchor, map } => (anchor, Node { at, value: Value::Map(map.finish(sink)) }),
            }),
            Event::Scalar(text, style, anchor, tag) => {
                refuse_tag(tag.is_some(), at, sink);
                if let Some(placeholder) = text::placeholder_in(&text) {
                    refuse_placeholder(placeholder, at, sink);
                }
                let plain = style == ScalarStyle::Plain;
                let text = source
                    .borrowed(&text, &span, plain)
                    .map_or_else(|| text.into_owned().into(), Cow::Borrowed);
                Some((anchor, Node { at, value: Value::Scalar { text, plain } }))
            }
            Event::Alias(anchor) => {
                let Some(Anchored { node, size }) = anchors.get(&anchor) else {
                    sink.error(
                        at,
                        "nothing that ends before it in this document has this alias's anchor",
                        "write the value out",
                    );
                    return documents;
                };
                nodes += size.0;
                nested = size.1;
                // Before it is copied.
                (nodes <= MAX_NODES).then(|| (NO_ANCHOR, node.clone()))
            }
            Event::DocumentEnd => {
                anchors.clear();
                None
            }
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentStart(_) => None,
        };
        if open.len() + nested > MAX_DEPTH {
            sink.error(at, format!("nested deeper than {MAX_DEPTH} levels"), "a policy needs 7");
            return documents;
        }
        if let Some((anchor, node)) = &node
            && *anchor != NO_ANCHOR
        {
            let size = node.size();
            nodes += size.0;
            anchors.insert(*anchor, Anchored { node: node.clone(), size });
        }
        if nodes > MAX_NODES {
            sink.error(at, format!("the file has more than {MAX_NODES} YAML nodes"), "split it");
            return documents;
        }
        let Some((_, node)) = node else { continue };
        match open.last_mut() {
            None if node.is_null() => {}
            None => documents.push(node),
            Some(Open::List { items, .. }) => items.push(node),
            Some(Open::Map { map, .. }) => map.push(node, sink),
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
