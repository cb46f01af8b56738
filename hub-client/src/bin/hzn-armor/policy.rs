//! `hzn-armor policy`: what is wrong with policy files, before they are signed.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::bail;
use armor_hub_client::bundle::MAX_PAYLOAD;
use armor_hub_client::console;
use armor_hub_client::file;
use armor_policy::escaped_path;
use armor_policy::model::{Kind, Location};
use armor_policy::{
    Checked, CompileError, CompileOptions, Diagnostic, Diagnostics, Policy, Posture, compile,
};
use serde_json::{Value, json};

use crate::build::bundled_name;
use crate::files;

const OPTIONS: CompileOptions = CompileOptions { posture: Posture::Audit, links: BTreeMap::new() };

/// What to do with policies.
#[derive(Debug, clap::Subcommand)]
pub enum PolicyCommand {
    /// Read files, and the YAML files of directories and their sub-directories, and print every error with its place
    Check(Check),
}

/// Arguments of `check`.
#[derive(Debug, clap::Args)]
pub struct Check {
    /// Policy files or directories
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// One JSON list: per file its policies, errors and warnings
    #[arg(long)]
    json: bool,
}

/// A policy file that was read, and what came of it.
pub struct Source {
    /// The path as the user gave it.
    pub path: PathBuf,
    /// Its content.
    pub text: String,
    outcome: Outcome,
}

enum Outcome {
    Good(Checked),
    Invalid(Diagnostics),
    /// Each policy is in order, but its tables would be too large.
    TooComplex(CompileError),
    /// The file does not read, or has a name that no bundle can have.
    Unusable(String),
}

impl Outcome {
    fn of(name: &str, text: &str) -> Self {
        match armor_policy::check(name, text) {
            Err(diagnostics) => Self::Invalid(diagnostics),
            Ok(checked) => {
                if let Some(twin) = twin(&checked.policies) {
                    return Self::Invalid(Diagnostics { list: vec![twin], more: 0 });
                }
                let problem = checked.policies.iter().find_map(|policy| compile(&[policy], &OPTIONS).err());
                problem.map_or(Self::Good(checked), Self::TooComplex)
            }
        }
    }
}

impl Source {
    fn read(path: &Path) -> Self {
        let name = escaped_path(path);
        let (text, outcome) = match file::read(path, MAX_PAYLOAD) {
            Err(error) => (String::new(), Outcome::Unusable(format!("{name}: {error}"))),
            Ok(bytes) => match armor_policy::text::decode(&name, bytes) {
                Err(diagnostics) => (String::new(), Outcome::Invalid(diagnostics)),
                Ok(text) => {
                    let outcome = match (Outcome::of(&name, &text), bundled_name(path)) {
                        (Outcome::Good(_), Err(problem)) => Outcome::Unusable(format!("{problem:#}")),
                        (outcome, _) => outcome,
                    };
                    (text, outcome)
                }
            },
        };
        Self { path: path.to_owned(), text, outcome }
    }

    /// Its policies, if it is in order.
    pub fn policies(&self) -> &[Policy] {
        match &self.outcome {
            Outcome::Good(checked) => &checked.policies,
            _ => &[],
        }
    }

    /// Whether it may be signed.
    pub fn is_good(&self) -> bool {
        matches!(self.outcome, Outcome::Good(_))
    }

    /// For people: one line per finding.
    pub fn report(&self) -> String {
        let path = escaped_path(&self.path);
        match &self.outcome {
            Outcome::Invalid(diagnostics) => format!("{diagnostics}"),
            Outcome::TooComplex(problem) => problem.to_string(),
            Outcome::Unusable(problem) => problem.clone(),
            Outcome::Good(checked) => {
                let mut report = String::new();
                for warning in &checked.warnings {
                    let _ = writeln!(report, "{warning} [warning]");
                }
                let _ =
                    write!(report, "{path}: ok, {}", plural(checked.policies.len(), "policy", "policies"));
                report
            }
        }
    }

    fn json(&self) -> Value {
        let (mut policies, mut errors, mut warnings, mut more) = (json!([]), json!([]), json!([]), 0);
        let findings = |list: &[Diagnostic]| -> Value {
            list.iter()
                .map(|d| {
                    json!({ "line": d.location.line, "column": d.location.column, "message": d.message, "help": d.help })
                })
                .collect()
        };
        match &self.outcome {
            Outcome::Invalid(diagnostics) => {
                errors = findings(&diagnostics.list);
                more = diagnostics.more;
            }
            Outcome::TooComplex(problem) => {
                errors = match problem {
                    CompileError::Pattern { location: Location { line, column }, .. } => {
                        json!([{ "line": line, "column": column, "message": problem.to_string() }])
                    }
                    _ => json!([{ "message": problem.to_string() }]),
                };
            }
            Outcome::Unusable(problem) => errors = json!([{ "message": problem }]),
            Outcome::Good(checked) => {
                policies = checked.policies.iter().map(|policy| policy.name.clone()).collect();
                warnings = findings(&checked.warnings);
            }
        }
        json!({
            "file": escaped_path(&self.path), "ok": self.is_good(), "policies": policies, "errors": errors, "moreErrors": more, "warnings": warnings,
        })
    }
}

/// Reads the files.
pub fn read(files: &[PathBuf]) -> Vec<Source> {
    files.iter().map(|path| Source::read(path)).collect()
}

/// Runs the command.
pub fn run(command: PolicyCommand) -> anyhow::Result<ExitCode> {
    let PolicyCommand::Check(Check { files, json }) = command;
    let found = files::find(&files)?;
    found.tell_left_out();
    let sources = read(&found.files);
    let mut out = console::stdout();
    if json {
        writeln!(out, "{:#}", sources.iter().map(Source::json).collect::<Value>())?;
    } else {
        for source in &sources {
            writeln!(out, "{}", source.report())?;
        }
    }
    Ok(if sources.iter().all(Source::is_good) { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

/// Compiles what every node compiles, whichever policies select it and its containers: each of the host's policies, and those
/// for containers together, as all of them might select one.
///
/// # Errors
/// [`CompileError`]: no node accepts a bundle with these.
pub fn compile_as_nodes(policies: &[Policy]) -> Result<(), CompileError> {
    let (containers, hosts): (Vec<_>, Vec<_>) =
        policies.iter().partition(|policy| policy.kind == Kind::Container);
    compile(&containers, &OPTIONS)?;
    hosts.into_iter().try_for_each(|policy| compile(&[policy], &OPTIONS).map(drop))
}

/// Refuses two policies of one name.
pub fn refuse_twins<'p>(policies: impl IntoIterator<Item = &'p Policy>) -> anyhow::Result<()> {
    twin(policies).map_or(Ok(()), |twin| bail!("{twin}"))
}

/// The first policy that has the name of another. Alerts could not tell them apart: they name no namespace.
fn twin<'p>(policies: impl IntoIterator<Item = &'p Policy>) -> Option<Diagnostic> {
    let mut seen = HashMap::new();
    policies.into_iter().find_map(|policy| {
        let Policy { kind, name, file, location, .. } = policy;
        let (other, line) = seen.insert((kind, name), (file, location.line))?;
        Some(Diagnostic {
            file: file.clone(),
            location: *location,
            message: format!("policy `{name}` stands already in {other}, line {line}"),
            help:
                "give one of them another metadata.name: alerts know policies by it, whatever their namespace"
                    .to_owned(),
        })
    })
}

/// A number and the word for it.
pub fn plural(number: usize, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}
