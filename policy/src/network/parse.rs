//! Reads the section `network`.

use super::model::{NetworkRule, Protocol};
use crate::destination;
use crate::dns;
use crate::document::diagnostics::Sink;
use crate::document::named;
use crate::document::rules::{Inherited, read_section};
use crate::document::yaml::Node;
use crate::model::{Rule, RuleBody};

const PROTOCOLS: named::List = named::List {
    list: "matchProtocols",
    field: "protocol",
    about: "the sockets it is about",
    has_pts: true,
};

pub(crate) fn read_network(node: &Node<'_>, above: &Inherited, rules: &mut Vec<Rule>, sink: &mut Sink) {
    let lists = [PROTOCOLS.list, destination::parse::LIST, dns::parse::LIST];
    let section = read_section("network", node, above, &lists, &[], sink);
    let Some((section, inherited)) = section else { return };
    destination::parse::read_destinations(&section, &inherited, rules, sink);
    dns::parse::read_names(&section, &inherited, rules, sink);
    let names = Protocol::NAMES.map(|(name, _)| name);
    named::read(&PROTOCOLS, &section, &inherited, rules, sink, &names, |name| {
        Some(RuleBody::Network(NetworkRule { protocol: Protocol::from_name(name)? }))
    });
}
