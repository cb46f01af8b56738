//! Cases as data: what a file of `tests/cases` says, and when an alert is one that a case expects.

use std::path::Path;

use anyhow::{Context, bail, ensure};
use serde::Deserialize;
use serde_json::{Map, Value};

/// One file: cases on one theme.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    case: Vec<Case>,
}

/// One policy, one command under it, and what must come of it.
///
/// Every case has a tmpfs of its own at `/t`, which is also the directory that all its scripts start in.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// Lower case with dashes, once per file; also the policy's name where `spec` is given.
    pub name: String,
    /// What is being shown, where name and command do not say it.
    #[serde(default)]
    #[expect(dead_code, reason = "for the reader of the file")]
    why: String,
    /// The body of a KubeArmorPolicy's `spec`, without a selector.
    #[serde(default)]
    spec: String,
    /// Whole documents, where `spec` is not enough.
    #[serde(default)]
    policy: String,
    /// What happens to what an allow-list does not name: `block` or `audit`, the agent's own default if absent.
    pub posture: Option<String>,
    /// The lowest kernel on which the case makes sense, as `major.minor`.
    pub kernel: Option<String>,
    /// Whether the case needs the guest's disk, ext4 at `/disk`.
    #[serde(default)]
    pub disk: bool,
    /// Shell script run before and outside the policy; what it leaves in the background ends with the case.
    #[serde(default)]
    pub setup: String,
    /// Shell redirections (`9<>/t/file`) opened before the policy and inherited by the command.
    #[serde(default)]
    pub open: String,
    /// What becomes of what the command inherits and must not have: `close`, the agent's own default if absent, `report` or `kill`.
    pub already_held: Option<String>,
    /// Whether programs with rights by `fromSource` are started as if they were setuid.
    #[serde(default)]
    pub secure_sources: bool,
    /// Shell script run under the policy, with `access` for `armor-guest-tests do`.
    #[serde(default)]
    run: String,
    /// Instead of `run`: a program and its arguments, without a shell in between.
    #[serde(default)]
    argv: Vec<String>,
    /// The status that the command must end with.
    #[serde(default)]
    pub exit: i32,
    /// Every alert that must come, in any order, by the fields that matter: `"*"` is any value, `""` is none. The
    /// policy is the case's own unless `PolicyName` says otherwise.
    #[serde(default)]
    alerts: Vec<Map<String, Value>>,
    /// Alerts beyond `alerts` are no failure.
    #[serde(default)]
    more: bool,
    /// Shell script run afterwards, outside the policy; must succeed.
    #[serde(default)]
    pub after: String,
}

impl Case {
    /// The documents to run under.
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

    /// Whether something is to be blocked in it that is there without the agent.
    pub fn shows_refusal(&self) -> bool {
        let is =
            |alert: &Map<String, Value>, key: &str, value: &str| alert.get(key).is_some_and(|is| is == value);
        self.alerts.iter().any(|alert| {
            is(alert, "Action", "Block")
                && !is(alert, "Result", "Closed")
                && !is(alert, "PolicyName", "AgentProtection")
        })
    }

    /// The program to run and its arguments.
    pub fn command(&self) -> Vec<String> {
        if self.argv.is_empty() {
            let script = format!("access() {{ armor-guest-tests do \"$@\"; }}\n{}", self.run);
            vec!["/usr/bin/sh".into(), "-c".into(), script]
        } else {
            self.argv.clone()
        }
    }

    /// Whether the case is for a kernel of this release (`6.1.0-50-cloud-amd64`).
    pub fn fits(&self, release: &str) -> bool {
        let version = |text: &str| -> Vec<u32> {
            text.split(['.', '-']).take(2).map_while(|part| part.parse().ok()).collect()
        };
        self.kernel.as_ref().is_none_or(|least| version(least) <= version(release))
    }

    /// Holds the alerts that came, as JSON lines, against the expected ones.
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

    /// Whether an alert has every expected field.
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

/// All cases of a directory's `*.toml` files with their full names, `file::case`, in order of the names.
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
