//! This crate writes to standard output and standard error, either of which may be closed or full, and parses
//! command lines, for the two programs `hzn-armor` and `hzn-armor-agent`.
//!
//! It is a crate of its own so that the libraries below them need not compile clap.
//!
//! Invariants: nothing here panics; output that could not be written to standard output is an error of the
//! program; a reader that closed its end early (as `head` does) or never existed gets no message; a failed
//! write to standard error is ignored.

// The print macros panic if standard output or standard error is closed; this crate does not.
#![warn(clippy::print_stdout, clippy::print_stderr)]

use std::error::Error;
use std::fmt;
use std::io::{self, IsTerminal as _, StdoutLock, Write};
use std::iter::successors;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};

/// Exit status if standard output did not take everything.
const UNWRITTEN: u8 = 1;

/// An `Unwritten` says that standard output does not take what is written.
#[derive(Debug, thiserror::Error)]
#[error("standard output: {0}")]
struct Unwritten(io::Error);

/// Set if the program was started with a standard output that can be written to.
static WAS_OPEN: AtomicBool = AtomicBool::new(true);

/// Before `main`, the standard library opens /dev/null in place of a closed descriptor, and it treats a write
/// that fails with EBADF as done. So this runs earlier and records the original state.
#[used]
// SAFETY: an entry of this section is a function of the C ABI; the C library calls it once, before another
// thread exists.
#[unsafe(link_section = ".init_array")]
static NOTE: extern "C" fn() = note;

extern "C" fn note() {
    // SAFETY: F_GETFL takes no pointer, and returns -1 for a descriptor that is not open.
    let flags = unsafe { libc::fcntl(libc::STDOUT_FILENO, libc::F_GETFL) };
    WAS_OPEN.store(flags != -1 && flags & libc::O_ACCMODE != libc::O_RDONLY, Ordering::Relaxed);
}

/// `Stdout` writes to standard output; its errors name it.
pub struct Stdout(StdoutLock<'static>);

/// Locks standard output and returns it.
#[must_use]
pub fn stdout() -> Stdout {
    Stdout(io::stdout().lock())
}

/// Checks that standard output is open. A command calls this before an action whose result it prints only
/// afterwards.
///
/// # Errors
/// Fails if standard output was closed, or not open for writing, when the program was started. [`fail`]
/// prints no message for this error.
pub fn expect_reader() -> io::Result<()> {
    if WAS_OPEN.load(Ordering::Relaxed) { Ok(()) } else { Err(unwritten(io::ErrorKind::BrokenPipe.into())) }
}

fn unwritten(error: io::Error) -> io::Error {
    io::Error::new(error.kind(), Unwritten(error))
}

impl Write for Stdout {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        expect_reader()?;
        self.0.write(bytes).map_err(unwritten)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush().map_err(unwritten)
    }
}

/// Writes a line to standard error.
pub fn tell(line: impl fmt::Display) {
    // One write, because others may write there too.
    let _ = io::stderr().write_all(format!("{line}\n").as_bytes());
}

/// Parses the command line. For help, version or a usage error it prints that text.
///
/// # Errors
/// Returns the status to exit with after the text was printed.
pub fn arguments<A: clap::Parser>(program: &str) -> Result<A, ExitCode> {
    A::try_parse().map_err(|shown| {
        let status = || u8::try_from(shown.exit_code()).map_or(ExitCode::FAILURE, ExitCode::from);
        if shown.use_stderr() {
            // A failed write to standard error is ignored.
            let _ = shown.print();
            return status();
        }
        let text = shown.render();
        let text = if io::stdout().is_terminal() { text.ansi().to_string() } else { text.to_string() };
        let mut out = stdout();
        match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
            Ok(()) => status(),
            Err(error) => fail(program, &error, UNWRITTEN),
        }
    })
}

/// Returns a parser of an option that takes one of several words. Each comes with its help, which may be empty,
/// and with the value that it stands for.
pub fn one_of<T: Clone + Send + Sync + 'static, const N: usize>(
    words: [(&'static str, &'static str, T); N],
) -> impl TypedValueParser<Value = T> {
    let possible = words.each_ref().map(|(word, help, _)| {
        let value = PossibleValue::new(*word);
        if help.is_empty() { value } else { value.help(*help) }
    });
    PossibleValuesParser::new(possible).try_map(move |word| {
        let found = words.iter().find(|(known, ..)| *known == word);
        found.map(|(.., value)| value.clone()).ok_or("no such word")
    })
}

/// Prints why `program` failed, and returns the exit status: `status`, but 1 if standard output took no more.
pub fn fail(program: &str, error: &(dyn Error + 'static), status: u8) -> ExitCode {
    let cause = causes(error).filter_map(|cause| cause.downcast_ref::<io::Error>());
    let unwritten = cause.filter(|cause| cause.get_ref().is_some_and(|inner| inner.is::<Unwritten>())).last();
    if unwritten.is_none_or(|cause| cause.kind() != io::ErrorKind::BrokenPipe) {
        tell(format_args!("{program}: {}", reason(error)));
    }
    ExitCode::from(if unwritten.is_some() { UNWRITTEN } else { status })
}

/// Returns an error and its causes in one line. Many errors name their cause themselves, so each text appears
/// once.
fn reason(error: &(dyn Error + 'static)) -> String {
    let mut line = String::new();
    for cause in causes(error) {
        let text = cause.to_string();
        if !line.contains(&text) {
            if !line.is_empty() {
                line.push_str(": ");
            }
            line.push_str(&text);
        }
    }
    line
}

fn causes<'e>(error: &'e (dyn Error + 'static)) -> impl Iterator<Item = &'e (dyn Error + 'static)> {
    successors(Some(error), |cause| (**cause).source())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{place}: {source}")]
    struct Named {
        place: &'static str,
        source: io::Error,
    }

    #[test]
    fn each_thing_is_said_once() {
        let named = |place| Named { place, source: io::Error::other("no room") };
        assert_eq!(reason(&named("disk")), "disk: no room");
        #[derive(Debug, thiserror::Error)]
        #[error("nothing built")]
        struct Outer(#[source] Named);
        assert_eq!(reason(&Outer(named("disk"))), "nothing built: disk: no room");
    }

    #[test]
    fn a_program_that_could_not_print_ends_with_1() {
        let printed = Named { place: "alerts", source: unwritten(io::ErrorKind::BrokenPipe.into()) };
        assert_eq!(fail("p", &printed, 125), ExitCode::from(1));
        let other = Named { place: "socket", source: io::ErrorKind::BrokenPipe.into() };
        assert_eq!(fail("p", &other, 125), ExitCode::from(125));
    }
}
