//! This module words what several commands print.

/// Returns a number with the singular or plural of a word.
pub fn plural(number: usize, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}
