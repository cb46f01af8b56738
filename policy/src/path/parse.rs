//! Reads the sections `process` and `file`.

use super::glob::Glob;
use super::model::{MAX_ARG_BYTES, MAX_ARGS, PathRule, Section, Target};
use crate::document::diagnostics::Sink;
use crate::document::fields::{Fields, text};
use crate::document::paths;
use crate::document::rules::{COMMON, Inherited, read_pts, read_sources};
use crate::document::yaml::Node;
use crate::model::{Rule, RuleBody};

pub(crate) fn read_process(node: &Node<'_>, above: &Inherited, rules: &mut Vec<Rule>, sink: &mut Sink) {
    read_section(node, Section::Process, above, rules, sink);
}

pub(crate) fn read_file(node: &Node<'_>, above: &Inherited, rules: &mut Vec<Rule>, sink: &mut Sink) {
    read_section(node, Section::File, above, rules, sink);
}

fn read_section(node: &Node, section: Section, above: &Inherited, rules: &mut Vec<Rule>, sink: &mut Sink) {
    let what = match section {
        Section::Process => "process",
        Section::File => "file",
    };
    let Some(mut fields) = Fields::new(node, what, sink) else { return };
    const LISTS: [&str; 3] = ["matchPaths", "matchDirectories", "matchPatterns"];
    fields.only(&[&LISTS[..], &COMMON[..]].concat(), &[], sink);
    let inherited = above.or_own(&fields, sink);
    if LISTS.iter().all(|list| fields.get(list).is_none()) {
        sink.error(
            node.at,
            format!("`{what}` has no rules"),
            "add matchPaths, matchDirectories or matchPatterns",
        );
    }
    for list in LISTS {
        for node in fields.list(list, sink) {
            rules.extend(read_entry(node, section, list, &inherited, sink).into_iter().flatten());
        }
    }
}

/// Reads the rules of one entry; returns `None` only after an error.
fn read_entry(
    node: &Node,
    section: Section,
    list: &str,
    above: &Inherited,
    sink: &mut Sink,
) -> Option<Vec<Rule>> {
    let what = format!("an entry of {list}");
    let mut fields = Fields::new(node, &what, sink)?;
    let mut known = COMMON.to_vec();
    known.push("ownerOnly");
    let mut refused = Vec::new();
    match section {
        Section::Process => refused.push(("readOnly", "only rules of `file` have it")),
        Section::File => known.push("readOnly"),
    }
    refused.push(match section {
        Section::Process => ("allowedArgs", "only matchPaths has it"),
        Section::File => ("allowedArgs", "only rules of `process` have it"),
    });
    match list {
        "matchPaths" => {
            known.extend(["path", "fromSource", "pts"]);
            refused.push(("recursive", "only matchDirectories has it"));
            refused.push(("dir", "a directory goes into matchDirectories"));
            refused.push(("pattern", "a pattern goes into matchPatterns"));
            match section {
                Section::Process => known.extend(["execname", "allowedArgs"]),
                Section::File => refused.push(("execname", "only rules of `process` have it")),
            }
        }
        "matchDirectories" => {
            known.extend(["dir", "recursive", "fromSource", "pts"]);
            refused.push(("path", "a path goes into matchPaths; here it is `dir`"));
            refused.push(("pattern", "a pattern goes into matchPatterns"));
        }
        _ => {
            known.push("pattern");
            refused.push(("fromSource", "patterns apply to every program; name the paths in matchPaths"));
            refused.push(("pts", "patterns apply with and without a terminal; name the paths in matchPaths"));
            refused.push(("recursive", "write '**' for any depth"));
            refused.push(("path", "a path goes into matchPaths; here it is `pattern`"));
            refused.push(("dir", "a directory goes into matchDirectories"));
        }
    }
    fields.only(&known, &refused, sink);

    let target = read_target(&fields, section, list, sink);
    let own = above.or_own(&fields, sink);
    let owner_only = fields.boolean("ownerOnly", sink);
    let read_only = section == Section::File && fields.boolean("readOnly", sink);
    let sources = if list == "matchPatterns" { Vec::new() } else { read_sources(&fields, sink) };
    let allowed_args =
        if known.contains(&"allowedArgs") { read_arguments(&fields, sink) } else { Vec::new() };
    let body = RuleBody::Path(PathRule { section, target: target?, owner_only, read_only, allowed_args });
    let pts = list == "matchPatterns" || read_pts(&fields, sink);
    Some(own.rules(pts, sources, body, fields.at, sink))
}

/// Reads `allowedArgs`.
fn read_arguments(fields: &Fields<'_>, sink: &mut Sink) -> Vec<String> {
    let nodes = fields.list("allowedArgs", sink);
    if nodes.len() > MAX_ARGS {
        let message = format!("`allowedArgs` has more than {MAX_ARGS} arguments");
        sink.error(fields.at, message, "a program with so many arguments is refused; shorten the list");
        return Vec::new();
    }
    let mut arguments = Vec::new();
    for node in nodes {
        let Some(argument) = text(node, "an argument", sink) else { continue };
        if argument.text.len() > MAX_ARG_BYTES {
            let message = format!("an argument has more than {MAX_ARG_BYTES} bytes");
            sink.error(argument.at, message, "longer ones are never permitted; leave it out");
        } else if argument.text.contains('\0') {
            sink.error(argument.at, "a NUL byte is in no argument", "take it out");
        } else {
            paths::warn_byte(&argument, "stands for itself", sink);
            arguments.push(argument.text.to_owned());
        }
    }
    arguments
}

fn read_target(fields: &Fields<'_>, section: Section, list: &str, sink: &mut Sink) -> Option<Target> {
    match list {
        "matchPaths" if section == Section::Process => match (fields.get("path"), fields.get("execname")) {
            (Some(_), Some(_)) => {
                sink.error(fields.at, "a rule has both `path` and `execname`", "make two rules of it");
                None
            }
            (None, None) => {
                sink.error(fields.at, "a rule names no program", "give `path` or `execname`");
                None
            }
            (Some(_), None) => paths::path(&fields.string("path", sink)?, sink).map(Target::Path),
            (None, Some(_)) => paths::execname(&fields.string("execname", sink)?, sink).map(Target::Name),
        },
        "matchPaths" => {
            let path = fields.required_string("path", "the file it is about", sink)?;
            paths::path(&path, sink).map(Target::Path)
        }
        "matchDirectories" => {
            let recursive = fields.boolean("recursive", sink);
            let dir = fields.required_string("dir", "the directory it is about", sink)?;
            paths::directory(&dir, sink).map(|path| Target::Directory { path, recursive })
        }
        _ => {
            let pattern = fields.required_string("pattern", "the paths it is about", sink)?;
            if pattern.text.contains(".*") {
                let help = "it is not a regular expression: '*' alone stands for any run without '/'";
                sink.warn(pattern.at, "'.' in a pattern is only a dot", help);
            }
            match Glob::new(pattern.text) {
                Ok(glob) => {
                    paths::warn_merged(pattern.text, pattern.at, sink);
                    paths::warn_byte(&pattern, "is in a pattern the same without the backslash", sink);
                    Some(Target::Glob(glob))
                }
                Err(error) => {
                    sink.error(pattern.at, format!("`{}` is not a pattern", pattern.text), error.to_string());
                    None
                }
            }
        }
    }
}
