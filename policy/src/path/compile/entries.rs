//! Puts the targets of all rules for paths in the order of precedence.

use super::arguments::Lists;
use crate::decision::Verdict;
use crate::model::Action;
use crate::path::{PathRule, Section, Target};
use crate::precedence::error::CompileError;
use crate::precedence::links::{Links, resolve};
use crate::precedence::order::Precedence;
use crate::precedence::rules::{DomainRule, Rules};
use std::cmp::Reverse;

/// An `Entries` holds the entries in the order of precedence, sources aside. An entry's index is its rank.
pub(super) struct Entries<'a> {
    pub(super) rules: &'a Rules<'a>,
    pub(super) list: Vec<Entry>,
}

/// An `Entry` is one target of a rule: the target as written, or one that it resolves to.
pub(super) struct Entry {
    /// The index in [`Rules::list`].
    pub(super) rule: u32,
    pub(super) section: Section,
    /// The verdicts for the section's first and second permission, each for others and for the owner.
    pub(super) effect: [Verdict; 4],
    /// The number of the rule's list of arguments; 0: it has none.
    pub(super) list: u16,
    pub(super) target: Target,
}

impl<'a> Entries<'a> {
    pub(super) fn new(rules: &'a Rules<'a>, lists: &Lists, links: &Links) -> Result<Self, CompileError> {
        let mut ranked = Vec::with_capacity(rules.list.len());
        for (rule, domain_rule, path_rule) in path_rules(rules) {
            let PathRule { section, ref target, .. } = *path_rule;
            let effect = effect(domain_rule.rule.common.action, path_rule);
            let list = lists.of_rule(rule);
            let strictness: u32 = effect.iter().map(|verdict| *verdict as u32).sum();
            for target in std::iter::once(target.clone()).chain(resolved_targets(target, links)?) {
                let precedence = Precedence::new(rules, rule, specificity(&target), strictness);
                ranked.push((precedence, Entry { rule, section, effect, list, target }));
            }
        }
        ranked.sort_by_key(|(precedence, _)| *precedence);
        Ok(Self { rules, list: ranked.into_iter().map(|(_, entry)| entry).collect() })
    }

    pub(super) fn at(&self, rank: u32) -> &Entry {
        &self.list[rank as usize]
    }

    /// Returns the rules of a section with their indices in [`Rules::list`].
    pub(super) fn rules_of(&self, section: Section) -> impl Iterator<Item = (u32, &DomainRule<'a>)> {
        path_rules(self.rules)
            .filter(move |(.., path_rule)| path_rule.section == section)
            .map(|(index, rule, _)| (index, rule))
    }

    /// Returns the error for patterns that make too many states, alone or with directories.
    pub(super) fn most_complex_pattern(&self) -> CompileError {
        let patterns = path_rules(self.rules).filter_map(|(_, rule, path_rule)| match &path_rule.target {
            Target::Glob(glob) => Some((glob.complexity(), rule, glob)),
            Target::Path(_) | Target::Directory { .. } | Target::Name(_) => None,
        });
        // Of equally complex patterns, the first is named.
        match patterns.rev().max_by_key(|(complexity, ..)| *complexity) {
            Some((_, DomainRule { policy, rule, .. }, glob)) => CompileError::Pattern {
                policy: policy.name.clone(),
                pattern: glob.text().to_owned(),
                file: policy.file.clone(),
                location: rule.common.location,
            },
            None => self.rules.too_many_slots(),
        }
    }
}

/// Returns the rules for paths with their indices in [`Rules::list`].
fn path_rules<'r, 'a>(
    rules: &'r Rules<'a>,
) -> impl DoubleEndedIterator<Item = (u32, &'r DomainRule<'a>, &'a PathRule)> {
    let list = rules.list.iter().enumerate();
    list.filter_map(|(index, rule)| Some((index as u32, rule, rule.rule.body.as_path()?)))
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

/// Returns [`Entry::effect`].
fn effect(action: Action, rule: &PathRule) -> [Verdict; 4] {
    let plain = Verdict::from(action);
    if !rule.read_only && !rule.owner_only && rule.allowed_args.is_empty() {
        return [plain; 4];
    }
    let beyond = beyond(action);
    let others = if rule.owner_only { beyond } else { Verdict::Allow };
    // Whoever maps a program gives it its arguments.
    let second = if rule.read_only || !rule.allowed_args.is_empty() { beyond } else { Verdict::Allow };
    [others, Verdict::Allow, others.max(second), second]
}

/// Returns the verdict on what a rule leaves out that says what is permitted, by readOnly, ownerOnly or allowedArgs: the
/// action decides on the rest, which Allow refuses too.
pub(super) fn beyond(action: Action) -> Verdict {
    if action == Action::Audit { Verdict::Audit } else { Verdict::Block }
}

/// Returns the targets that a target resolves to.
fn resolved_targets(target: &Target, links: &Links) -> Result<Vec<Target>, CompileError> {
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
