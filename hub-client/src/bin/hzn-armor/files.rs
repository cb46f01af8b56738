//! Which files a command line means: the policies in directories, and outputs that must not be an input.

use std::fmt::Display;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use armor_hub_client::console;
use armor_hub_client::file::{is_same, other_kind};
use armor_policy::escaped_path;

/// The most policy files that one command reads.
const MAX_FILES: usize = 10_000;
/// How deep directories may lie in each other.
const MAX_DEPTH: usize = 32;
/// How many of those that are left out are named.
pub const MAX_LEFT_OUT: usize = 20;

/// The policy files that paths stand for.
#[derive(Debug, Default)]
pub struct Found {
    /// The files, those of a directory in the order of their paths.
    pub files: Vec<PathBuf>,
    left_out: Vec<String>,
    more: usize,
}

/// The files as they are named, and the files that end in `.yaml` or `.yml` of directories and of the directories in them.
///
/// # Errors
/// A directory that does not list, or has no such file.
pub fn find(paths: &[PathBuf]) -> anyhow::Result<Found> {
    let mut found = Found::default();
    for path in paths {
        if !path.is_dir() {
            found.files.push(path.clone());
            continue;
        }
        let before = found.files.len();
        found.walk(path, 0)?;
        ensure!(
            found.files.len() > before,
            "{}: no .yaml or .yml file in this directory",
            escaped_path(path)
        );
    }
    Ok(found)
}

impl Found {
    fn walk(&mut self, directory: &Path, depth: usize) -> anyhow::Result<()> {
        let name = || escaped_path(directory);
        let mut entries =
            fs::read_dir(directory).and_then(Iterator::collect::<Result<Vec<_>, _>>).with_context(name)?;
        entries.sort_by_key(fs::DirEntry::path);
        for entry in entries {
            let path = entry.path();
            let kind = entry.file_type().with_context(|| escaped_path(&path))?;
            let is_policy =
                path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml");
            let reason = if kind.is_dir() {
                if entry.file_name().as_encoded_bytes().starts_with(b".") {
                    "a hidden directory"
                } else if depth == MAX_DEPTH {
                    bail!(
                        "{}: directories lie more than {MAX_DEPTH} deep: name this one by itself",
                        escaped_path(&path)
                    );
                } else {
                    self.walk(&path, depth + 1)?;
                    continue;
                }
            } else if kind.is_symlink() && path.is_dir() {
                "a link to a directory"
            } else if is_policy {
                ensure!(self.files.len() < MAX_FILES, "{}: more than {MAX_FILES} policy files", name());
                self.files.push(path);
                continue;
            } else {
                other_kind(kind).unwrap_or("its name ends in neither .yaml nor .yml")
            };
            self.leave_out(&path, reason);
        }
        Ok(())
    }

    fn leave_out(&mut self, path: &Path, reason: &str) {
        if self.left_out.len() < MAX_LEFT_OUT {
            self.left_out.push(format!("{}: {reason}", escaped_path(path)));
        } else {
            self.more += 1;
        }
    }

    /// Says what of the directories was left out.
    pub fn tell_left_out(&self) {
        for line in &self.left_out {
            console::tell(format_args!("left out: {line}"));
        }
        if self.more > 0 {
            console::tell(format_args!("left out: {} more", self.more));
        }
    }
}

/// Refuses an output that is no regular file, which to open can wait for ever and can have effects, and one that is one of the
/// inputs, or another output, by whatever name; nothing is written before this is known.
///
/// # Errors
/// What it is, or the two names.
pub fn check_output<'p, W: Display>(
    option: &str,
    output: Option<&Path>,
    others: impl IntoIterator<Item = (W, &'p Path)>,
) -> anyhow::Result<()> {
    let Some(output) = output else { return Ok(()) };
    if let Some(kind) = fs::metadata(output).ok().and_then(|meta| other_kind(meta.file_type())) {
        bail!(
            "{option} {}: no regular file but a {kind}: name one, or leave {option} out; nothing was written",
            escaped_path(output)
        );
    }
    for (what, path) in others {
        ensure!(
            !is_same(output, path),
            "{option} {} is {what} {}: name another file; nothing was written",
            escaped_path(output),
            escaped_path(path)
        );
    }
    Ok(())
}
