//! Reads the list `matchDestinations`.

use super::model::{DestinationRule, Direction, Ports, Transport};
use crate::document::diagnostics::Sink;
use crate::document::fields::Fields;
use crate::document::rules::{COMMON, Inherited, read_sources, within_pairs};
use crate::document::yaml::{Node, Value};
use crate::model::{Rule, RuleBody};
use ipnet::{IpNet, Ipv4Net};
use std::net::IpAddr;

/// The name of the list.
pub(crate) const LIST: &str = "matchDestinations";

/// Length in bits of the prefix under which IPv6 has the addresses of IPv4.
const MAPPED_BITS: u8 = 96;

/// Reads the list. An entry makes a rule for each of its ranges of ports and of its protocols.
pub(crate) fn read_destinations(
    section: &Fields<'_>,
    above: &Inherited,
    rules: &mut Vec<Rule>,
    sink: &mut Sink,
) {
    for node in section.list(LIST, sink) {
        read_entry(node, above, rules, sink);
    }
}

fn read_entry(node: &Node<'_>, above: &Inherited, rules: &mut Vec<Rule>, sink: &mut Sink) {
    let Some(mut fields) = Fields::new(node, &format!("an entry of {LIST}"), sink) else { return };
    fields.only(
        &[&COMMON[..], &["cidr", "ports", "protocol", "direction", "fromSource"]].concat(),
        &[],
        sink,
    );
    let own = above.or_own(&fields, sink);
    let sources = read_sources(&fields, sink);
    let before = sink.count();
    let prefix = read_prefix(&fields, sink);
    let ports = read_ports(&fields, sink);
    let transports = read_transports(&fields, sink);
    let direction = read_direction(&fields, sink);
    if ports.is_some() && transports.contains(&Some(Transport::Icmp)) {
        sink.error(fields.at, "ICMP has no ports", "leave out `ports`, or `icmp`");
    }
    if direction == Direction::Ingress && transports.contains(&Some(Transport::Icmp)) {
        sink.error(
            fields.at,
            "ingress of ICMP is not decided",
            "leave out `icmp`: it has no port to be bound to",
        );
    }
    let ranges = ports.as_ref().map_or(1, Vec::len);
    within_pairs(ranges, "a range of ports", &sources, &fields, sink);
    if sink.count() > before {
        return;
    }
    let ranges = ports.map_or(vec![None], |ports| ports.into_iter().map(Some).collect());
    for ports in ranges {
        for &transport in &transports {
            let body = RuleBody::Destination(DestinationRule { direction, prefix, ports, transport });
            rules.extend(own.clone().rule(sources.clone(), body, fields.at, sink));
        }
    }
}

/// Reads the field `cidr`; returns `None` if it is missing, or after an error.
pub(super) fn read_prefix(fields: &Fields<'_>, sink: &mut Sink) -> Option<IpNet> {
    let written = fields.string("cidr", sink)?;
    let prefix = written.text.parse().or_else(|_| written.text.parse::<IpAddr>().map(IpNet::from));
    let Ok(prefix) = prefix else {
        let help = "write an address and the length of its prefix, as 10.0.0.0/8 or fd00::/8";
        sink.error(written.at, format!("`{}` is no block of addresses", written.text), help);
        return None;
    };
    if prefix.trunc() != prefix {
        let message = format!("`{}` has bits behind its prefix", written.text);
        sink.error(written.at, message, format!("write {}", prefix.trunc()));
        return None;
    }
    Some(unmapped(prefix))
}

/// Returns the block of IPv4 that a block of IPv6 stands for, or the block itself.
fn unmapped(prefix: IpNet) -> IpNet {
    let IpNet::V6(v6) = prefix else { return prefix };
    let length = v6.prefix_len().checked_sub(MAPPED_BITS);
    let v4 = v6.addr().to_ipv4_mapped().zip(length);
    v4.and_then(|(address, length)| Ipv4Net::new(address, length).ok()).map_or(prefix, IpNet::V4)
}

fn read_ports(fields: &Fields<'_>, sink: &mut Sink) -> Option<Vec<Ports>> {
    fields.get("ports")?;
    let mut ports = Vec::new();
    for node in fields.list("ports", sink) {
        let range = match &node.value {
            Value::Scalar { text, .. } => range_of(text),
            Value::Map(_) | Value::List(_) => None,
        };
        match range {
            Some(range) => ports.push(range),
            None => {
                let given = match &node.value {
                    Value::Scalar { text, .. } => format!("`{text}` is no port"),
                    Value::Map(_) | Value::List(_) => format!("a port is {}", node.kind()),
                };
                sink.error(node.at, given, "write a number from 1 to 65535, or a range as 8000-8100");
            }
        }
    }
    Some(ports)
}

fn range_of(text: &str) -> Option<Ports> {
    let number = |text: &str| {
        let digits = text.trim();
        digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
    };
    let (first, last) = match text.split_once('-') {
        Some((first, last)) => (number(first)?, number(last)?),
        None => (number(text)?, number(text)?),
    };
    (first > 0 && first <= last).then_some(Ports { first, last })
}

fn read_transports(fields: &Fields<'_>, sink: &mut Sink) -> Vec<Option<Transport>> {
    let Some(list) = fields.string("protocol", sink) else { return vec![None] };
    let mut transports = Vec::new();
    for name in list.text.split(',').map(str::trim) {
        let transport = Transport::from_name(name).or_else(|| {
            let known = Transport::NAMES.map(|(name, _)| name);
            let message = format!("protocol `{name}` is not known here");
            let help = format!("known: {}", known.join(", "));
            list.meant_entry(name, &known, message, help, sink).and_then(Transport::from_name)
        });
        if !transports.contains(&transport) {
            transports.push(transport);
        }
    }
    transports
}

fn read_direction(fields: &Fields<'_>, sink: &mut Sink) -> Direction {
    let Some(written) = fields.string("direction", sink) else { return Direction::Egress };
    match written.text.to_ascii_lowercase().as_str() {
        "egress" => Direction::Egress,
        "ingress" => Direction::Ingress,
        other => {
            sink.error(written.at, format!("direction `{other}` is not known"), "write egress or ingress");
            Direction::Egress
        }
    }
}
