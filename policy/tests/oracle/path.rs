//! Evaluates rules for paths.

use super::pattern::Pattern;
use super::{Asker, By, SectionRules, number};
use armor_policy::decision::{PostureClass, Verdict};
use armor_policy::model::{Action, Rule};
use armor_policy::path::{MAX_ARGS, PathRule, Permission, Section, Target};
use armor_policy::preset::Preset;
use armor_policy::{Links, PolicySet, Posture};
use std::cmp::Reverse;

/// An `Object` is a file that a program accesses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Object<'a> {
    /// A file with a path; the path of a directory ends in `/`.
    Path(&'a [u8]),
    /// A file without a path.
    Anonymous,
    /// A file whose path cannot be determined.
    Unresolved,
}

/// Returns what happens to an object without a path, which the section's rules cannot be about.
fn without_path<'a>(rules: &SectionRules<'a, '_>) -> (Verdict, By<'a>) {
    if rules.rules.is_empty() {
        return (Verdict::Allow, By::Nobody);
    }
    let only_audits = rules.rules.iter().all(|(.., rule)| rule.common.action == Action::Audit);
    (if only_audits { Verdict::Audit } else { Verdict::Block }, By::Unresolved)
}

/// Returns the verdict on the arguments behind its name with which `program` starts the program of a path, and its
/// reason, whatever else decides on the start.
pub fn of_arguments<'a>(
    sets: &'a [PolicySet<'a>],
    links: &Links,
    program: Asker<'_>,
    path: &[u8],
    arguments: &[&str],
) -> (Verdict, By<'a>) {
    let rules = rules_of(sets, links, program, Section::Process);
    match deciding(&rules, path) {
        Some(by @ By::Rule(.., rule)) if !of_path(rule).allowed_args.is_empty() => {
            let list = &of_path(rule).allowed_args;
            let is_listed = |argument: &&str| list.iter().any(|listed| listed == argument);
            if (1..=MAX_ARGS).contains(&arguments.len()) && arguments.iter().all(is_listed) {
                (Verdict::Allow, By::Nobody)
            } else if rule.common.action == Action::Audit {
                (Verdict::Audit, by)
            } else {
                (Verdict::Block, by)
            }
        }
        _ => (Verdict::Allow, By::Nobody),
    }
}

/// Returns the verdict for an access of `program` to `object`, and its reason. `owner` says whether the
/// task's filesystem uid owns the object.
pub fn evaluate<'a>(
    sets: &'a [PolicySet<'a>],
    links: &Links,
    program: Asker<'_>,
    object: Object<'_>,
    permission: Permission,
    owner: bool,
) -> (Verdict, By<'a>) {
    let section = match permission {
        Permission::Exec | Permission::Map => Section::Process,
        Permission::Read | Permission::Write => Section::File,
    };
    let rules = rules_of(sets, links, program, section);
    let path = match object {
        Object::Path(path) => path,
        Object::Anonymous if section == Section::File => return (Verdict::Allow, By::Nobody),
        Object::Anonymous => {
            let preset = number::of_preset(sets, links, program, Preset::FilelessExec);
            let blocked = rules.posture().is_some_and(|(posture, _)| posture == Posture::Block);
            let otherwise = match permission {
                Permission::Map if blocked => (Verdict::Block, By::Unresolved),
                Permission::Map => (Verdict::Allow, By::Nobody),
                _ => without_path(&rules),
            };
            return if preset.0 < otherwise.0 { otherwise } else { preset };
        }
        Object::Unresolved => return without_path(&rules),
    };

    let (verdict, by) = match deciding(&rules, path) {
        Some(by @ By::Rule(.., rule)) => (outcome(rule, permission, owner), by),
        _ if permission == Permission::Map => (Verdict::Allow, By::Nobody),
        _ => rules.unmatched(),
    };
    (verdict, if verdict == Verdict::Allow { By::Nobody } else { by })
}

/// Returns the rules of a section.
fn rules_of<'a, 'o>(
    sets: &'a [PolicySet<'a>],
    links: &'o Links,
    program: Asker<'o>,
    section: Section,
) -> SectionRules<'a, 'o> {
    let mut rules = Vec::new();
    for set in sets {
        for policy in &set.policies {
            let of_section = policy
                .rules
                .iter()
                .filter(|rule| rule.body.as_path().is_some_and(|rule| rule.section == section));
            rules.extend(of_section.map(|rule| (set, *policy, rule)));
        }
    }
    SectionRules { class: PostureClass::File, rules, program, links }
}

/// Returns the rule that decides on a path.
fn deciding<'a>(rules: &SectionRules<'a, '_>, path: &[u8]) -> Option<By<'a>> {
    rules.first(|rule| {
        let shapes = shapes(&of_path(rule).target, rules.links);
        let found = shapes.iter().filter_map(|shape| shape.matches(path)).min()?;
        Some((found, strictness(rule)))
    })
}

/// Returns what a rule that is for paths says.
fn of_path(rule: &Rule) -> &PathRule {
    rule.body.as_path().unwrap()
}

/// Returns how much a rule refuses. Of rules with the same action, the stricter one comes first.
fn strictness(rule: &Rule) -> usize {
    let permissions = match of_path(rule).section {
        Section::Process => [Permission::Exec, Permission::Map],
        Section::File => [Permission::Read, Permission::Write],
    };
    permissions
        .iter()
        .flat_map(|p| [outcome(rule, *p, false), outcome(rule, *p, true)])
        .map(|v| v as usize)
        .sum()
}

/// A `Shape` is a target as written, or one that it resolves to.
enum Shape {
    Path(String),
    Directory { path: String, recursive: bool },
    Pattern(Pattern),
    Name(String),
}

/// Returns the target as written, and the targets that it resolves to.
fn shapes(target: &Target, links: &Links) -> Vec<Shape> {
    let ends = |path: &str| {
        links.get(path.strip_suffix('/').unwrap_or(path)).cloned().unwrap_or_default().into_iter()
    };
    let slashed = |path: String| if path.ends_with('/') { path } else { path + "/" };
    match target {
        Target::Path(path) => std::iter::once(path.clone()).chain(ends(path)).map(Shape::Path).collect(),
        Target::Directory { path, recursive } => std::iter::once(path.clone())
            .chain(ends(path).map(slashed))
            .map(|path| Shape::Directory { path, recursive: *recursive })
            .collect(),
        Target::Glob(glob) => {
            let pattern = Pattern::new(glob.text());
            let resolved: Vec<Pattern> =
                ends(&pattern.directory()).map(|to| pattern.with_directory(&slashed(to))).collect();
            std::iter::once(pattern).chain(resolved).map(Shape::Pattern).collect()
        }
        Target::Name(name) => vec![Shape::Name(name.clone())],
    }
}

impl Shape {
    /// Returns how specific the shape is, the least first, or `None` if it does not match the path.
    fn matches(&self, path: &[u8]) -> Option<(u8, Reverse<usize>)> {
        match self {
            Self::Path(exact) => {
                let bare = path.strip_suffix(b"/").unwrap_or(path);
                (exact.trim_end_matches('/').as_bytes() == bare).then_some((0, Reverse(0)))
            }
            Self::Pattern(pattern) => pattern.matches(path).then(|| (1, Reverse(pattern.literal_bytes()))),
            Self::Name(name) => {
                let last = path.rsplit(|&byte| byte == b'/').next();
                (last == Some(name.as_bytes())).then_some((2, Reverse(0)))
            }
            Self::Directory { path: directory, recursive } => {
                let inside = path.strip_prefix(directory.as_bytes())?;
                let inside = inside.strip_suffix(b"/").unwrap_or(inside);
                let depth = directory.split('/').count();
                (*recursive || !inside.contains(&b'/')).then_some((3, Reverse(depth)))
            }
        }
    }
}

fn outcome(rule: &Rule, permission: Permission, owner: bool) -> Verdict {
    let PathRule { owner_only, read_only, ref allowed_args, .. } = *of_path(rule);
    let has_list = !allowed_args.is_empty();
    // Nobody knows the arguments of a program that is mapped.
    let beyond = read_only && permission != Permission::Read || has_list && permission == Permission::Map;
    let not_the_owner = owner_only && !owner;
    match rule.common.action {
        // An access that these fields permit gets no alert from Audit and no refusal from Block.
        _ if (read_only || owner_only || has_list) && !beyond && !not_the_owner => Verdict::Allow,
        Action::Audit => Verdict::Audit,
        Action::Allow if !beyond && !not_the_owner => Verdict::Allow,
        Action::Allow | Action::Block => Verdict::Block,
    }
}
