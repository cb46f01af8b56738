//! Evaluates policies slowly, straight from the documents: without automata or classes.
//!
//! The property test compares the compiled tables with its answers. It shares only the model and the options
//! with the library. This module has the precedence that all kinds of rules share; each kind has a module.

pub mod number;
pub mod path;
mod pattern;

use armor_policy::decision::{PostureClass, Verdict};
use armor_policy::model::{Action, Policy, Rule, Source};
use armor_policy::{Links, PolicySet, Posture};
use std::cmp::Reverse;

/// A `By` names the reason for a verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By<'a> {
    /// Nothing forbids the access; the verdict is [`Verdict::Allow`].
    Nobody,
    /// The posture of this bundle decided, because no rule of an allow-list matches.
    Posture(&'a str),
    /// The object has no path, or none that can be determined.
    Unresolved,
    /// A rule of this bundle decided.
    Rule(&'a str, &'a Policy, &'a Rule),
}

/// An `Asker` is the program that asks for an access.
#[derive(Clone, Copy, Debug)]
pub struct Asker<'o> {
    /// Its path.
    pub path: &'o str,
    /// True if a terminal controls it.
    pub terminal: bool,
}

impl std::fmt::Display for Asker<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}{}", self.path, if self.terminal { " with a terminal" } else { "" })
    }
}

/// A `SectionRules` holds the rules of one section with their bundles and policies, and who asks.
struct SectionRules<'a, 'o> {
    class: PostureClass,
    rules: Vec<(&'a PolicySet<'a>, &'a Policy, &'a Rule)>,
    program: Asker<'o>,
    links: &'o Links,
}

impl<'a> SectionRules<'a, '_> {
    /// Returns the posture with its bundle if the section is an allow-list for the program. Of several, the
    /// strictest counts, and of equally strict ones that of the first name.
    fn posture(&self) -> Option<(Posture, &'a str)> {
        let restricting = self.rules.iter().filter(|(_, policy, rule)| {
            rule.common.action == Action::Allow && self.applies(rule) && !policy.is_exception(rule)
        });
        let posture = |set: &PolicySet<'_>, policy: &Policy| {
            let Some(postures) = set.postures else { return Posture::Allow };
            match self.class {
                PostureClass::File => policy.postures.file.unwrap_or(postures.file),
                PostureClass::Network => policy.postures.network.unwrap_or(postures.network),
                PostureClass::Capabilities => policy.postures.capabilities.unwrap_or(postures.capabilities),
                PostureClass::Device => policy.postures.device.unwrap_or(postures.device),
            }
        };
        let postures: Vec<(Posture, &str)> =
            restricting.map(|(set, policy, _)| (posture(set, policy), set.bundle)).collect();
        [Posture::Block, Posture::Audit, Posture::Allow].into_iter().find_map(|strictest| {
            postures
                .iter()
                .filter(|(posture, _)| *posture == strictest)
                .min_by_key(|(_, name)| *name)
                .copied()
        })
    }

    /// Returns whether a rule is for the program.
    fn applies(&self, rule: &Rule) -> bool {
        let is_program = |source: &Source| {
            let path = source.path();
            let trimmed = path.strip_suffix('/').unwrap_or(path);
            let mut places =
                self.links.get(trimmed).into_iter().flatten().map(String::as_str).chain([trimmed]);
            places.any(|place| match source {
                Source::Program(_) => place == self.program.path,
                Source::Directory { recursive, .. } => {
                    let place = place.strip_suffix('/').unwrap_or(place);
                    let below = self.program.path.strip_prefix(place).and_then(|rest| rest.strip_prefix('/'));
                    below.is_some_and(|below| *recursive || !below.contains('/'))
                }
            })
        };
        (rule.common.sources.is_empty() || rule.common.sources.iter().any(is_program))
            && (self.program.terminal || !rule.common.terminal)
    }

    /// Returns the deciding rule. `matching` says how specific (the least first) and how strict a rule is, or
    /// `None` if it does not match.
    fn first<S: Ord>(&self, matching: impl Fn(&'a Rule) -> Option<(S, usize)>) -> Option<By<'a>> {
        let rank = |bundle: &'a str, policy: &'a Policy, rule: &'a Rule| {
            let (specificity, strictness) = matching(rule)?;
            let action = match rule.common.action {
                Action::Block => 0,
                Action::Allow => 1,
                Action::Audit => 2,
            };
            let place = (
                policy.name.as_str(),
                policy.namespace.as_deref(),
                bundle,
                policy.file.as_str(),
                rule.common.location.line,
                rule.common.location.column,
            );
            let is_for_all = rule.common.sources.is_empty() && !rule.common.terminal;
            Some((is_for_all, specificity, action, Reverse(strictness), place))
        };
        self.rules
            .iter()
            .filter(|(.., rule)| self.applies(rule))
            .filter_map(|(set, policy, rule)| {
                Some((rank(set.bundle, policy, rule)?, By::Rule(set.bundle, policy, rule)))
            })
            .min_by(|(a, _), (b, _)| a.cmp(b))
            .map(|(_, found)| found)
    }

    /// Returns the verdict on an access that no rule matches, and its reason.
    fn unmatched(&self) -> (Verdict, By<'a>) {
        match self.posture() {
            Some((Posture::Audit, bundle)) => (Verdict::Audit, By::Posture(bundle)),
            Some((Posture::Block, bundle)) => (Verdict::Block, By::Posture(bundle)),
            _ => (Verdict::Allow, By::Nobody),
        }
    }
}
