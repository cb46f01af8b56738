//! Checks what a migration makes of policy files: `migrate/NAME.yaml` becomes `migrate/NAME.mended`, and
//! `migrate/NAME.expected` has what is said of it. Lines `# map: ...` and `# accept: spelling` are the choices.
//!
//! `UPDATE=1 cargo test -p armor-policy --test migrate` writes both anew; review the difference.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod snapshots;

use armor_policy::{Choices, Migration, Policy, check, migrate, parse};
use proptest::prelude::*;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

fn choices(text: &str) -> Choices {
    let maps = text.lines().filter_map(|line| line.strip_prefix("# map: "));
    Choices {
        spelling: text.contains("# accept: spelling\n"),
        maps: maps.map(|map| map.parse().unwrap()).collect(),
    }
}

/// Asserts that a second migration finds nothing more to do, and that the text without line ends of DOS is treated like that
/// with them.
fn is_stable(text: &str, mended: &str, choices: &Choices) {
    let again = migrate("p.yaml", mended, choices).unwrap();
    assert!(again.mended.is_empty(), "{:?}", again.mended);
    assert_eq!(again.text, mended);
    let dos = migrate("p.yaml", &text.replace('\n', "\r\n"), choices).unwrap();
    assert_eq!(dos.text, mended.replace('\n', "\r\n"));
}

#[test]
fn files_are_mended_and_what_is_left_is_named() {
    for file in snapshots::policies("migrate") {
        let name = file.file_name().unwrap().to_str().unwrap();
        let text = fs::read_to_string(&file).unwrap();
        let choices = choices(&text);
        let (mended, said) = match migrate(name, &text, &choices) {
            Ok(Migration { text: new, mended, errors, remarks }) => {
                is_stable(&text, &new, &choices);
                let mut said = String::new();
                for (list, tag) in [(&mended, "mended"), (&errors, "left"), (&remarks, "note")] {
                    list.iter().for_each(|diagnostic| writeln!(said, "{diagnostic} [{tag}]").unwrap());
                }
                (new, said)
            }
            Err(error) => (text, format!("{error}\n")),
        };
        snapshots::assert_beside(&file, "mended", &mended);
        snapshots::assert_beside(&file, "expected", &said);
    }
}

#[test]
fn faults_of_other_tests_are_mended_or_left_without_changing_more() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bad");
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        if path.extension().is_some_and(|extension| extension == "yaml") {
            for spelling in [false, true] {
                let choices = Choices { spelling, maps: vec![":horizon.node.org=a".parse().unwrap()] };
                let errors = parse("p.yaml", &text).unwrap_err().list.len();
                if let Ok(migration) = migrate("p.yaml", &text, &choices) {
                    is_stable(&text, &migration.text, &choices);
                    let left = parse("p.yaml", &migration.text).err().map_or(0, |errors| errors.list.len());
                    assert!(left <= errors + migration.mended.len(), "{}", path.display());
                }
            }
        }
    }
}

#[test]
fn what_is_right_stays_as_it_is() {
    let text = right(&["/usr/bin/a", "/opt/x y", "/etc/'q'"], Quotes::None, "\n", true);
    let migration = migrate("p.yaml", &text, &Choices::default()).unwrap();
    assert_eq!(migration.text, text);
    assert!(migration.mended.is_empty() && migration.errors.is_empty());
}

#[test]
fn too_many_faults_are_refused() {
    let text = format!("{}{}", right(&["/a"], Quotes::None, "\n", false), "    - {dir: /b}\n".repeat(10_001));
    let error = migrate("p.yaml", &text, &Choices::default()).unwrap_err().to_string();
    assert!(error.contains("more than 10000 faults"), "{error}");
}

#[derive(Clone, Copy, Debug)]
enum Quotes {
    None,
    Single,
    Double,
}

impl Quotes {
    fn around(self, text: &str) -> String {
        match self {
            Self::None => text.to_owned(),
            Self::Single => format!("'{}'", text.replace('\'', "''")),
            Self::Double => format!("\"{text}\""),
        }
    }
}

/// Returns a policy without faults, which ends in the list `matchDirectories`.
fn right(paths: &[&str], quotes: Quotes, line_break: &str, flow: bool) -> String {
    written(paths, quotes, line_break, flow, "/")
}

/// Returns the same with another end of directories.
fn written(paths: &[&str], quotes: Quotes, line_break: &str, flow: bool, end: &str) -> String {
    let mut text = "apiVersion: security.kubearmor.com/v1\nkind: KubeArmorPolicy # ü\nmetadata:\n  name: test\nspec:\n  \
                    selector:\n    matchLabels:\n      kubearmor.io/container.name: web\n  severity: 5\n  action: Audit\n  \
                    file:\n    matchPaths:\n"
        .to_owned();
    for path in paths {
        let path = quotes.around(path);
        text.push_str(&if flow {
            format!("    - {{path: {path}, readOnly: true}}\n")
        } else {
            format!("    - path: {path} # said\n      readOnly: true\n")
        });
    }
    text.push_str("    matchDirectories:\n");
    for path in paths {
        let path = quotes.around(&format!("{path}{end}"));
        text.push_str(&if flow {
            format!("    - {{dir: {path}, recursive: false}}\n")
        } else {
            format!("    - dir: {path}\n      recursive: false # said\n")
        });
    }
    text.replace('\n', line_break)
}

/// Slips that have one reading, each as what is right and what is written for it.
const SLIPS: [(&str, &str); 16] = [
    ("security.kubearmor.com/v1", "Security.KubeArmor.com/v1"),
    ("kind: KubeArmorPolicy", "kind: kubearmorpolicy"),
    ("metadata:", "Metadata:"),
    ("    matchLabels:\n      kubearmor", "    kubearmor"),
    ("    matchLabels:\n      kubearmor", "    matchLabels:\n    kubearmor"),
    ("matchLabels:", "match_labels:"),
    ("severity: 5", "severity: \"5\""),
    ("  severity: 5\n", "  severity: 5\n  severity: 5\n"),
    ("  action: Audit\n", "  action: Audit\n  action:\n    Audit\n"),
    ("  action: Audit\n", "  action: Audit\n  tags:\n"),
    ("matchPaths", "matchpaths"),
    ("matchDirectories", "match-directories"),
    ("readOnly: true", "readonly: true"),
    ("readOnly: true", "readOnly: 'true'"),
    ("recursive: false", "recursive: No"),
    ("/usr/bin", "/usr//./bin"),
];

fn without_places(mut policies: Vec<Policy>) -> Vec<Policy> {
    for policy in &mut policies {
        policy.location = Default::default();
        policy.rules.iter_mut().for_each(|rule| rule.common.location = Default::default());
    }
    policies
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn every_slip_is_undone_and_nothing_else_is_touched(
        paths in prop::collection::vec("/usr/bin/[a-zäß'., -]{0,4}[a-z]", 1..4),
        quotes in prop_oneof![Just(Quotes::None), Just(Quotes::Single), Just(Quotes::Double)],
        dos in any::<bool>(),
        flow in any::<bool>(),
        last_slash in any::<bool>(),
        slips in prop::sample::subsequence(SLIPS.to_vec(), 0..5),
    ) {
        let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
        // A comma ends a plain scalar there, and a doubled quote is no text that reads as it stands.
        prop_assume!(!flow || !matches!(quotes, Quotes::None) || !paths.iter().any(|path| path.contains(',')));
        // Each of these takes what the other one is about.
        prop_assume!(!slips.contains(&SLIPS[4]) || !slips.contains(&SLIPS[5]));
        prop_assume!(!matches!(quotes, Quotes::Single) || !paths.iter().any(|path| path.contains('\'')));
        let line_break = if dos { "\r\n" } else { "\n" };
        let good = right(&paths, quotes, line_break, flow);
        let mut bad = written(&paths, quotes, line_break, flow, if last_slash { "/" } else { "" });
        for (right, slip) in &slips {
            // One of two slips in the same place does not find it any more.
            bad = bad.replace(&right.replace('\n', line_break), &slip.replace('\n', line_break));
        }
        let migration = migrate("p.yaml", &bad, &Choices::default()).unwrap();
        prop_assert_eq!(&migration.errors, &[], "{}", bad);
        let policies = parse("p.yaml", &migration.text).unwrap();
        prop_assert_eq!(without_places(policies), without_places(parse("p.yaml", &good).unwrap()));
        prop_assert_eq!(&migration.text, &good);
        prop_assert!(migrate("p.yaml", &good, &Choices::default()).unwrap().mended.is_empty());
    }

    #[test]
    fn no_text_makes_a_migration_panic_or_change_its_mind(
        cuts in prop::collection::vec((any::<prop::sample::Index>(), 0..12_usize, "[\\PC\n\t]{0,6}|[-\\[\\]{}:,&*!|>'\"%@`#? \n]{0,6}|/|true|yes|5|app: x"), 0..6),
        map in prop::sample::subsequence(vec!["app:kubearmor.io/container.name", ":horizon.image=a", "metadata.namespace:horizon.service.org=o"], 0..3),
    ) {
        let mut text: Vec<char> = format!(
            "{}---\n{}", right(&["/usr/bin/a", "/etc//b"], Quotes::Single, "\n", false),
            right(&["/usr/bin/a"], Quotes::None, "\n", true).replace("kubearmor.io/container.name: web", "app: web")
                .replace("  name: test", "  name: other\n  namespace: shop")
        ).chars().collect();
        for (at, remove, insert) in cuts {
            let at = at.index(text.len() + 1);
            let end = text.len().min(at + remove);
            text.splice(at..end, insert.chars());
        }
        let text: String = text.into_iter().collect();
        let choices = Choices { spelling: true, maps: map.iter().map(|map| map.parse().unwrap()).collect() };
        if let Ok(migration) = migrate("p.yaml", &text, &choices) {
            let again = migrate("p.yaml", &migration.text, &choices).unwrap();
            prop_assert_eq!(&again.text, &migration.text);
            prop_assert_eq!(check("p.yaml", &migration.text).is_ok(), migration.errors.is_empty());
            if migration.mended.is_empty() {
                prop_assert_eq!(&migration.text, &text);
            }
        }
    }
}
