//! Finds what the paths of rules resolve to.

use super::error::CompileError;
use crate::model::MAX_PATH;
use std::collections::BTreeMap;

#[cfg(doc)]
use crate::literal_paths;

/// `Links` maps a path to the paths without symlinks that it resolves to in the workload's root. There are
/// several if it resolves differently in the current root and in the image of the workload. The keys are
/// those of [`literal_paths`]; a path that is missing here, or maps to itself, is not a link. Of a path that
/// does not exist, the directories that do exist are resolved. The caller decides whether to resolve a last
/// component that is a symlink: if it does, a rule for `/bin/wget` becomes one for all of `/bin/busybox`.
pub type Links = BTreeMap<String, Vec<String>>;

/// Returns the path without its last `/`; the root directory becomes the empty string.
pub(crate) fn trimmed(path: &str) -> &str {
    path.strip_suffix('/').unwrap_or(path)
}

/// Returns the other paths that a path resolves to, without a last `/`.
pub(crate) fn resolve<'l>(path: &str, links: &'l Links) -> Result<Vec<&'l str>, CompileError> {
    let Some((from, ends)) = links.get_key_value(trimmed(path)) else { return Ok(Vec::new()) };
    let is_normal = |to: &str| {
        to.starts_with('/')
            && to.len() <= MAX_PATH
            && !to.contains("//")
            && !to.contains('\0')
            && to.split('/').all(|component| component != "." && component != "..")
    };
    if let Some(to) = ends.iter().find(|to| !is_normal(to)) {
        return Err(CompileError::Link { from: from.clone(), to: to.clone() });
    }
    Ok(ends.iter().map(|to| trimmed(to)).filter(|to| *to != trimmed(path)).collect())
}
