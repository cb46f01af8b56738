//! Defines cases as data: reads the files of `tests/cases`, and compares alerts with those that a case
//! expects.

use std::path::Path;

use anyhow::{Context, bail, ensure};
use serde::Deserialize;
use serde_json::{Map, Value};

/// A `File` has the cases of one theme.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    case: Vec<Case>,
}

/// A `Case` is one policy, one command under it, and the expected result.
///
/// Every case has a tmpfs of its own at `/t`, which is also the directory that all its scripts start in.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// Name in lower case with dashes, unique in its file; also the policy's name if `spec` is given.
    pub name: String,
    /// Explanation of what the case shows, if name and command do not say it.
    #[serde(default)]
    #[expect(dead_code, reason = "for the reader of the file")]
    why: String,
    /// The body of a KubeArmorPolicy's `spec`, without a selector.
    #[serde(default)]
    spec: String,
    /// Whole policy documents, if `spec` is not enough.
    #[serde(default)]
    policy: String,
    /// Posture for what an allow-list does not name: `block` or `audit`; the agent's own default if absent.
    pub posture: Option<String>,
    /// Lowest kernel on which the case makes sense, as `major.minor`.
    pub kernel: Option<String>,
    /// True if the case needs the guest's disk, ext4 at `/disk`.
    #[serde(default)]
    pub disk: bool,
    /// Shell script that runs before and outside the policy. Processes that it leaves in the background end
    /// with the case.
    #[serde(default)]
    pub setup: String,
    /// Shell redirections (`9<>/t/file`) that are opened before the policy and inherited by the command.
    #[serde(default)]
    pub open: String,
    /// Words of a method that makes a socket before the policy, as `with` does; the command inherits it.
    #[serde(default)]
    pub hold: String,
    /// Treatment of preexisting handles that the policy refuses: `close`, `report` or `kill`; the agent's own
    /// default, `close`, if absent.
    pub already_held: Option<String>,
    /// True if programs with rights by `fromSource` are started as if they were setuid.
    #[serde(default)]
    pub secure_sources: bool,
    /// Shell script that runs under the policy, in which `access` stands for `armor-guest-tests do`.
    #[serde(default)]
    run: String,
    /// Program and arguments to run instead of `run`, without a shell in between.
    #[serde(default)]
    argv: Vec<String>,
    /// Exit status that the command must have.
    #[serde(default)]
    pub exit: i32,
    /// Every alert that must come, in any order, by the fields that matter: `"*"` is any value, `""` is none.
    /// The policy is the case's own unless `PolicyName` says otherwise.
    #[serde(default)]
    alerts: Vec<Map<String, Value>>,
    /// True if alerts beyond `alerts` are no failure.
    #[serde(default)]
    more: bool,
    /// Shell script that runs afterwards, outside the policy; it must succeed.
    #[serde(default)]
    pub after: String,
}

impl Case {
    /// Returns the policy documents to run under.
    pub fn policy(&self) -> String {
        if self.spec.is_empty() {
            return self.policy.clone();
        }
        let spec: String = self.spec.lines().map(|line| format!("  {line}\n")).collect();
        format!(
            "apiVersion: security.kubearmor.com/v1\nkind: KubeArmorPolicy\nmetadata:\n  name: {}\nspec:\n  \
             selector:\n    matchLabels:\n      app: case\n{spec}",
            self.name
        )
    }

    /// Returns whether the case expects a refusal of something that succeeds without the agent.
    pub fn shows_refusal(&self) -> bool {
        let is =
            |alert: &Map<String, Value>, key: &str, value: &str| alert.get(key).is_some_and(|is| is == value);
        self.alerts.iter().any(|alert| {
            // A refusal that no alert can name is counted as a lost alert.
            alert.contains_key("Dropped")
                || is(alert, "Action", "Block")
                    && !is(alert, "Result", "Closed")
                    && !is(alert, "PolicyName", "AgentProtection")
        })
    }

    /// Returns the program to run and its arguments.
    pub fn command(&self) -> Vec<String> {
        if self.argv.is_empty() {
            let script = format!("access() {{ armor-guest-tests do \"$@\"; }}\n{}", self.run);
            vec!["/usr/bin/sh".into(), "-c".into(), script]
        } else {
            self.argv.clone()
        }
    }

    /// Returns whether the case is for a kernel of this release (`6.1.0-50-cloud-amd64`).
    pub fn fits(&self, release: &str) -> bool {
        let version = |text: &str| -> Vec<u32> {
            text.split(['.', '-']).take(2).map_while(|part| part.parse().ok()).collect()
        };
        self.kernel.as_ref().is_none_or(|least| version(least) <= version(release))
    }

    /// Compares the alerts that came, as JSON lines, with the expected ones.
    pub fn check_alerts(&self, lines: &str) -> anyhow::Result<()> {
        let mut came = lines
            .lines()
            .map(|line| serde_json::from_str(line).with_context(|| format!("not an alert: {line}")))
            .collect::<anyhow::Result<Vec<Value>>>()?;
        let mut missing = Vec::new();
        for expected in &self.alerts {
            match came.iter().position(|alert| self.is(alert, expected)) {
                Some(found) => drop(came.remove(found)),
                None => missing.push(Value::from(expected.clone())),
            }
        }
        let show = |alerts: &[Value]| alerts.iter().map(|alert| format!("\n    {alert}")).collect::<String>();
        let surplus = if self.more { &[] } else { came.as_slice() };
        match (missing.is_empty(), surplus.is_empty()) {
            (true, true) => Ok(()),
            (true, false) => bail!("alerts nobody expected:{}", show(surplus)),
            (false, _) if came.is_empty() => bail!("alerts that did not come:{}", show(&missing)),
            (false, _) => bail!("alerts that did not come:{}\n  instead:{}", show(&missing), show(&came)),
        }
    }

    /// Returns whether an alert has every expected field.
    fn is(&self, alert: &Value, expected: &Map<String, Value>) -> bool {
        let own = self.spec.is_empty()
            || expected.contains_key("PolicyName")
            || alert["PolicyName"] == self.name.as_str();
        own && expected.iter().all(|(field, value)| match (value.as_str(), alert.get(field)) {
            (Some("*"), came) => came.is_some(),
            (Some(""), came) => came.is_none_or(|came| came == ""),
            (_, came) => came == Some(value),
        })
    }

    fn validate(&self) -> anyhow::Result<()> {
        let word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        ensure!(!self.name.is_empty() && self.name.chars().all(word), "a name is of a-z, 0-9 and -");
        ensure!(self.spec.is_empty() != self.policy.is_empty(), "needs either `spec` or `policy`");
        ensure!(self.run.is_empty() != self.argv.is_empty(), "needs either `run` or `argv`");
        Ok(())
    }
}

/// Loads all cases of a directory's `*.toml` files with their full names, `file::case`, sorted by name.
pub fn load(directory: &Path) -> anyhow::Result<Vec<(String, Case)>> {
    let mut all = Vec::new();
    for entry in directory.read_dir().with_context(|| format!("cannot read {}", directory.display()))? {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "toml") {
            continue;
        }
        let text =
            std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let file: File = toml::from_str(&text).with_context(|| format!("in {}", path.display()))?;
        let theme = path.file_stem().unwrap_or_default().to_string_lossy();
        for case in file.case {
            let name = format!("{theme}::{}", case.name);
            case.validate().with_context(|| format!("case {name}"))?;
            all.push((name, case));
        }
    }
    all.sort_by(|a, b| a.0.cmp(&b.0));
    if let Some(twice) = all.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        bail!("two cases are named {}", twice[0].0);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cases_of_the_repository_load() {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../cases");
        assert!(load(&directory).unwrap().len() >= 80);
    }

    fn case(text: &str) -> Case {
        toml::from_str(&format!("name = 'c'\nspec = 'x'\nrun = 'true'\n{text}")).unwrap()
    }

    #[test]
    fn alerts_match_by_the_fields_given_and_each_only_once() {
        let block = r#"{"PolicyName":"c","Action":"Block","Resource":"/t/x"}"#;
        let twice = case(r#"alerts = [{ Action = "Block" }, { Resource = "/t/x" }]"#);
        assert!(twice.check_alerts(&format!("{block}\n{block}\n")).is_ok());
        assert!(twice.check_alerts(block).unwrap_err().to_string().starts_with("alerts that did not come"));
        assert!(case("").check_alerts(block).unwrap_err().to_string().starts_with("alerts nobody expected"));
        assert!(case("more = true").check_alerts(block).is_ok());
        let other = case(r#"alerts = [{ PolicyName = "other" }]"#);
        assert!(other.check_alerts(block).is_err());
    }

    #[test]
    fn kernels_compare_by_number() {
        let case = case("kernel = '6.12'");
        assert!(case.fits("6.12.117+deb13-cloud-amd64"));
        assert!(case.fits("7.2.13+deb14-cloud-amd64"));
        assert!(!case.fits("6.1.0-50-cloud-amd64"));
    }
}
