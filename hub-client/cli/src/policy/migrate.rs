//! `hzn-armor policy migrate` mends what is nearly right in policy files.
//!
//! What it prints names every mend and everything that is left, and has a difference that `patch -p0` takes.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use armor_base::replace::rewrite;
use armor_console as console;
use armor_policy::{Choices, Diagnostic, LabelMap, Migration, escaped, escaped_path, migrate};
use similar::TextDiff;

use crate::files;
use crate::sources::{self, Source};
use crate::text::plural;

/// Number of unchanged lines around a change.
const CONTEXT: usize = 3;

/// A `Migrate` contains the arguments of `migrate`.
#[derive(Debug, clap::Args)]
pub struct Migrate {
    /// Policy files or directories
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// What a label of Kubernetes becomes: app=shop:horizon.service.url=shop, app:kubearmor.io/container.name to keep the
    /// value, metadata.namespace=shop:horizon.service.org=retail, or :kubernetes.io/os=linux for policies without a selector;
    /// repeat for more, the first that is about a label counts
    #[arg(long = "map", value_name = "LABEL:KEY=VALUE")]
    maps: Vec<LabelMap>,
    /// Mend by guesses of this kind too, which are only named otherwise
    #[arg(long, value_name = "KIND", value_parser = console::one_of(GUESSES))]
    accept: Option<Guess>,
    /// Write the mended files
    #[arg(long)]
    write: bool,
}

/// A `Guess` is a kind of guesses.
#[derive(Debug, Clone, Copy)]
enum Guess {
    Spelling,
}

const GUESSES: [(&str, &str, Guess); 1] =
    [("spelling", "the known name that is nearest to a misspelt one", Guess::Spelling)];

/// Runs the command.
pub fn run(command: Migrate) -> anyhow::Result<ExitCode> {
    let choices = Choices { spelling: matches!(command.accept, Some(Guess::Spelling)), maps: command.maps };
    let found = files::find(&command.files)?;
    found.tell_left_out();
    let mut out = console::stdout();
    let mut is_all_right = true;
    for source in sources::read(&found.files) {
        is_all_right &= mend(&source, &choices, command.write, &mut out)?;
    }
    out.flush()?;
    Ok(if is_all_right { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

/// Mends one file, and returns whether it is right then.
fn mend(source: &Source, choices: &Choices, write: bool, out: &mut impl Write) -> anyhow::Result<bool> {
    let name = escaped_path(&source.path);
    if !source.is_read {
        writeln!(out, "{}", source.report())?;
        return Ok(false);
    }
    let Migration { text, mended, errors, remarks } = match migrate(&name, &source.text, choices) {
        Ok(migration) => migration,
        Err(problem) => {
            writeln!(out, "{}\n{name}: {problem}", source.report())?;
            return Ok(false);
        }
    };
    let tagged = |list: &[Diagnostic], tag| -> Vec<(Diagnostic, &str)> {
        list.iter().map(|diagnostic| (diagnostic.clone(), tag)).collect()
    };
    let mut findings =
        [tagged(&mended, "mended"), tagged(&errors, "left"), tagged(&remarks, "note")].concat();
    findings.sort_by_key(|(diagnostic, _)| diagnostic.location);
    for (diagnostic, tag) in &findings {
        writeln!(out, "{diagnostic} [{tag}]")?;
    }
    let result = Source::with_text(&source.path, text);
    if result.text != source.text {
        show_difference(&name, &source.text, &result.text, out)?;
        if write {
            rewrite(&source.path, result.text.as_bytes()).with_context(|| name.clone())?;
        }
    }
    if errors.is_empty() && !result.is_good() {
        writeln!(out, "{}", result.report())?;
    }
    let places = match mended.len() {
        0 => "nothing mended".to_owned(),
        number => plural(number, "place", "places") + if write { " mended, written" } else { " to mend" },
    };
    let left = match errors.len() {
        0 if result.is_good() => "ok".to_owned(),
        0 => "refused".to_owned(),
        number => plural(number, "error", "errors") + " left",
    };
    writeln!(out, "{name}: {left}, {places}")?;
    Ok(result.is_good())
}

/// Prints the unified difference of two texts.
fn show_difference(name: &str, old: &str, new: &str, out: &mut impl Write) -> anyhow::Result<()> {
    writeln!(out, "--- {name}\n+++ {name}")?;
    let difference = TextDiff::from_lines(old, new);
    for hunk in difference.unified_diff().context_radius(CONTEXT).iter_hunks() {
        writeln!(out, "{}", hunk.header())?;
        for change in hunk.iter_changes() {
            write!(out, "{}{}", change.tag(), shown(change.value()))?;
            if change.missing_newline() {
                writeln!(out, "\n\\ No newline at end of file")?;
            }
        }
    }
    Ok(())
}

/// Makes a line fit for a terminal. Policies have no need of the characters that it writes in another way.
fn shown(line: &str) -> String {
    let content = line.trim_end_matches(['\r', '\n']);
    let mut shown = String::with_capacity(line.len());
    for c in content.chars() {
        if c == '\t' {
            shown.push(c)
        } else {
            shown.push_str(&escaped(c.encode_utf8(&mut [0; 4]).as_bytes()))
        }
    }
    shown.push_str(&line[content.len()..]);
    shown
}
