//! Reads the section `device`.

use super::model::{ALL, CLASSES, DeviceRule, MAX_LEVEL};
use crate::document::diagnostics::Sink;
use crate::document::fields::{Fields, Text, nearest};
use crate::document::rules::{COMMON, Inherited, read_section};
use crate::document::yaml::{Node, Value};
use crate::model::{Rule, RuleBody};
use std::ops::RangeInclusive;

const LIST: &str = "matchDevice";

pub(crate) fn read_device(node: &Node<'_>, above: &Inherited, rules: &mut Vec<Rule>, sink: &mut Sink) {
    let Some((section, inherited)) = read_section("device", node, above, &[LIST], &[], sink) else { return };
    for node in section.list(LIST, sink) {
        read_entry(node, &inherited, rules, sink);
    }
}

fn read_entry(node: &Node<'_>, above: &Inherited, rules: &mut Vec<Rule>, sink: &mut Sink) {
    let Some(mut fields) = Fields::new(node, "an entry of matchDevice", sink) else { return };
    let no_program = "a device appears by no program's doing";
    let known = [&COMMON[..], &["class", "subClass", "protocol", "level"]].concat();
    fields.only(&known, &[("fromSource", no_program)], sink);
    let own = above.or_own(&fields, sink);
    let before = sink.count();
    let class = fields.required_string("class", "the devices it is about, ALL for all of them", sink);
    let class = class.and_then(|class| read_class(&class, sink));
    let sub_class = read_number(&fields, "subClass", 0..=u8::MAX, sink);
    let protocol = read_number(&fields, "protocol", 0..=u8::MAX, sink);
    let level = read_number(&fields, "level", 1..=MAX_LEVEL, sink);
    if sink.count() > before {
        return;
    }
    let body = RuleBody::Device(DeviceRule { class, sub_class, protocol, level });
    rules.extend(own.rule(Vec::new(), body, fields.at, sink));
}

/// Reads a class by name or number; `None` for all of them, or after an error.
fn read_class(written: &Text<'_>, sink: &mut Sink) -> Option<u8> {
    let text = written.text.trim();
    if text.eq_ignore_ascii_case(ALL) {
        return None;
    }
    let named = CLASSES.iter().find(|(name, _)| name.eq_ignore_ascii_case(text));
    let class = named.map(|(_, number)| *number).or_else(|| number(text));
    if class.is_some_and(|class| class > 0) {
        return class;
    }
    let help = match class {
        Some(_) => "a device of class 0 says what it is by its interfaces: name their class".to_owned(),
        None => {
            let names = CLASSES.map(|(name, _)| name);
            let known =
                || format!("known: {}, {ALL}; or a number from 1 to 255, as 8 or 0x08", names.join(", "));
            nearest(text, &names).map_or_else(known, |near| format!("did you mean {near}?"))
        }
    };
    let message = match class {
        Some(_) => "class 0 is no kind of device".to_owned(),
        None => format!("class `{text}` is not known"),
    };
    sink.error(written.at, message, help);
    None
}

/// Returns a number that is written in decimal digits without a zero before them, or in hexadecimal ones after `0x`.
fn number(text: &str) -> Option<u8> {
    let (digits, radix) = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => (digits, 16),
        None => (text, 10),
    };
    // KubeArmor reads such a number as octal.
    let is_octal = radix == 10 && digits.len() > 1 && digits.starts_with('0');
    let is_number = digits.chars().all(|digit| digit.is_digit(radix)) && !is_octal;
    is_number.then(|| u8::from_str_radix(digits, radix).ok())?
}

fn read_number(fields: &Fields<'_>, name: &str, range: RangeInclusive<u8>, sink: &mut Sink) -> Option<u8> {
    let node = fields.get(name)?;
    let read = match &node.value {
        Value::Scalar { text, plain: true } => number(text).filter(|number| range.contains(number)),
        _ => None,
    };
    if read.is_none() {
        let given = match &node.value {
            Value::Scalar { text, plain: true } if !text.is_empty() => format!("`{text}`"),
            _ => node.kind().to_owned(),
        };
        let help = format!("write a whole number from {} to {}, without quotes", range.start(), range.end());
        sink.error(node.at, format!("{name} is {given}"), help);
    }
    read
}
