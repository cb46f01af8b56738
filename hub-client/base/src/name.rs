//! This module checks names that travel between hub and node: of bundles, objects, object types, orgs and
//! nodes.

/// Maximum length of a name in bytes.
pub const MAX_NAME: usize = 200;

/// A `BadName` is a name, shortened to [`MAX_NAME`], that cannot travel from hub to node.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the name {0:?} is not 1 to 200 of A-Z a-z 0-9 . _ - without \"..\"")]
pub struct BadName(String);

/// Refuses a type, id, org or node name that any server on the way would refuse.
///
/// Hub and node each accept more characters than the path between them does, and `..` in a URL path is
/// refused there.
pub fn check_name(name: &str) -> Result<(), BadName> {
    let fits = (1..=MAX_NAME).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
        && !name.contains("..")
        && name != ".";
    if fits { Ok(()) } else { Err(BadName(name.chars().take(MAX_NAME).collect())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_do_not_travel_are_refused() {
        for good in ["a", "hzn-armor.bundle", "Node_1.5-7.x", &"a".repeat(MAX_NAME)] {
            assert!(check_name(good).is_ok(), "{good}");
        }
        for bad in
            ["", ".", "..", "a..b", "a/b", "a b", "a%2fb", "ä", "a:b", "a\n", &"a".repeat(MAX_NAME + 1)]
        {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }
}
