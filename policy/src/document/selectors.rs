//! Finds keys and values of selectors that could never select anything.

use super::diagnostics::Sink;
use super::fields::nearest;
use crate::model::{Kind, Location};
use crate::names::{self, CONTAINER_KEYS, CONTAINER_NAME, HOSTNAME_REGEX, Names};

/// Checks one label of a selector.
///
/// An unknown key in a namespace of KubeArmor or Horizon is an error, because it cannot be meant as a label.
/// Any other key of a host policy that no node has is a warning, because such documents select Kubernetes
/// nodes elsewhere.
pub(super) fn check(kind: Kind, key: (&str, Location), value: (&str, Location), sink: &mut Sink) {
    let (key, at) = key;
    let is_node_key = names::node_keys().any(|known| known == key);
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
            let known: Vec<&str> = names::node_keys().collect();
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
