//! Reads lists whose entries name what they are about, as `capability: net_raw` does, one name or several with commas
//! between them.

use super::diagnostics::Sink;
use super::fields::{Fields, nearest};
use super::rules::{COMMON, Inherited, read_pts, read_sources, within_pairs};
use super::yaml::Node;
use crate::model::{Rule, RuleBody};
use std::collections::HashSet;

/// A `List` says how such a list is written.
pub(crate) struct List {
    /// The name of the list in the section.
    pub(crate) list: &'static str,
    /// The name of the field that has the names. It is also what messages call one of them.
    pub(crate) field: &'static str,
    /// What the field says, for messages.
    pub(crate) about: &'static str,
    /// True if an entry may say `pts: false`.
    pub(crate) has_pts: bool,
}

/// Reads the list. Each name makes a rule with the body that `body` returns for it, `None` for a name that is none of
/// `names`.
pub(crate) fn read(
    of: &List,
    section: &Fields<'_>,
    above: &Inherited,
    rules: &mut Vec<Rule>,
    sink: &mut Sink,
    names: &[&str],
    body: impl Fn(&str) -> Option<RuleBody>,
) {
    for node in section.list(of.list, sink) {
        read_entry(of, node, above, rules, sink, names, &body);
    }
}

/// Reads one entry, which is a rule for each name.
fn read_entry(
    of: &List,
    node: &Node<'_>,
    above: &Inherited,
    rules: &mut Vec<Rule>,
    sink: &mut Sink,
    names: &[&str],
    body: impl Fn(&str) -> Option<RuleBody>,
) {
    let Some(mut fields) = Fields::new(node, &format!("an entry of {}", of.list), sink) else { return };
    let mut known = [&COMMON[..], &[of.field, "fromSource"]].concat();
    known.extend(of.has_pts.then_some("pts"));
    fields.only(&known, &[], sink);
    let own = above.or_own(&fields, sink);
    let sources = read_sources(&fields, sink);
    let pts = !of.has_pts || read_pts(&fields, sink);
    let Some(list) = fields.required_string(of.field, of.about, sink) else { return };
    let mut seen = HashSet::new();
    let distinct = list.text.split(',').map(str::trim).filter(|name| seen.insert(name.to_ascii_lowercase()));
    let distinct: Vec<&str> = distinct.collect();
    if !within_pairs(distinct.len(), of.field, &sources, &fields, sink) {
        return;
    }
    for name in distinct {
        if let Some(body) = body(name) {
            rules.extend(own.clone().rules(pts, sources.clone(), body, fields.at, sink));
            continue;
        }
        let message = format!("{} `{name}` is not known", of.field);
        let help = match nearest(name, names) {
            Some(near) => format!("did you mean {near}?"),
            None => format!("known: {}", names.join(", ")),
        };
        if let Some(near) = list.meant_entry(name, names, message, help, sink)
            && seen.insert(near.to_ascii_lowercase())
            && let Some(body) = body(near)
        {
            rules.extend(own.clone().rules(pts, sources.clone(), body, fields.at, sink));
        }
    }
}
