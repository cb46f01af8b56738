//! Checks the paths, directories and names of programs in rules.

use super::diagnostics::Sink;
use super::fields::Text;
use super::mend::{Ground, Mender};
use crate::model::{Location, MAX_PATH};

pub(crate) fn path(path: &Text<'_>, sink: &mut Sink) -> Option<String> {
    // With a last '/' it can be a directory's whose entries are meant.
    let normal = normal(path, |normal| (!normal.ends_with('/')).then_some(normal), sink)?;
    if normal.ends_with('/') {
        let help = "a directory goes into matchDirectories as `dir`; without the last '/' it is the directory itself";
        sink.error(path.at, format!("path `{}` ends in '/'", path.text), help);
        return None;
    }
    warn_literal(&Text { text: &normal, ..*path }, sink);
    Some(normal)
}

pub(crate) fn directory(dir: &Text<'_>, sink: &mut Sink) -> Option<String> {
    let with = |path: String| Some(if path.ends_with('/') { path } else { format!("{path}/") });
    let normal = normal(dir, with, sink)?;
    if normal.ends_with('/') {
        warn_literal(&Text { text: &normal, ..*dir }, sink);
        return Some(normal);
    }
    let directory = format!("{normal}/");
    let message = format!("dir `{}` does not end in '/'", dir.text);
    let edits = |mender: &Mender<'_>| mender.replace(dir.at, dir.text, &directory);
    if !sink.mendable(dir.at, message, format!("write {directory}"), Ground::OneReading, edits) {
        return None;
    }
    warn_literal(&Text { text: &directory, ..*dir }, sink);
    Some(directory)
}

pub(crate) fn execname(name: &Text<'_>, sink: &mut Sink) -> Option<String> {
    let help = match name.text {
        "" | "." | ".." => "write the name of a program",
        text if text.contains('/') => "it is the last component of a path; write `path` for a whole one",
        text if text.contains('\0') => "a NUL byte is in no name",
        text if text.len() > 255 => "a name has at most 255 bytes",
        text => {
            warn_byte(name, "stands for itself", sink);
            return Some(text.to_owned());
        }
    };
    sink.error(name.at, format!("execname `{}` is not a name", beginning(name.text)), help);
    None
}

/// Returns the path if it is normal. What has '//' or '.' in it is an error, which is mended to what `finish` makes of the
/// path without.
fn normal(path: &Text<'_>, finish: impl Fn(String) -> Option<String>, sink: &mut Sink) -> Option<String> {
    let text = path.text;
    let help = if !text.starts_with('/') {
        "it must begin with '/'".to_owned()
    } else if text.len() > MAX_PATH {
        format!("it has more than {MAX_PATH} bytes")
    } else if text.contains('\0') {
        "a NUL byte is in no path".to_owned()
    } else if text.contains("//") {
        "'//' is in no path; write one '/'".to_owned()
    } else if text.split('/').any(|component| component == "." || component == "..") {
        "write it without '.' and '..'".to_owned()
    } else {
        return Some(text.to_owned());
    };
    let message = format!("`{}` is not a path", beginning(text));
    let Some(normal) = normalised(text).and_then(finish) else {
        sink.error(path.at, message, help);
        return None;
    };
    let edits = |mender: &Mender<'_>| mender.replace(path.at, text, &normal);
    sink.mendable(path.at, message, help, Ground::OneReading, edits).then_some(normal)
}

/// Returns the same path without '//' and '.'. There is none for what no path is, and none for a path with '..', which leads
/// elsewhere where what is before it is a link.
fn normalised(text: &str) -> Option<String> {
    if !text.starts_with('/') || text.len() > MAX_PATH || text.contains('\0') {
        return None;
    }
    let mut components = Vec::new();
    for component in text.split('/').filter(|component| !matches!(*component, "" | ".")) {
        (component != "..").then(|| components.push(component))?;
    }
    let is_directory = text.ends_with('/') || text.ends_with("/.");
    let last = if is_directory && !components.is_empty() { "/" } else { "" };
    Some(format!("/{}{last}", components.join("/")))
}

/// Returns as much of a text as a message needs.
fn beginning(text: &str) -> &str {
    text.char_indices().nth(80).map_or(text, |(end, _)| &text[..end])
}

/// Warns of a byte as alerts write it (`\xff`), because policies do not read it in that form.
pub(crate) fn warn_byte(text: &Text<'_>, meaning: &str, sink: &mut Sink) {
    let is_hex = |digit: &u8| matches!(digit, b'0'..=b'9' | b'a'..=b'f');
    let is_byte =
        |at: &usize| text.text.as_bytes().get(at + 2..at + 4).is_some_and(|digits| digits.iter().all(is_hex));
    if let Some(at) = text.text.match_indices("\\x").map(|(at, _)| at).find(is_byte) {
        let byte = &text.text[at..at + 4];
        let help = "for any one byte write '?' in a `pattern` of matchPatterns; for a control character, double quotes and its \
                    escape in YAML, such as \"\\n\"";
        sink.warn(text.at, format!("`{byte}`, as alerts write a byte, {meaning}"), help);
    }
}

fn warn_literal(path: &Text<'_>, sink: &mut Sink) {
    warn_merged(path.text, path.at, sink);
    warn_byte(path, "stands for itself", sink);
    if path.text.contains(['*', '?', '[', '{']) {
        let help = "write `pattern` in matchPatterns if it shall match more than this one name";
        sink.warn(path.at, format!("`{}` is taken literally", path.text), help);
    }
}

/// The directories that are symlinks into `/usr` on systems with a merged `/usr`.
const MERGED: [&str; 6] = ["/bin/", "/sbin/", "/lib/", "/lib32/", "/lib64/", "/libx32/"];

pub(crate) fn warn_merged(path: &str, at: Location, sink: &mut Sink) {
    if let Some(directory) = MERGED.iter().find(|directory| path.starts_with(**directory)) {
        let directory = directory.trim_end_matches('/');
        let message = format!("{directory} is a symlink to /usr{directory} on most systems");
        let stays = format!("it stays: it matches with and without this link, /usr{directory} only with it");
        sink.remark(at, message.clone(), stays, None);
        sink.warn(at, message, "the rule matches what the path resolves to in the workload's own root");
    }
}
