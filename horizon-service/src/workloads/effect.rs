//! Finds rules that have no effect because of what their paths lead to, and says what to write instead.
//!
//! Nothing here decides anything. Another user may control the file at a path, so no more than its first line
//! is read.

mod folding;
mod interpreter;

use std::collections::BTreeMap;
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use armor_policy::model::Source;
use armor_policy::path::{PathRule, Section, Target};
use armor_policy::{Policy, escaped, escaped_path};

use crate::workloads::root::Root;
use interpreter::Runs;

/// Maximum number of notes for one root; the rest is counted.
const MAX_SAID: usize = 16;
/// Maximum number of symlinks to programs elsewhere for which a directory gets a note.
const MAX_LINKS: usize = 4;
/// Maximum number of a directory's entries that are searched.
const MAX_ENTRIES: usize = 1000;
/// Directories in which `env` finds programs unless its caller sets others.
const SEARCHED: [&str; 6] = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];
/// Where the kernel shows its USB devices.
const USB: &str = "/sys/bus/usb";
const NO_USB: &str = "the kernel has no USB (/sys/bus/usb), so the rule is about no device: load usbcore, or leave the rule out";
const BY_OWN_NAME: &str = "a process rule is for the program that a link leads to only under its own name";
const CIRCLE: &str = "is a link that leads in a circle, and to no program";

/// Returns the notes on `policies` in `root`, one sentence each.
pub fn without_effect(root: &Root, policies: &[&Policy]) -> Vec<String> {
    let mut said = Vec::new();
    for policy in policies {
        for rule in &policy.rules {
            let place = format!("policy {} ({}:{})", policy.name, policy.file, rule.common.location.line);
            if let Some(rule) = rule.body.as_path() {
                said.extend(program_link(root, policy, rule).map(|text| format!("{place}: {text}")));
                said.extend(folding::advice(root, &rule.target).map(|text| format!("{place}: {text}")));
            }
            if rule.body.as_device().is_some() && !root.is_dir(Path::new(USB)) {
                said.push(format!("{place}: {NO_USB}"));
            }
            said.extend(
                rule.common
                    .sources
                    .iter()
                    .filter_map(|source| match source {
                        Source::Program(path) => script_source(root, path),
                        Source::Directory { .. } => None,
                    })
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

/// Returns the note on a `process` rule for a symlink; the program that runs has the path of the symlink's
/// target.
fn program_link(root: &Root, policy: &Policy, rule: &PathRule) -> Option<String> {
    if rule.section != Section::Process {
        return None;
    }
    match &rule.target {
        Target::Path(path) => path_of_link(root, path),
        Target::Name(name) => name_of_link(root, name),
        Target::Directory { path, recursive } => link_out_of(root, policy, path, *recursive),
        Target::Glob(_) => None,
    }
}

fn path_of_link(root: &Root, path: &str) -> Option<String> {
    if !is_link(root, &root.resolve(path, false)) {
        return None;
    }
    let program = root.resolve(path, true);
    if is_link(root, &program) {
        return Some(format!("{path} {CIRCLE}"));
    }
    let program = escaped_path(&program);
    Some(format!("{path} is a link to {program}, and {BY_OWN_NAME}: write {program}"))
}

/// Returns the note on an `execname` that only symlinks have in the directories of programs.
fn name_of_link(root: &Root, name: &str) -> Option<String> {
    let places = SEARCHED.map(|directory| format!("{directory}/{name}"));
    let programs = places.iter().map(|path| (path, root.resolve(path, true)));
    let found: Vec<_> = programs.filter(|(_, program)| is_file(root, program)).collect();
    let (link, program) = found.first()?;
    if found.iter().any(|(_, program)| program.ends_with(name)) {
        return None;
    }
    let own = escaped(program.file_name()?.as_encoded_bytes());
    Some(format!(
        "execname {name}: {link} is a link to {}, and {BY_OWN_NAME}: write {own}",
        escaped_path(program)
    ))
}

/// Returns the note on a directory with a few symlinks to programs elsewhere. If there are many, as in
/// `/usr/bin`, nobody expects the rule to cover their targets.
fn link_out_of(root: &Root, policy: &Policy, directory: &str, recursive: bool) -> Option<String> {
    root.directory()?;
    let directory = root.resolve(directory, true);
    let holds = |at: &Path, recursive: bool, program: &Path| match recursive {
        true => program.starts_with(at),
        false => program.parent() == Some(at),
    };
    let mut out = BTreeMap::new();
    for (count, entry) in fs::read_dir(root.find(&directory)?).ok()?.flatten().enumerate() {
        if count == MAX_ENTRIES {
            return None;
        }
        if entry.file_type().is_ok_and(|kind| kind.is_symlink()) {
            let Some(link) = directory.join(entry.file_name()).to_str().map(str::to_owned) else { continue };
            let program = root.resolve(&link, true);
            if !holds(&directory, recursive, &program) && is_executable(root, &program) {
                out.insert(link, program);
                if out.len() > MAX_LINKS {
                    return None;
                }
            }
        }
    }
    // Compared as written in the rules, because the user may have followed the note.
    let is_named = |program: &Path| {
        let rules = policy.rules.iter().filter_map(|rule| rule.body.as_path());
        rules.filter(|rule| rule.section == Section::Process).any(|rule| match &rule.target {
            Target::Path(path) => program == Path::new(path),
            Target::Directory { path, recursive } => holds(Path::new(path), *recursive, program),
            Target::Name(name) => program.ends_with(name),
            Target::Glob(_) => false,
        })
    };
    let (link, program) = out.iter().find(|(_, program)| !is_named(program))?;
    let program = escaped_path(program);
    Some(format!(
        "{link} is a link to {program}, and {BY_OWN_NAME}: write {program} too",
        link = escaped(link.as_bytes())
    ))
}

/// Returns the note on a `fromSource` that is a script; the program that runs is its interpreter.
fn script_source(root: &Root, source: &str) -> Option<String> {
    let file = root.resolve(source, true);
    if is_link(root, &file) {
        return Some(format!("fromSource {source} {CIRCLE}"));
    }
    Some(match interpreter::of(root, &file)? {
        Runs::Program(program) => {
            let program = escaped_path(&program);
            format!(
                "fromSource {source} is a script, and the program that runs it is {program}: write that, which is then for all \
                 that {program} runs"
            )
        }
        Runs::Starter => format!(
            "fromSource {source} is a script without an interpreter, and the program that runs it is the shell that starts it: \
             write that, which is then for all that the shell runs"
        ),
        Runs::Unknown(why) => format!("fromSource {source} is a script, and {why}"),
    })
}

fn find_program(root: &Root, name: &str) -> Option<PathBuf> {
    let mut places = SEARCHED.iter().map(|directory| root.resolve(&format!("{directory}/{name}"), true));
    places.find(|program| is_file(root, program))
}

fn at(root: &Root, path: &Path) -> Option<Metadata> {
    fs::symlink_metadata(root.find(path)?).ok()
}

fn is_link(root: &Root, path: &Path) -> bool {
    at(root, path).is_some_and(|found| found.is_symlink())
}

fn is_file(root: &Root, path: &Path) -> bool {
    at(root, path).is_some_and(|found| found.is_file())
}

fn is_executable(root: &Root, path: &Path) -> bool {
    at(root, path).is_some_and(|found| found.is_file() && found.mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    #[test]
    fn symlinked_programs_and_script_sources_get_advice() {
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
            ("bare", "echo\n"),
            ("lost", "#!/usr/bin/env nosuchinterp\n"),
        ] {
            fs::write(dir.path().join("usr/bin").join(name), text).unwrap();
        }
        symlink("round", dir.path().join("usr/bin/round")).unwrap();
        let text = "apiVersion: security.kubearmor.com/v1\nkind: KubeArmorPolicy\nmetadata: {name: p}\nspec:\n  selector: \
                    {matchLabels: {app: x}}\n  process:\n    matchPaths:\n    - {path: /usr/bin/python3}\n    - {path: /bin/app}\n    \
                    - {path: /no/such}\n    - {path: /bin/sh, action: Allow}\n    - {path: /bin/round}\n    - {execname: sh}\n    - \
                    {execname: dash}\n    - {execname: nosuch}\n  file:\n    matchPaths:\n    - {path: /usr/bin/python3}\n    \
                    - {path: /x, fromSource: [{path: /bin/script}, {path: /bin/hidden}, {path: /usr/bin/tool}, {path: /bin/python3}, {path: /no/such}, \
                    {path: /bin/bare}, {path: /bin/lost}, {path: /bin/round}]}\n";
        let policies = armor_policy::parse("p.yaml", text).unwrap();
        let said = without_effect(&root, &[&policies[0]]);
        let expected = [
            ("p.yaml:8", "/usr/bin/python3 is a link to", "write /usr/bin/python3.11"),
            ("p.yaml:11", "/bin/sh is a link to", "write /usr/bin/dash"),
            ("p.yaml:12", "/bin/round is a link that leads in a circle", ""),
            ("p.yaml:13", "execname sh: /usr/bin/sh is a link to /usr/bin/dash, and", "write dash"),
            ("p.yaml:19", "fromSource /bin/script is a script", "runs it is /usr/bin/dash: write"),
            ("p.yaml:19", "fromSource /bin/hidden is a script", r"runs it is /usr/bin/\x1b[2J: write"),
            ("p.yaml:19", "fromSource /usr/bin/tool is a script", "runs it is /usr/bin/python3.11: write"),
            (
                "p.yaml:19",
                "fromSource /bin/bare is a script without an interpreter",
                "the shell that starts it: write",
            ),
            (
                "p.yaml:19",
                "fromSource /bin/lost is a script, and env finds no program nosuchinterp for it",
                "",
            ),
            ("p.yaml:19", "fromSource /bin/round is a link that leads in a circle", ""),
        ];
        assert_eq!(said.len(), expected.len(), "{said:#?}");
        for (said, (place, what, instead)) in said.iter().zip(expected) {
            assert!(said.starts_with("policy p (") && said.contains(place), "{said}");
            assert!(said.contains(what) && said.contains(instead), "{said}");
        }
    }

    #[test]
    fn a_few_links_out_of_a_directory_get_advice_until_covered() {
        let dir = tempfile::tempdir().unwrap();
        let program = |path: &str| {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, "").unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        };
        ["opt/bin/own", "opt/bin/sub/inner", "lib/tool"].into_iter().for_each(program);
        fs::write(dir.path().join("lib/data"), "").unwrap();
        let link = |target: &str, name: &str| symlink(target, dir.path().join("opt/bin").join(name)).unwrap();
        for (target, name) in
            [("own", "a"), ("sub/inner", "inner"), ("/lib/data", "data"), ("../../lib/tool", "tool")]
        {
            link(target, name);
        }
        let said = |rules: &str| {
            let text = format!(
                "apiVersion: security.kubearmor.com/v1\nkind: KubeArmorPolicy\nmetadata: {{name: p}}\nspec:\n  selector: \
                 {{matchLabels: {{app: x}}}}\n  process: {{{rules}}}\n"
            );
            let policies = armor_policy::parse("p.yaml", &text).unwrap();
            without_effect(&Root::at(dir.path().to_owned()), &[&policies[0]])
        };
        let tool = "/opt/bin/tool is a link to /lib/tool, and ";
        for (rules, link) in [
            ("matchDirectories: [{dir: /opt/bin/, recursive: true}]", Some(tool)),
            (
                "matchDirectories: [{dir: /opt/bin/}]",
                Some("/opt/bin/inner is a link to /opt/bin/sub/inner, and "),
            ),
            ("matchDirectories: [{dir: /opt/bin/, recursive: true}], matchPaths: [{path: /lib/tool}]", None),
            ("matchDirectories: [{dir: /opt/bin/, recursive: true}, {dir: /lib/}]", None),
            ("matchDirectories: [{dir: /opt/, recursive: true}]", None),
        ] {
            let said = said(rules);
            assert_eq!(said.len(), usize::from(link.is_some()), "{rules}: {said:?}");
            assert!(link.is_none_or(|link| said[0].contains(link) && said[0].ends_with(" too")), "{said:?}");
        }
        (0..MAX_LINKS).for_each(|number| link("/lib/tool", &format!("l{number}")));
        assert!(said("matchDirectories: [{dir: /opt/bin/, recursive: true}]").is_empty());
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
