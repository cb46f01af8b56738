//! This module reads policy files and finds everything for which they must not be signed.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use armor_base::file;
use armor_base::name::check_name;
use armor_bundle::MAX_PAYLOAD;
use armor_policy::escaped_path;
use armor_policy::model::{Action, Kind, Location, Rule, RuleCommon};
use armor_policy::{Checked, CompileError, Diagnostic, Diagnostics, Links, Policy, PolicySet, compile};
use serde_json::{Value, json};

use crate::text::plural;

/// A `Source` is a policy file that was read, with the result of checking it.
pub struct Source {
    /// The path as the user gave it.
    pub path: PathBuf,
    /// The file's content.
    pub text: String,
    /// Whether the content could be read; otherwise `text` is empty.
    pub is_read: bool,
    outcome: Outcome,
}

enum Outcome {
    Good(Checked),
    Invalid(Diagnostics),
    /// Each policy is valid, but its tables would be too large.
    TooComplex(CompileError),
    /// The file cannot be read, or has a name that no bundle can contain.
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
                let problem = checked.policies.iter().find_map(|policy| compile_together([policy]).err());
                problem.map_or(Self::Good(checked), Self::TooComplex)
            }
        }
    }
}

impl Source {
    fn read(path: &Path) -> Self {
        let name = escaped_path(path);
        let unread = |outcome| Self { path: path.to_owned(), text: String::new(), is_read: false, outcome };
        match file::read(path, MAX_PAYLOAD) {
            Err(error) => unread(Outcome::Unusable(format!("{name}: {error}"))),
            Ok(bytes) => match armor_policy::document::text::decode(&name, bytes) {
                Err(diagnostics) => unread(Outcome::Invalid(diagnostics)),
                Ok(text) => Self::with_text(path, text),
            },
        }
    }

    /// Returns the file as it is with this content.
    pub fn with_text(path: &Path, text: String) -> Self {
        let outcome = match (Outcome::of(&escaped_path(path), &text), bundled_name(path)) {
            (Outcome::Good(_), Err(problem)) => Outcome::Unusable(format!("{problem:#}")),
            (outcome, _) => outcome,
        };
        Self { path: path.to_owned(), text, is_read: true, outcome }
    }

    /// Returns the file's policies, if they are valid.
    pub fn policies(&self) -> &[Policy] {
        match &self.outcome {
            Outcome::Good(checked) => &checked.policies,
            _ => &[],
        }
    }

    /// Returns whether the file may be signed.
    pub fn is_good(&self) -> bool {
        matches!(self.outcome, Outcome::Good(_))
    }

    /// Returns a text with one line per finding.
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

    /// Returns the findings as JSON.
    pub fn json(&self) -> Value {
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

/// Reads and checks the files, each by itself and all of them together.
pub fn read(files: &[PathBuf]) -> Vec<Source> {
    let mut sources: Vec<Source> = files.iter().map(|path| Source::read(path)).collect();
    warn_of_contradictions(&mut sources);
    sources
}

/// Adds a warning where a rule says another action than an earlier one for the same workloads, objects and programs.
fn warn_of_contradictions(sources: &mut [Source]) {
    let mut seen: HashMap<String, (Action, String)> = HashMap::new();
    for source in sources {
        let Outcome::Good(checked) = &mut source.outcome else { continue };
        for Policy { kind, name, selector, rules, file, .. } in &checked.policies {
            for Rule { common: RuleCommon { sources, terminal, action, location, .. }, body } in rules {
                let mut sources = sources.clone();
                sources.sort_unstable();
                let about = format!("{kind:?} {selector:?} {sources:?} {terminal} {body:?}");
                let place = format!("{file}:{} {action:?}, in policy {name}", location.line);
                let (other, other_place) = seen.entry(about).or_insert((*action, place));
                if *other == *action {
                    continue;
                }
                checked.warnings.push(Diagnostic {
                    file: file.clone(),
                    location: *location,
                    message: format!("the rule says {action:?}, and of the same says {other_place}"),
                    help: "keep one of them: Block comes before Allow and Allow before Audit".to_owned(),
                });
            }
        }
    }
}

/// Returns the name that a file has in a bundle: its name without directories.
///
/// # Errors
/// Fails if a bundle cannot contain that name.
pub fn bundled_name(path: &Path) -> anyhow::Result<&str> {
    let name = path.file_name().and_then(|name| name.to_str());
    let name =
        name.with_context(|| format!("{}: the name is not text: rename the file", escaped_path(path)))?;
    check_name(name)
        .with_context(|| format!("{}: rename the file, a bundle knows it by its name", escaped_path(path)))?;
    Ok(name)
}

/// Compiles what a node might compile, for any selection of policies: each policy for hosts by itself, and
/// all policies for containers together, because all of them might select one container.
///
/// # Errors
/// Fails with the [`CompileError`] for which every node refuses the bundle.
pub fn compile_as_nodes(policies: &[Policy]) -> Result<(), CompileError> {
    let (containers, hosts): (Vec<_>, Vec<_>) =
        policies.iter().partition(|policy| policy.kind == Kind::Container);
    compile_together(containers)?;
    hosts.into_iter().try_for_each(|policy| compile_together([policy]))
}

fn compile_together<'p>(policies: impl IntoIterator<Item = &'p Policy>) -> Result<(), CompileError> {
    compile(&[PolicySet::of(policies)], &Links::new()).map(drop)
}

/// Refuses two policies with the same name.
pub fn refuse_twins<'p>(policies: impl IntoIterator<Item = &'p Policy>) -> anyhow::Result<()> {
    twin(policies).map_or(Ok(()), |twin| bail!("{twin}"))
}

/// Returns the first policy that has the name of an earlier one. Alerts could not distinguish them, because
/// they do not contain the namespace.
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
