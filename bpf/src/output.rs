//! Collects libbpf's messages: all go to the log at debug level, the last warnings also into the error that
//! they explain.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use libbpf_rs::{PrintLevel, set_print};

/// Number of warnings kept: libbpf uses four to give the failed program, the verifier's log, and what that
/// means for the object.
const MAX_WARNINGS: usize = 8;
/// Number of lines kept of one warning, its last ones: the verifier gives its reason at the end, after
/// thousands of lines.
const MAX_LINES: usize = 12;

static WARNINGS: Mutex<VecDeque<String>> = Mutex::new(VecDeque::new());

/// Redirects libbpf's output, for the whole process.
pub(crate) fn listen() {
    set_print(Some((PrintLevel::Info, hear)));
}

/// Returns the warnings since the last call, each on lines of its own after a line break; empty if there were
/// none.
pub(crate) fn warnings() -> String {
    let heard = std::mem::take(&mut *WARNINGS.lock().unwrap_or_else(PoisonError::into_inner));
    heard.iter().map(|warning| format!("\n{warning}")).collect()
}

fn hear(level: PrintLevel, text: String) {
    let text = text.trim_end();
    tracing::debug!(target: "libbpf", "{text}");
    if level != PrintLevel::Warn {
        return;
    }
    let mut warnings = WARNINGS.lock().unwrap_or_else(PoisonError::into_inner);
    if warnings.len() == MAX_WARNINGS {
        warnings.pop_front();
    }
    warnings.push_back(shortened(text));
}

fn shortened(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    match lines.len().checked_sub(MAX_LINES) {
        Some(more @ 1..) => format!("{}\n[{more} lines]\n{}", lines[0], lines[more..].join("\n")),
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_warnings_are_told_once_and_long_ones_by_their_end() {
        hear(PrintLevel::Info, "libbpf: loading\n".into());
        for number in 0..20 {
            hear(PrintLevel::Warn, format!("libbpf: {number}\n"));
        }
        let log: String = (0..1000).map(|line| format!("line {line}\n")).collect();
        hear(PrintLevel::Warn, log);
        let told = warnings();
        assert!(told.starts_with("\nlibbpf: 13\nlibbpf: 14\n"), "{told}");
        assert!(told.contains("\nline 0\n[988 lines]\nline 988\n") && told.ends_with("line 999"), "{told}");
        assert_eq!(warnings(), "");
    }
}
