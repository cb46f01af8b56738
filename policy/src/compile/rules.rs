//! Orders all rules of a domain, and their targets by precedence.

use super::{CompileError, CompileOptions, place, trimmed};
use crate::decision::{RuleInfo, Verdict};
use crate::model::{Action, MAX_PATH, Policy, Rule, RuleBody};
use crate::path::{PathRule, Target};
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// Index in [`crate::domain::Domain::rules`] of the first rule that comes from a policy.
const FIRST_RULE: u32 = 2;

pub(crate) struct Rules<'a> {
    /// The rules in the order of policy name and place, so that the order of documents does not matter.
    pub(crate) rules: Vec<Ruled<'a>>,
    /// The entries in the order of precedence, sources aside. An entry's index is its rank.
    pub(crate) entries: Vec<Entry>,
}

pub(crate) struct Ruled<'a> {
    pub(crate) policy: &'a Policy,
    pub(crate) rule: &'a Rule,
    pub(crate) path: &'a PathRule,
    /// The verdicts for the section's first and second permission, each for others and for the owner.
    pub(crate) effect: [Verdict; 4],
    /// The paths of `fromSource`, and the paths that they resolve to.
    pub(crate) sources: Vec<String>,
    /// True if the rule makes its section an allow-list for the programs that it applies to.
    pub(crate) restricts: bool,
}

/// An `Entry` is one target of a rule: the target as written, or one that it resolves to.
pub(crate) struct Entry {
    /// The index in [`Rules::rules`].
    pub(crate) rule: u32,
    pub(crate) target: Target,
}

impl<'a> Rules<'a> {
    pub(crate) fn new(policies: &[&'a Policy], options: &CompileOptions) -> Result<Self, CompileError> {
        let mut ordered: Vec<(&Policy, &Rule)> =
            policies.iter().flat_map(|policy| policy.rules.iter().map(move |rule| (*policy, rule))).collect();
        ordered.sort_by_key(|(policy, rule)| {
            (&policy.name, &policy.namespace, policy.kind, &policy.file, rule.common.location)
        });

        let mut rules = Vec::with_capacity(ordered.len());
        let mut ranked = Vec::with_capacity(ordered.len());
        for (index, (policy, rule)) in ordered.into_iter().enumerate() {
            let index = index as u32;
            let RuleBody::Path(path) = &rule.body;
            let effect = effect(rule.common.action, path);
            let strictness: u32 = effect.iter().map(|verdict| *verdict as u32).sum();
            let resolved = resolved_targets(&path.target, &options.links)?;
            for target in std::iter::once(path.target.clone()).chain(resolved) {
                let key = (specificity(&target), rule.common.action, Reverse(strictness), index);
                ranked.push((key, Entry { rule: index, target }));
            }
            let mut sources = rule.common.sources.clone();
            for source in &rule.common.sources {
                sources.extend(resolve(source, &options.links)?.into_iter().map(str::to_owned));
            }
            let restricts = rule.common.action == Action::Allow && !policy.is_exception(rule);
            rules.push(Ruled { policy, rule, path, effect, sources, restricts });
        }
        ranked.sort_by_key(|(key, _)| *key);
        Ok(Self { rules, entries: ranked.into_iter().map(|(_, entry)| entry).collect() })
    }

    /// Returns the rule's index in the tables.
    pub(crate) fn table_index(rule: u32) -> u32 {
        FIRST_RULE + rule
    }

    pub(crate) fn of_entry(&self, entry: u32) -> &Ruled<'a> {
        &self.rules[self.entries[entry as usize].rule as usize]
    }

    /// Returns the policy to name in an error that no single rule causes.
    pub(crate) fn largest_policy(&self) -> String {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for ruled in &self.rules {
            *counts.entry(&ruled.policy.name).or_default() += 1;
        }
        counts
            .into_iter()
            .max_by_key(|(_, count)| *count)
            .map_or_else(String::new, |(name, _)| name.to_owned())
    }

    /// Returns the error for patterns that make too many states, alone or with directories.
    pub(crate) fn most_complex_pattern(&self) -> CompileError {
        let patterns = self.rules.iter().filter_map(|ruled| match &ruled.path.target {
            Target::Glob(glob) => Some((glob.complexity(), ruled, glob)),
            Target::Path(_) | Target::Directory { .. } | Target::Name(_) => None,
        });
        // Of equally complex patterns, the first is named.
        match patterns.rev().max_by_key(|(complexity, ..)| *complexity) {
            Some((_, Ruled { policy, rule, .. }, glob)) => CompileError::Pattern {
                policy: policy.name.clone(),
                pattern: glob.text().to_owned(),
                file: policy.file.clone(),
                location: rule.common.location,
            },
            None => CompileError::Slots { policy: self.largest_policy() },
        }
    }

    pub(crate) fn infos(&self) -> Vec<RuleInfo> {
        let reserved = |name: &str| RuleInfo { policy: name.to_owned(), ..RuleInfo::default() };
        let mut infos = vec![reserved("DefaultPosture"), reserved("UnresolvedPath")];
        infos.extend(self.rules.iter().map(|Ruled { policy, rule, .. }| RuleInfo {
            policy: policy.name.clone(),
            location: place(&policy.file, rule.common.location),
            severity: rule.common.severity,
            tags: rule.common.tags.clone(),
            message: rule.common.message.clone(),
        }));
        infos
    }
}

/// Returns a sort key by which more specific targets come first.
fn specificity(target: &Target) -> (u8, Reverse<usize>) {
    match target {
        Target::Path(_) => (0, Reverse(0)),
        Target::Glob(glob) => (1, Reverse(glob.literal_bytes())),
        Target::Name(_) => (2, Reverse(0)),
        // Of directories that contain the same object, the one with the longer path is the deeper one.
        Target::Directory { path, .. } => (3, Reverse(path.len())),
    }
}

fn effect(action: Action, rule: &PathRule) -> [Verdict; 4] {
    let plain = match action {
        Action::Block => Verdict::Block,
        Action::Allow => Verdict::Allow,
        Action::Audit => Verdict::Audit,
    };
    if !rule.read_only && !rule.owner_only {
        return [plain; 4];
    }
    // readOnly and ownerOnly say what is permitted; the action decides the rest, which Allow refuses too.
    let beyond = if plain == Verdict::Audit { Verdict::Audit } else { Verdict::Block };
    let others = if rule.owner_only { beyond } else { Verdict::Allow };
    let second = if rule.read_only { beyond } else { Verdict::Allow };
    [others, Verdict::Allow, others.max(second), second]
}

/// Returns the other paths that a path resolves to, without a last `/`.
fn resolve<'l>(path: &str, links: &'l BTreeMap<String, Vec<String>>) -> Result<Vec<&'l str>, CompileError> {
    let Some((from, ends)) = links.get_key_value(trimmed(path)) else { return Ok(Vec::new()) };
    let is_normal = |to: &str| {
        to.starts_with('/')
            && to.len() <= MAX_PATH
            && !to.contains("//")
            && !to.contains('\0')
            && to.split('/').all(|component| component != "." && component != "..")
    };
    if let Some(to) = ends.iter().find(|to| !is_normal(to)) {
        return Err(CompileError::Link { from: from.clone(), to: to.clone() });
    }
    Ok(ends.iter().map(|to| trimmed(to)).filter(|to| *to != trimmed(path)).collect())
}

fn resolved_targets(
    target: &Target,
    links: &BTreeMap<String, Vec<String>>,
) -> Result<Vec<Target>, CompileError> {
    let ends = |path: &str| resolve(path, links).map(Vec::into_iter);
    Ok(match target {
        Target::Path(path) => ends(path)?.map(|to| Target::Path(to.to_owned())).collect(),
        Target::Directory { path, recursive } => ends(path)?
            .map(|to| Target::Directory { path: format!("{to}/"), recursive: *recursive })
            .collect(),
        Target::Glob(glob) => {
            ends(&glob.directory())?.map(|to| Target::Glob(glob.with_directory(&format!("{to}/")))).collect()
        }
        Target::Name(_) => Vec::new(),
    })
}
