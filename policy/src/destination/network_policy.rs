//! Reads the lists `ingress` and `egress` of a KubeArmorNetworkPolicy, whose entries make the same rules as those of
//! `matchDestinations`.

use super::model::{DestinationRule, Direction, Ports, Transport};
use super::parse::read_prefix;
use crate::document::diagnostics::Sink;
use crate::document::fields::{Fields, Text, items};
use crate::document::rules::{COMMON, Inherited, within_pairs};
use crate::document::yaml::{Node, Value};
use crate::model::{Rule, RuleBody};
use ipnet::IpNet;

/// The names that KubeArmor has for ports.
const PORTS: [(&str, u16); 4] = [("ssh", 22), ("http", 80), ("https", 443), ("dns", 53)];
/// The protocols that ports may have; without one it is the first.
const PROTOCOLS: [(&str, Transport); 3] =
    [("TCP", Transport::Tcp), ("UDP", Transport::Udp), ("SCTP", Transport::Sctp)];

const BANDWIDTH: &str = "it limits bandwidth, which nothing here does: leave it out";
const INTERFACE: &str =
    "by which interface a packet goes is not known when a socket is used: name the addresses there by cidr";

pub(crate) fn read_ingress(node: &Node<'_>, above: &Inherited, rules: &mut Vec<Rule>, sink: &mut Sink) {
    read_list(node, Direction::Ingress, above, rules, sink);
}

pub(crate) fn read_egress(node: &Node<'_>, above: &Inherited, rules: &mut Vec<Rule>, sink: &mut Sink) {
    read_list(node, Direction::Egress, above, rules, sink);
}

fn read_list(
    node: &Node<'_>,
    direction: Direction,
    above: &Inherited,
    rules: &mut Vec<Rule>,
    sink: &mut Sink,
) {
    let (name, peers, other) = match direction {
        Direction::Ingress => ("ingress", "from", ("to", "it belongs to egress")),
        Direction::Egress => ("egress", "to", ("from", "it belongs to ingress")),
    };
    let refused = [("limit", BANDWIDTH), ("duration", BANDWIDTH), ("iface", INTERFACE), other];
    let known = [&COMMON[..], &["ports", peers]].concat();
    for node in items(node, name, sink) {
        let Some(mut fields) = Fields::new(node, &format!("an entry of {name}"), sink) else { continue };
        let before = sink.count();
        fields.only(&known, &refused, sink);
        let own = above.or_own(&fields, sink);
        let prefixes = read_peers(&fields, peers, sink);
        let ports = read_ports(&fields, sink);
        if !within_pairs(prefixes.len() * ports.len(), "a block of addresses and a port", &[], &fields, sink)
            || sink.count() > before
        {
            continue;
        }
        for &prefix in &prefixes {
            for &(ports, transport) in &ports {
                let body = RuleBody::Destination(DestinationRule { direction, prefix, ports, transport });
                rules.extend(own.clone().rule(Vec::new(), body, fields.at, sink));
            }
        }
    }
}

/// Returns the blocks of addresses, of which `None` has all.
fn read_peers(fields: &Fields<'_>, name: &str, sink: &mut Sink) -> Vec<Option<IpNet>> {
    if fields.get(name).is_none() {
        return vec![None];
    }
    let mut prefixes = Vec::new();
    for node in fields.list(name, sink) {
        let Some(mut peer) = Fields::new(node, &format!("an entry of {name}"), sink) else { continue };
        peer.only(&["ipBlock"], &[], sink);
        let Some(block) = peer.required("ipBlock", "write ipBlock: {cidr: 10.0.0.0/8}", sink) else {
            continue;
        };
        let Some(mut block) = Fields::new(block, "ipBlock", sink) else { continue };
        block.only(&["cidr"], &[], sink);
        if block.required("cidr", "the addresses it is about", sink).is_some() {
            prefixes.push(read_prefix(&block, sink));
        }
    }
    prefixes
}

/// Returns the ports with their transports; without ports all of both.
fn read_ports(fields: &Fields<'_>, sink: &mut Sink) -> Vec<(Option<Ports>, Option<Transport>)> {
    if fields.get("ports").is_none() {
        return vec![(None, None)];
    }
    let mut ports = Vec::new();
    for node in fields.list("ports", sink) {
        let Some(mut port) = Fields::new(node, "an entry of ports", sink) else { continue };
        port.only(&["port", "endPort", "protocol"], &[], sink);
        let Some(first) = port.required("port", "write a number; endPort is the last one of a range", sink)
        else {
            continue;
        };
        let transport = read_protocol(port.string("protocol", sink), sink);
        let Some(first) = read_port(first, sink) else { continue };
        let last = match port.get("endPort") {
            Some(node) => read_port(node, sink),
            None => Some(first),
        };
        match last {
            Some(last) if last < first => {
                sink.error(
                    port.at,
                    format!("endPort {last} is below port {first}"),
                    "write the lower one first",
                );
            }
            Some(last) => ports.push((Some(Ports { first, last }), transport)),
            None => {}
        }
    }
    ports
}

fn read_port(node: &Node<'_>, sink: &mut Sink) -> Option<u16> {
    let Value::Scalar { text, .. } = &node.value else {
        sink.error(node.at, format!("a port is {}", node.kind()), "write a number from 1 to 65535");
        return None;
    };
    let named = PORTS.iter().find(|(name, _)| name.eq_ignore_ascii_case(text)).map(|(_, port)| *port);
    let number = || text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten();
    let port = named.or_else(number).filter(|port| *port > 0);
    if port.is_none() {
        let names = PORTS.map(|(name, _)| name).join(", ");
        let help = format!("write a number from 1 to 65535, or one of {names}");
        sink.error(node.at, format!("`{text}` is no port"), help);
    }
    port
}

fn read_protocol(written: Option<Text<'_>>, sink: &mut Sink) -> Option<Transport> {
    let Some(written) = written else { return Some(PROTOCOLS[0].1) };
    let of = |name: &str| {
        PROTOCOLS.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, transport)| *transport)
    };
    of(written.text).or_else(|| {
        let known = PROTOCOLS.map(|(name, _)| name);
        let message = format!("protocol `{}` is not known here", written.text);
        written.meant(&known, message, "write TCP, UDP or SCTP", sink).and_then(of)
    })
}
