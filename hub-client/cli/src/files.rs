//! This module finds the policy files in directories, reads bundles, and writes outputs that are not also
//! inputs.

use std::fmt::Display;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail, ensure};
use armor_base::file::{self, is_same, other_kind};
use armor_bundle::MAX_BUNDLE;
use armor_console as console;
use armor_policy::escaped_path;

/// Maximum number of policy files that one command reads.
const MAX_FILES: usize = 10_000;
/// Maximum depth of nested directories.
const MAX_DEPTH: usize = 32;
/// Maximum number of skipped files that are listed.
pub const MAX_LEFT_OUT: usize = 20;

/// A `Found` contains the policy files in the given paths.
#[derive(Debug, Default)]
pub struct Found {
    /// The files; those of a directory are ordered by path.
    pub files: Vec<PathBuf>,
    left_out: Vec<String>,
    more: usize,
}

/// Returns the given files, and for given directories all files below them that end in `.yaml` or `.yml`.
///
/// # Errors
/// Fails if a directory cannot be listed, or contains no such file.
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

    /// Prints which files in the directories were skipped.
    pub fn tell_left_out(&self) {
        for line in &self.left_out {
            console::tell(format_args!("left out: {line}"));
        }
        if self.more > 0 {
            console::tell(format_args!("left out: {} more", self.more));
        }
    }
}

/// Refuses an output that is not a regular file, because opening it can block or have side effects. Also
/// refuses one that is an input or another output under any name. Nothing is written before this check.
///
/// # Errors
/// Fails with the kind of file, or with the two names.
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

/// Reads a bundle's file, up to the maximum size of a bundle.
pub fn read_bundle(path: &Path) -> anyhow::Result<Vec<u8>> {
    file::read(path, MAX_BUNDLE).with_context(|| escaped_path(path))
}

/// Writes a command's result to `path`, or to standard output.
pub fn write_output(path: Option<&Path>, bytes: &[u8]) -> anyhow::Result<ExitCode> {
    match path {
        Some(path) => fs::write(path, bytes).with_context(|| escaped_path(path))?,
        None => {
            let mut out = console::stdout();
            out.write_all(bytes).and_then(|()| out.flush())?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
