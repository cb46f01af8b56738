//! Evaluates rules whose objects are numbers: capabilities and kinds of sockets.

use super::{By, SectionRules};
use armor_policy::capability::Capability;
use armor_policy::decision::Verdict;
use armor_policy::model::{Action, Rule};
use armor_policy::network::{Protocol, SocketKind};
use armor_policy::{Links, PolicySet};

/// Returns what happens to a use of a capability by a program, and why.
pub fn of_capability<'a>(
    sets: &'a [PolicySet<'a>],
    links: &Links,
    program: &str,
    capability: Capability,
) -> (Verdict, By<'a>) {
    let in_section = |rule: &Rule| rule.body.as_capability().is_some();
    evaluate(sets, links, program, in_section, |rule| {
        rule.body.as_capability().filter(|rule| rule.capability == capability).map(|_| 0)
    })
}

/// Returns what happens to a use of a socket by a program, and why.
pub fn of_socket<'a>(
    sets: &'a [PolicySet<'a>],
    links: &Links,
    program: &str,
    kind: SocketKind,
) -> (Verdict, By<'a>) {
    let in_section = |rule: &Rule| rule.body.as_network().is_some();
    evaluate(sets, links, program, in_section, |rule| {
        let protocol = rule.body.as_network().filter(|rule| rule.protocol.kinds().contains(&kind))?.protocol;
        Some(match protocol {
            Protocol::All => 2,
            Protocol::Stream | Protocol::Dgram | Protocol::Raw | Protocol::Rdm | Protocol::Seqpacket => 1,
            _ => 0,
        })
    })
}

/// Returns what happens to an access. `matching` says how specific a rule is that matches, the least first.
fn evaluate<'a>(
    sets: &'a [PolicySet<'a>],
    links: &Links,
    program: &str,
    in_section: impl Fn(&Rule) -> bool,
    matching: impl Fn(&Rule) -> Option<u8>,
) -> (Verdict, By<'a>) {
    let mut rules = Vec::new();
    for set in sets {
        for policy in &set.policies {
            rules
                .extend(policy.rules.iter().filter(|rule| in_section(rule)).map(|rule| (set, *policy, rule)));
        }
    }
    let section = SectionRules { rules, program, links };
    match section.first(|rule| Some((matching(rule)?, 0))) {
        Some(by @ By::Rule(_, _, rule)) => match rule.common.action {
            Action::Block => (Verdict::Block, by),
            Action::Audit => (Verdict::Audit, by),
            Action::Allow => (Verdict::Allow, By::Nobody),
        },
        _ => section.unmatched(),
    }
}
