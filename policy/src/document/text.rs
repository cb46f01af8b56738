//! Decodes a file before it is read as YAML, JSON or PEM, and detects other encodings and unrendered
//! templates.

use std::str::from_utf8;

use super::diagnostics::{Diagnostic, Diagnostics};
use crate::model::Location;

/// The byte order mark, with which some editors begin UTF-8 files.
const MARK: &str = "\u{feff}";
/// Number of bytes at the start of a file from which its encoding is guessed.
const SAMPLE: usize = 512;
/// Largest number of bytes of a placeholder that is examined.
const MAX_PLACEHOLDER: usize = 100;

/// Returns the text of a file; `name` is the file's name in the diagnostic.
///
/// # Errors
/// Fails if the file is not UTF-8. The diagnostic has the first such place, and how to convert the file.
pub fn decode(name: &str, bytes: Vec<u8>) -> Result<String, Diagnostics> {
    let refuse = |location, message, help| {
        let diagnostic = Diagnostic { file: name.to_owned(), location, message, help };
        Err(Diagnostics { list: vec![diagnostic], more: 0 })
    };
    if let Some(encoding) = wide_encoding(&bytes) {
        let help = format!("convert it: iconv -f {encoding} -t UTF-8 FILE > NEW");
        return refuse(Location { line: 1, column: 1 }, format!("the file is {encoding}, not UTF-8"), help);
    }
    String::from_utf8(bytes).or_else(|error| {
        let (good, bad) = error.as_bytes().split_at(error.utf8_error().valid_up_to());
        let place = place(from_utf8(good).unwrap_or_default());
        let byte = bad.first().copied().unwrap_or_default();
        let help = "save it as UTF-8, or convert it, from Latin-1 for instance: iconv -f ISO-8859-1 -t UTF-8 FILE > NEW";
        refuse(place, format!("not UTF-8: the byte {byte:#04x}"), help.to_owned())
    })
}

/// Explains that a text cannot be read because it is UTF-16 or UTF-32 or has a byte order mark, and how to
/// convert it. Returns `None` if the cause is another.
#[must_use]
pub fn foreign_encoding(bytes: &[u8]) -> Option<String> {
    if let Some(encoding) = wide_encoding(bytes) {
        return Some(format!(
            "it is {encoding}, not UTF-8: convert it: iconv -f {encoding} -t UTF-8 FILE > NEW"
        ));
    }
    let marked = bytes.starts_with(MARK.as_bytes());
    marked.then(|| {
        "a byte order mark is before line 1, column 1: take it away: tail -c +4 FILE > NEW".to_owned()
    })
}

/// Explains why a text is not YAML, given where the parser `stopped` and its message `info`. Returns the
/// place, the error and the remedy, which is empty if unknown.
pub(crate) fn no_yaml(text: &str, stopped: Location, info: &str) -> (Location, String, &'static str) {
    let found = |at: usize, what: &str, help| (place(&text[..at]), format!("not YAML: {what}"), help);
    if let Some(at) = text.find('\0') {
        return found(at, "a NUL character", "take it out: tr -d '\\000' < FILE > NEW");
    }
    if info.contains("byte order mark")
        && let Some((at, _)) = text.match_indices(MARK).find(|(at, _)| *at > 0)
    {
        return found(
            at,
            "a byte order mark within the text",
            "take it out: a file began with it that was appended here",
        );
    }
    if info.contains("tab") {
        let at = indenting_tab(text, stopped.line).unwrap_or(stopped);
        return (at, format!("not YAML: {info}"), "indent with blanks: expand FILE > NEW");
    }
    (stopped, format!("not YAML: {info}"), "")
}

/// Returns the place of the first tab in the indentation of a line, beginning at line `from`.
fn indenting_tab(text: &str, from: u32) -> Option<Location> {
    let (mut start, mut number) = (0, 1);
    for line in text.split_inclusive('\n') {
        let indent = line.len() - line.trim_start_matches([' ', '\t']).len();
        if let Some(tab) = line[..indent].find('\t').filter(|_| number >= from) {
            return Some(place(&text[..start + tab]));
        }
        start += line.len();
        number += 1;
    }
    None
}

/// Returns iconv's name of the encoding if the bytes begin like UTF-16 or UTF-32.
fn wide_encoding(bytes: &[u8]) -> Option<&'static str> {
    // UTF-32 comes before UTF-16, because both little-endian marks begin with the same bytes.
    let marks: [(&[u8], _); 4] = [
        (&[0xff, 0xfe, 0, 0], "UTF-32"),
        (&[0, 0, 0xfe, 0xff], "UTF-32"),
        (&[0xff, 0xfe], "UTF-16"),
        (&[0xfe, 0xff], "UTF-16"),
    ];
    if let Some((_, encoding)) = marks.into_iter().find(|(mark, _)| bytes.starts_with(mark)) {
        return Some(encoding);
    }
    // Without a mark: YAML is mostly ASCII, whose other bytes are 0 in wide characters. UTF-8 text has no 0.
    let sample = &bytes[..bytes.len().min(SAMPLE)];
    let mut zeros = [0; 4];
    for (index, _) in sample.iter().enumerate().filter(|(_, byte)| **byte == 0) {
        zeros[index % 4] += 1;
    }
    let most = |count: usize| count * 8 > sample.len();
    match zeros.map(most) {
        [false, true, true, true] => Some("UTF-32LE"),
        [true, true, true, false] => Some("UTF-32BE"),
        [false, true, false, true] => Some("UTF-16LE"),
        [true, false, true, false] => Some("UTF-16BE"),
        _ => None,
    }
}

/// Returns the first template placeholder outside of comments, and its place.
pub(crate) fn first_placeholder(text: &str) -> Option<(Location, &str)> {
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        if let Some(at) = find_placeholder(&line[..comment(line)]) {
            return Some((place(&text[..start + at]), placeholder_at(&line[at..])?));
        }
        start += line.len();
    }
    None
}

/// Returns the first template placeholder in one value.
pub(crate) fn placeholder_in(value: &str) -> Option<&str> {
    placeholder_at(&value[find_placeholder(value)?..])
}

fn find_placeholder(text: &str) -> Option<usize> {
    text.match_indices('{').map(|(at, _)| at).find(|at| placeholder_at(&text[*at..]).is_some())
}

/// Returns where a line's comment begins, or the end of the line if it has none.
fn comment(line: &str) -> usize {
    let begins = |at: &usize| line[..*at].is_empty() || line[..*at].ends_with([' ', '\t']);
    line.match_indices('#').map(|(at, _)| at).find(begins).unwrap_or(line.len())
}

/// Returns the placeholder that a text begins with: of Helm and other Go templates, or of Jinja. In a
/// pattern, `{{a,b},c}` is valid too, but nobody begins an alternative with a blank.
fn placeholder_at(text: &str) -> Option<&str> {
    let (inside, end) = match text.strip_prefix("{{") {
        Some(inside) => (inside, "}}"),
        None => (text.strip_prefix("{%")?, "%}"),
    };
    // The search is bounded and cheap, because a hostile file may have a million braces.
    let bound = (0..=MAX_PLACEHOLDER.min(inside.len())).rev().find(|&at| inside.is_char_boundary(at));
    let inside = &inside[..bound.unwrap_or(0)];
    let behind_trim = inside.strip_prefix('-').unwrap_or(inside);
    let begins_blank = behind_trim.is_empty() || behind_trim.starts_with(char::is_whitespace);
    if !(begins_blank || inside.starts_with("/*") || (end == "}}" && begins_action(inside))) {
        return None;
    }
    let line = inside.lines().next().unwrap_or_default();
    let length = line.find(end).map_or(line.len(), |at| at + end.len());
    text.get(..2 + length)
}

/// Returns whether the text after `{{`, which begins without a blank, is a template action up to the next
/// `}}` and not the alternatives of a pattern. Alternatives have a comma; an action has commas only within
/// quotes.
fn begins_action(inside: &str) -> bool {
    let mut quote = None;
    let mut characters = inside.char_indices();
    while let Some((at, character)) = characters.next() {
        match (quote, character) {
            (_, '\n') | (None, ',' | '{') => return false,
            (None, '}') => return at > 0 && inside[at..].starts_with("}}"),
            (None, '"' | '\'' | '`') => quote = Some(character),
            (Some('"' | '\''), '\\') => _ = characters.next(),
            (Some(open), _) if open == character => quote = None,
            _ => {}
        }
    }
    false
}

/// Returns the place directly after the text `before`.
fn place(before: &str) -> Location {
    let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let line = &before[before.rfind('\n').map_or(0, |end| end + 1)..];
    Location { line: number(before.matches('\n').count() + 1), column: number(line.chars().count() + 1) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_are_told_from_patterns() {
        for (text, found) in [
            ("a: {{ .Values.a }}/b", "{{ .Values.a }}"),
            ("{{- if .a -}}", "{{- if .a -}}"),
            ("{{.Values.a}}", "{{.Values.a}}"),
            ("{{include \"a\" .}}", "{{include \"a\" .}}"),
            ("{{end}}", "{{end}}"),
            ("/a/{{name}}/b", "{{name}}"),
            ("{{{name}}}", "{{name}}"),
            ("{{default \"x,y\" .V}}", "{{default \"x,y\" .V}}"),
            ("{{default \"\\\",}\" .V}}", "{{default \"\\\",}\" .V}}"),
            ("{{`x,{`}}", "{{`x,{`}}"),
            ("{{'a,b'|upper}}", "{{'a,b'|upper}}"),
            ("{{/* said", "{{/* said"),
            ("{{-\nif }}", "{{-"),
            ("{{\tx", "{{\tx"),
            ("{% if a %}", "{% if a %}"),
        ] {
            assert_eq!(placeholder_in(text), Some(found), "{text}");
        }
        for pattern in [
            "/{{a,b},c}",
            "/{{.git,.svn},x}",
            "/{x,{{.a,.b}}}",
            "/{{a},b}",
            "/{%a,b}",
            "/${A}",
            "{",
            "{{x",
            "{{}}",
            "{{'x}}",
        ] {
            assert_eq!(placeholder_in(pattern), None, "{pattern}");
        }
    }

    #[test]
    fn comments_may_have_placeholders() {
        assert_eq!(first_placeholder("# {{ a }}\na: b # {{ a }}\n"), None);
        let (at, _) = first_placeholder("# x\nä: b#{{ a }}\n").unwrap();
        assert_eq!((at.line, at.column), (2, 6));
    }
}
