//! These tests compare `docs/reference.md` with the commands of `hzn-armor`, the fields of bundles and
//! alerts, and the codes of refusals, and check that the pages show only commands that exist.
#![allow(clippy::unwrap_used)]

use armor_alerts::alert::Alert;
use armor_bundle::dsse::{Envelope, EnvelopeSignature};
use armor_bundle::payload::{Payload, PolicyFile, Postures, Requires, Settings, Target};
use armor_bundle::trust::{KeyChanges, TrustChanges};
use armor_contract_tests::pages;
use armor_contract_tests::reference::{compare, fields, help, table};

#[test]
fn commands() {
    compare("hzn-armor", &help("hzn-armor", env!("CARGO_BIN_EXE_hzn-armor")).unwrap()).unwrap();
}

#[test]
fn commands_in_pages() {
    let problems = pages::problems("hzn-armor", env!("CARGO_BIN_EXE_hzn-armor").as_ref()).unwrap();
    assert!(problems.is_empty(), "{problems:#?}");
}

#[test]
fn fields_of_a_bundle() {
    let structs = [
        ("### Envelope", fields::<Envelope<'_>>()),
        ("### `signatures`", fields::<EnvelopeSignature>()),
        ("### Payload", fields::<Payload>()),
        ("### `target`", fields::<Target>()),
        ("### `requires`", fields::<Requires>()),
        ("### `settings`", fields::<Settings>()),
        ("### `settings.posture`", fields::<Postures>()),
        ("### `policies`", fields::<PolicyFile>()),
        ("### `trust`", fields::<TrustChanges>()),
        ("### `trust.bundle`, `trust.receipt`", fields::<KeyChanges>()),
    ];
    for (heading, fields) in structs {
        let documented: Vec<String> =
            table(heading).unwrap().into_iter().map(|mut row| row.remove(0)).collect();
        assert_eq!(documented, fields, "{heading}");
    }
}

/// Returns the documentation comments, each with the line of code that follows it.
fn documented(source: &str) -> Vec<(String, &str)> {
    let (mut items, mut text) = (Vec::new(), Vec::new());
    for line in source.lines().map(str::trim) {
        match line.strip_prefix("///") {
            Some(more) => text.push(more.trim()),
            None if line.starts_with("#[") || line.starts_with('"') || line.starts_with(")]") => {}
            None => {
                if !text.is_empty() {
                    items.push((text.join(" "), line));
                }
                text.clear();
            }
        }
    }
    items
}

#[test]
fn fields_of_an_alert() {
    let source = include_str!("../../alerts/src/alert.rs");
    let mut rows = Vec::new();
    for (text, code) in documented(source) {
        if code.starts_with("pub ") {
            continue;
        }
        let Some((kind, name)) = code.split_once(": ").and_then(|(_, rest)| rest.split_once(" = \"")) else {
            continue;
        };
        let name = name.split('"').next().unwrap();
        let kind = match kind {
            "String" => "string",
            "Vec<String>" => "list of strings",
            _ => "number",
        };
        rows.push((
            name,
            format!("| `{name}` | {kind} | {} |", text.replace("[`ALERT_THRESHOLD`]", "`AlertThreshold`")),
        ));
    }
    assert_eq!(rows.iter().map(|(name, _)| *name).collect::<Vec<_>>(), fields::<Alert>());
    let rows: Vec<String> = rows.into_iter().map(|(_, row)| row).collect();
    compare("alert", &format!("| field | | |\n|---|---|---|\n{}", rows.join("\n"))).unwrap();
}

#[test]
fn codes_of_refusals() {
    let source = include_str!("../../bundle/src/verify.rs");
    let variants = documented(source);
    let mut rows = vec!["| code | |\n|---|---|".to_owned()];
    for line in source.lines() {
        let Some((variant, code)) =
            line.trim().strip_prefix("Self::").and_then(|line| line.split_once(" => \""))
        else {
            continue;
        };
        let variant = variant.split([' ', '(']).next().unwrap();
        let said =
            |code: &str| code.strip_prefix(variant).is_some_and(|rest| rest.starts_with([' ', '(', ',']));
        let (text, _) = variants.iter().find(|(_, code)| said(code)).unwrap();
        rows.push(format!("| `{}` | {text} |", code.trim_end_matches("\",")));
    }
    rows.extend(
        [
            "| `does-not-compile` | Its rules, with those of the other bundles in force, are more than the kernel's tables may hold. |",
            "| `too-many-bundles` | The node already enforces 16 bundles of other names. |",
        ]
        .map(str::to_owned),
    );
    compare("refusals", &rows.join("\n")).unwrap();
}
