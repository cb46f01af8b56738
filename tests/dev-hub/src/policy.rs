//! This module decides which services and nodes get an object, by version ranges of services and by the
//! constraints of a destination policy on a node's properties.

use crate::meta::{DestinationPolicy, ServiceId};
use serde_json::Value;
use std::cmp::Ordering;
use std::collections::BTreeMap;

/// `Properties` are a node's properties, as its policy gives them.
pub type Properties = BTreeMap<String, Value>;

type Version = [u64; 3];

fn version(text: &str) -> Option<Version> {
    let mut parts = [0; 3];
    for (index, part) in text.split('.').enumerate() {
        *parts.get_mut(index)? = part.parse().ok()?;
    }
    Some(parts)
}

/// A `VersionRange` is a range of versions. `1.0.0` means that version and all later ones; other ranges are
/// `[a,b)`, with either bracket on either side and `INFINITY` for an open end.
#[derive(Debug, PartialEq)]
pub struct VersionRange {
    from: Version,
    from_included: bool,
    to: Option<Version>,
    to_included: bool,
}

impl VersionRange {
    /// Parses a range, or returns `None` if the text is none.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let (from_included, rest) = match text.split_at_checked(1)? {
            ("[", rest) => (true, rest),
            ("(", rest) => (false, rest),
            _ => {
                return Some(Self {
                    from: version(text)?,
                    from_included: true,
                    to: None,
                    to_included: false,
                });
            }
        };
        let (to_included, rest) = match rest.split_at_checked(rest.len().checked_sub(1)?)? {
            (rest, "]") => (true, rest),
            (rest, ")") => (false, rest),
            _ => return None,
        };
        let (from, to) = rest.split_once(',')?;
        let to = if to.trim() == "INFINITY" { None } else { Some(version(to.trim())?) };
        Some(Self { from: version(from.trim())?, from_included, to, to_included })
    }

    /// Returns whether `text` is a version in the range.
    pub fn contains(&self, text: &str) -> bool {
        let Some(version) = version(text) else { return false };
        let after_start = match version.cmp(&self.from) {
            Ordering::Greater => true,
            Ordering::Equal => self.from_included,
            Ordering::Less => false,
        };
        after_start
            && self.to.is_none_or(|to| match version.cmp(&to) {
                Ordering::Less => true,
                Ordering::Equal => self.to_included,
                Ordering::Greater => false,
            })
    }
}

/// Returns whether the list names the service known as `svcOrg/version/name`.
pub fn names_service(services: &[ServiceId], identity: &str) -> bool {
    let mut parts = identity.splitn(3, '/');
    let (Some(org), Some(version), Some(name)) = (parts.next(), parts.next(), parts.next()) else {
        return false;
    };
    services.iter().any(|service| {
        service.org_id == org
            && service.service_name == name
            && VersionRange::parse(&service.version).is_some_and(|range| range.contains(version))
    })
}

/// Returns whether a service may see an object with this policy. Every service may if the policy names none.
pub fn is_visible(policy: Option<&DestinationPolicy>, identity: &str) -> bool {
    policy.is_none_or(|policy| policy.services.is_empty() || names_service(&policy.services, identity))
}

/// Returns whether the agbot places the object: the node runs a service of the policy and meets every
/// constraint.
pub fn places_on<'a>(
    policy: &DestinationPolicy,
    mut services: impl Iterator<Item = &'a str>,
    properties: &Properties,
) -> bool {
    services.any(|service| is_visible(Some(policy), service))
        && policy.constraints.iter().all(|constraint| fits(constraint, properties))
}

/// Returns whether one constraint is met: comparisons joined by `&&`/AND and `||`/OR, where AND binds
/// tighter. A comparison that cannot be parsed is not met.
fn fits(constraint: &str, properties: &Properties) -> bool {
    let normal = constraint.replace(" AND ", " && ").replace(" OR ", " || ");
    normal.split("||").any(|all| all.split("&&").all(|one| compares(one.trim(), properties)))
}

fn compares(comparison: &str, properties: &Properties) -> bool {
    let operators = ["==", "!=", "<=", ">=", "=", "<", ">"];
    let Some((at, operator)) =
        operators.iter().filter_map(|op| comparison.find(op).map(|at| (at, *op))).min_by_key(|(at, _)| *at)
    else {
        return false;
    };
    let (name, wanted) =
        (comparison[..at].trim(), comparison[at + operator.len()..].trim().trim_matches('"'));
    let actual = properties.get(name).map(|value| match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    });
    let Some(actual) = actual else { return operator == "!=" };
    let order = match (actual.parse::<f64>(), wanted.parse::<f64>()) {
        (Ok(a), Ok(b)) => a.partial_cmp(&b).unwrap_or(Ordering::Equal),
        _ => actual.as_str().cmp(wanted),
    };
    match operator {
        "==" | "=" => order == Ordering::Equal,
        "!=" => order != Ordering::Equal,
        "<=" => order != Ordering::Greater,
        ">=" => order != Ordering::Less,
        "<" => order == Ordering::Less,
        _ => order == Ordering::Greater,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contains(range: &str, version: &str) -> bool {
        VersionRange::parse(range).unwrap().contains(version)
    }

    #[test]
    fn a_plain_version_is_the_start_of_an_open_range() {
        assert!(contains("1.0.0", "1.0.0") && contains("1.0.0", "7.1.2") && !contains("1.0.0", "0.9.9"));
    }

    #[test]
    fn brackets_say_which_end_belongs() {
        assert!(contains("[1.0.0,2.0.0)", "1.0.0") && !contains("[1.0.0,2.0.0)", "2.0.0"));
        assert!(!contains("(1.0.0,2.0.0]", "1.0.0") && contains("(1.0.0,2.0.0]", "2.0.0"));
        assert!(contains("[1.0.0,INFINITY)", "99.0.0"));
    }

    #[test]
    fn what_is_no_range_is_refused() {
        for text in ["", "[", "[1.0.0", "latest", "[1.0.0;2.0.0)", "1.2.3.4"] {
            assert_eq!(VersionRange::parse(text), None, "{text}");
        }
    }

    #[test]
    fn constraints_are_held_against_the_node() {
        let node: Properties =
            serde_json::from_str(r#"{"purpose":"security","openhorizon.allowPrivileged":true,"cpus":4}"#)
                .unwrap();
        for yes in [
            "purpose == security",
            "openhorizon.allowPrivileged == true && cpus >= 4",
            "cpus < 2 || purpose = security",
        ] {
            assert!(fits(yes, &node), "{yes}");
        }
        for no in ["purpose == test", "absent == 1", "nonsense", "cpus > 10"] {
            assert!(!fits(no, &node), "{no}");
        }
    }
}
