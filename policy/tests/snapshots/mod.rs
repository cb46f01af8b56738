//! Compares what is said of policy files with files beside them. `UPDATE=1` writes these anew.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};

/// Returns the policy files of a directory of the tests.
pub fn policies(directory: &str) -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(directory);
    let mut files: Vec<_> = fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "yaml"));
    files.sort();
    assert!(files.len() >= 9);
    files
}

/// Asserts that the file beside `file` with another extension has this content.
pub fn assert_beside(file: &Path, extension: &str, content: &str) {
    let expected = file.with_extension(extension);
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&expected, content).unwrap();
    }
    assert_eq!(content, fs::read_to_string(&expected).unwrap_or_default(), "{}", expected.display());
}
