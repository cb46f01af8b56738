//! Evaluates policies slowly, straight from the documents: without automata or classes.
//!
//! Tests compare the compiled tables with its answers. It shares only the model and the options with the
//! compiler.

use crate::compile::{CompileOptions, Posture};
use crate::glob::{Glob, Token};
use crate::model::{Action, Policy, Rule, Section, Target};
use crate::tables::{Permission, Verdict};
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

/// A `By` names the reason for a verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By<'a> {
    /// Nothing forbids the access; the verdict is [`Verdict::Allow`].
    Nobody,
    /// The posture decided, because no rule of an allow-list matches.
    Posture,
    /// The object has no path, or none that can be determined.
    Unresolved,
    /// A rule decided.
    Rule(&'a Policy, &'a Rule),
}

/// Returns the verdict for an access of `program` to `object`, and its reason. `owner` says whether the
/// task's filesystem uid owns the object.
pub fn evaluate<'a>(
    policies: &[&'a Policy],
    options: &CompileOptions,
    program: &str,
    object: Object<'_>,
    permission: Permission,
    owner: bool,
) -> (Verdict, By<'a>) {
    let section = match permission {
        Permission::Exec | Permission::Map => Section::Process,
        Permission::Read | Permission::Write => Section::File,
    };
    let rules: Vec<(&Policy, &Rule)> = policies
        .iter()
        .flat_map(|policy| policy.rules.iter().map(move |rule| (*policy, rule)))
        .filter(|(_, rule)| rule.section == section)
        .collect();
    let applies =
        |rule: &Rule| rule.sources.is_empty() || rule.sources.iter().any(|s| is_program(s, program, options));
    let allow_list = rules
        .iter()
        .any(|(policy, rule)| rule.action == Action::Allow && applies(rule) && !policy.is_exception(rule));

    let path = match object {
        Object::Path(path) => path,
        Object::Anonymous if permission == Permission::Map => {
            let blocked = allow_list && options.posture == Posture::Block;
            return if blocked { (Verdict::Block, By::Unresolved) } else { (Verdict::Allow, By::Nobody) };
        }
        Object::Anonymous if section == Section::File => return (Verdict::Allow, By::Nobody),
        Object::Anonymous | Object::Unresolved if rules.is_empty() => return (Verdict::Allow, By::Nobody),
        Object::Anonymous | Object::Unresolved => {
            let only_audits = rules.iter().all(|(_, rule)| rule.action == Action::Audit);
            return (if only_audits { Verdict::Audit } else { Verdict::Block }, By::Unresolved);
        }
    };

    let first = rules
        .into_iter()
        .filter(|(_, rule)| applies(rule))
        .filter_map(|(policy, rule)| Some((match_order(policy, rule, path, options)?, policy, rule)))
        .min_by(|(a, ..), (b, ..)| a.cmp(b));
    let (verdict, by) = match first {
        Some((_, policy, rule)) => (outcome(rule, permission, owner), By::Rule(policy, rule)),
        None if allow_list && permission != Permission::Map => match options.posture {
            Posture::Allow => (Verdict::Allow, By::Nobody),
            Posture::Audit => (Verdict::Audit, By::Posture),
            Posture::Block => (Verdict::Block, By::Posture),
        },
        None => (Verdict::Allow, By::Nobody),
    };
    (verdict, if verdict == Verdict::Allow { By::Nobody } else { by })
}

fn is_program(source: &str, program: &str, options: &CompileOptions) -> bool {
    source == program || options.links.get(source).is_some_and(|ends| ends.iter().any(|end| end == program))
}

type Order<'a> =
    (bool, u8, Reverse<usize>, u8, Reverse<usize>, (&'a str, Option<&'a str>, &'a str, u32, u32));

/// Returns the rank of a rule that matches, or `None`. The lowest rank decides.
fn match_order<'a>(
    policy: &'a Policy,
    rule: &Rule,
    path: &[u8],
    options: &CompileOptions,
) -> Option<Order<'a>> {
    let (kind, specific) =
        targets(&rule.target, options).iter().filter_map(|target| match_target(target, path)).min()?;
    let action = match rule.action {
        Action::Block => 0,
        Action::Allow => 1,
        Action::Audit => 2,
    };
    let place = (
        policy.name.as_str(),
        policy.namespace.as_deref(),
        policy.file.as_str(),
        rule.location.line,
        rule.location.column,
    );
    Some((rule.sources.is_empty(), kind, specific, action, Reverse(strictness(rule)), place))
}

/// Returns how much a rule refuses. Of rules with the same action, the stricter one comes first.
fn strictness(rule: &Rule) -> usize {
    let permissions = match rule.section {
        Section::Process => [Permission::Exec, Permission::Map],
        Section::File => [Permission::Read, Permission::Write],
    };
    permissions
        .iter()
        .flat_map(|p| [outcome(rule, *p, false), outcome(rule, *p, true)])
        .map(|v| v as usize)
        .sum()
}

/// Returns the target as written, and the targets that it resolves to.
fn targets(target: &Target, options: &CompileOptions) -> Vec<Target> {
    let ends = |path: &str| {
        options.links.get(path.strip_suffix('/').unwrap_or(path)).cloned().unwrap_or_default().into_iter()
    };
    let slashed = |path: String| if path.ends_with('/') { path } else { path + "/" };
    let resolved: Vec<Target> = match target {
        Target::Path(path) => ends(path).map(Target::Path).collect(),
        Target::Directory { path, recursive } => {
            ends(path).map(|to| Target::Directory { path: slashed(to), recursive: *recursive }).collect()
        }
        Target::Glob(glob) => {
            ends(&glob.directory()).map(|to| Target::Glob(glob.with_directory(&slashed(to)))).collect()
        }
        Target::Name(_) => Vec::new(),
    };
    std::iter::once(target.clone()).chain(resolved).collect()
}

fn match_target(target: &Target, path: &[u8]) -> Option<(u8, Reverse<usize>)> {
    let bare = path.strip_suffix(b"/").unwrap_or(path);
    match target {
        Target::Path(exact) => (exact.trim_end_matches('/').as_bytes() == bare).then_some((0, Reverse(0))),
        Target::Glob(glob) => {
            let found =
                glob_matches(&glob.tokens, path) || (bare != path && glob_matches(&glob.tokens, bare));
            found.then(|| (1, Reverse(glob.literal_bytes())))
        }
        Target::Name(name) => {
            let last = path.rsplit(|&byte| byte == b'/').next();
            (last == Some(name.as_bytes())).then_some((2, Reverse(0)))
        }
        Target::Directory { path: directory, recursive } => {
            let inside = path.strip_prefix(directory.as_bytes())?;
            let inside = inside.strip_suffix(b"/").unwrap_or(inside);
            let depth = directory.split('/').count();
            (*recursive || !inside.contains(&b'/')).then_some((3, Reverse(depth)))
        }
    }
}

fn glob_matches(tokens: &[Token], path: &[u8]) -> bool {
    let Some((token, rest)) = tokens.split_first() else { return path.is_empty() };
    let first = path.first().copied();
    let tail = path.get(1..).unwrap_or_default();
    match token {
        Token::Byte(byte) => first == Some(*byte) && glob_matches(rest, tail),
        Token::One => first.is_some_and(|b| b != b'/') && glob_matches(rest, tail),
        Token::Set { negated, ranges } => {
            let inside = |b: u8| ranges.iter().any(|(low, high)| (*low..=*high).contains(&b));
            first.is_some_and(|b| b != b'/' && inside(b) != *negated) && glob_matches(rest, tail)
        }
        Token::Run => {
            glob_matches(rest, path) || (first.is_some_and(|b| b != b'/') && glob_matches(tokens, tail))
        }
        Token::AnyRun => glob_matches(rest, path) || (first.is_some() && glob_matches(tokens, tail)),
        Token::Either(branches) => branches.iter().any(|branch| {
            let spelled: Vec<Token> = branch.iter().chain(rest).cloned().collect();
            glob_matches(&spelled, path)
        }),
    }
}

/// Returns whether a pattern matches a path, by this module's own matcher.
pub fn matches(glob: &Glob, path: &[u8]) -> bool {
    match_target(&Target::Glob(glob.clone()), path).is_some()
}

fn outcome(rule: &Rule, permission: Permission, owner: bool) -> Verdict {
    let beyond_read_only = rule.read_only && permission != Permission::Read;
    let not_the_owner = rule.owner_only && !owner;
    match rule.action {
        // An access that readOnly and ownerOnly permit gets no alert from Audit and no refusal from Block.
        _ if (rule.read_only || rule.owner_only) && !beyond_read_only && !not_the_owner => Verdict::Allow,
        Action::Audit => Verdict::Audit,
        Action::Allow if !beyond_read_only && !not_the_owner => Verdict::Allow,
        Action::Allow | Action::Block => Verdict::Block,
    }
}
