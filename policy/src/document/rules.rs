//! Reads what rules of all kinds have: the fields that they inherit, and `fromSource`.

use super::diagnostics::Sink;
use super::fields::Fields;
use super::paths;
use super::yaml::Node;
use crate::model::{Action, Location, Rule, RuleBody, RuleCommon, Source};

/// The remedy for parts of KubeArmor's language that are refused because nothing implements them.
pub(crate) const UNSUPPORTED: &str = "this part of KubeArmor's language is not supported yet";

/// Maximum number of pairs of a thing that an entry names and a source, each of which takes memory in the rule that it makes.
const MAX_PAIRS: usize = 20_000;

/// An `Inherited` holds the values of the section or the spec, which rules inherit.
#[derive(Clone, Default)]
pub(crate) struct Inherited {
    severity: u8,
    tags: Vec<String>,
    message: String,
    action: Action,
}

/// The fields of an [`Inherited`].
pub(crate) const COMMON: [&str; 4] = ["severity", "tags", "message", "action"];

impl Inherited {
    /// Returns the values that `fields` gives, and the inherited ones for all others.
    pub(crate) fn or_own(&self, fields: &Fields<'_>, sink: &mut Sink) -> Self {
        let severity = fields.severity(sink).unwrap_or(self.severity);
        let tags = fields.tags(sink).unwrap_or_else(|| self.tags.clone());
        let message =
            fields.string("message", sink).map_or_else(|| self.message.clone(), |m| m.text.to_owned());
        let action = fields.action(sink).unwrap_or(self.action);
        Self { severity, tags, message, action }
    }

    /// Returns the action.
    pub(crate) fn action(&self) -> Action {
        self.action
    }

    /// Returns these values with the action Audit.
    pub(crate) fn audited(self) -> Self {
        Self { action: Action::Audit, ..self }
    }

    /// Returns the rule with these values, or `None` if it exceeds the bound of [`Sink::bounded`].
    pub(crate) fn rule(
        self,
        sources: Vec<Source>,
        body: RuleBody,
        location: Location,
        sink: &mut Sink,
    ) -> Option<Rule> {
        let Self { severity, tags, message, action } = self;
        let terminal = false;
        let common = RuleCommon { sources, terminal, action, severity, tags, message, location };
        sink.bounded(Rule { common, body })
    }

    /// Returns the rules with these values, fewer if they exceed that bound. With `pts: false` the action is about programs
    /// that a terminal controls, and Allow means that these are refused.
    pub(crate) fn rules(
        self,
        pts: bool,
        sources: Vec<Source>,
        body: RuleBody,
        location: Location,
        sink: &mut Sink,
    ) -> Vec<Rule> {
        if pts {
            return self.rule(sources, body, location, sink).into_iter().collect();
        }
        let allowed = (self.action == Action::Allow)
            .then(|| self.clone().rule(sources.clone(), body.clone(), location, sink));
        let action = if self.action == Action::Audit { Action::Audit } else { Action::Block };
        let kept_away = Self { action, ..self }.rule(sources, body, location, sink);
        let kept_away = kept_away
            .map(|Rule { common, body }| Rule { common: RuleCommon { terminal: true, ..common }, body });
        allowed.flatten().into_iter().chain(kept_away).collect()
    }
}

/// Reads what a section of lists has besides its lists: the fields and what its rules inherit. `refused` are lists that are
/// not supported, and why.
pub(crate) fn read_section<'a>(
    name: &str,
    node: &'a Node<'a>,
    above: &Inherited,
    lists: &[&'static str],
    refused: &[(&str, &str)],
    sink: &mut Sink,
) -> Option<(Fields<'a>, Inherited)> {
    let mut fields = Fields::new(node, name, sink)?;
    fields.only(&[lists, &COMMON[..]].concat(), refused, sink);
    let inherited = above.or_own(&fields, sink);
    let has = |list: &&str| fields.get(list).is_some();
    if !lists.iter().any(has) && !refused.iter().any(|(list, _)| has(list)) {
        sink.error(node.at, format!("`{name}` has no rules"), format!("add {}", lists.join(" or ")));
    }
    Some((fields, inherited))
}

/// Reads `pts`, which is true if it is missing.
pub(crate) fn read_pts(fields: &Fields<'_>, sink: &mut Sink) -> bool {
    fields.get("pts").is_none() || fields.boolean("pts", sink)
}

/// Returns whether an entry, which makes a rule of each thing that it names, names few enough of them and of sources.
pub(crate) fn within_pairs(
    things: usize,
    thing: &str,
    sources: &[Source],
    entry: &Fields<'_>,
    sink: &mut Sink,
) -> bool {
    let is_within = things.saturating_mul(1 + sources.len()) <= MAX_PAIRS;
    if !is_within {
        sink.error(
            entry.at,
            format!("more than {MAX_PAIRS} pairs of {thing} and a source"),
            "divide the entry",
        );
    }
    is_within
}

/// Reads the programs that a rule applies to.
pub(crate) fn read_sources(fields: &Fields<'_>, sink: &mut Sink) -> Vec<Source> {
    let mut sources = Vec::new();
    for node in fields.list("fromSource", sink) {
        let Some(mut source) = Fields::new(node, "an entry of fromSource", sink) else { continue };
        let exact = "a source is the exact path of a program";
        source.only(&["path"], &[("dir", exact), ("recursive", exact), ("pattern", exact)], sink);
        if let Some(path) = source.required_string("path", "the program it is about", sink) {
            sources.extend(paths::path(&path, sink).map(Source::Program));
        }
    }
    sources
}

/// Reads the programs that a rule applies to where directories of programs may be named too.
pub(crate) fn read_sources_or_directories(fields: &Fields<'_>, sink: &mut Sink) -> Vec<Source> {
    let mut sources = Vec::new();
    for node in fields.list("fromSource", sink) {
        let Some(mut source) = Fields::new(node, "an entry of fromSource", sink) else { continue };
        source.only(&["path", "dir", "recursive"], &[], sink);
        let recursive = source.boolean("recursive", sink);
        match (source.string("path", sink), source.string("dir", sink)) {
            (Some(path), None) if source.get("recursive").is_none() => {
                sources.extend(paths::path(&path, sink).map(Source::Program));
            }
            (None, Some(dir)) => {
                let directory = |path| Source::Directory { path, recursive };
                sources.extend(paths::directory(&dir, sink).map(directory));
            }
            // What is there is no string, which is an error already.
            (None, None) if source.get("path").or(source.get("dir")).is_some() => {}
            _ => sink.error(
                source.at,
                "an entry of fromSource names no program or directory, or several",
                "give either `path`, or `dir` with or without `recursive`",
            ),
        }
    }
    sources
}
