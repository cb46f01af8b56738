//! Reads the list `matchDNSQueries`.

use super::model::{BadName, DnsName};
use crate::document::diagnostics::Sink;
use crate::document::fields::{Fields, Text};
use crate::document::rules::{COMMON, Inherited, read_sources, within_pairs};
use crate::document::yaml::Node;
use crate::model::{Rule, RuleBody};
use std::collections::BTreeSet;

/// The name of the list.
pub(crate) const LIST: &str = "matchDNSQueries";

/// Reads the list. An entry makes a rule for each of its names.
pub(crate) fn read_names(section: &Fields<'_>, above: &Inherited, rules: &mut Vec<Rule>, sink: &mut Sink) {
    for node in section.list(LIST, sink) {
        read_entry(node, above, rules, sink);
    }
}

fn read_entry(node: &Node<'_>, above: &Inherited, rules: &mut Vec<Rule>, sink: &mut Sink) {
    let Some(mut fields) = Fields::new(node, &format!("an entry of {LIST}"), sink) else { return };
    fields.only(&[&COMMON[..], &["domain", "fromSource"]].concat(), &[], sink);
    let own = above.or_own(&fields, sink);
    let sources = read_sources(&fields, sink);
    let Some(list) = fields.required_string("domain", "the names it is about", sink) else { return };
    let names: BTreeSet<&str> = list.text.split(',').map(str::trim).collect();
    if !within_pairs(names.len(), "a name", &sources, &fields, sink) {
        return;
    }
    for name in names {
        match DnsName::new(name) {
            Ok(name) => {
                rules.extend(own.clone().rule(sources.clone(), RuleBody::Dns(name), fields.at, sink));
            }
            Err(error) => refuse(list, name, error, sink),
        }
    }
}

fn refuse(list: Text<'_>, name: &str, error: BadName, sink: &mut Sink) {
    let help = match error {
        BadName::Character('*') => "leave the asterisk out: a rule is about all names below its own too",
        BadName::Character(character) if !character.is_ascii() => {
            "write it as it is asked for, such as xn--bcher-kva"
        }
        BadName::Character(_) | BadName::Empty | BadName::Long | BadName::LongLabel => {
            "write it as example.com"
        }
    };
    sink.error(list.at, format!("`{name}` is no name that can be asked for: {error}"), help);
}
