//! Puts the rules of a domain, of all kinds, in one order.

use super::error::CompileError;
use super::links::{Links, resolve};
use super::sets::PolicySet;
use crate::decision::{Decision, Posture, PostureClass, Postures, RuleInfo, Verdict};
use crate::model::{Action, Location, Policy, Rule, Source};
use std::collections::BTreeMap;

/// A `Rules` holds the rules of a domain in the order of policy name and place, so that the order of
/// documents does not matter. Elsewhere in the compiler, rules are named by their index in it.
pub(crate) struct Rules<'a> {
    pub(crate) list: Vec<DomainRule<'a>>,
    /// True if silent permissions name the rule that grants them. Otherwise all of them are equal.
    names_permissions: bool,
    /// Name and postures of the bundles, in the order of their names.
    bundles: Vec<(&'a str, Option<Postures>)>,
}

/// A `DomainRule` is a rule with what the compiler knows about it whatever its kind.
pub(crate) struct DomainRule<'a> {
    /// The index of the policy's bundle in [`Rules::bundles`].
    pub(crate) bundle: usize,
    pub(crate) policy: &'a Policy,
    pub(crate) rule: &'a Rule,
    /// The programs of `fromSource`, at their paths and at those that these resolve to.
    pub(crate) sources: Vec<Source>,
    /// True if the rule makes its section an allow-list for the programs that it applies to.
    pub(crate) restricts: bool,
}

impl<'a> Rules<'a> {
    pub(crate) fn new(
        sets: &[PolicySet<'a>],
        links: &Links,
        names_permissions: bool,
    ) -> Result<Self, CompileError> {
        let mut sets: Vec<&PolicySet<'a>> = sets.iter().collect();
        sets.sort_by_key(|set| set.bundle);
        let mut ordered: Vec<(usize, &Policy, &Rule)> = Vec::new();
        for (bundle, set) in sets.iter().enumerate() {
            for policy in &set.policies {
                ordered.extend(policy.rules.iter().map(|rule| (bundle, *policy, rule)));
            }
        }
        ordered.sort_by_key(|(bundle, policy, rule)| {
            (&policy.name, &policy.namespace, policy.kind, *bundle, &policy.file, rule.common.location)
        });
        let with_sources = |(bundle, policy, rule): (usize, &'a Policy, &'a Rule)| {
            let mut sources = rule.common.sources.clone();
            for source in &rule.common.sources {
                sources.extend(resolve(source.path(), links)?.into_iter().map(|path| source.moved_to(path)));
            }
            let restricts = rule.common.action == Action::Allow && !policy.is_exception(rule);
            Ok(DomainRule { bundle, policy, rule, sources, restricts })
        };
        let list = ordered.into_iter().map(with_sources).collect::<Result<_, _>>()?;
        Ok(Self {
            list,
            names_permissions,
            bundles: sets.into_iter().map(|set| (set.bundle, set.postures)).collect(),
        })
    }

    /// Returns the decision on what an allow-list leaves out that a rule makes.
    pub(crate) fn posture(&self, rule: u32, class: PostureClass) -> Decision {
        let DomainRule { bundle, policy, .. } = self.list[rule as usize];
        let own = |postures: Postures| policy.postures.of(class).unwrap_or(postures.of(class));
        let posture = self.bundles[bundle].1.map_or(Posture::Allow, own);
        let rule = match bundle {
            0 => Decision::RULE_DEFAULT,
            _ => self.further_postures() + bundle as u32 - 1,
        };
        Decision::of(posture.into(), rule)
    }

    /// Returns whether a decision with this rule index is by a posture.
    pub(crate) fn is_posture(&self, rule: u32) -> bool {
        rule == Decision::RULE_DEFAULT || rule >= self.further_postures()
    }

    /// Returns the index in [`Domain::rules`](crate::Domain::rules) from which the postures of all bundles but the
    /// first lie.
    fn further_postures(&self) -> u32 {
        Self::table_index(self.list.len() as u32)
    }

    /// Returns the decision of a rule.
    pub(crate) fn decision(&self, rule: u32) -> Decision {
        self.decided(self.list[rule as usize].rule.common.action.into(), rule)
    }

    /// Returns the decision with this verdict that a rule makes.
    pub(crate) fn decided(&self, verdict: Verdict, rule: u32) -> Decision {
        let rule = Self::table_index(rule);
        if self.names_permissions { Decision::new(verdict, rule) } else { Decision::of(verdict, rule) }
    }

    /// Returns the rule's index in [`Domain::rules`](crate::Domain::rules).
    pub(crate) fn table_index(rule: u32) -> u32 {
        Decision::FIRST_RULE + rule
    }

    /// Returns [`Domain::rules`](crate::Domain::rules).
    pub(crate) fn infos(&self) -> Vec<RuleInfo> {
        let reserved = |name: &str, bundle: &str| RuleInfo {
            bundle: bundle.to_owned(),
            policy: name.to_owned(),
            ..RuleInfo::default()
        };
        let mut postures = self.bundles.iter().map(|(bundle, _)| reserved("DefaultPosture", bundle));
        let first = postures.next().unwrap_or_else(|| reserved("DefaultPosture", ""));
        let mut infos = vec![first, reserved("UnresolvedPath", "")];
        infos.extend(self.list.iter().map(|DomainRule { bundle, policy, rule, .. }| RuleInfo {
            bundle: self.bundles[*bundle].0.to_owned(),
            policy: policy.name.clone(),
            location: place(&policy.file, rule.common.location),
            severity: rule.common.severity,
            tags: rule.common.tags.clone(),
            message: rule.common.message.clone(),
        }));
        infos.extend(postures);
        infos
    }

    /// Returns the error for more classes or cells than fit.
    pub(crate) fn too_many_classes(&self) -> CompileError {
        CompileError::Classes { policy: self.largest_policy() }
    }

    /// Returns the error for more slots than fit.
    pub(crate) fn too_many_slots(&self) -> CompileError {
        CompileError::Slots { policy: self.largest_policy() }
    }

    /// Returns the policy to name in an error that no single rule causes.
    fn largest_policy(&self) -> String {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for DomainRule { policy, .. } in &self.list {
            *counts.entry(&policy.name).or_default() += 1;
        }
        counts
            .into_iter()
            .max_by_key(|(_, count)| *count)
            .map_or_else(String::new, |(name, _)| name.to_owned())
    }
}

/// Returns `file:line`, which names a rule in alerts.
fn place(file: &str, location: Location) -> String {
    format!("{file}:{}", location.line)
}
