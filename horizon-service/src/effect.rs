//! Rules that have no effect where they are to hold, because of what their paths are there: said with what to write instead.
//!
//! Nothing here decides anything. What a path is may be another's to choose, so no more is read of a file than its first line.

use std::fs;
use std::path::{Path, PathBuf};

use armor_bpf::escaped_path;
use armor_hub_client::file::{self, Links};
use armor_policy::Policy;
use armor_policy::model::{Rule, Section, Target};

use crate::root::Root;

/// The most that is said of one root; the rest is counted.
const MAX_SAID: usize = 16;
/// Bytes of a script's first line that the kernel looks at (`BINPRM_BUF_SIZE`).
const FIRST_LINE: usize = 256;
/// Where `env` finds programs, where its own caller says nothing else.
const SEARCHED: [&str; 6] = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// What is to be said of `policies` in `root`, a sentence each.
pub fn without_effect(root: &Root, policies: &[&Policy]) -> Vec<String> {
    let mut said = Vec::new();
    for policy in policies {
        for rule in &policy.rules {
            let place = format!("policy {} ({}:{})", policy.name, policy.file, rule.location.line);
            said.extend(program_link(root, rule).map(|text| format!("{place}: {text}")));
            said.extend(
                rule.sources
                    .iter()
                    .filter_map(|source| script_source(root, source))
                    .map(|text| format!("{place}: {text}")),
            );
        }
    }
    let more = said.len().saturating_sub(MAX_SAID);
    said.truncate(MAX_SAID);
    if more > 0 {
        said.push(format!("{more} more rules without effect for reasons like these"));
    }
    said
}

/// A `process` rule for a path that is a link itself.
fn program_link(root: &Root, rule: &Rule) -> Option<String> {
    let (Section::Process, Target::Path(path)) = (rule.section, &rule.target) else { return None };
    let (link, program) = (root.resolve(path, false), root.resolve(path, true));
    let is_link = fs::symlink_metadata(root.find(&link)?).ok()?.is_symlink();
    is_link.then(|| {
        format!(
            "{path} is a link to {program}, and a process rule is for the program that a link leads to only under its own \
             name: write {program}",
            program = escaped_path(&program)
        )
    })
}

/// A `fromSource` that is a script: what runs is its interpreter.
fn script_source(root: &Root, source: &str) -> Option<String> {
    let file = root.resolve(source, true);
    let mut words = first_line(&root.find(&file)?)?.strip_prefix("#!")?.trim().to_owned();
    if words.is_empty() {
        "/bin/sh".clone_into(&mut words);
    }
    let mut words = words.split_whitespace();
    let named = words.next()?;
    let mut interpreter = root.resolve(named, true);
    if Path::new(named).ends_with("env")
        && let Some(program) = words.find(|word| !word.starts_with('-') && !word.contains('='))
    {
        interpreter = find_program(root, program)?;
    }
    Some(format!(
        "fromSource {source} is a script, and the program that runs it is {interpreter}: write that, which is then for all that \
         {interpreter} runs",
        interpreter = escaped_path(&interpreter)
    ))
}

fn find_program(root: &Root, name: &str) -> Option<PathBuf> {
    SEARCHED.iter().find_map(|folder| {
        let program = root.resolve(&format!("{folder}/{name}"), true);
        fs::symlink_metadata(root.find(&program)?).ok()?.is_file().then_some(program)
    })
}

/// Of a regular file alone: opening anything else may wait, or do something.
fn first_line(path: &Path) -> Option<String> {
    let start = file::read_start(file::open(path, Links::Refuse).ok()?, FIRST_LINE).ok()?;
    let line = start.split(|byte| *byte == b'\n').next()?;
    String::from_utf8(line.to_vec()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn links_as_programs_and_scripts_as_sources_are_named_with_what_to_write() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::at(dir.path().to_owned());
        fs::create_dir_all(dir.path().join("usr/bin")).unwrap();
        symlink("usr/bin", dir.path().join("bin")).unwrap();
        symlink("/usr/bin/python3.11", dir.path().join("usr/bin/python3")).unwrap();
        symlink("dash", dir.path().join("usr/bin/sh")).unwrap();
        for (name, text) in [
            ("python3.11", "\x7fELF"),
            ("dash", "\x7fELF"),
            ("script", "#!/bin/sh -e\n"),
            ("hidden", "#!/bin/\x1b[2J\n"),
            ("tool", "#! /usr/bin/env -S python3 -u\n"),
            ("app", "\x7fELF"),
        ] {
            fs::write(dir.path().join("usr/bin").join(name), text).unwrap();
        }
        let text = "apiVersion: security.kubearmor.com/v1\nkind: KubeArmorPolicy\nmetadata: {name: p}\nspec:\n  selector: \
                    {matchLabels: {app: x}}\n  process:\n    matchPaths:\n    - {path: /usr/bin/python3}\n    - {path: /bin/app}\n    \
                    - {path: /no/such}\n    - {path: /bin/sh, action: Allow}\n  file:\n    matchPaths:\n    - {path: /usr/bin/python3}\n    \
                    - {path: /x, fromSource: [{path: /bin/script}, {path: /bin/hidden}, {path: /usr/bin/tool}, {path: /bin/python3}, {path: /no/such}]}\n";
        let policies = armor_policy::parse("p.yaml", text).unwrap();
        let said = without_effect(&root, &[&policies[0]]);
        let expected = [
            ("p.yaml:8", "/usr/bin/python3 is a link to", "write /usr/bin/python3.11"),
            ("p.yaml:11", "/bin/sh is a link to", "write /usr/bin/dash"),
            ("p.yaml:15", "fromSource /bin/script is a script", "runs it is /usr/bin/dash: write"),
            ("p.yaml:15", "fromSource /bin/hidden is a script", r"runs it is /usr/bin/\x1b[2J: write"),
            ("p.yaml:15", "fromSource /usr/bin/tool is a script", "runs it is /usr/bin/python3.11: write"),
        ];
        assert_eq!(said.len(), expected.len(), "{said:#?}");
        for (said, (place, what, instead)) in said.iter().zip(expected) {
            assert!(said.starts_with("policy p (") && said.contains(place), "{said}");
            assert!(said.contains(what) && said.contains(instead), "{said}");
        }
    }

    #[test]
    fn no_more_is_said_than_anybody_reads() {
        let dir = tempfile::tempdir().unwrap();
        let paths: Vec<String> = (0..40)
            .map(|number| {
                symlink("/target", dir.path().join(format!("l{number}"))).unwrap();
                format!("{{path: /l{number}}}")
            })
            .collect();
        let text = format!(
            "apiVersion: security.kubearmor.com/v1\nkind: KubeArmorPolicy\nmetadata: {{name: p}}\nspec:\n  selector: \
             {{matchLabels: {{app: x}}}}\n  process: {{matchPaths: [{}]}}\n",
            paths.join(", ")
        );
        let policies = armor_policy::parse("p.yaml", &text).unwrap();
        let said = without_effect(&Root::at(dir.path().to_owned()), &[&policies[0]]);
        assert_eq!(said.len(), MAX_SAID + 1);
        assert!(said[MAX_SAID].starts_with("24 more"), "{}", said[MAX_SAID]);
    }
}
