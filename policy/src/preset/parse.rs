//! Reads the section `presets`.

use super::model::{MEMORY_DIRECTORIES, Preset};
use crate::document::diagnostics::Sink;
use crate::document::fields::{Fields, Text, items, nearest};
use crate::document::rules::{COMMON, Inherited};
use crate::document::yaml::Node;
use crate::model::{Action, Rule, RuleBody};
use crate::path::{PathRule, Section, Target};

pub(crate) fn read_presets(node: &Node<'_>, above: &Inherited, rules: &mut Vec<Rule>, sink: &mut Sink) {
    for node in items(node, "presets", sink) {
        read_preset(node, above, rules, sink);
    }
}

/// Reports a name that is no preset's, and returns the preset that it is mended to.
fn meant(name: &Text<'_>, sink: &mut Sink) -> Option<Preset> {
    let names = Preset::ALL.map(Preset::name);
    let help = match nearest(name.text, &names) {
        Some(near) => format!("did you mean {near}?"),
        None => format!("known: {}", names.join(", ")),
    };
    let message = format!("preset `{}` is not known", name.text);
    name.meant(&names, message, &help, sink).and_then(Preset::from_name)
}

fn read_preset(node: &Node<'_>, above: &Inherited, rules: &mut Vec<Rule>, sink: &mut Sink) {
    let Some(mut fields) = Fields::new(node, "an entry of presets", sink) else { return };
    let everyone = "a preset is about all programs of the workload";
    fields.only(&[&COMMON[..], &["name"]].concat(), &[("fromSource", everyone)], sink);
    let own = above.or_own(&fields, sink);
    let Some(name) = fields.required_string("name", "the preset", sink) else { return };
    let Some(preset) = Preset::from_name(name.text).or_else(|| meant(&name, sink)) else { return };
    let Some(rule) = own.clone().rule(Vec::new(), RuleBody::Preset(preset), fields.at, sink) else { return };
    if rule.common.action == Action::Allow {
        let message = format!("preset `{}` cannot have the action Allow", preset.name());
        sink.error(fields.at, message, "write Block or Audit; without the preset it is allowed");
        return;
    }
    rules.push(rule);
    if preset == Preset::FilelessExec {
        for directory in MEMORY_DIRECTORIES {
            let target = Target::Directory { path: directory.to_owned(), recursive: true };
            let of_path = PathRule {
                section: Section::Process,
                target,
                owner_only: false,
                read_only: false,
                allowed_args: Vec::new(),
            };
            rules.extend(own.clone().rule(Vec::new(), RuleBody::Path(of_path), fields.at, sink));
        }
    }
}
