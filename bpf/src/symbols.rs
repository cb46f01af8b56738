//! Checks that the programs see the addresses of the kernel's variables that they read (`names/walk.bpf.h`).
//!
//! libbpf takes addresses from `/proc/kallsyms`, and the kernel prints 0 for addresses that it hides from the
//! reader (`kallsyms_show_value`). Programs with such an address load and refuse, but never see that a name
//! or a mount moved.

use std::fs::File;
use std::io::{self, BufRead, BufReader};

use thiserror::Error;

const VARIABLES: [&str; 2] = ["rename_lock", "mount_lock"];

/// An `Unseen` says why the programs would not find these variables.
#[derive(Debug, Error)]
pub enum Unseen {
    /// `/proc/kallsyms` cannot be read.
    #[error("/proc/kallsyms: {0}: the agent needs the host's /proc, of a kernel with CONFIG_KALLSYMS=y")]
    Unreadable(#[from] io::Error),
    /// The kernel does not name its variables.
    #[error(
        "/proc/kallsyms does not name rename_lock and mount_lock: a kernel with CONFIG_KALLSYMS_ALL=y is needed"
    )]
    Unnamed,
    /// The kernel hides their addresses from this process.
    #[error(
        "/proc/kallsyms hides the addresses of rename_lock and mount_lock: the agent needs CAP_SYSLOG, and the sysctl \
         kernel.kptr_restrict must not be 2"
    )]
    Hidden,
}

/// Checks that this process sees the addresses.
pub(crate) fn seen() -> Result<(), Unseen> {
    seen_in(BufReader::new(File::open("/proc/kallsyms")?))
}

/// Returns whether the kernel has a function of this name.
pub(crate) fn is_named(function: &str) -> io::Result<bool> {
    let symbols = BufReader::new(File::open("/proc/kallsyms")?);
    for line in symbols.lines() {
        if line?.split_whitespace().nth(2) == Some(function) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Checks the addresses in `symbols`, whose lines are address, type and name; a module's symbol has the
/// module's name behind that.
fn seen_in(mut symbols: impl BufRead) -> Result<(), Unseen> {
    let (mut line, mut seen) = (String::new(), [false; VARIABLES.len()]);
    while symbols.read_line(&mut line)? > 0 {
        let words: Vec<_> = line.split_whitespace().collect();
        if let [address, _, name] = words[..]
            && let Some(variable) = VARIABLES.iter().position(|variable| *variable == name)
        {
            if address.bytes().all(|digit| digit == b'0') {
                return Err(Unseen::Hidden);
            }
            seen[variable] = true;
        }
        line.clear();
    }
    if seen.contains(&false) { Err(Unseen::Unnamed) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_seen_hidden_or_not_named() {
        let both =
            "ffffffff81000000 T _text\nffffffff82a00100 D rename_lock\nffffffff82a00200 D mount_lock\n";
        let twice = both.replace("rename_lock", "mount_lock");
        for (symbols, expected) in [
            (both.to_owned(), "seen"),
            (both.replace("ffffffff82a00200", "0000000000000000"), "hidden"),
            (both.replace("D mount_lock", "D mount_lock\t[other]"), "not named"),
            (twice, "not named"),
            ("ffffffff81000000 T _text\n".to_owned(), "not named"),
            (String::new(), "not named"),
        ] {
            let found = match seen_in(symbols.as_bytes()) {
                Ok(()) => "seen",
                Err(Unseen::Hidden) => "hidden",
                Err(Unseen::Unnamed) => "not named",
                Err(Unseen::Unreadable(_)) => "not readable",
            };
            assert_eq!(found, expected, "{symbols}");
        }
    }
}
