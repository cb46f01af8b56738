//! Reads the section `capabilities`.

use super::model::{Capability, CapabilityRule};
use crate::document::diagnostics::Sink;
use crate::document::named;
use crate::document::rules::{Inherited, read_section};
use crate::document::yaml::Node;
use crate::model::{Rule, RuleBody};

const CAPABILITIES: named::List = named::List {
    list: "matchCapabilities",
    field: "capability",
    about: "the capability it is about",
    has_pts: false,
};

pub(crate) fn read_capabilities(node: &Node<'_>, above: &Inherited, rules: &mut Vec<Rule>, sink: &mut Sink) {
    let names: Vec<String> = Capability::all().map(Capability::name).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let section = read_section("capabilities", node, above, &[CAPABILITIES.list], &[], sink);
    let Some((section, inherited)) = section else { return };
    named::read(&CAPABILITIES, &section, &inherited, rules, sink, &names, |name| {
        Some(RuleBody::Capability(CapabilityRule { capability: Capability::from_name(name)? }))
    });
}
