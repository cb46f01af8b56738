//! Reads the fields of a mapping by type, and reports each value of a wrong type at its place.

use super::diagnostics::Sink;
use super::mend::{Ground, Mender};
use super::yaml::{Key, Node, Value};
use crate::model::{Action, Location};

/// A `Fields` is a mapping, and its name in messages.
pub(crate) struct Fields<'a> {
    pub(crate) at: Location,
    pub(crate) entries: &'a [(Key<'a>, Node<'a>)],
    what: String,
    /// Fields that are read by the name that they are mended to.
    renamed: Vec<(&'static str, &'a Node<'a>)>,
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
            Value::Map(entries) => {
                Some(Self { at: node.at, entries, what: what.to_owned(), renamed: Vec::new() })
            }
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
    pub(crate) fn only(&mut self, known: &[&'static str], refused: &[(&str, &str)], sink: &mut Sink) {
        for (key, node) in self.entries {
            if known.contains(&key.name.as_ref()) {
                continue;
            }
            let message = format!("{} cannot have `{}`", self.what, key.name);
            if let Some((_, why)) = refused.iter().find(|(name, _)| *name == key.name) {
                sink.error(key.at, message, *why);
                continue;
            }
            let meant = meant(&key.name, known).filter(|(name, _)| self.get(name).is_none());
            match meant {
                Some((name, ground)) => {
                    let help = format!("did you mean `{name}`?");
                    let edits = |mender: &Mender<'_>| mender.replace(key.at, &key.name, name);
                    if sink.mendable(key.at, message, help, ground, edits) {
                        self.renamed.push((name, node));
                    }
                }
                None => sink.error(key.at, message, suggestion(&key.name, known)),
            }
        }
    }

    pub(crate) fn get(&self, name: &str) -> Option<&'a Node<'a>> {
        let own = self.entries.iter().find(|(key, _)| key.name == name).map(|(_, node)| node);
        own.or_else(|| self.renamed.iter().find(|(to, _)| *to == name).map(|(_, node)| *node))
    }

    /// Returns a field that inherits, or `None` if it is missing. Nothing in the place of a value is an error, which is
    /// mended by leaving the field out.
    fn inheriting(&self, name: &str, message: &str, help: &str, sink: &mut Sink) -> Option<&'a Node<'a>> {
        let node = self.get(name)?;
        let key = self.entries.iter().map(|(key, _)| key).find(|key| key.name == name);
        if let Some(key) = key.filter(|_| node.is_null()) {
            sink.mendable(node.at, message, help, Ground::OneReading, |mender| mender.remove(key, node));
            return None;
        }
        Some(node)
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
            value => {
                let message = format!("`{name}` is {}, not a boolean", node.kind());
                let help = "write true or false";
                match meant_boolean(value) {
                    Some((written, meant)) => {
                        let edits = |mender: &Mender<'_>| mender.plain(node.at, written, &meant.to_string());
                        sink.mendable(node.at, message, help, Ground::OneReading, edits) && meant
                    }
                    None => {
                        sink.error(node.at, message, help);
                        false
                    }
                }
            }
        }
    }

    /// Returns the entries of a list: none if the field is missing, an error if it is empty.
    pub(crate) fn list(&self, name: &str, sink: &mut Sink) -> &'a [Node<'a>] {
        self.get(name).map_or(&[], |node| items(node, name, sink))
    }

    pub(crate) fn severity(&self, sink: &mut Sink) -> Option<u8> {
        let help = "write a whole number from 1 to 10, without quotes";
        let node = self.inheriting("severity", "severity is nothing", help, sink)?;
        let (number, is_plain) = match &node.value {
            Value::Scalar { text, plain } => (text.parse::<u8>().ok(), *plain),
            Value::List(_) | Value::Map(_) => (None, true),
        };
        let number = number.filter(|n| (1..=10).contains(n));
        let severity = number.filter(|_| is_plain);
        if severity.is_none() {
            let given = match &node.value {
                Value::Scalar { text, plain: true } if !text.is_empty() => format!("`{text}`"),
                _ => node.kind().to_owned(),
            };
            let message = format!("severity is {given}");
            let Some(number) = number else {
                sink.error(node.at, message, help);
                return None;
            };
            let edits = |mender: &Mender<'_>| match &node.value {
                Value::Scalar { text, .. } => mender.plain(node.at, text, text),
                Value::List(_) | Value::Map(_) => None,
            };
            return sink.mendable(node.at, message, help, Ground::OneReading, edits).then_some(number);
        }
        severity
    }

    /// Returns the tags, or `None` if they are missing or empty: both inherit.
    pub(crate) fn tags(&self, sink: &mut Sink) -> Option<Vec<String>> {
        let write = "write [\"a\", \"b\"]";
        let node = self.inheriting("tags", "`tags` is nothing, not a list", write, sink)?;
        let Value::List(items) = &node.value else {
            sink.error(node.at, format!("`tags` is {}, not a list", node.kind()), write);
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
        if let Some((_, action)) = found {
            return Some(*action);
        }
        let message = format!("action `{}` is not known", action.text);
        let name =
            action.meant(&known.map(|(name, _)| name), message, "write Block, Allow or Audit", sink)?;
        known.iter().find(|(known, _)| *known == name).map(|(_, action)| *action)
    }
}

/// Returns a node's string, or `None` with an error if the node is something else.
pub(crate) fn text<'a>(node: &'a Node<'_>, what: &str, sink: &mut Sink) -> Option<Text<'a>> {
    match (&node.value, node.kind()) {
        (Value::Scalar { text, .. }, "a string") => Some(Text { at: node.at, text }),
        (Value::Scalar { text, .. }, kind @ ("a number" | "a boolean")) => {
            let message = format!("{what} is {kind}, not a string");
            let edits = |mender: &Mender<'_>| mender.quote(node.at, text);
            let is_mended = sink.mendable(node.at, message, "put it in quotes", Ground::OneReading, edits);
            is_mended.then_some(Text { at: node.at, text })
        }
        (_, kind) => {
            sink.error(node.at, format!("{what} is {kind}, not a string"), "");
            None
        }
    }
}

impl Text<'_> {
    /// Reports a text that is none of the `known`, and returns the one that it is mended to.
    pub(crate) fn meant<'k>(
        &self,
        known: &[&'k str],
        message: String,
        help: &str,
        sink: &mut Sink,
    ) -> Option<&'k str> {
        let Some((name, ground)) = meant(self.text, known) else {
            sink.error(self.at, message, help);
            return None;
        };
        let guess = format!("did you mean {name}?");
        let is_guess = ground == Ground::Spelling && sink.mender().is_some();
        let help = if is_guess { &guess } else { help };
        let edits = |mender: &Mender<'_>| mender.replace(self.at, self.text, name);
        sink.mendable(self.at, message, help, ground, edits).then_some(name)
    }

    /// Does the same for a name in a list with commas, which this text is.
    pub(crate) fn meant_entry<'k>(
        &self,
        entry: &str,
        known: &[&'k str],
        message: String,
        help: String,
        sink: &mut Sink,
    ) -> Option<&'k str> {
        let Some((name, ground)) = meant(entry, known) else {
            sink.error(self.at, message, help);
            return None;
        };
        let edits = |mender: &Mender<'_>| mender.replace_entry((self.at, self.text), entry, name);
        sink.mendable(self.at, message, help, ground, edits).then_some(name)
    }
}

/// Returns the boolean that a text stands for which is none, with the text. It is in quotes, or one of YAML 1.1, which
/// KubeArmor reads.
fn meant_boolean<'v>(value: &'v Value<'_>) -> Option<(&'v str, bool)> {
    let Value::Scalar { text, plain } = value else { return None };
    let known = if *plain {
        [("yes", true), ("on", true), ("no", false), ("off", false)].as_slice()
    } else {
        [("true", true), ("false", false)].as_slice()
    };
    let found = known.iter().find(|(name, _)| name.eq_ignore_ascii_case(text))?;
    Some((text, found.1))
}

/// Returns the one known name that `name` must or may stand for.
pub(crate) fn meant<'k>(name: &str, known: &[&'k str]) -> Option<(&'k str, Ground)> {
    let mut same = known.iter().copied().filter(|known| letters(known).eq(letters(name)));
    if let (Some(only), None) = (same.next(), same.next()) {
        return Some((only, Ground::OneReading));
    }
    let (near, is_only) = nearest_of(name, known)?;
    is_only.then_some((near, Ground::Spelling))
}

/// Returns what is left of a name without case and without what divides words.
fn letters(name: &str) -> impl Iterator<Item = char> {
    name.chars().filter(|c| !matches!(c, '-' | '_' | ' ')).flat_map(char::to_lowercase)
}

/// Returns what helps who wrote a name that is not known.
pub(crate) fn suggestion(name: &str, known: &[&str]) -> String {
    match nearest(name, known) {
        Some(name) => format!("did you mean `{name}`?"),
        None => format!("known: {}", known.join(", ")),
    }
}

/// Returns the known name that `name` most likely stands for.
pub(crate) fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    nearest_of(name, known).map(|(candidate, _)| candidate)
}

/// Returns the known name that is nearest, and whether no other one is as near.
fn nearest_of<'a>(name: &str, known: &[&'a str]) -> Option<(&'a str, bool)> {
    let lower = name.to_lowercase();
    let mut distances: Vec<(usize, &str)> =
        known.iter().map(|candidate| (edits(&lower, &candidate.to_lowercase()), *candidate)).collect();
    distances.sort_unstable();
    let (edits, candidate) = *distances.first()?;
    let is_only = distances.get(1).is_none_or(|(next, _)| *next > edits);
    (edits <= 1 + candidate.len() / 4).then_some((candidate, is_only))
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
