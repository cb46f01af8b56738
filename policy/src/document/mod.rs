//! Turns YAML trees into [`Policy`] documents, and reports every error of a file at its place.
//!
//! It skips nothing: a field that it does not understand is an error, whatever KubeArmor does with it.

pub mod diagnostics;
mod fields;
mod paths;
mod selectors;
pub mod text;
pub mod yaml;

use crate::model::{Action, Expression, Kind, Operator, Policy, Rule, Section, Selector, Target};
use crate::path::glob::Glob;
use diagnostics::{Diagnostic, Diagnostics, Sink};
use fields::Fields;
use yaml::Node;

/// The `apiVersion` of policies of every kind.
pub const API_VERSION: &str = "security.kubearmor.com/v1";

/// A `Checked` is the content of a file without errors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    /// The policies of the file; there is at least one.
    pub policies: Vec<Policy>,
    /// Warnings about parts that are valid but may not mean what their author thinks.
    pub warnings: Vec<Diagnostic>,
}

/// Reads all policies of a file; `name` is the file's name in diagnostics and alerts.
///
/// # Errors
/// Fails if the file has errors, and returns all of them with line and column.
pub fn parse(name: &str, text: &str) -> Result<Vec<Policy>, Diagnostics> {
    check(name, text).map(|checked| checked.policies)
}

/// Reads policies like [`parse`], and returns warnings too.
///
/// # Errors
/// Fails like [`parse`].
pub fn check(name: &str, text: &str) -> Result<Checked, Diagnostics> {
    let mut sink = Sink::new(name);
    let documents = yaml::documents(text, &mut sink);
    if documents.is_empty() && sink.count() == 0 {
        let start = crate::model::Location { line: 1, column: 1 };
        sink.error(
            start,
            "the file holds no policy",
            "write at least one KubeArmorPolicy or KubeArmorHostPolicy",
        );
    }
    let mut policies: Vec<Policy> = Vec::with_capacity(documents.len());
    for document in &documents {
        let Some(policy) = read_policy(document, &mut sink) else { continue };
        let twin = policies
            .iter()
            .find(|p| (p.kind, &p.namespace, &p.name) == (policy.kind, &policy.namespace, &policy.name));
        if let Some(twin) = twin {
            let message = format!("policy `{}` stands already in line {}", policy.name, twin.location.line);
            sink.error(policy.location, message, "give one of them another metadata.name");
        }
        policies.push(policy);
    }
    let (errors, warnings) = sink.finish();
    if errors.list.is_empty() { Ok(Checked { policies, warnings: warnings.list }) } else { Err(errors) }
}

/// Reads one document; returns `None` only after an error.
fn read_policy(document: &Node, sink: &mut Sink) -> Option<Policy> {
    let top = Fields::new(document, "the document", sink)?;
    top.only(&["apiVersion", "kind", "metadata", "spec", "status"], &[], sink);
    if let Some(version) =
        top.required_string("apiVersion", &format!("write apiVersion: {API_VERSION}"), sink)
        && version.text != API_VERSION
    {
        let message = format!("apiVersion `{}` is not known", version.text);
        sink.error(version.at, message, format!("write {API_VERSION}"));
    }
    let kind = top.required_string("kind", "write kind: KubeArmorPolicy or KubeArmorHostPolicy", sink);
    let kind = kind.and_then(|kind| match kind.text {
        "KubeArmorPolicy" => Some(Kind::Container),
        "KubeArmorHostPolicy" => Some(Kind::Host),
        "KubeArmorClusterPolicy" | "KubeArmorNetworkPolicy" => {
            let message = format!("kind {} is not supported yet", kind.text);
            sink.error(kind.at, message, "KubeArmorPolicy and KubeArmorHostPolicy are");
            None
        }
        other => {
            let help = fields::nearest(other, &["KubeArmorPolicy", "KubeArmorHostPolicy"])
                .map_or("write KubeArmorPolicy or KubeArmorHostPolicy".to_owned(), |n| {
                    format!("did you mean {n}?")
                });
            sink.error(kind.at, format!("kind `{other}` is not known"), help);
            None
        }
    });
    let (name, namespace) = read_metadata(&top, sink);
    let spec = top.required("spec", "a policy needs a spec", sink)?;
    let kind = kind?;
    let (selector, rules) = read_spec(spec, kind, sink)?;
    Some(Policy {
        kind,
        name: name?,
        namespace,
        selector,
        rules,
        file: sink.file().to_owned(),
        location: document.at,
    })
}

/// The fields of `metadata`. Besides `name` and `namespace` they have no meaning here: Kubernetes writes
/// them, or they are for people.
const METADATA: [&str; 13] = [
    "name",
    "namespace",
    "labels",
    "annotations",
    "creationTimestamp",
    "deletionTimestamp",
    "finalizers",
    "generateName",
    "generation",
    "managedFields",
    "ownerReferences",
    "resourceVersion",
    "uid",
];

fn read_metadata(top: &Fields<'_>, sink: &mut Sink) -> (Option<String>, Option<String>) {
    let Some(node) = top.required("metadata", "a policy needs metadata.name", sink) else {
        return (None, None);
    };
    let Some(metadata) = Fields::new(node, "metadata", sink) else { return (None, None) };
    metadata.only(&METADATA, &[], sink);
    let named = |field: &str, value: Option<fields::Text<'_>>, sink: &mut Sink| {
        let value = value?;
        if is_dns_name(value.text) {
            return Some(value.text.to_owned());
        }
        let message = format!("metadata.{field} `{}` is not a name", value.text);
        let help = "lower-case letters, digits, '-' and '.', at most 253, beginning and ending with a letter or digit";
        sink.error(value.at, message, help);
        None
    };
    let name = metadata.required_string("name", "alerts name the policy by it", sink);
    let namespace = metadata.string("namespace", sink);
    (named("name", name, sink), named("namespace", namespace, sink))
}

fn is_dns_name(text: &str) -> bool {
    let alphanumeric = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    (1..=253).contains(&text.len())
        && text.starts_with(alphanumeric)
        && text.ends_with(alphanumeric)
        && text.chars().all(|c| alphanumeric(c) || c == '-' || c == '.')
}

/// An `Inherited` holds the values of the section or the spec, which rules inherit.
#[derive(Clone, Default)]
struct Inherited {
    severity: u8,
    tags: Vec<String>,
    message: String,
    action: Action,
}

const COMMON: [&str; 4] = ["severity", "tags", "message", "action"];

impl Inherited {
    /// Returns the values that `fields` gives, and the inherited ones for all others.
    fn or_own(&self, fields: &Fields<'_>, sink: &mut Sink) -> Self {
        let severity = fields.severity(sink).unwrap_or(self.severity);
        let tags = fields.tags(sink).unwrap_or_else(|| self.tags.clone());
        let message =
            fields.string("message", sink).map_or_else(|| self.message.clone(), |m| m.text.to_owned());
        let action = fields.action(sink).unwrap_or(self.action);
        Self { severity, tags, message, action }
    }
}

const UNSUPPORTED: &str = "this part of KubeArmor's language is not supported yet";

fn read_spec(node: &Node, kind: Kind, sink: &mut Sink) -> Option<(Selector, Vec<Rule>)> {
    let spec = Fields::new(node, "spec", sink)?;
    let (selector_field, other_selector, other_kind) = match kind {
        Kind::Container => ("selector", "nodeSelector", "KubeArmorHostPolicy"),
        Kind::Host => ("nodeSelector", "selector", "KubeArmorPolicy"),
    };
    let misplaced = format!("it belongs to {other_kind}; here it is {selector_field}");
    let mut refused: Vec<(&str, &str)> = [
        "network",
        "capabilities",
        "syscalls",
        "device",
        "presets",
        "apparmor",
        "ingress",
        "egress",
        "level",
    ]
    .map(|field| (field, UNSUPPORTED))
    .to_vec();
    refused.push((other_selector, &misplaced));
    let known = ["severity", "tags", "message", "action", "process", "file", selector_field];
    spec.only(&known, &refused, sink);

    let selector = read_selector(&spec, selector_field, kind, sink);
    let inherited = Inherited::default().or_own(&spec, sink);
    let mut rules = Vec::new();
    let mut sections = 0;
    for (field, section) in [("process", Section::Process), ("file", Section::File)] {
        if let Some(node) = spec.get(field) {
            sections += 1;
            read_section(node, section, &inherited, &mut rules, sink);
        }
    }
    // If a policy has only unsupported sections, the error about these is enough.
    if sections == 0
        && !refused.iter().any(|(field, _)| *field != other_selector && spec.get(field).is_some())
    {
        sink.error(spec.at, "the policy has no rules", "add a `process` or `file` section");
    }
    Some((selector?, rules))
}

fn read_selector(spec: &Fields<'_>, field: &str, kind: Kind, sink: &mut Sink) -> Option<Selector> {
    let node = spec.required(field, "it says which workloads the policy is for", sink)?;
    let fields = Fields::new(node, field, sink)?;
    let errors = sink.count();
    let expressions_on_nodes = [("matchExpressions", "a host policy selects by matchLabels only")];
    match kind {
        Kind::Container => fields.only(&["matchLabels", "matchExpressions"], &[], sink),
        Kind::Host => fields.only(&["matchLabels"], &expressions_on_nodes, sink),
    }
    let mut selector = Selector::default();
    if let Some(labels) = fields.get("matchLabels").and_then(|node| Fields::new(node, "matchLabels", sink)) {
        for (key, value) in labels.entries {
            if let Some(value) = fields::text(value, "a label", sink) {
                selectors::check(kind, (&key.name, key.at), (value.text, value.at), sink);
                selector.labels.push((key.name.to_string(), value.text.to_owned()));
            }
        }
    }
    if kind == Kind::Container {
        for node in fields.list("matchExpressions", sink) {
            selector.expressions.extend(read_expression(node, sink));
        }
    }
    if selector == Selector::default() && sink.count() == errors {
        sink.error(node.at, format!("{field} selects nothing"), "give at least one label in matchLabels");
    }
    Some(selector)
}

fn read_expression(node: &Node, sink: &mut Sink) -> Option<Expression> {
    let fields = Fields::new(node, "an entry of matchExpressions", sink)?;
    fields.only(&["key", "operator", "values"], &[], sink);
    if let Some(key) = fields.required_string("key", "write key: label", sink)
        && key.text != "label"
    {
        sink.error(key.at, format!("matchExpressions cannot select by `{}`", key.text), "write key: label");
    }
    let operator = fields.required_string("operator", "write In or NotIn", sink);
    let operator = operator.and_then(|operator| match operator.text {
        "In" => Some(Operator::In),
        "NotIn" => Some(Operator::NotIn),
        other => {
            sink.error(operator.at, format!("operator `{other}` is not known"), "write In or NotIn");
            None
        }
    });
    fields.required("values", "write values: [\"name=value\"]", sink)?;
    let mut labels = Vec::new();
    for value in fields.list("values", sink) {
        let Some(value) = fields::text(value, "a label", sink) else { continue };
        match value.text.split_once('=') {
            Some((key, label)) if !key.is_empty() => {
                selectors::check(Kind::Container, (key, value.at), (label, value.at), sink);
                labels.push((key.to_owned(), label.to_owned()));
            }
            _ => sink.error(value.at, format!("`{}` is not a label", value.text), "write \"name=value\""),
        }
    }
    Some(Expression { operator: operator?, labels })
}

fn read_section(node: &Node, section: Section, above: &Inherited, rules: &mut Vec<Rule>, sink: &mut Sink) {
    let what = match section {
        Section::Process => "process",
        Section::File => "file",
    };
    let Some(fields) = Fields::new(node, what, sink) else { return };
    const LISTS: [&str; 3] = ["matchPaths", "matchDirectories", "matchPatterns"];
    fields.only(&[&LISTS[..], &COMMON[..]].concat(), &[], sink);
    let inherited = above.or_own(&fields, sink);
    if LISTS.iter().all(|list| fields.get(list).is_none()) {
        sink.error(
            node.at,
            format!("`{what}` has no rules"),
            "add matchPaths, matchDirectories or matchPatterns",
        );
    }
    for list in LISTS {
        for node in fields.list(list, sink) {
            rules.extend(read_rule(node, section, list, &inherited, sink));
        }
    }
}

/// Reads one rule; returns `None` only after an error.
fn read_rule(node: &Node, section: Section, list: &str, above: &Inherited, sink: &mut Sink) -> Option<Rule> {
    let what = format!("an entry of {list}");
    let fields = Fields::new(node, &what, sink)?;
    let mut known = COMMON.to_vec();
    known.push("ownerOnly");
    let mut refused = vec![("pts", UNSUPPORTED)];
    match section {
        Section::Process => refused.push(("readOnly", "only rules of `file` have it")),
        Section::File => known.push("readOnly"),
    }
    match list {
        "matchPaths" => {
            known.extend(["path", "fromSource"]);
            refused.push(("recursive", "only matchDirectories has it"));
            refused.push(("dir", "a directory goes into matchDirectories"));
            refused.push(("pattern", "a pattern goes into matchPatterns"));
            match section {
                Section::Process => {
                    known.push("execname");
                    refused.push(("allowedArgs", UNSUPPORTED));
                }
                Section::File => refused.push(("execname", "only rules of `process` have it")),
            }
        }
        "matchDirectories" => {
            known.extend(["dir", "recursive", "fromSource"]);
            refused.push(("path", "a path goes into matchPaths; here it is `dir`"));
            refused.push(("pattern", "a pattern goes into matchPatterns"));
        }
        _ => {
            known.push("pattern");
            refused.push(("fromSource", "patterns apply to every program; name the paths in matchPaths"));
            refused.push(("recursive", "write '**' for any depth"));
            refused.push(("path", "a path goes into matchPaths; here it is `pattern`"));
            refused.push(("dir", "a directory goes into matchDirectories"));
        }
    }
    fields.only(&known, &refused, sink);

    let target = read_target(&fields, section, list, sink);
    let own = above.or_own(&fields, sink);
    let owner_only = fields.boolean("ownerOnly", sink);
    let read_only = section == Section::File && fields.boolean("readOnly", sink);
    let sources = if list == "matchPatterns" { Vec::new() } else { read_sources(&fields, sink) };
    sink.bounded(Rule {
        section,
        target: target?,
        sources,
        owner_only,
        read_only,
        action: own.action,
        severity: own.severity,
        tags: own.tags,
        message: own.message,
        location: fields.at,
    })
}

fn read_target(fields: &Fields<'_>, section: Section, list: &str, sink: &mut Sink) -> Option<Target> {
    match list {
        "matchPaths" if section == Section::Process => match (fields.get("path"), fields.get("execname")) {
            (Some(_), Some(_)) => {
                sink.error(fields.at, "a rule has both `path` and `execname`", "make two rules of it");
                None
            }
            (None, None) => {
                sink.error(fields.at, "a rule names no program", "give `path` or `execname`");
                None
            }
            (Some(_), None) => paths::path(&fields.string("path", sink)?, sink).map(Target::Path),
            (None, Some(_)) => paths::execname(&fields.string("execname", sink)?, sink).map(Target::Name),
        },
        "matchPaths" => {
            let path = fields.required_string("path", "the file it is about", sink)?;
            paths::path(&path, sink).map(Target::Path)
        }
        "matchDirectories" => {
            let recursive = fields.boolean("recursive", sink);
            let dir = fields.required_string("dir", "the directory it is about", sink)?;
            paths::directory(&dir, sink).map(|path| Target::Directory { path, recursive })
        }
        _ => {
            let pattern = fields.required_string("pattern", "the paths it is about", sink)?;
            if pattern.text.contains(".*") {
                let help = "it is not a regular expression: '*' alone stands for any run without '/'";
                sink.warn(pattern.at, "'.' in a pattern is only a dot", help);
            }
            match Glob::new(pattern.text) {
                Ok(glob) => {
                    paths::warn_merged(pattern.text, pattern.at, sink);
                    paths::warn_byte(&pattern, "is in a pattern the same without the backslash", sink);
                    Some(Target::Glob(glob))
                }
                Err(error) => {
                    sink.error(pattern.at, format!("`{}` is not a pattern", pattern.text), error.to_string());
                    None
                }
            }
        }
    }
}

fn read_sources(fields: &Fields<'_>, sink: &mut Sink) -> Vec<String> {
    let mut sources = Vec::new();
    for node in fields.list("fromSource", sink) {
        let Some(source) = Fields::new(node, "an entry of fromSource", sink) else { continue };
        let exact = "a source is the exact path of a program";
        source.only(&["path"], &[("dir", exact), ("recursive", exact), ("pattern", exact)], sink);
        if let Some(path) = source.required_string("path", "the program it is about", sink) {
            sources.extend(paths::path(&path, sink));
        }
    }
    sources
}
