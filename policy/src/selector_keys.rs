//! Defines the keys of selectors that mean more than a label, and the values that KubeArmor accepts for them.
//!
//! A list is written `a, b` or, as in KubeArmor for the containers of a pod, `[a, b]`; `*` matches any name.
//! An entry of letters, digits, `_`, `.` and `-` matches exactly that name. Any other entry is a regular
//! expression as in KubeArmor, matched at the start of the name.

use regex_automata::Anchored;
use regex_automata::Input;
use regex_automata::dfa::{Automaton as _, StartKind, dense};
use regex_automata::nfa::thompson;
use regex_automata::util::syntax;

/// Key for the container's name.
pub const CONTAINER_NAME: &str = "kubearmor.io/container.name";
/// Key for the image, as it was given to the runtime.
pub const IMAGE: &str = "horizon.image";
/// Key for the name of a Horizon service: the url of its definition, or the container's name in its
/// deployment.
pub const SERVICE_NAME: &str = "horizon.service.name";
/// Key for the url of a Horizon service.
pub const SERVICE_URL: &str = "horizon.service.url";
/// Key for the organisation that owns a Horizon service.
pub const SERVICE_ORG: &str = "horizon.service.org";
/// Key for the version of a Horizon service.
pub const SERVICE_VERSION: &str = "horizon.service.version";
/// Key for the agreement under which a Horizon service runs.
pub const AGREEMENT: &str = "horizon.agreement";
/// All keys besides labels by which a container policy can select.
pub const CONTAINER_KEYS: [&str; 7] =
    [CONTAINER_NAME, IMAGE, SERVICE_NAME, SERVICE_URL, SERVICE_ORG, SERVICE_VERSION, AGREEMENT];

/// Keys of KubeArmor and of Kubernetes for the host's name or Horizon's id of the node.
pub const HOSTNAME: [&str; 2] = ["kubearmor.io/hostname", "kubernetes.io/hostname"];
/// Keys for a regular expression that is matched at the start of the host's name.
pub const HOSTNAME_REGEX: [&str; 2] = ["kubearmor.io/hostnamereg", "kubernetes.io/hostnamereg"];
/// Key for the node's architecture, named as in Horizon and Kubernetes: `amd64`, `arm64`.
pub const ARCH: &str = "kubernetes.io/arch";
/// Key for the node's operating system, which is always `linux`.
pub const OS: &str = "kubernetes.io/os";
/// Key for Horizon's id of the node.
pub const NODE_ID: &str = "horizon.node.id";
/// Key for the node's organisation.
pub const NODE_ORG: &str = "horizon.node.org";
/// Keys for the built-in properties of the node that Horizon passes to a service.
pub const NODE_PROPERTIES: [&str; 5] = [
    "openhorizon.arch",
    "openhorizon.cpu",
    "openhorizon.memory",
    "openhorizon.hardwareId",
    "openhorizon.allowPrivileged",
];

/// Returns all keys by which a host policy can select.
pub fn node_keys() -> impl Iterator<Item = &'static str> {
    HOSTNAME.into_iter().chain(HOSTNAME_REGEX).chain([ARCH, OS, NODE_ID, NODE_ORG]).chain(NODE_PROPERTIES)
}

/// Returns whether only KubeArmor and Horizon define such keys. Other keys of KubeArmor may be labels of
/// containers.
pub(crate) fn is_ours(key: &str) -> bool {
    key.starts_with("horizon.")
        || key.starts_with("kubearmor.io/host")
        || key.starts_with("kubearmor.io/container.")
}

/// Checks the value of a key by which nodes or containers are known.
///
/// # Errors
/// Fails if it names nothing.
pub(crate) fn check(key: &str, value: &str) -> Result<(), NameError> {
    let names = if key == CONTAINER_NAME {
        Names::with_regexes(value)
    } else if HOSTNAME_REGEX.contains(&key) {
        Names::hostname_regex(value)
    } else {
        Names::exact(value)
    };
    names.map(drop)
}

/// Length of the longest value, in bytes.
const MAX_VALUE: usize = 4096;
/// Largest size of the automaton of one regular expression, and of the memory to build it with, in bytes.
const MAX_REGEX: usize = 256 << 10;

/// A `NameError` says why a value names nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The value has no entry.
    #[error("it names nothing; write a name, a list `a, b`, or '*' for all")]
    Empty,
    /// The value is longer than any list that is written by hand.
    #[error("it is longer than {MAX_VALUE} bytes")]
    Long,
    /// An entry is neither a name nor a regular expression that can be used.
    #[error("`{0}` is neither a name nor a regular expression of reasonable size")]
    Regex(String),
}

/// A `Names` is a list of names and regular expressions, any of which may match.
#[derive(Clone, Debug)]
pub struct Names(Vec<Entry>);

#[derive(Clone, Debug)]
enum Entry {
    Any,
    Exact(String),
    Begins(Box<dense::DFA<Vec<u32>>>),
}

impl Names {
    /// Parses names of containers and regular expressions for them.
    ///
    /// # Errors
    /// Fails if the value names nothing, is too long, or has an unusable regular expression.
    pub fn with_regexes(value: &str) -> Result<Self, NameError> {
        Self::read(value, |entry| {
            if entry == "*" {
                return Ok(Entry::Any);
            }
            if entry.chars().all(is_plain) { Ok(Entry::Exact(entry.to_owned())) } else { regex(entry) }
        })
    }

    /// Parses exact names.
    ///
    /// # Errors
    /// Fails if the value names nothing or is too long.
    pub fn exact(value: &str) -> Result<Self, NameError> {
        Self::read(value, |entry| Ok(if entry == "*" { Entry::Any } else { Entry::Exact(entry.to_owned()) }))
    }

    /// Parses one regular expression for names of hosts, in which KubeArmor's `*` stands for any run of
    /// characters.
    ///
    /// # Errors
    /// Fails if the value is empty, too long, or not a usable regular expression.
    pub fn hostname_regex(value: &str) -> Result<Self, NameError> {
        let value = value.trim();
        match value.len() {
            0 => Err(NameError::Empty),
            1..=MAX_VALUE => Ok(Self(vec![regex(&value.replace(".*", "*").replace('*', ".*"))?])),
            _ => Err(NameError::Long),
        }
    }

    fn read(value: &str, entry: impl Fn(&str) -> Result<Entry, NameError>) -> Result<Self, NameError> {
        if value.len() > MAX_VALUE {
            return Err(NameError::Long);
        }
        let entries =
            split(value).filter(|part| !part.is_empty()).map(entry).collect::<Result<Vec<_>, _>>()?;
        if entries.is_empty() { Err(NameError::Empty) } else { Ok(Self(entries)) }
    }

    /// Returns whether an entry matches `name`.
    pub fn matches(&self, name: &str) -> bool {
        self.matches_by(name, |entry, name| entry == name)
    }

    /// Returns whether an entry matches `name`; exact names are compared by `same`.
    pub fn matches_by(&self, name: &str, same: impl Fn(&str, &str) -> bool) -> bool {
        self.0.iter().any(|entry| match entry {
            Entry::Any => true,
            Entry::Exact(exact) => same(exact, name),
            Entry::Begins(dfa) => dfa
                .try_search_fwd(&Input::new(name).anchored(Anchored::Yes).earliest(true))
                .is_ok_and(|found| found.is_some()),
        })
    }
}

/// Returns whether a character occurs in names of containers and hosts, and in versions.
fn is_plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-')
}

/// Splits a list into its trimmed entries. A comma within brackets is part of a regular expression.
fn split(value: &str) -> impl Iterator<Item = &str> {
    let value = value.trim();
    let list = value
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .filter(|list| list.chars().all(|c| is_plain(c) || c == ',' || c.is_whitespace()));
    let mut depth = 0_u32;
    list.unwrap_or(value)
        .split(move |c| {
            match c {
                '(' | '[' | '{' => depth += 1,
                ')' | ']' | '}' => depth = depth.saturating_sub(1),
                _ => {}
            }
            c == ',' && depth == 0
        })
        .map(str::trim)
}

/// Compiles a regular expression that must match the beginning of a name, as in KubeArmor, which puts the key
/// before it.
fn regex(text: &str) -> Result<Entry, NameError> {
    let dfa = dense::Builder::new()
        .configure(
            dense::Config::new()
                .start_kind(StartKind::Anchored)
                .dfa_size_limit(Some(MAX_REGEX))
                .determinize_size_limit(Some(MAX_REGEX)),
        )
        .syntax(syntax::Config::new().unicode(false).utf8(false).nest_limit(32))
        .thompson(thompson::Config::new().nfa_size_limit(Some(MAX_REGEX)))
        .build(text)
        .map_err(|_| NameError::Regex(text.to_owned()))?;
    Ok(Entry::Begins(Box::new(dfa)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lists_and_regexes_select_what_they_say() {
        for (value, yes, no) in [
            ("web", &["web"][..], &["webserver", "my-web", ""][..]),
            ("web, db", &["web", "db"], &["web, db"]),
            ("[container-1, c2,,]", &["container-1", "c2"], &["c", "container-2"]),
            ("*", &["anything"], &[]),
            (".*", &["anything"], &[]),
            ("^web-[0-9]+$", &["web-123"], &["web-", "myweb-1", "web-1x"]),
            ("web-[0-9]{1,2}, db", &["web-12", "db"], &["web-x", "dbase"]),
            ("(a|b),c", &["a1", "bee", "c"], &["cc"]),
        ] {
            let names = Names::with_regexes(value).unwrap();
            for name in yes {
                assert!(names.matches(name), "{value} selects {name}");
            }
            for name in no {
                assert!(!names.matches(name), "{value} does not select {name}");
            }
        }
        let hosts = Names::hostname_regex("node-*").unwrap();
        assert!(hosts.matches("node-42") && hosts.matches("node-") && !hosts.matches("my-node-42"));
        assert!(Names::hostname_regex("gw-.*").unwrap().matches("gw-"));
        let versions = Names::exact("1.0.0, 1.1.0").unwrap();
        assert!(versions.matches("1.1.0") && !versions.matches("1x1.0") && !versions.matches("1.0.01"));
    }

    #[test]
    fn what_names_nothing_is_refused() {
        for empty in ["", " ", "[]", ",", "[ , ]"] {
            assert_eq!(Names::with_regexes(empty).unwrap_err(), NameError::Empty, "{empty:?}");
            assert_eq!(Names::exact(empty).unwrap_err(), NameError::Empty, "{empty:?}");
        }
        for bad in ["web(", "a{1000}{1000}{1000}", "(?P<a", "*web"] {
            assert_eq!(Names::with_regexes(bad).unwrap_err(), NameError::Regex(bad.to_owned()));
        }
        assert_eq!(Names::with_regexes(&"a".repeat(5000)).unwrap_err(), NameError::Long);
    }
}
