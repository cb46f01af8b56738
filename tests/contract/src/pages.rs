//! This module checks the commands that the pages show: each is looked up in the `--help` of its program.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Pages with commands to type.
pub const PAGES: [&str; 3] = ["README.md", "CONTRIBUTING.md", "docs/operations.md"];

/// A `Call` is a command in a page.
#[derive(Debug)]
pub struct Call {
    /// Page and line number.
    pub place: String,
    /// Words that follow the program's name, up to `--`, `|` or the like.
    pub words: Vec<String>,
}

/// Returns the path of a file of the project.
#[must_use]
pub fn file(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
}

/// Returns the code blocks of a page in one language, each with the number of the line before it.
///
/// # Errors
/// Fails if the page cannot be read.
pub fn blocks(page: &str, language: &str) -> Result<Vec<(usize, String)>, String> {
    let text = read(page)?;
    let fence = format!("```{language}");
    let mut found: Vec<(usize, String)> = Vec::new();
    let mut inside = false;
    for (index, line) in text.lines().enumerate() {
        if inside && line == "```" {
            inside = false;
        } else if inside && let Some((_, block)) = found.last_mut() {
            block.push_str(line);
            block.push('\n');
        } else if line == fence {
            inside = true;
            found.push((index + 1, String::new()));
        }
    }
    Ok(found)
}

/// Returns every call of a program in the pages: its name as a command, `/NAME` in a container, or an image
/// called `NAME_...`.
///
/// # Errors
/// Fails if a page cannot be read.
pub fn calls(program: &str) -> Result<Vec<Call>, String> {
    let mut calls = Vec::new();
    for page in PAGES {
        for (number, line) in command_lines(page)? {
            let words: Vec<&str> = line
                .split_whitespace()
                .take_while(|word| !word.starts_with('#'))
                .map(|word| word.trim_matches(['\'', '"', '(', ')']))
                .collect();
            calls.extend((0..words.len()).filter(|at| is_call(&words, *at, program)).map(|at| {
                Call {
                    place: format!("{page}:{number}"),
                    words: words[at + 1..]
                        .iter()
                        .take_while(|word| !["--", "|", "&&", "||", ">"].contains(word))
                        .map(|word| (*word).to_owned())
                        .collect(),
                }
            }));
        }
    }
    Ok(calls)
}

/// Returns the lines of a page's shell blocks, with continued lines joined, and the text in backquotes, each
/// with its line number.
fn command_lines(page: &str) -> Result<Vec<(usize, String)>, String> {
    let mut lines = Vec::new();
    for (before, block) in blocks(page, "sh")? {
        let mut line = String::new();
        for (index, part) in block.lines().enumerate() {
            line.push_str(part.trim_end_matches('\\'));
            if !part.ends_with('\\') {
                lines.push((before + index + 1, std::mem::take(&mut line)));
            }
        }
    }
    let text = read(page)?;
    let quoting = text.lines().enumerate().filter(|(_, line)| !line.starts_with("```"));
    for (index, line) in quoting {
        lines.extend(line.split('`').skip(1).step_by(2).map(|quote| (index + 1, quote.to_owned())));
    }
    Ok(lines)
}

fn read(page: &str) -> Result<String, String> {
    fs::read_to_string(file(page)).map_err(|error| format!("{page}: {error}"))
}

fn is_call(words: &[&str], at: usize, program: &str) -> bool {
    let word = words[at];
    if word == program {
        let before = at.checked_sub(1).map_or("&&", |before| words[before]);
        return program.contains('/')
            || before.contains('=')
            || ["sudo", "--", "|", "&&", "||"].contains(&before);
    }
    word.strip_prefix('/') == Some(program)
        || word.rsplit('/').next().is_some_and(|name| name.starts_with(&format!("{program}_")))
}

/// Returns the words in calls of `program`, which is at `path`, that its help does not contain.
///
/// # Errors
/// Fails if a page cannot be read, no page calls the program, or it cannot be run.
pub fn problems(program: &str, path: &Path) -> Result<Vec<String>, String> {
    let calls = calls(program)?;
    if calls.is_empty() {
        return Err(format!("no page calls {program}"));
    }
    let mut problems = Vec::new();
    for Call { place, words } in calls {
        let mut command: Vec<&str> = Vec::new();
        let mut help = help(path, &command)?;
        let mut is_value = false;
        for word in &words {
            let is_option = word.starts_with('-');
            if is_option {
                problems
                    .extend(unknown_option(&help, word).map(|option| format!("{place}: {program} {option}")));
            } else if !is_value {
                let is_command = commands(&help).map(|known| known.contains(&word.as_str()));
                // A script has one help with all its words, such as step names; that help does not list names
                // and numbers.
                let is_known = is_command.unwrap_or_else(|| {
                    let is_name = word.bytes().any(|byte| !byte.is_ascii_lowercase() && byte != b'-');
                    is_name || !program.contains('/') || names(&help).any(|known| known == word)
                });
                if !is_known {
                    problems.push(format!("{place}: {program} has no {word}"));
                    break;
                }
                if is_command.is_some() {
                    command.push(word);
                    help = self::help(path, &command)?;
                }
            }
            is_value = is_option && !word.contains('=');
        }
    }
    Ok(problems)
}

/// Returns `word` without its value, if it is an option that the help does not contain.
#[must_use]
pub fn unknown_option<'w>(help: &str, word: &'w str) -> Option<&'w str> {
    let option = word.split('=').next().unwrap_or(word);
    let is_known = option == "--help" || names(help).any(|known| known == option);
    (!is_known).then_some(option)
}

fn names(help: &str) -> impl Iterator<Item = &str> {
    help.split(|character: char| !character.is_ascii_alphanumeric() && character != '-')
}

/// Returns the commands that a help lists; `None` if it lists none.
fn commands(help: &str) -> Option<Vec<&str>> {
    let (_, listed) = help.split_once("\nCommands:\n")?;
    let listed = listed.lines().take_while(|line| line.starts_with("  "));
    Some(listed.filter_map(|line| line.split_whitespace().next()).collect())
}

fn help(path: &Path, command: &[&str]) -> Result<String, String> {
    let output = Command::new(path).args(command).arg("--help").output();
    let output = output.map_err(|error| format!("{}: {error}", path.display()))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(format!("{} {command:?}: {}", path.display(), String::from_utf8_lossy(&output.stderr)))
    }
}
