//! Reads the section `network`.

use super::model::{NetworkRule, Protocol};
use crate::document::diagnostics::Sink;
use crate::document::named;
use crate::document::rules::{Inherited, UNSUPPORTED};
use crate::document::yaml::Node;
use crate::model::{Rule, RuleBody};

const PROTOCOLS: named::List = named::List {
    section: "network",
    list: "matchProtocols",
    field: "protocol",
    about: "the sockets it is about",
    refused: &[("pts", UNSUPPORTED)],
    other_lists: &[("matchDNSQueries", UNSUPPORTED)],
};

pub(crate) fn read_network(node: &Node<'_>, above: &Inherited, rules: &mut Vec<Rule>, sink: &mut Sink) {
    let names = Protocol::NAMES.map(|(name, _)| name);
    named::read(&PROTOCOLS, node, above, rules, sink, &names, |name| {
        Some(RuleBody::Network(NetworkRule { protocol: Protocol::from_name(name)? }))
    });
}
