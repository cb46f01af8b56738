//! Finds the program that runs a script, following `#!` as the kernel (`binfmt_script`) and `env` do.

use std::path::{Path, PathBuf};
use std::str;

use armor_base::file::{self, Links};
use armor_policy::escaped;

use super::find_program;
use crate::workloads::root::Root;

/// Number of bytes at a file's start that the kernel reads (`BINPRM_BUF_SIZE`).
const BEGINNING: usize = 256;
/// Maximum depth of scripts that are interpreters of scripts, in the kernel.
const MAX_SCRIPTS: usize = 5;
/// Options of `env` that take the next word.
const WITH_WORD: [&[u8]; 6] = [b"-u", b"--unset", b"-C", b"--chdir", b"-a", b"--argv0"];

/// `Runs` says what runs a script.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Runs {
    /// A program.
    Program(PathBuf),
    /// The shell that starts the script, since the kernel rejects a file without an interpreter.
    Starter,
    /// It cannot be determined, for this reason.
    Unknown(String),
}

/// Returns what runs `file`, which is no symlink; `None` if the file itself runs or cannot be read.
pub(super) fn of(root: &Root, file: &Path) -> Option<Runs> {
    let mut file = file.to_owned();
    let mut last = None;
    for _ in 0..=MAX_SCRIPTS {
        match named(root, &file) {
            Some(Runs::Program(program)) => {
                last = Some(Runs::Program(program.clone()));
                file = program;
            }
            None => return last,
            other => return other,
        }
    }
    Some(Runs::Unknown(format!(
        "its interpreters lead to no program in {MAX_SCRIPTS} steps, the kernel's limit"
    )))
}

/// Returns what the first line of a file names; `None` if it is no script.
fn named(root: &Root, file: &Path) -> Option<Runs> {
    // Reads no more than the kernel does, and only from regular files.
    let beginning = file::read_start(file::open(&root.find(file)?, Links::Refuse).ok()?, BEGINNING).ok()?;
    let Some(line) = beginning.strip_prefix(b"#!") else {
        let is_text = !beginning.is_empty() && !beginning.contains(&0) && !beginning.starts_with(b"\x7fELF");
        return is_text.then_some(Runs::Starter);
    };
    let is_whole = line.contains(&b'\n') || beginning.len() < BEGINNING;
    let line = line.split(|byte| *byte == b'\n').next()?.trim_ascii_start();
    let end = line.iter().position(|byte| matches!(byte, b' ' | b'\t' | 0));
    let (name, argument) = match end {
        Some(end) => line.split_at(end),
        None if is_whole => (line, &[][..]),
        None => return Some(Runs::Starter),
    };
    if name.is_empty() {
        return Some(Runs::Starter);
    }
    let is_env = name.rsplit(|byte| *byte == b'/').next() == Some(b"env");
    Some(match is_env.then(|| run_by_env(argument)).flatten() {
        Some(program) if !program.contains(&b'/') => by_name(root, &program),
        program => at_path(root, program.as_deref().unwrap_or(name)),
    })
}

fn at_path(root: &Root, name: &[u8]) -> Runs {
    match str::from_utf8(name) {
        Ok(name) if name.starts_with('/') => Runs::Program(root.resolve(name, true)),
        Ok(_) => Runs::Unknown(format!(
            "its interpreter {} is another one in each working directory: write an absolute path into its first line",
            escaped(name)
        )),
        Err(_) => Runs::Unknown(format!(
            "no policy can name its interpreter, {}, which is not UTF-8",
            escaped(name)
        )),
    }
}

fn by_name(root: &Root, name: &[u8]) -> Runs {
    let found = str::from_utf8(name).ok().and_then(|name| find_program(root, name));
    found.map_or_else(
        || Runs::Unknown(format!("env finds no program {} for it", escaped(name))),
        Runs::Program,
    )
}

/// Returns the program among the arguments of `env`. The kernel passes them all as one argument; they are
/// split here even without `-S`, because that is what the author meant.
fn run_by_env(argument: &[u8]) -> Option<Vec<u8>> {
    let mut words = words(argument).into_iter();
    while let Some(word) = words.next() {
        if let Some(split) = split_string(&word) {
            if !split.is_empty() {
                return Some(split.to_owned());
            }
        } else if WITH_WORD.contains(&word.as_slice()) {
            words.next();
        } else if !word.starts_with(b"-") && !word.contains(&b'=') {
            return Some(word);
        }
    }
    None
}

/// Returns the rest of a word with the option `-S`: `-Spython3`, `-iSpython3`.
fn split_string(word: &[u8]) -> Option<&[u8]> {
    if let Some(rest) = word.strip_prefix(b"--split-string") {
        return Some(rest.strip_prefix(b"=").unwrap_or(rest));
    }
    let flags = word.strip_prefix(b"-")?;
    let at = flags.iter().position(|flag| !matches!(flag, b'i' | b'0' | b'v'))?;
    flags[at..].strip_prefix(b"S")
}

/// Splits at blanks, removing the quotes that keep words together.
fn words(text: &[u8]) -> Vec<Vec<u8>> {
    let mut words = Vec::new();
    let mut word: Option<Vec<u8>> = None;
    let mut quote = None;
    for &byte in text.split(|byte| *byte == 0).next().unwrap_or_default() {
        match (quote, byte) {
            (Some(open), _) if byte == open => quote = None,
            (None, b'"' | b'\'') => {
                quote = Some(byte);
                word.get_or_insert_default();
            }
            (None, b' ' | b'\t') => words.extend(word.take()),
            _ => word.get_or_insert_default().push(byte),
        }
    }
    words.extend(word);
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn what_runs_is_at_the_end_of_what_the_first_lines_name() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::at(dir.path().to_owned());
        let bin = dir.path().join("usr/bin");
        fs::create_dir_all(&bin).unwrap();
        let write = |name: &str, content: &[u8]| fs::write(bin.join(name), content).unwrap();
        write("dash", b"\x7fELF");
        write("python3.11", b"\x7fELF");
        symlink("dash", bin.join("sh")).unwrap();
        symlink("python3.11", bin.join("python3")).unwrap();
        write("l1", b"#!/usr/bin/sh");
        for level in 2..=6 {
            write(&format!("l{level}"), format!("#!/usr/bin/l{}", level - 1).as_bytes());
        }
        let long = [b"#!/", [b'x'; 300].as_slice()].concat();
        let program = |name: &str| Some(Runs::Program(Path::new("/usr/bin").join(name)));
        let unknown = |why: &str| Some(Runs::Unknown(why.to_owned()));
        for (content, runs) in [
            (&b"\x7fELF"[..], None),
            (b"", None),
            (b"binary\0", None),
            (b"echo\n", Some(Runs::Starter)),
            (b"#!\n/bin/sh", Some(Runs::Starter)),
            (&long, Some(Runs::Starter)),
            (b"#! \t/usr/bin/sh\t-e\n", program("dash")),
            (b"#!/usr/bin/sh \xff\n", program("dash")),
            (b"#!/usr/bin/sh\0x", program("dash")),
            (b"#!/usr/bin/l4\n", program("dash")),
            (b"#!/usr/bin/gone\n", program("gone")),
            (b"#!/usr/bin/env python3\n", program("python3.11")),
            (b"#!/usr/bin/env l1\n", program("dash")),
            (b"#!/usr/bin/env -S \"python3\" -u\n", program("python3.11")),
            (b"#!/usr/bin/env -S'python3'\n", program("python3.11")),
            (b"#!/usr/bin/env -iS A=b python3\n", program("python3.11")),
            (b"#!/usr/bin/env --split-string=python3 -u\n", program("python3.11")),
            (b"#!/usr/bin/env -u FOO -C /tmp python3\n", program("python3.11")),
            (b"#!/usr/bin/env /usr/bin/sh\n", program("dash")),
            (b"#!/usr/bin/env\n", program("env")),
            (b"#!/usr/bin/env no\xffsuch\n", unknown(r"env finds no program no\xffsuch for it")),
            (
                b"#!./rel\n",
                unknown(
                    "its interpreter ./rel is another one in each working directory: write an absolute path into its \
                     first line",
                ),
            ),
            (
                b"#!/usr/bin/\xff\n",
                unknown(r"no policy can name its interpreter, /usr/bin/\xff, which is not UTF-8"),
            ),
            (
                b"#!/usr/bin/l5\n",
                unknown("its interpreters lead to no program in 5 steps, the kernel's limit"),
            ),
        ] {
            write("script", content);
            assert_eq!(of(&root, Path::new("/usr/bin/script")), runs, "{}", content.escape_ascii());
        }
    }
}
