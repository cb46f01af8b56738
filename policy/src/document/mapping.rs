//! Makes selectors that are written for Kubernetes into those that Horizon's workloads meet, in a migration alone and only as
//! the operator's [`Choices`](super::choices::Choices) say; where they say nothing, it remarks on what they could say.
//!
//! What the functions return is what the edits write.

use super::diagnostics::Sink;
use super::fields::{Fields, Text};
use super::mend::{Edit, Ground, Mender, entry, is_block};
use super::rules::COMMON;
use super::yaml::{Key, Node, Value};
use super::{DocumentKind, SECTIONS};
use crate::model::{Kind, Location, Selector};
use crate::selector_keys::{self, CONTAINER_KEYS, SERVICE_ORG};

/// An `Entry` is an entry of a mapping.
pub(super) type Entry<'a> = (Key<'a>, Node<'a>);

/// Reports a spec without a selector, and returns the selector that it is mended to.
pub(super) fn missing(
    spec: &Node<'_>,
    fields: &Fields<'_>,
    kind: DocumentKind,
    namespace: Option<Text<'_>>,
    sink: &mut Sink,
) -> Option<Selector> {
    let field = kind.selector();
    let workloads = kind.workloads();
    let mut help = "it says which workloads the policy is for".to_owned();
    let choices = sink.mender().map(|mender| mender.choices);
    if let Some(choices) = choices.filter(|_| kind != DocumentKind::Cluster) {
        if let Some(label) = choices.missing(workloads) {
            let mut labels = vec![label];
            labels.splice(..0, namespace.and_then(|namespace| choices.namespace(namespace.text)));
            let message = format!("spec has no `{field}`");
            let help = format!("--map gives it {}", shown(&labels));
            let edits = |mender: &Mender<'_>| {
                let entries: Option<Vec<String>> =
                    labels.iter().map(|(key, value)| entry(key, value)).collect();
                let entries = entries?;
                let lines = if is_block(spec) {
                    let head = [(0, format!("{field}:")), (2, "matchLabels:".to_owned())];
                    head.into_iter().chain(entries.into_iter().map(|entry| (4, entry))).collect()
                } else {
                    vec![(0, format!("{field}: {{matchLabels: {{{}}}}}", entries.join(", ")))]
                };
                mender.insert(spec, fields.entries.first()?, 0, &lines)
            };
            return sink
                .mendable(fields.at, message, help, Ground::OneReading, edits)
                .then_some(Selector { labels, expressions: Vec::new() });
        }
        let example = match workloads {
            Kind::Host => "kubernetes.io/os=linux",
            Kind::Container => "kubearmor.io/container.name=NAME",
        };
        help.push_str(&format!("; --map :{example} gives it one"));
    }
    fields.required(field, &help, sink)?;
    None
}

/// Returns the labels that stand in a selector itself, if a migration puts them below `matchLabels`.
pub(super) fn misplaced<'a>(
    node: &'a Node<'a>,
    kind: DocumentKind,
    sink: &mut Sink,
) -> Option<Vec<&'a Entry<'a>>> {
    sink.mender()?;
    let Value::Map(entries) = &node.value else { return None };
    let parent = entries.first().filter(|(key, _)| key.name == "matchLabels");
    let labels: Vec<&Entry<'_>> = entries.iter().skip(usize::from(parent.is_some())).collect();
    let known = spec_fields();
    let is_known = |key: &Key<'_>| known.iter().any(|name| name.eq_ignore_ascii_case(&key.name));
    let is_label = |(key, value): &&Entry<'_>| value.kind() == "a string" && !is_known(key);
    if kind == DocumentKind::Cluster
        || !is_block(node)
        || labels.is_empty()
        || parent.is_some_and(|(_, value)| !value.is_null())
        || !labels.iter().all(is_label)
    {
        return None;
    }
    let below = parent.is_none().then_some("matchLabels");
    let edits = sink.mender()?.nest(&labels, below)?;
    let (key, _) = labels.first()?;
    let message = format!("{} cannot have `{}`", kind.selector(), key.name);
    let help = "a label goes below matchLabels";
    sink.mendable(key.at, message, help, Ground::OneReading, |_| Some(edits)).then_some(labels)
}

/// Returns the names of fields that are no labels, for they are out of place in a selector.
fn spec_fields() -> Vec<&'static str> {
    let mut known = vec!["matchLabels", "matchExpressions", "selector", "nodeSelector"];
    known.extend(COMMON);
    known.extend(SECTIONS.map(|(name, _)| name));
    known
}

/// Returns what a migration makes of a label, which may be the same.
pub(super) fn mapped(
    kind: Kind,
    at: Location,
    (key, value): (&str, &str),
    is_free: impl Fn(&str) -> bool,
    sink: &mut Sink,
    edits: impl Fn(&Mender<'_>, &(String, String)) -> Option<Vec<Edit>>,
) -> (String, String) {
    let same = (key.to_owned(), value.to_owned());
    let Some(mender) = sink.mender() else { return same };
    let to = mender.choices.label(kind, key, value);
    let is_known = CONTAINER_KEYS.contains(&key) || selector_keys::node_keys().any(|known| known == key);
    let message = match kind {
        _ if is_known => format!("`{key}: {value}` selects what it names"),
        Kind::Container => format!("`{key}: {value}` selects by a label of the container or its image"),
        Kind::Host => format!("`{key}: {value}` selects nodes by what no node has"),
    };
    match to {
        Some(to) if is_free(&to.0) => {
            let (edits, shown) = (edits(mender, &to), shown(std::slice::from_ref(&to)));
            let help = if edits.is_some() {
                format!("--map makes it {shown}")
            } else {
                format!("write {shown} by hand: what is there does not stand there as it reads")
            };
            if sink.remark(at, message, help, edits) { to } else { same }
        }
        Some(to) => {
            let help = format!("--map cannot make it `{}`, which the selector has already", to.0);
            sink.remark(at, message, help, None);
            same
        }
        None if is_known || selector_keys::is_ours(key) => same,
        None => {
            let to = match kind {
                Kind::Container => "kubearmor.io/container.name, horizon.service.url or another key",
                Kind::Host => "kubernetes.io/hostname, kubernetes.io/os or another key",
            };
            let help = format!("--map {key}={value}:KEY=VALUE makes it another condition, by {to}");
            sink.remark(at, message, help, None);
            same
        }
    }
}

/// Returns the condition that a migration makes of a namespace, with edits for the line that says it.
pub(super) fn add_namespace(
    namespace: &Text<'_>,
    has: impl Fn(&str) -> bool,
    sink: &mut Sink,
    edits: impl Fn(&Mender<'_>, String) -> Option<Vec<Edit>>,
) -> Option<(String, String)> {
    let to = sink.mender()?.choices.namespace(namespace.text);
    if has(to.as_ref().map_or(SERVICE_ORG, |(key, _)| key)) {
        return None;
    }
    let message = format!("metadata.namespace `{}` selects nothing", namespace.text);
    let Some(to) = to else {
        let help =
            format!("--map metadata.namespace={}:{SERVICE_ORG}=ORG makes a condition of it", namespace.text);
        sink.remark(namespace.at, message, help, None);
        return None;
    };
    let edits = sink.mender().and_then(|mender| edits(mender, entry(&to.0, &to.1)?));
    let how = if edits.is_some() { "--map adds" } else { "by hand, add to matchLabels" };
    let help = format!("{how} {}", shown(std::slice::from_ref(&to)));
    sink.remark(namespace.at, message, help, edits).then_some(to)
}

fn shown(labels: &[(String, String)]) -> String {
    labels.iter().map(|(key, value)| format!("`{key}: {value}`")).collect::<Vec<_>>().join(" and ")
}

/// Returns the organisation that a namespace stands for in a cluster policy.
pub(super) fn organisation(namespace: &Text<'_>, sink: &mut Sink) -> String {
    let same = namespace.text.to_owned();
    let Some(mender) = sink.mender() else { return same };
    let to = mender.choices.namespace(namespace.text).filter(|(key, _)| key == SERVICE_ORG);
    let message = format!("the namespace `{same}` is the organisation of a container's Horizon service");
    match to {
        Some((_, org)) if org == same => same,
        Some((_, org)) => {
            let help = format!("--map makes it `{org}`");
            let edits = mender.replace(namespace.at, namespace.text, &org);
            if sink.remark(namespace.at, message, help, edits) { org } else { same }
        }
        None => {
            let help = format!("--map metadata.namespace={same}:{SERVICE_ORG}=ORG makes it another one");
            sink.remark(namespace.at, message, help, None);
            same
        }
    }
}
