//! Evaluates rules whose objects are numbers, capabilities and kinds of sockets, and rules for destinations, names of DNS and
//! devices.

use super::{Asker, By, SectionRules};
use armor_policy::capability::Capability;
use armor_policy::decision::{PostureClass, Verdict};
use armor_policy::destination::{Direction, Transport};
use armor_policy::device::Function;
use armor_policy::dns::DnsName;
use armor_policy::model::{Action, Rule};
use armor_policy::network::{Protocol, SocketKind};
use armor_policy::preset::Preset;
use armor_policy::syscall::{Syscall, SyscallTable};
use armor_policy::{Links, PolicySet};
use std::net::IpAddr;

/// Returns what happens to a use of a capability by a program, and why.
pub fn of_capability<'a>(
    sets: &'a [PolicySet<'a>],
    links: &Links,
    program: Asker<'_>,
    capability: Capability,
) -> (Verdict, By<'a>) {
    let in_section = |rule: &Rule| rule.body.as_capability().is_some();
    evaluate(sets, links, (program, PostureClass::Capabilities), in_section, |rule| {
        rule.body.as_capability().filter(|rule| rule.capability == capability).map(|_| 0)
    })
}

/// Returns what happens to what a preset names, and why.
pub fn of_preset<'a>(
    sets: &'a [PolicySet<'a>],
    links: &Links,
    program: Asker<'_>,
    preset: Preset,
) -> (Verdict, By<'a>) {
    let in_section = |rule: &Rule| rule.body.as_preset().is_some();
    evaluate(sets, links, (program, PostureClass::File), in_section, |rule| {
        rule.body.as_preset().filter(|own| *own == preset).map(|_| 0)
    })
}

/// Returns whether a system call of a program, with a path or without, is reported, and why.
pub fn of_syscall<'a>(
    sets: &'a [PolicySet<'a>],
    links: &Links,
    program: Asker<'_>,
    call: Syscall,
    path: Option<&str>,
) -> (Verdict, By<'a>) {
    let in_section = |rule: &Rule| rule.body.as_syscall().is_some();
    evaluate(sets, links, (program, PostureClass::File), in_section, |rule| {
        let own = rule.body.as_syscall().filter(|own| own.call == call)?;
        let Some(target) = &own.path else { return Some((0, false)) };
        let is_below = path?.starts_with(&format!("{}/", target.path));
        let is_meant = path? == target.path || (target.recursive && is_below);
        let matches = is_meant || path? == SyscallTable::UNREADABLE;
        matches.then_some((-1 - target.path.len() as i32, target.recursive))
    })
}

/// Returns what happens to a use of a socket by a program, and why.
pub fn of_socket<'a>(
    sets: &'a [PolicySet<'a>],
    links: &Links,
    program: Asker<'_>,
    kind: SocketKind,
) -> (Verdict, By<'a>) {
    let in_section = |rule: &Rule| rule.body.as_network().is_some();
    evaluate(sets, links, (program, PostureClass::Network), in_section, |rule| {
        let protocol = rule.body.as_network().filter(|rule| rule.protocol.kinds().contains(&kind))?.protocol;
        Some(match protocol {
            Protocol::All => 2,
            Protocol::Stream | Protocol::Dgram | Protocol::Raw | Protocol::Rdm | Protocol::Seqpacket => 1,
            _ => 0,
        })
    })
}

/// Returns what happens to a device that has this function alone, and why.
pub fn of_device<'a>(
    sets: &'a [PolicySet<'a>],
    links: &Links,
    function: Function,
    level: u8,
) -> (Verdict, By<'a>) {
    let in_section = |rule: &Rule| rule.body.as_device().is_some();
    let nobody = Asker { path: "/none", terminal: false };
    evaluate(sets, links, (nobody, PostureClass::Device), in_section, |rule| {
        let rule = rule.body.as_device()?;
        let asked = [
            (rule.level, level, 100),
            (rule.sub_class, function.sub_class, 20),
            (rule.protocol, function.protocol, 5),
            (rule.class, function.class, 1),
        ];
        // What a rule does not ask for weighs, so that the least is the most specific.
        asked.into_iter().try_fold(0, |sum, (wanted, found, weight)| match wanted {
            None => Some(sum + weight),
            Some(wanted) => (wanted == found).then_some(sum),
        })
    })
}

/// Returns what happens to communication with an address and port by a program, and why.
pub fn of_destination<'a>(
    sets: &'a [PolicySet<'a>],
    links: &Links,
    program: Asker<'_>,
    direction: Direction,
    (address, transport, port): (IpAddr, Transport, u16),
) -> (Verdict, By<'a>) {
    let of = |rule: &'a Rule| rule.body.as_destination().filter(|rule| rule.direction == direction);
    evaluate(
        sets,
        links,
        (program, PostureClass::Network),
        |rule| of(rule).is_some(),
        |rule| {
            let rule = of(rule)?;
            let has_address = rule.prefix.is_none_or(|prefix| prefix.contains(&address));
            let has_port = rule
                .ports
                .is_none_or(|ports| transport.has_ports() && (ports.first..=ports.last).contains(&port));
            let has_transport = rule.transport.is_none_or(|named| named == transport);
            let prefix = rule.prefix.map_or(-1, |prefix| i32::from(prefix.prefix_len()));
            let width = rule.ports.map_or(u32::MAX, |ports| u32::from(ports.last) - u32::from(ports.first));
            (has_address && has_port && has_transport).then_some((-prefix, width, rule.transport.is_none()))
        },
    )
}

/// Returns what happens to a question of a program for a name, and why.
pub fn of_name<'a>(
    sets: &'a [PolicySet<'a>],
    links: &Links,
    program: Asker<'_>,
    name: &DnsName,
) -> (Verdict, By<'a>) {
    let in_section = |rule: &Rule| rule.body.as_dns().is_some();
    evaluate(sets, links, (program, PostureClass::Network), in_section, |rule| {
        let of = rule.body.as_dns()?.as_str();
        let matches = name.as_str() == of || name.as_str().ends_with(&format!(".{of}"));
        matches.then_some(-(of.len() as i32))
    })
}

/// Returns what happens to an access. `matching` says how specific a rule is that matches, the least first.
fn evaluate<'a, S: Ord>(
    sets: &'a [PolicySet<'a>],
    links: &Links,
    (program, class): (Asker<'_>, PostureClass),
    in_section: impl Fn(&'a Rule) -> bool,
    matching: impl Fn(&'a Rule) -> Option<S>,
) -> (Verdict, By<'a>) {
    let mut rules = Vec::new();
    for set in sets {
        for policy in &set.policies {
            rules
                .extend(policy.rules.iter().filter(|rule| in_section(rule)).map(|rule| (set, *policy, rule)));
        }
    }
    let section = SectionRules { class, rules, program, links };
    match section.first(|rule| Some((matching(rule)?, 0))) {
        Some(by @ By::Rule(_, _, rule)) => match rule.common.action {
            Action::Block => (Verdict::Block, by),
            Action::Audit => (Verdict::Audit, by),
            Action::Allow => (Verdict::Allow, By::Nobody),
        },
        _ => section.unmatched(),
    }
}
