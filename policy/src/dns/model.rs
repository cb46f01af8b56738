//! Defines the names that rules are about.

/// Longest name in bytes, written with dots (RFC 1035, 2.3.4: 255 bytes as it is sent).
const MAX_NAME: usize = 253;
/// Longest label in bytes (RFC 1035, 2.3.4).
const MAX_LABEL: usize = 63;

/// A `DnsName` is a name of at least one label, in lower case and without a dot at its ends.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DnsName(String);

/// A `BadName` says why a text is no [`DnsName`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadName {
    /// There is nothing but dots, or nothing between two of them.
    #[error("it has an empty label")]
    Empty,
    /// The name is longer than any that can be asked for.
    #[error("it has more than {MAX_NAME} bytes")]
    Long,
    /// A label is longer than any that can be asked for.
    #[error("it has a label of more than {MAX_LABEL} bytes")]
    LongLabel,
    /// A byte is none that host names have.
    #[error("it has `{0}`, but labels have letters, digits, `-` and `_`")]
    Character(char),
}

impl DnsName {
    /// Reads a name in any case. A dot before and behind it changes nothing.
    ///
    /// # Errors
    /// Fails if no question can be for the name.
    pub fn new(text: &str) -> Result<Self, BadName> {
        let name = text.strip_prefix('.').unwrap_or(text);
        let name = name.strip_suffix('.').unwrap_or(name);
        let allowed =
            |character: char| character.is_ascii_alphanumeric() || ['-', '_', '.'].contains(&character);
        match name.chars().find(|character| !allowed(*character)) {
            Some(character) => Err(BadName::Character(character)),
            None if name.split('.').any(str::is_empty) => Err(BadName::Empty),
            None if name.len() > MAX_NAME => Err(BadName::Long),
            None if name.split('.').any(|label| label.len() > MAX_LABEL) => Err(BadName::LongLabel),
            None => Ok(Self(name.to_ascii_lowercase())),
        }
    }

    /// Returns the name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns whether `other` is this name or below it.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        with_above(&other.0).any(|name| name == self.0)
    }
}

/// Returns a name and each name above it.
pub(super) fn with_above(name: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(name), |name| name.split_once('.').map(|(_, above)| above))
}

/// Returns the bytes that lead to a name through an automaton: backwards, with a slash before each label.
pub(super) fn backwards(name: &str) -> Vec<u8> {
    let slashed = |byte: u8| if byte == b'.' { b'/' } else { byte };
    std::iter::once(b'/').chain(name.bytes().rev().map(slashed)).collect()
}

impl std::fmt::Display for DnsName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}
