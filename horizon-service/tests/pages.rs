//! These tests check that the commands and policies in the documentation pages exist and are valid, and that
//! programs print the messages in docs/operations.md.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;

use armor_contract_tests::pages::{PAGES, blocks, calls, file, problems};
use armor_contract_tests::reference::table;

const OPERATIONS: &str = "docs/operations.md";

#[test]
fn commands() {
    let mut found = problems("hzn-armor-agent", env!("CARGO_BIN_EXE_hzn-armor-agent").as_ref()).unwrap();
    for entry in fs::read_dir(file("scripts")).unwrap() {
        let path = entry.unwrap().path();
        let name = format!("scripts/{}", path.file_name().unwrap().to_str().unwrap());
        if !calls(&name).unwrap().is_empty() {
            found.extend(problems(&name, &path).unwrap());
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn policies() {
    let mut count = 0;
    for page in PAGES {
        for (line, policy) in blocks(page, "yaml").unwrap() {
            let checked = armor_policy::check(&format!("{page}:{line}"), &policy).unwrap();
            assert!(checked.warnings.is_empty(), "{page}:{line}: {:?}", checked.warnings);
            count += 1;
        }
    }
    assert!(count >= 2, "only {count} policies");
}

/// Returns the sources of everything that users see, with texts that span several lines joined into one.
fn sources() -> String {
    fn read(path: &Path, all: &mut String) {
        if path.is_dir() {
            for entry in fs::read_dir(path).unwrap() {
                read(&entry.unwrap().path(), all);
            }
        } else if let Ok(text) = fs::read_to_string(path) {
            let mut lines = text.split("\\\n");
            all.push_str(lines.next().unwrap());
            lines.for_each(|line| all.push_str(line.trim_start()));
        }
    }
    let mut all = String::new();
    let directories = [
        "bpf/src",
        "policy/src",
        "hub-client/alerts/src",
        "hub-client/base/src",
        "hub-client/bundle/src",
        "hub-client/cli/src",
        "hub-client/console/src",
        "hub-client/mms/src",
        "horizon-service/src",
        "scripts",
    ];
    for directory in directories {
        read(&file(directory), &mut all);
    }
    all
}

/// Returns the first cells of the tables below a heading of docs/operations.md.
fn first_cells(heading: &str) -> Vec<String> {
    let text = fs::read_to_string(file(OPERATIONS)).unwrap();
    let (_, below) = text.split_once(&format!("\n{heading}\n")).unwrap();
    let rows = below.lines().take_while(|line| !line.starts_with('#')).filter(|line| line.starts_with("| "));
    rows.skip(1).map(|row| row.split('|').nth(1).unwrap().to_owned()).collect()
}

/// Returns what a cell quotes, in pieces: `…` stands for the parts that vary.
fn quoted(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`')
        .skip(1)
        .step_by(2)
        .flat_map(|quote| quote.split('…'))
        .map(str::trim)
        .filter(|piece| !piece.is_empty())
}

#[test]
fn messages() {
    let sources = sources();
    let headings = ["### `status`, line by line", "### `probe`", "### At the hub"];
    let cells: Vec<String> = headings.into_iter().flat_map(first_cells).collect();
    let pieces: Vec<&str> = cells.iter().flat_map(|cell| quoted(cell)).collect();
    assert!(pieces.len() > 40, "only {pieces:?}");
    let unsaid: Vec<_> = pieces.into_iter().filter(|piece| !sources.contains(piece)).collect();
    assert!(unsaid.is_empty(), "{OPERATIONS}: no program says {unsaid:#?}");
}

#[test]
fn refusals() {
    let cells = first_cells("### A bundle is refused");
    let mut answered: Vec<&str> = cells.iter().flat_map(|cell| quoted(cell)).collect();
    let rows = table("## Why a bundle is refused").unwrap();
    let mut codes: Vec<&str> = rows.iter().map(|row| row[0].as_str()).collect();
    answered.sort_unstable();
    codes.sort_unstable();
    assert_eq!(answered, codes);
}
