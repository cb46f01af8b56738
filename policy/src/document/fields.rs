//! Reads the fields of a mapping by type, and reports each value of a wrong type at its place.

use super::diagnostics::Sink;
use super::yaml::{Key, Node, Value};
use crate::model::{Action, Location};

/// A `Fields` is a mapping, and its name in messages.
pub(crate) struct Fields<'a> {
    pub(crate) at: Location,
    pub(crate) entries: &'a [(Key<'a>, Node<'a>)],
    what: String,
}

/// A `Text` is a string and its place.
#[derive(Clone, Copy)]
pub(crate) struct Text<'a> {
    pub(crate) at: Location,
    pub(crate) text: &'a str,
}

impl<'a> Fields<'a> {
    /// Returns the fields of a node, or `None` with an error if the node is not a mapping.
    pub(crate) fn new(node: &'a Node<'a>, what: &str, sink: &mut Sink) -> Option<Self> {
        match &node.value {
            Value::Map(entries) => Some(Self { at: node.at, entries, what: what.to_owned() }),
            Value::Scalar { .. } | Value::List(_) => {
                sink.error(
                    node.at,
                    format!("{what} is {}, not a mapping", node.kind()),
                    "write `field: value` lines",
                );
                None
            }
        }
    }

    /// Reports each field that is not `known`; `refused` has better reasons than "unknown".
    pub(crate) fn only(&self, known: &[&str], refused: &[(&str, &str)], sink: &mut Sink) {
        for (key, _) in self.entries {
            if known.contains(&key.name.as_ref()) {
                continue;
            }
            let message = format!("{} cannot have `{}`", self.what, key.name);
            let help = match refused.iter().find(|(name, _)| *name == key.name) {
                Some((_, why)) => (*why).to_owned(),
                None => match nearest(&key.name, known) {
                    Some(name) => format!("did you mean `{name}`?"),
                    None => format!("known: {}", known.join(", ")),
                },
            };
            sink.error(key.at, message, help);
        }
    }

    pub(crate) fn get(&self, name: &str) -> Option<&'a Node<'a>> {
        self.entries.iter().find(|(key, _)| key.name == name).map(|(_, node)| node)
    }

    pub(crate) fn required(&self, name: &str, help: &str, sink: &mut Sink) -> Option<&'a Node<'a>> {
        let node = self.get(name);
        if node.is_none() {
            sink.error(self.at, format!("{} has no `{name}`", self.what), help);
        }
        node
    }

    pub(crate) fn string(&self, name: &str, sink: &mut Sink) -> Option<Text<'a>> {
        self.get(name).and_then(|node| text(node, &format!("`{name}`"), sink))
    }

    pub(crate) fn required_string(&self, name: &str, help: &str, sink: &mut Sink) -> Option<Text<'a>> {
        self.required(name, help, sink).and_then(|node| text(node, &format!("`{name}`"), sink))
    }

    /// Returns a boolean field, or false if it is missing.
    pub(crate) fn boolean(&self, name: &str, sink: &mut Sink) -> bool {
        let Some(node) = self.get(name) else { return false };
        match &node.value {
            Value::Scalar { text, plain: true } if matches!(text.as_ref(), "true" | "True" | "TRUE") => true,
            Value::Scalar { text, plain: true } if matches!(text.as_ref(), "false" | "False" | "FALSE") => {
                false
            }
            _ => {
                sink.error(
                    node.at,
                    format!("`{name}` is {}, not a boolean", node.kind()),
                    "write true or false",
                );
                false
            }
        }
    }

    /// Returns the entries of a list: none if the field is missing, an error if it is empty.
    pub(crate) fn list(&self, name: &str, sink: &mut Sink) -> &'a [Node<'a>] {
        self.get(name).map_or(&[], |node| items(node, name, sink))
    }

    pub(crate) fn severity(&self, sink: &mut Sink) -> Option<u8> {
        let node = self.get("severity")?;
        let number = match &node.value {
            Value::Scalar { text, plain: true } => text.parse().ok(),
            _ => None,
        };
        let severity = number.filter(|n| (1..=10).contains(n));
        if severity.is_none() {
            let given = match &node.value {
                Value::Scalar { text, plain: true } if !text.is_empty() => format!("`{text}`"),
                _ => node.kind().to_owned(),
            };
            sink.error(
                node.at,
                format!("severity is {given}"),
                "write a whole number from 1 to 10, without quotes",
            );
        }
        severity
    }

    /// Returns the tags, or `None` if they are missing or empty: both inherit.
    pub(crate) fn tags(&self, sink: &mut Sink) -> Option<Vec<String>> {
        let node = self.get("tags")?;
        let Value::List(items) = &node.value else {
            sink.error(node.at, format!("`tags` is {}, not a list", node.kind()), "write [\"a\", \"b\"]");
            return None;
        };
        let tags: Vec<String> =
            items.iter().filter_map(|n| text(n, "a tag", sink)).map(|t| t.text.to_owned()).collect();
        (!tags.is_empty()).then_some(tags)
    }

    pub(crate) fn action(&self, sink: &mut Sink) -> Option<Action> {
        let action = self.string("action", sink)?;
        let known = [("Block", Action::Block), ("Allow", Action::Allow), ("Audit", Action::Audit)];
        let found = known.iter().find(|(name, _)| name.eq_ignore_ascii_case(action.text));
        if found.is_none() {
            let message = format!("action `{}` is not known", action.text);
            sink.error(action.at, message, "write Block, Allow or Audit");
        }
        found.map(|(_, action)| *action)
    }
}

/// Returns a node's string, or `None` with an error if the node is something else.
pub(crate) fn text<'a>(node: &'a Node<'_>, what: &str, sink: &mut Sink) -> Option<Text<'a>> {
    match (&node.value, node.kind()) {
        (Value::Scalar { text, .. }, "a string") => Some(Text { at: node.at, text }),
        (Value::Scalar { .. }, kind @ ("a number" | "a boolean")) => {
            sink.error(node.at, format!("{what} is {kind}, not a string"), "put it in quotes");
            None
        }
        (_, kind) => {
            sink.error(node.at, format!("{what} is {kind}, not a string"), "");
            None
        }
    }
}

/// Returns the known name that `name` most likely stands for.
pub(crate) fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    let lower = name.to_lowercase();
    known
        .iter()
        .map(|candidate| (edits(&lower, &candidate.to_lowercase()), *candidate))
        .min()
        .filter(|(edits, candidate)| *edits <= 1 + candidate.len() / 4)
        .map(|(_, candidate)| candidate)
}

/// Returns the Levenshtein distance, or `usize::MAX` if `a` is longer than the name of any field.
fn edits(a: &str, b: &str) -> usize {
    if a.len() > 64 {
        return usize::MAX;
    }
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

/// Returns the entries of a list of that name.
pub(crate) fn items<'a>(node: &'a Node<'a>, name: &str, sink: &mut Sink) -> &'a [Node<'a>] {
    match &node.value {
        Value::List(items) if items.is_empty() => {
            sink.error(node.at, format!("`{name}` is empty"), "add an entry or remove it");
            &[]
        }
        Value::List(items) => items,
        Value::Scalar { .. } | Value::Map(_) => {
            sink.error(
                node.at,
                format!("`{name}` is {}, not a list", node.kind()),
                "begin each entry with '- '",
            );
            &[]
        }
    }
}
