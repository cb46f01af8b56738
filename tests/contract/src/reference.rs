//! Holds `docs/reference.md` to the code: what follows from the code stands there between two marks and is compared.
//!
//! With `UPDATE=1` in the environment it is written instead.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use serde::de::value::Error;
use serde::de::{Deserialize, Deserializer, Error as _, Visitor};
use serde::forward_to_deserialize_any;

/// One part is written at a time.
static WRITING: Mutex<()> = Mutex::new(());

fn page() -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "..", "..", "docs", "reference.md"].iter().collect()
}

/// Compares the part `name` of the page with `expected`.
///
/// # Errors
/// What to do where they differ, or where the page has no such part.
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

/// The rows of the table below `heading` that begin with code, without its marks.
///
/// # Errors
/// If the page cannot be read.
pub fn table(heading: &str) -> Result<Vec<Vec<String>>, String> {
    let path = page();
    let text = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    let below = text.lines().skip_while(|line| *line != heading).skip(1);
    let rows = below.take_while(|line| !line.starts_with('#')).filter(|line| line.starts_with("| `"));
    let cell = |cell: &str| cell.trim().trim_matches('`').to_owned();
    Ok(rows.map(|row| row.trim_matches('|').split('|').map(cell).collect()).collect())
}

/// What a program says to `--help`, and all of its commands, as a chapter each.
///
/// # Errors
/// If it cannot be run.
pub fn help(program: &str, path: &str) -> Result<String, String> {
    let mut chapters = String::new();
    let mut commands = vec![Vec::new()];
    while let Some(command) = commands.pop() {
        // Without variables: their values would be shown.
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

/// The names under which `T` reads its fields.
#[must_use]
pub fn fields<'de, T: Deserialize<'de>>() -> Vec<&'static str> {
    let mut names = &[][..];
    let _ = T::deserialize(Fields(&mut names));
    names.to_vec()
}

/// Notes what a struct asks for, and has none of it.
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
