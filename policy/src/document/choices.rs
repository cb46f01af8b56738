//! Holds what the operator decides for a migration, because the documents cannot tell it.

use super::fields::suggestion;
use super::mend::Ground;
use crate::model::Kind;
use crate::selector_keys::{self, CONTAINER_KEYS, NameError};
use std::str::FromStr;

/// What [`LabelMap`] reads in place of a key for `metadata.namespace`.
const NAMESPACE: &str = "metadata.namespace";

/// `Choices` are the decisions for one migration.
#[derive(Clone, Debug, Default)]
pub struct Choices {
    /// Names that are nearest to misspelt ones are taken for them.
    pub spelling: bool,
    /// What selectors become. The first one that is about a label counts.
    pub maps: Vec<LabelMap>,
}

/// A `LabelMap` says which condition of a Horizon selector takes the place of a label of Kubernetes. It is written
/// `FROM:KEY=VALUE`, or `FROM:KEY` to keep the value, where FROM is a label `KEY=VALUE`, a `KEY` whatever its value,
/// `metadata.namespace` in the same two forms, or nothing, for policies without a selector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelMap {
    from: From,
    key: String,
    /// `None` keeps the value.
    value: Option<String>,
    kind: Kind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum From {
    Missing,
    Namespace(Option<String>),
    Label(String, Option<String>),
}

/// A `LabelMapError` says why a text is no [`LabelMap`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LabelMapError {
    /// The text has no `:` or no key behind it.
    #[error("write LABEL:KEY=VALUE, such as app=shop:kubearmor.io/container.name=shop")]
    Form,
    /// Nothing gives the value.
    #[error("give the value too, as KEY=VALUE: a policy without a selector has none to keep")]
    Value,
    /// No node and no container is known by the key.
    #[error("nothing is known by `{0}`: {1}")]
    Key(String, String),
    /// The value names nothing.
    #[error("`{0}` would select nothing: {1}")]
    Name(String, NameError),
    /// A character of the text cannot be written into a policy.
    #[error("a control character, a quote or a backslash cannot be in it")]
    Character,
}

impl FromStr for LabelMap {
    type Err = LabelMapError;

    fn from_str(text: &str) -> Result<Self, LabelMapError> {
        if text.contains(|c: char| c.is_control() || matches!(c, '\'' | '"' | '\\')) {
            return Err(LabelMapError::Character);
        }
        let (from, to) = text.split_once(':').ok_or(LabelMapError::Form)?;
        let (from_key, from_value) = pair(from);
        let from = match from_key.as_str() {
            "" if from_value.is_none() => From::Missing,
            "" => return Err(LabelMapError::Form),
            NAMESPACE => From::Namespace(from_value),
            _ => From::Label(from_key, from_value),
        };
        let (key, value) = pair(to);
        if key.is_empty() {
            return Err(LabelMapError::Form);
        }
        if from == From::Missing && value.is_none() {
            return Err(LabelMapError::Value);
        }
        let is_node = selector_keys::node_keys().any(|known| known == key);
        let is_container = CONTAINER_KEYS.contains(&key.as_str());
        if !is_node && !is_container && selector_keys::is_ours(&key) {
            let known: Vec<&str> = CONTAINER_KEYS.into_iter().chain(selector_keys::node_keys()).collect();
            let help = suggestion(&key, &known);
            return Err(LabelMapError::Key(key, help));
        }
        if let Some(value) = value.as_deref().filter(|_| is_node || is_container) {
            selector_keys::check(&key, value).map_err(|error| LabelMapError::Name(key.clone(), error))?;
        }
        Ok(Self { from, key, value, kind: if is_node { Kind::Host } else { Kind::Container } })
    }
}

fn pair(text: &str) -> (String, Option<String>) {
    match text.split_once('=') {
        Some((key, value)) => (key.to_owned(), Some(value.to_owned())),
        None => (text.to_owned(), None),
    }
}

impl LabelMap {
    fn to(&self, value: &str) -> (String, String) {
        (self.key.clone(), self.value.clone().unwrap_or_else(|| value.to_owned()))
    }
}

impl Choices {
    /// Returns whether a mend on this ground is made.
    pub(crate) fn allow(&self, ground: Ground) -> bool {
        match ground {
            Ground::OneReading => true,
            Ground::Spelling => self.spelling,
        }
    }

    /// Returns what takes the place of a label, unless it is the same.
    pub(crate) fn label(&self, kind: Kind, key: &str, value: &str) -> Option<(String, String)> {
        let is_about = |map: &&LabelMap| {
            let From::Label(from, only) = &map.from else { return false };
            from == key && only.as_deref().is_none_or(|only| only == value)
        };
        let to = self.of(kind).find(is_about)?.to(value);
        (to != (key.to_owned(), value.to_owned())).then_some(to)
    }

    /// Returns the condition that is added for a namespace.
    pub(crate) fn namespace(&self, namespace: &str) -> Option<(String, String)> {
        let is_about = |map: &&LabelMap| {
            let From::Namespace(only) = &map.from else { return false };
            only.as_deref().is_none_or(|only| only == namespace)
        };
        Some(self.of(Kind::Container).find(is_about)?.to(namespace))
    }

    /// Returns the condition of policies without a selector.
    pub(crate) fn missing(&self, kind: Kind) -> Option<(String, String)> {
        Some(self.of(kind).find(|map| map.from == From::Missing)?.to(""))
    }

    fn of(&self, kind: Kind) -> impl Iterator<Item = &LabelMap> {
        self.maps.iter().filter(move |map| map.kind == kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_say_what_becomes_of_a_label() {
        let maps = [
            "app=web:horizon.service.url=shop/web",
            "app:kubearmor.io/container.name",
            "metadata.namespace=shop:horizon.service.org=retail",
            ":kubernetes.io/os=linux",
            "image:horizon.image=registry:5000/a",
        ];
        let maps = maps.map(|map| map.parse().unwrap()).to_vec();
        let choices = Choices { spelling: false, maps };
        let label = |key, value| {
            choices.label(Kind::Container, key, value).map(|(key, value)| format!("{key}={value}"))
        };
        assert_eq!(label("app", "web").unwrap(), "horizon.service.url=shop/web");
        assert_eq!(label("app", "db").unwrap(), "kubearmor.io/container.name=db");
        assert_eq!(label("image", "x").unwrap(), "horizon.image=registry:5000/a");
        assert_eq!(label("tier", "web"), None);
        assert_eq!(choices.label(Kind::Host, "app", "web"), None);
        assert_eq!(choices.namespace("shop").unwrap().1, "retail");
        assert_eq!(choices.namespace("default"), None);
        assert_eq!(choices.missing(Kind::Host).unwrap().0, "kubernetes.io/os");
        assert_eq!(choices.missing(Kind::Container), None);
    }

    #[test]
    fn what_is_no_map_is_refused() {
        for (text, error) in [
            ("app=web", LabelMapError::Form),
            ("app=web:", LabelMapError::Form),
            ("=web:tier=a", LabelMapError::Form),
            (":kubernetes.io/os", LabelMapError::Value),
            ("app:tier=a\"b", LabelMapError::Character),
        ] {
            assert_eq!(text.parse::<LabelMap>(), Err(error), "{text}");
        }
        let error = "app:horizon.servce.url=web".parse::<LabelMap>().unwrap_err().to_string();
        assert!(error.contains("did you mean `horizon.service.url`"), "{error}");
        let error = "app:kubearmor.io/container.name=web(".parse::<LabelMap>().unwrap_err();
        assert!(matches!(error, LabelMapError::Name(..)), "{error}");
    }
}
