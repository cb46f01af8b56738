//! Defines the ids by which the kernel side knows containers.

use std::fmt;

use crate::contract::container_id;

/// Number of bytes of an id.
const BYTES: usize = size_of::<container_id>();

/// A `ContainerId` is the 64 hexadecimal digits that runtimes write into the name of a container's control
/// group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContainerId(pub(crate) [u8; BYTES]);

impl ContainerId {
    /// Parses 64 digits, in lower case as runtimes write them; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let digit = |byte: u8| match byte {
            b'0'..=b'9' => Some(byte - b'0'),
            b'a'..=b'f' => Some(byte - b'a' + 10),
            _ => None,
        };
        let mut id = [0; BYTES];
        if text.len() != 2 * BYTES {
            return None;
        }
        for (byte, pair) in id.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            *byte = digit(pair[0])? << 4 | digit(pair[1])?;
        }
        Some(Self(id))
    }
}

impl fmt::Display for ContainerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_64_digits() {
        let text = "0f".repeat(32);
        assert_eq!(ContainerId::parse(&text).expect("an id").to_string(), text);
        for wrong in ["", &text[1..], &text.to_uppercase(), &format!("{text}0"), &"g0".repeat(32)] {
            assert_eq!(ContainerId::parse(wrong), None, "{wrong}");
        }
    }
}
