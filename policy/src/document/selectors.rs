//! Reads selectors, and finds keys and values that could never select anything.

use super::DocumentKind;
use super::diagnostics::Sink;
use super::fields::{Fields, nearest, text};
use super::yaml::Node;
use crate::model::{Expression, Kind, Location, Operator, Selector};
use crate::selector_keys::{self, CONTAINER_KEYS, CONTAINER_NAME, HOSTNAME_REGEX, Names, SERVICE_ORG};

/// Reads the selector of a spec; returns `None` only after an error.
pub(super) fn read(spec: &Fields<'_>, field: &str, kind: DocumentKind, sink: &mut Sink) -> Option<Selector> {
    let node = spec.required(field, "it says which workloads the policy is for", sink)?;
    let fields = Fields::new(node, field, sink)?;
    let errors = sink.count();
    let expressions_on_nodes = [("matchExpressions", "a host policy selects by matchLabels only")];
    let labels_in_clusters = [("matchLabels", "a cluster policy selects by matchExpressions only")];
    match kind {
        DocumentKind::Container => fields.only(&["matchLabels", "matchExpressions"], &[], sink),
        DocumentKind::Host => fields.only(&["matchLabels"], &expressions_on_nodes, sink),
        DocumentKind::Cluster => fields.only(&["matchExpressions"], &labels_in_clusters, sink),
    }
    let mut selector = Selector::default();
    let workloads = kind.workloads();
    if let Some(labels) = fields.get("matchLabels").and_then(|node| Fields::new(node, "matchLabels", sink)) {
        for (key, value) in labels.entries {
            if let Some(value) = text(value, "a label", sink) {
                check(workloads, (&key.name, key.at), (value.text, value.at), sink);
                selector.labels.push((key.name.to_string(), value.text.to_owned()));
            }
        }
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

/// Reads an expression. In a cluster policy it may be about namespaces: that of a container is the organisation of its
/// Horizon service.
fn read_expression(node: &Node, kind: DocumentKind, sink: &mut Sink) -> Option<Expression> {
    let fields = Fields::new(node, "an entry of matchExpressions", sink)?;
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
            sink.error(operator.at, format!("operator `{other}` is not known"), "write In or NotIn");
            None
        }
    });
    let example = if by_namespace { "write values: [name]" } else { "write values: [\"name=value\"]" };
    fields.required("values", example, sink)?;
    let mut labels = Vec::new();
    for value in fields.list("values", sink) {
        let Some(value) = text(value, "a label", sink) else { continue };
        if by_namespace {
            check(Kind::Container, (SERVICE_ORG, value.at), (value.text, value.at), sink);
            labels.push((SERVICE_ORG.to_owned(), value.text.to_owned()));
            continue;
        }
        match value.text.split_once('=') {
            Some((key, label)) if !key.is_empty() => {
                check(Kind::Container, (key, value.at), (label, value.at), sink);
                labels.push((key.to_owned(), label.to_owned()));
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
            if is_ours(key) {
                sink.error(at, format!("no node is known by `{key}`"), help);
            } else {
                sink.warn(at, format!("no node is known by `{key}`, so this policy selects none"), help);
            }
        }
        Kind::Container if is_ours(key) => {
            sink.error(at, format!("no container is known by `{key}`"), suggestion(key, &CONTAINER_KEYS));
        }
        Kind::Container => {}
    }
}

/// Returns whether only KubeArmor and Horizon define such keys. Other keys of KubeArmor may be labels of
/// containers.
fn is_ours(key: &str) -> bool {
    key.starts_with("horizon.")
        || key.starts_with("kubearmor.io/host")
        || key.starts_with("kubearmor.io/container.")
}

fn suggestion(key: &str, known: &[&str]) -> String {
    match nearest(key, known) {
        Some(name) => format!("did you mean `{name}`?"),
        None => format!("known: {}", known.join(", ")),
    }
}

fn check_value(key: &str, (value, at): (&str, Location), sink: &mut Sink) {
    let names = if key == CONTAINER_NAME {
        Names::with_regexes(value)
    } else if HOSTNAME_REGEX.contains(&key) {
        Names::hostname_regex(value)
    } else {
        Names::exact(value)
    };
    if let Err(error) = names {
        sink.error(at, format!("`{key}` selects nothing"), error.to_string());
    }
}
