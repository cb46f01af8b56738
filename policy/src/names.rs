//! What selectors call containers and nodes: the keys that mean more than a label, and the names that KubeArmor lets
//! them have as values.
//!
//! A list is written `a, b` or, as KubeArmor does for the containers of a pod, `[a, b]`; `*` is any. An entry of letters,
//! digits, `_`, `.` and `-` is that name and no other. Any other entry is KubeArmor's regular expression: the name must
//! begin with a match of it.

use regex_automata::Anchored;
use regex_automata::Input;
use regex_automata::dfa::{Automaton as _, StartKind, dense};
use regex_automata::nfa::thompson;
use regex_automata::util::syntax;

/// The container's name.
pub const CONTAINER_NAME: &str = "kubearmor.io/container.name";
/// The image as the runtime was given it.
pub const IMAGE: &str = "horizon.image";
/// The name of a Horizon service: the url of its definition, or what its deployment calls the container.
pub const SERVICE_NAME: &str = "horizon.service.name";
/// The url of a Horizon service.
pub const SERVICE_URL: &str = "horizon.service.url";
/// The organisation that owns a Horizon service.
pub const SERVICE_ORG: &str = "horizon.service.org";
/// The version of a Horizon service.
pub const SERVICE_VERSION: &str = "horizon.service.version";
/// The agreement under which a Horizon service runs.
pub const AGREEMENT: &str = "horizon.agreement";
/// What a container policy can select by besides labels.
pub const CONTAINER_KEYS: [&str; 7] =
    [CONTAINER_NAME, IMAGE, SERVICE_NAME, SERVICE_URL, SERVICE_ORG, SERVICE_VERSION, AGREEMENT];

/// The host's name, or Horizon's id of the node. KubeArmor's key, and Kubernetes' own.
pub const HOSTNAME: [&str; 2] = ["kubearmor.io/hostname", "kubernetes.io/hostname"];
/// A regular expression that the host's name begins with a match of.
pub const HOSTNAME_REGEX: [&str; 2] = ["kubearmor.io/hostnamereg", "kubernetes.io/hostnamereg"];
/// The node's architecture in Horizon's words, which are Kubernetes' too: `amd64`, `arm64`.
pub const ARCH: &str = "kubernetes.io/arch";
/// Always `linux`.
pub const OS: &str = "kubernetes.io/os";
/// Horizon's id of the node.
pub const NODE_ID: &str = "horizon.node.id";
/// The organisation of the node.
pub const NODE_ORG: &str = "horizon.node.org";
/// The node's built-in properties that Horizon tells a service.
pub const NODE_PROPERTIES: [&str; 5] = [
    "openhorizon.arch",
    "openhorizon.cpu",
    "openhorizon.memory",
    "openhorizon.hardwareId",
    "openhorizon.allowPrivileged",
];

/// Everything that a host policy can select by.
pub fn node_keys() -> impl Iterator<Item = &'static str> {
    HOSTNAME.into_iter().chain(HOSTNAME_REGEX).chain([ARCH, OS, NODE_ID, NODE_ORG]).chain(NODE_PROPERTIES)
}

/// The longest value, in bytes.
const MAX_VALUE: usize = 4096;
/// The largest automaton of one regular expression, and the most memory to make it with, in bytes.
const MAX_REGEX: usize = 256 << 10;

/// Why a value names nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// No entry at all.
    #[error("it names nothing; write a name, a list `a, b`, or '*' for all")]
    Empty,
    /// Longer than any list that is written by hand.
    #[error("it is longer than {MAX_VALUE} bytes")]
    Long,
    /// An entry is neither a name nor a regular expression that can be used.
    #[error("`{0}` is neither a name nor a regular expression of reasonable size")]
    Regex(String),
}

/// Names, one of which must be the one in question.
#[derive(Clone, Debug)]
pub struct Names(Vec<Entry>);

#[derive(Clone, Debug)]
enum Entry {
    Any,
    Exact(String),
    Begins(Box<dense::DFA<Vec<u32>>>),
}

impl Names {
    /// Names, and regular expressions, of containers.
    ///
    /// # Errors
    /// [`NameError`].
    pub fn with_regexes(value: &str) -> Result<Self, NameError> {
        Self::read(value, |entry| {
            if entry == "*" {
                return Ok(Entry::Any);
            }
            if entry.chars().all(is_plain) { Ok(Entry::Exact(entry.to_owned())) } else { regex(entry) }
        })
    }

    /// Exact names only.
    ///
    /// # Errors
    /// [`NameError`].
    pub fn exact(value: &str) -> Result<Self, NameError> {
        Self::read(value, |entry| Ok(if entry == "*" { Entry::Any } else { Entry::Exact(entry.to_owned()) }))
    }

    /// One regular expression for hosts' names, in which KubeArmor's `*` stands for any run of characters.
    ///
    /// # Errors
    /// [`NameError`].
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

    /// Whether `name` is one of them.
    pub fn matches(&self, name: &str) -> bool {
        self.matches_by(name, |entry, name| entry == name)
    }

    /// As [`Self::matches`]; how an exact name compares is the caller's.
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

/// Characters of which containers' names, hosts' names and versions are made.
fn is_plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-')
}

/// The entries of a list, trimmed. A comma within brackets is the regular expression's.
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

/// As KubeArmor, which puts the key before it, the regular expression holds from the beginning of the name and may end before
/// its end.
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
