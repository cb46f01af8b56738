//! Starts programs with exactly the arguments and the environment that a case names. As in `access`, the exit status is
//! an errno.

use std::ffi::CString;
use std::io;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};

use anyhow::ensure;

use crate::access::c_string;

pub const USAGE: &str = "
  words-exec PROGRAM ENTRY [WORD...]   starts PROGRAM with the words, its name among them, and ENTRY as its environment
  failed-exec PATH PROGRAM WORD...     the same without an environment, after it has failed to start PATH
  flip-exec PROGRAM NAME A B           starts PROGRAM with NAME and an argument that another thread changes from A to B and
                                   back all the time";

/// Runs a method; returns `None` if the words name none of these.
pub fn run(words: &[&str]) -> Option<anyhow::Result<()>> {
    Some(match words {
        ["words-exec", program, entry, words @ ..] => start(program, words, &[entry]),
        ["failed-exec", path, program, words @ ..] => {
            let failed = start(path, words, &[]);
            if failed.is_err() { start(program, words, &[]) } else { failed }
        }
        ["flip-exec", program, name, a, b] => flip(program, name, a, b),
        _ => return None,
    })
}

/// Becomes the program; returns only on an error.
fn start(program: &str, words: &[&str], environment: &[&str]) -> anyhow::Result<()> {
    let strings = |list: &[&str]| list.iter().map(|word| c_string(word)).collect::<anyhow::Result<Vec<_>>>();
    let (program, words, environment) = (c_string(program)?, strings(words)?, strings(environment)?);
    let pointers = |list: &[CString]| -> Vec<*const libc::c_char> {
        list.iter().map(|word| word.as_ptr()).chain([ptr::null()]).collect()
    };
    let (argv, envp) = (pointers(&words), pointers(&environment));
    // SAFETY: both arrays end in a null pointer, and their strings outlive the call.
    unsafe { libc::execve(program.as_ptr(), argv.as_ptr(), envp.as_ptr()) };
    Err(io::Error::last_os_error().into())
}

fn flip(program: &str, name: &str, a: &str, b: &str) -> anyhow::Result<()> {
    ensure!(a.len() == b.len(), "both arguments must have the same length");
    let (program, name) = (c_string(program)?, c_string(name)?);
    let both = [c_string(a)?, c_string(b)?];
    let argument: Arc<[AtomicU8]> =
        both[0].as_bytes_with_nul().iter().map(|byte| AtomicU8::new(*byte)).collect();
    let turns = Arc::new(AtomicUsize::new(0));
    let (changed, count) = (Arc::clone(&argument), Arc::clone(&turns));
    std::thread::spawn(move || {
        for text in both.iter().cycle() {
            for (place, byte) in changed.iter().zip(text.as_bytes()) {
                place.store(*byte, Ordering::Relaxed);
            }
            count.fetch_add(1, Ordering::Release);
        }
    });
    while turns.load(Ordering::Acquire) < 2 {
        std::hint::spin_loop();
    }
    let argv = [name.as_ptr(), argument.as_ptr().cast::<libc::c_char>(), ptr::null()];
    // SAFETY: the array ends in a null pointer. Its strings outlive the call and always end in a NUL, which nobody changes.
    unsafe { libc::execve(program.as_ptr(), argv.as_ptr(), [ptr::null()].as_ptr()) };
    Err(io::Error::last_os_error().into())
}
