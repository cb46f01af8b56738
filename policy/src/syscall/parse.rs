//! Reads the section `syscalls`.

use super::model::{CallPath, Syscall, SyscallRule};
use crate::document::diagnostics::Sink;
use crate::document::fields::{Fields, Text, nearest, text};
use crate::document::paths;
use crate::document::rules::{COMMON, Inherited, read_section, read_sources_or_directories, within_pairs};
use crate::document::yaml::{Node, Value};
use crate::model::{Action, Rule, RuleBody};

const CALLS: &str = "matchSyscalls";
const PATHS: &str = "matchPaths";
const REPORTED: &str =
    "calls are reported, not refused: write Audit, or a rule of `file`, `process` or `network`";

pub(crate) fn read_syscalls(node: &Node<'_>, above: &Inherited, rules: &mut Vec<Rule>, sink: &mut Sink) {
    let Some((section, inherited)) = read_section("syscalls", node, above, &[CALLS, PATHS], &[], sink) else {
        return;
    };
    refuse_action(&section, "syscalls", sink);
    if section.get("action").is_none() && above.action() != Action::Audit {
        // What the spec says may be meant for other sections, and KubeArmor reports calls whatever it says.
        sink.warn(section.at, "system calls are only reported", "write action: Audit in the section");
    }
    for list in [CALLS, PATHS] {
        for node in section.list(list, sink) {
            read_entry(node, list, &inherited, rules, sink);
        }
    }
}

/// Reads one entry of a list, which is a rule for each call.
fn read_entry(node: &Node<'_>, list: &str, above: &Inherited, rules: &mut Vec<Rule>, sink: &mut Sink) {
    let what = format!("an entry of {list}");
    let Some(mut fields) = Fields::new(node, &what, sink) else { return };
    let (own, refused): (&[&str], &[(&str, &str)]) = match list {
        PATHS => (&["path", "recursive"], &[]),
        _ => (&[], &[("path", "calls with a path go into matchPaths")]),
    };
    fields.only(&[&COMMON[..], &["syscall", "fromSource"], own].concat(), refused, sink);
    refuse_action(&fields, &what, sink);
    let path = if list == PATHS {
        let Some(path) = read_path(&fields, sink) else { return };
        Some(path)
    } else {
        None
    };
    let own = above.or_own(&fields, sink).audited();
    let sources = read_sources_or_directories(&fields, sink);
    if fields.required("syscall", "the calls it is about", sink).is_none() {
        return;
    }
    let calls = fields.list("syscall", sink);
    if !within_pairs(calls.len(), "a system call", &sources, &fields, sink) {
        return;
    }
    let mut seen = Vec::new();
    for node in calls {
        let Some(name) = text(node, "a system call", sink) else { continue };
        let call = Syscall::from_name(name.text).or_else(|| meant(&name, sink));
        if let Some(call) = call.filter(|call| !seen.contains(call)) {
            seen.push(call);
            if path.is_some() && call.paths().is_empty() {
                sink.error(name.at, format!("{call} takes no path"), "name it in matchSyscalls");
                continue;
            }
            let body = RuleBody::Syscall(SyscallRule { call, path: path.clone() });
            rules.extend(own.clone().rule(sources.clone(), body, fields.at, sink));
        }
    }
}

/// Reads the path of an entry. With a last `/` it is a directory's, to which `recursive` adds what is below it.
fn read_path(fields: &Fields<'_>, sink: &mut Sink) -> Option<CallPath> {
    let recursive = fields.boolean("recursive", sink);
    let path = fields.required_string("path", "the path that the calls name", sink)?;
    if path.text.ends_with('/') {
        let directory = paths::directory(&path, sink)?;
        return Some(CallPath { path: directory.trim_end_matches('/').to_owned(), recursive });
    }
    if recursive {
        let help = format!("write {}/ if all below it is meant", path.text);
        sink.warn(path.at, "`recursive` has no effect on a path that does not end in '/'", help);
    }
    Some(CallPath { path: paths::path(&path, sink)?, recursive: false })
}

/// Reports a name that is no call's, and returns the call that it is mended to.
fn meant(name: &Text<'_>, sink: &mut Sink) -> Option<Syscall> {
    let names: Vec<&str> = Syscall::all().map(Syscall::name).collect();
    let help = nearest(name.text, &names)
        .map_or_else(|| "syscalls(2) lists them".to_owned(), |near| format!("did you mean {near}?"));
    let message = format!("system call `{}` is not known", name.text);
    name.meant(&names, message, &help, sink).and_then(Syscall::from_name)
}

/// What the section or an entry asks for itself must be a report.
fn refuse_action(fields: &Fields<'_>, what: &str, sink: &mut Sink) {
    let Some(Node { value: Value::Scalar { text, .. }, at, .. }) = fields.get("action") else { return };
    if ["Block", "Allow"].iter().any(|refused| text.eq_ignore_ascii_case(refused)) {
        sink.error(*at, format!("{what} has the action {text}"), REPORTED);
    }
}
