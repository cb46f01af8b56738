//! Reads the section `syscalls`.

use super::model::Syscall;
use crate::document::diagnostics::Sink;
use crate::document::fields::{Fields, Text, nearest, text};
use crate::document::rules::{
    COMMON, Inherited, UNSUPPORTED, read_section, read_sources_or_directories, within_pairs,
};
use crate::document::yaml::{Node, Value};
use crate::model::{Action, Rule, RuleBody};

const LIST: &str = "matchSyscalls";
const REPORTED: &str =
    "calls are reported, not refused: write Audit, or a rule of `file`, `process` or `network`";

pub(crate) fn read_syscalls(node: &Node<'_>, above: &Inherited, rules: &mut Vec<Rule>, sink: &mut Sink) {
    let refused = [("matchPaths", UNSUPPORTED)];
    let Some((section, inherited)) = read_section("syscalls", node, above, &[LIST], &refused, sink) else {
        return;
    };
    refuse_action(&section, "syscalls", sink);
    if section.get("action").is_none() && above.action() != Action::Audit {
        // What the spec says may be meant for other sections, and KubeArmor reports calls whatever it says.
        sink.warn(section.at, "system calls are only reported", "write action: Audit in the section");
    }
    for node in section.list(LIST, sink) {
        read_entry(node, &inherited, rules, sink);
    }
}

/// Reads one entry, which is a rule for each call.
fn read_entry(node: &Node<'_>, above: &Inherited, rules: &mut Vec<Rule>, sink: &mut Sink) {
    let Some(mut fields) = Fields::new(node, "an entry of matchSyscalls", sink) else { return };
    fields.only(&[&COMMON[..], &["syscall", "fromSource"]].concat(), &[("path", UNSUPPORTED)], sink);
    refuse_action(&fields, "an entry of matchSyscalls", sink);
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
            rules.extend(own.clone().rule(sources.clone(), RuleBody::Syscall(call), fields.at, sink));
        }
    }
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
