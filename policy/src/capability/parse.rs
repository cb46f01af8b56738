//! Reads the section `capabilities`.

use super::model::{Capability, CapabilityRule};
use crate::document::diagnostics::Sink;
use crate::document::fields::{Fields, nearest};
use crate::document::rules::{COMMON, Inherited, read_sources};
use crate::document::yaml::Node;
use crate::model::{Rule, RuleBody};

const LIST: &str = "matchCapabilities";

pub(crate) fn read_capabilities(node: &Node<'_>, above: &Inherited, rules: &mut Vec<Rule>, sink: &mut Sink) {
    let Some(fields) = Fields::new(node, "capabilities", sink) else { return };
    fields.only(&[&[LIST][..], &COMMON[..]].concat(), &[], sink);
    let inherited = above.or_own(&fields, sink);
    if fields.get(LIST).is_none() {
        sink.error(node.at, "`capabilities` has no rules", format!("add {LIST}"));
    }
    for node in fields.list(LIST, sink) {
        read_entry(node, &inherited, rules, sink);
    }
}

/// Reads one entry, which is a rule for each capability that it lists.
fn read_entry(node: &Node<'_>, above: &Inherited, rules: &mut Vec<Rule>, sink: &mut Sink) {
    let Some(fields) = Fields::new(node, &format!("an entry of {LIST}"), sink) else { return };
    let known = [&COMMON[..], &["capability", "fromSource"]].concat();
    fields.only(&known, &[], sink);
    let own = above.or_own(&fields, sink);
    let sources = read_sources(&fields, sink);
    let Some(list) = fields.required_string("capability", "the capability it is about", sink) else { return };
    for name in list.text.split(',').map(str::trim) {
        let Some(capability) = Capability::from_name(name) else {
            let names = Capability::names();
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let help = match nearest(name, &names) {
                Some(near) => format!("did you mean {near}?"),
                None => "write a name of capabilities(7), such as net_raw".to_owned(),
            };
            sink.error(list.at, format!("capability `{name}` is not known"), help);
            continue;
        };
        let body = RuleBody::Capability(CapabilityRule { capability });
        rules.extend(own.clone().rule(sources.clone(), body, fields.at, sink));
    }
}
