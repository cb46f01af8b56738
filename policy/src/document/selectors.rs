//! Reads selectors, and finds keys and values that could never select anything.

use super::DocumentKind;
use super::diagnostics::Sink;
use super::fields::{Fields, Text, suggestion, text};
use super::mapping::{Entry, add_namespace, mapped, misplaced, missing, organisation};
use super::mend::Mender;
use super::yaml::Node;
use crate::model::{Expression, Kind, Location, Operator, Selector};
use crate::selector_keys::{self, CONTAINER_KEYS, SERVICE_ORG};

/// Reads the selector of a spec; returns `None` only after an error. The namespace of the policy selects nothing, but a
/// migration can make a condition of it.
pub(super) fn read(
    spec: &Node<'_>,
    spec_fields: &Fields<'_>,
    kind: DocumentKind,
    namespace: Option<Text<'_>>,
    sink: &mut Sink,
) -> Option<Selector> {
    let field = kind.selector();
    let namespace = namespace.filter(|_| kind == DocumentKind::Container);
    let Some(node) = spec_fields.get(field) else {
        return missing(spec, spec_fields, kind, namespace, sink);
    };
    let mut fields = Fields::new(node, field, sink)?;
    let errors = sink.count();
    let misplaced = misplaced(node, kind, sink);
    let expressions_on_nodes = [("matchExpressions", "a host policy selects by matchLabels only")];
    let labels_in_clusters = [("matchLabels", "a cluster policy selects by matchExpressions only")];
    match kind {
        _ if misplaced.is_some() => {}
        DocumentKind::Container => fields.only(&["matchLabels", "matchExpressions"], &[], sink),
        DocumentKind::Host => fields.only(&["matchLabels"], &expressions_on_nodes, sink),
        DocumentKind::Cluster => fields.only(&["matchExpressions"], &labels_in_clusters, sink),
    }
    let mut selector = Selector::default();
    let below = match misplaced {
        Some(entries) => Some((node, entries, 2)),
        None => fields.get("matchLabels").and_then(|labels| {
            let own = Fields::new(labels, "matchLabels", sink)?;
            Some((labels, own.entries.iter().collect(), 0))
        }),
    };
    if let Some((map, entries, deeper)) = below {
        let of_namespace = namespace.and_then(|namespace| {
            let first = entries.first()?;
            let has = |key: &str| entries.iter().any(|(own, _)| own.name == key);
            add_namespace(&namespace, has, sink, |mender, line| {
                mender.insert(map, first, deeper, &[(0, line)])
            })
        });
        selector.labels.extend(of_namespace);
        read_labels(&entries, kind, &mut selector.labels, sink);
    } else if let Some(namespace) = namespace {
        add_namespace(&namespace, |_| false, sink, |_, _| None);
    }
    if kind != DocumentKind::Host {
        for node in fields.list("matchExpressions", sink) {
            selector.expressions.extend(read_expression(node, kind, sink));
        }
    }
    if selector == Selector::default() && sink.count() == errors {
        let help = match kind {
            DocumentKind::Cluster => "give at least one entry in matchExpressions",
            DocumentKind::Container | DocumentKind::Host => "give at least one label in matchLabels",
        };
        sink.error(node.at, format!("{field} selects nothing"), help);
    }
    Some(selector)
}

/// Reads labels, and appends them to those that are there.
fn read_labels(
    entries: &[&Entry<'_>],
    kind: DocumentKind,
    labels: &mut Vec<(String, String)>,
    sink: &mut Sink,
) {
    let workloads = kind.workloads();
    for (key, value) in entries {
        let Some(value) = text(value, "a label", sink) else { continue };
        let has = |other: &str| {
            entries.iter().any(|(own, _)| own.name == other) || labels.iter().any(|(own, _)| own == other)
        };
        let is_free = |to: &str| to == key.name || !has(to);
        let edits = |mender: &Mender<'_>, to: &(String, String)| {
            let mut edits = mender.replace(key.at, &key.name, &to.0)?;
            edits.extend(mender.replace(value.at, value.text, &to.1)?);
            Some(edits)
        };
        let label = mapped(workloads, key.at, (&key.name, value.text), is_free, sink, edits);
        check(workloads, (&label.0, key.at), (&label.1, value.at), sink);
        labels.push(label);
    }
}

/// Reads an expression. In a cluster policy it may be about namespaces: that of a container is the organisation of its
/// Horizon service.
fn read_expression(node: &Node, kind: DocumentKind, sink: &mut Sink) -> Option<Expression> {
    let mut fields = Fields::new(node, "an entry of matchExpressions", sink)?;
    fields.only(&["key", "operator", "values"], &[], sink);
    let help = match kind {
        DocumentKind::Cluster => "write key: label, or key: namespace",
        DocumentKind::Container | DocumentKind::Host => "write key: label",
    };
    let key = fields.required_string("key", help, sink);
    let by_namespace = kind == DocumentKind::Cluster && key.is_some_and(|key| key.text == "namespace");
    if let Some(key) = key.filter(|key| key.text != "label" && !by_namespace) {
        sink.error(key.at, format!("matchExpressions cannot select by `{}`", key.text), help);
    }
    let operator = fields.required_string("operator", "write In or NotIn", sink);
    let operator = operator.and_then(|operator| match operator.text {
        "In" => Some(Operator::In),
        "NotIn" => Some(Operator::NotIn),
        other => {
            let message = format!("operator `{other}` is not known");
            let meant = operator.meant(&["In", "NotIn"], message, "write In or NotIn", sink)?;
            Some(if meant == "In" { Operator::In } else { Operator::NotIn })
        }
    });
    let example = if by_namespace { "write values: [name]" } else { "write values: [\"name=value\"]" };
    fields.required("values", example, sink)?;
    let mut labels = Vec::new();
    for value in fields.list("values", sink) {
        let Some(value) = text(value, "a label", sink) else { continue };
        if by_namespace {
            let org = organisation(&value, sink);
            check(Kind::Container, (SERVICE_ORG, value.at), (&org, value.at), sink);
            labels.push((SERVICE_ORG.to_owned(), org));
            continue;
        }
        match value.text.split_once('=') {
            Some((key, label)) if !key.is_empty() => {
                let edits = |mender: &Mender<'_>, to: &(String, String)| {
                    mender.replace(value.at, value.text, &format!("{}={}", to.0, to.1))
                };
                let label = mapped(Kind::Container, value.at, (key, label), |_| true, sink, edits);
                check(Kind::Container, (&label.0, value.at), (&label.1, value.at), sink);
                labels.push(label);
            }
            _ => sink.error(value.at, format!("`{}` is not a label", value.text), "write \"name=value\""),
        }
    }
    Some(Expression { operator: operator?, labels })
}

/// Checks one label of a selector.
///
/// An unknown key in a namespace of KubeArmor or Horizon is an error, because it cannot be meant as a label.
/// Any other key of a host policy that no node has is a warning, because such documents select Kubernetes
/// nodes elsewhere.
fn check(kind: Kind, key: (&str, Location), value: (&str, Location), sink: &mut Sink) {
    let (key, at) = key;
    let is_node_key = selector_keys::node_keys().any(|known| known == key);
    let is_container_key = CONTAINER_KEYS.contains(&key);
    match kind {
        Kind::Host if is_node_key => check_value(key, value, sink),
        Kind::Container if is_container_key => check_value(key, value, sink),
        Kind::Host if is_container_key => {
            sink.error(at, format!("`{key}` selects containers, not nodes"), "use it in a KubeArmorPolicy");
        }
        Kind::Container if is_node_key => {
            let help = "to choose the node as well, write a bundle with that target";
            sink.warn(at, format!("`{key}` is about nodes; no container carries it as a label"), help);
        }
        Kind::Host => {
            let known: Vec<&str> = selector_keys::node_keys().collect();
            let help = suggestion(key, &known);
            if selector_keys::is_ours(key) {
                sink.error(at, format!("no node is known by `{key}`"), help);
            } else {
                sink.warn(at, format!("no node is known by `{key}`, so this policy selects none"), help);
            }
        }
        Kind::Container if selector_keys::is_ours(key) => {
            sink.error(at, format!("no container is known by `{key}`"), suggestion(key, &CONTAINER_KEYS));
        }
        Kind::Container => {}
    }
}

fn check_value(key: &str, (value, at): (&str, Location), sink: &mut Sink) {
    if let Err(error) = selector_keys::check(key, value) {
        sink.error(at, format!("`{key}` selects nothing"), error.to_string());
    }
}
