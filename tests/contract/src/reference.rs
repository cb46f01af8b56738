//! This module compares `docs/reference.md` with the code: the parts that follow from the code stand between
//! two marks in the page.
//!
//! With `UPDATE=1` in the environment it writes these parts instead.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use serde::de::value::Error;
use serde::de::{Deserialize, Deserializer, Error as _, Visitor};
use serde::forward_to_deserialize_any;

/// Lock that lets one part be written at a time.
static WRITING: Mutex<()> = Mutex::new(());

fn page() -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "..", "..", "docs", "reference.md"].iter().collect()
}

/// Compares the part `name` of the page with `expected`.
///
/// # Errors
/// Fails if they differ or the page has no such part, and says what to do.
pub fn compare(name: &str, expected: &str) -> Result<(), String> {
    let _writing = WRITING.lock().unwrap_or_else(PoisonError::into_inner);
    let path = page();
    let text = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    let missing = || format!("docs/reference.md has no part {name}");
    let (before, rest) = text.split_once(&format!("<!-- {name}: -->\n")).ok_or_else(missing)?;
    let (found, after) = rest.split_once(&format!("<!-- :{name} -->\n")).ok_or_else(missing)?;
    let expected = format!("\n{}\n\n", expected.trim());
    if found == expected {
        return Ok(());
    }
    if std::env::var_os("UPDATE").is_some() {
        let new = format!("{before}<!-- {name}: -->\n{expected}<!-- :{name} -->\n{after}");
        return fs::write(&path, new).map_err(|error| format!("{}: {error}", path.display()));
    }
    let line = found.lines().zip(expected.lines()).find(|(found, expected)| found != expected);
    Err(format!("docs/reference.md is stale in {name}, first at {line:?}: run this test again with UPDATE=1"))
}

/// Returns the rows of the table below `heading` that begin with code, without the code marks.
///
/// # Errors
/// Fails if the page cannot be read.
pub fn table(heading: &str) -> Result<Vec<Vec<String>>, String> {
    let path = page();
    let text = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    let below = text.lines().skip_while(|line| *line != heading).skip(1);
    let rows = below.take_while(|line| !line.starts_with('#')).filter(|line| line.starts_with("| `"));
    let cell = |cell: &str| cell.trim().trim_matches('`').to_owned();
    Ok(rows.map(|row| row.trim_matches('|').split('|').map(cell).collect()).collect())
}

/// Returns the output of a program's `--help`, and of all its commands', as one chapter each.
///
/// # Errors
/// Fails if the program cannot be run.
pub fn help(program: &str, path: &str) -> Result<String, String> {
    let mut chapters = String::new();
    let mut commands = vec![Vec::new()];
    while let Some(command) = commands.pop() {
        // Variables are cleared, because the help would show their values.
        let output = Command::new(path).args(&command).arg("--help").env_clear().output();
        let output = output.map_err(|error| format!("{path}: {error}"))?;
        let text = String::from_utf8_lossy(&output.stdout);
        let text: Vec<&str> = text.lines().map(str::trim_end).collect();
        let mut name = vec![program.to_owned()];
        name.extend(command.iter().cloned());
        chapters.push_str(&format!(
            "### `{}`\n\n```text\n{}\n```\n\n",
            name.join(" "),
            text.join("\n").trim()
        ));
        let listed = text.iter().skip_while(|line| **line != "Commands:").skip(1);
        let mut below: Vec<Vec<String>> = listed
            .take_while(|line| line.starts_with("  "))
            .filter(|line| !line.starts_with("   "))
            .filter_map(|line| line.split_whitespace().next())
            .filter(|word| *word != "help")
            .map(|word| command.iter().cloned().chain([word.to_owned()]).collect())
            .collect();
        below.reverse();
        commands.extend(below);
    }
    Ok(chapters)
}

/// Returns the names under which `T` deserializes its fields.
#[must_use]
pub fn fields<'de, T: Deserialize<'de>>() -> Vec<&'static str> {
    let mut names = &[][..];
    let _ = T::deserialize(Fields(&mut names));
    names.to_vec()
}

/// A `Fields` records the fields that a struct asks for, and provides none of them.
struct Fields<'n>(&'n mut &'static [&'static str]);

impl<'de> Deserializer<'de> for Fields<'_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Error> {
        Err(Error::custom("not a struct"))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Error> {
        *self.0 = fields;
        Err(Error::custom("only asked"))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf option unit unit_struct newtype_struct seq
        tuple tuple_struct map enum identifier ignored_any
    }
}
