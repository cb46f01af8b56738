//! Checks the diagnostics of bad policy files: `bad/NAME.expected` has all diagnostics of `bad/NAME.yaml`.
//!
//! `UPDATE=1 cargo test -p armor-policy --test diagnostics` writes the current diagnostics; review the
//! difference.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod snapshots;

use armor_policy::capability::Capability;
use armor_policy::document::{diagnostics::MAX_DIAGNOSTICS, text, yaml};
use armor_policy::path::Target;
use armor_policy::{check, parse};
use proptest::prelude::*;
use std::fs;
use std::time::{Duration, Instant};

#[test]
fn bad_files_are_refused_with_every_error_at_its_place() {
    for file in snapshots::policies("bad") {
        let name = file.file_name().unwrap().to_str().unwrap();
        let errors = parse(name, &fs::read_to_string(&file).unwrap()).unwrap_err();
        snapshots::assert_beside(&file, "expected", &format!("{errors}\n"));
    }
}

const HEAD: &str = "apiVersion: security.kubearmor.com/v1\nkind: KubeArmorHostPolicy\nmetadata: {name: test}\n\
                    spec:\n  nodeSelector: {matchLabels: {horizon.node.id: b}}\n";

#[test]
fn errors_are_bounded_and_the_rest_is_counted() {
    let text = format!("{HEAD}  file:\n    matchPaths:\n{}", "    - path: relative\n".repeat(500));
    let errors = parse("many.yaml", &text).unwrap_err();
    assert_eq!((errors.list.len(), errors.more), (MAX_DIAGNOSTICS, 500 - MAX_DIAGNOSTICS));
    assert!(errors.to_string().ends_with("\n... and 400 more"));
}

#[test]
fn what_a_document_says_cannot_write_to_the_terminal() {
    let text = format!(
        "{HEAD}  action: \"\\e[31m\\u202e{}\"\n  file: {{matchPaths: [{{path: /a}}]}}\n",
        "x".repeat(100_000)
    );
    let said = parse("escape", &text).unwrap_err().to_string();
    assert!(said.starts_with("escape:6:11: action `\\u{1b}[31m\\u{202e}xxx"), "{said}");
    assert!(said.len() < 1000);
}

#[test]
fn a_label_that_nothing_carries_is_a_warning() {
    let warnings = |kind: &str, selector: &str, key: &str| {
        let text = format!(
            "apiVersion: security.kubearmor.com/v1\nkind: {kind}\nmetadata: {{name: test}}\nspec:\n  {selector}: \
             {{matchLabels: {{{key}: x}}}}\n  file: {{matchPaths: [{{path: /a}}]}}\n"
        );
        let checked = check("labels.yaml", &text).unwrap_or_else(|errors| panic!("{errors}"));
        checked.warnings.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    };
    let said = warnings("KubeArmorHostPolicy", "nodeSelector", "kubernetes.io/archs");
    assert!(said.contains("`kubernetes.io/archs`, so this policy selects none"), "{said}");
    assert!(said.ends_with("(did you mean `kubernetes.io/arch`?)"), "{said}");
    let said = warnings("KubeArmorPolicy", "selector", "kubernetes.io/hostname");
    assert!(said.contains("`kubernetes.io/hostname` is about nodes"), "{said}");
    for (kind, selector, key) in [
        ("KubeArmorHostPolicy", "nodeSelector", "kubernetes.io/arch"),
        ("KubeArmorHostPolicy", "nodeSelector", "openhorizon.hardwareId"),
        ("KubeArmorPolicy", "selector", "openhorizon.anax.service_name"),
        ("KubeArmorPolicy", "selector", "kubearmor.io/namespace"),
        ("KubeArmorPolicy", "selector", "horizon.image"),
    ] {
        assert_eq!(warnings(kind, selector, key), "", "{key}");
    }
}

#[test]
fn what_is_no_text_is_refused_with_the_way_to_it() {
    let policy = format!("{HEAD}  file: {{matchPaths: [{{path: /a}}]}}\n");
    let wide = |mark: &str, bytes: fn(u16) -> [u8; 2]| -> Vec<u8> {
        format!("{mark}{policy}").encode_utf16().flat_map(bytes).collect()
    };
    let utf32: Vec<u8> = policy.chars().flat_map(|c| u32::from(c).to_be_bytes()).collect();
    for (encoding, bytes) in [
        ("UTF-16", wide("\u{feff}", u16::to_le_bytes)),
        ("UTF-16", wide("\u{feff}", u16::to_be_bytes)),
        ("UTF-16LE", wide("", u16::to_le_bytes)),
        ("UTF-16BE", wide("", u16::to_be_bytes)),
        ("UTF-32BE", utf32),
    ] {
        let said = text::decode("wide.yaml", bytes).unwrap_err().to_string();
        let expected = format!(
            "wide.yaml:1:1: the file is {encoding}, not UTF-8 (convert it: iconv -f {encoding} -t UTF-8 FILE > NEW)"
        );
        assert_eq!(said, expected);
    }
    let latin: Vec<u8> = format!("# \u{fc}\n{policy}").chars().map(|c| c as u8).collect();
    let said = text::decode("latin.yaml", latin).unwrap_err().to_string();
    assert!(said.starts_with("latin.yaml:1:3: not UTF-8: the byte 0xfc (save it as UTF-8"), "{said}");
    let mut cut = format!("{policy}# \u{e4}\u{fc}").into_bytes();
    cut.pop();
    let said = text::decode("cut.yaml", cut).unwrap_err().to_string();
    assert!(said.starts_with("cut.yaml:7:4: not UTF-8"), "{said}");

    assert_eq!(text::decode("good.yaml", policy.clone().into_bytes()).unwrap(), policy);
    assert!(parse("marked.yaml", &format!("\u{feff}{policy}")).is_ok());
}

#[test]
fn text_that_is_not_yaml_is_reported_with_place_and_remedy() {
    let rules = |rules: &str| format!("{HEAD}  file:\n    matchPaths:\n{rules}\n");
    let nul = "a NUL character (take it out: tr -d";
    let tab = "(indent with blanks: expand FILE > NEW)";
    let template =
        "is the placeholder of a template that was not rendered (render it first, for Helm: helm template";
    for (text, place, says) in [
        (rules("    - path: /a\0b"), "8:15", nul),
        (rules("    - path: \"/a\0b\""), "8:16", nul),
        (rules("    - path: /a\n\t- path: /b"), "9:1", tab),
        (rules("    - path: /a\n      \taction: Audit"), "9:7", tab),
        (rules("    - {path: /a,\n\taction: Audit}"), "9:1", tab),
        (
            format!("{}---\n\u{feff}{HEAD}", rules("    - path: /a")),
            "10:1",
            "byte order mark within the text (take it out",
        ),
        (rules("    - path: /a/{{name}}/b"), "8:16", template),
        (rules("    - path: {{name}}"), "8:13", template),
        (rules("    - path: {{default \"x,y\" .V}}"), "8:13", template),
        (rules("    - path: \"{{default \\\"x,y\\\" .V}}\""), "8:13", template),
        (rules("    - path: {{`x`}}"), "8:13", template),
    ] {
        let said = parse("bad.yaml", &text).unwrap_err().to_string();
        let first = said.lines().next().unwrap();
        assert!(first.starts_with(&format!("bad.yaml:{place}: ")) && first.contains(says), "{text}: {said}");
    }
}

#[test]
fn what_may_surprise_is_a_warning() {
    let text = format!(
        "{HEAD}  file:\n    matchPaths:\n    - path: /bin/sleep\n    - path: /etc/*.conf\n    matchPatterns:\n    \
         - pattern: /etc/.*\n  process:\n    matchPaths:\n    - execname: sh\n      fromSource: [{{path: /sbin/init}}]\n"
    );
    let checked = check("warn.yaml", &text).unwrap();
    let warnings: Vec<String> = checked.warnings.iter().map(ToString::to_string).collect();
    let resolved = "the rule matches what the path resolves to in the workload's own root";
    assert_eq!(
        warnings,
        [
            format!("warn.yaml:8:13: /bin is a symlink to /usr/bin on most systems ({resolved})"),
            "warn.yaml:9:13: `/etc/*.conf` is taken literally (write `pattern` in matchPatterns if it shall match more \
             than this one name)"
                .to_owned(),
            "warn.yaml:11:16: '.' in a pattern is only a dot (it is not a regular expression: '*' alone stands for any \
             run without '/')"
                .to_owned(),
            format!("warn.yaml:15:27: /sbin is a symlink to /usr/sbin on most systems ({resolved})"),
        ]
    );
}

#[test]
fn what_recursive_does_not_change_is_a_warning() {
    let rules =
        "  syscalls: {action: Audit, matchPaths: [{path: /home, recursive: true, syscall: [unlink]}]}\n";
    let checked = check("warn.yaml", &format!("{HEAD}{rules}")).unwrap();
    let warnings: Vec<String> = checked.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(
        warnings,
        [
            "warn.yaml:6:49: `recursive` has no effect on a path that does not end in '/' (write /home/ if all below it is meant)"
        ]
    );
}

#[test]
fn a_byte_as_alerts_write_it_is_a_warning() {
    let way =
        "for any one byte write '?' in a `pattern` of matchPatterns; for a control character, double quotes";
    let literal = "`\\xff`, as alerts write a byte, stands for itself";
    let pattern = "`\\xff`, as alerts write a byte, is in a pattern the same without the backslash";
    for (rules, says) in [
        ("  file: {matchPaths: [{path: '/t/a\\xff'}]}", literal),
        ("  file: {matchDirectories: [{dir: '/t/a\\xg\\xff/'}]}", literal),
        ("  file: {matchPaths: [{path: /a, fromSource: [{path: '/b\\xff'}]}]}", literal),
        ("  process: {matchPaths: [{execname: 'a\\xff'}]}", literal),
        ("  file: {matchPatterns: [{pattern: '/t/a\\xff*'}]}", pattern),
    ] {
        let warnings = check("byte.yaml", &format!("{HEAD}{rules}\n")).unwrap().warnings;
        let said: Vec<_> = warnings.iter().map(ToString::to_string).collect();
        assert!(said.len() == 1 && said[0].contains(says) && said[0].contains(way), "{rules}: {said:?}");
    }
    for plain in ["'/t/a\\xg'", "'/t/a\\b'", "'/t/xff'", "'/t/a\\xf'", "\"/t/a\\xff\""] {
        let text = format!("{HEAD}  file: {{matchPaths: [{{path: {plain}}}]}}\n");
        assert_eq!(check("plain.yaml", &text).unwrap().warnings, [], "{plain}");
    }
}

/// Asserts that a text is parsed or refused quickly. The limit is generous, for a machine that is slow or
/// busy.
fn quickly(name: &str, text: &str) {
    let start = Instant::now();
    let _ = parse(name, text);
    assert!(start.elapsed() < Duration::from_secs(5), "{name} took {:?}", start.elapsed());
}

#[test]
fn aliases_stand_for_what_has_the_anchor() {
    let policies = parse(
        "p.yaml",
        "apiVersion: security.kubearmor.com/v1
kind: KubeArmorHostPolicy
metadata: {name: p}
spec:
  nodeSelector: {matchLabels: {a: b}}
  file:
    matchPaths:
    - &secret
      path: &path /etc/secret
      fromSource: &sources [{path: /bin/a}, {path: /bin/b}]
    - <<: *secret
      path: /etc/other
      action: Audit
    - {<<: [{readOnly: true}, {readOnly: false, path: /third}], fromSource: *sources}
    - {path: *path, ownerOnly: true}
",
    )
    .unwrap();
    let written: Vec<String> = policies[0]
        .rules
        .iter()
        .map(|rule| {
            let path = rule.body.as_path().unwrap();
            let Target::Path(target) = &path.target else { panic!("{:?}", path.target) };
            let line = rule.common.location.line;
            format!(
                "{line} {target} {:?} {} {}",
                rule.common.action,
                rule.common.sources.len(),
                path.read_only
            )
        })
        .collect();
    assert_eq!(
        written,
        [
            "8 /etc/secret Block 2 false",
            "11 /etc/other Audit 2 false",
            "14 /third Block 2 true",
            "15 /etc/secret Block 0 false",
        ]
    );
}

/// Returns policies with an entry each, whose every thing would have all of its sources.
fn products() -> [String; 3] {
    let capabilities: Vec<String> = Capability::all().map(|capability| capability.to_string()).collect();
    let lists = [
        format!("network: {{matchDestinations: [{{ports: [{}]", "80,".repeat(1000)),
        format!("capabilities: {{matchCapabilities: [{{capability: '{}'", capabilities.join(",")),
        format!("syscalls: {{matchSyscalls: [{{syscall: [{}]", "chown,".repeat(100)),
    ];
    lists.map(|list| {
        format!(
            "apiVersion: security.kubearmor.com/v1\nkind: KubeArmorHostPolicy\nmetadata: {{name: p}}\nspec:\n  \
             nodeSelector: {{matchLabels: {{a: b}}}}\n  {list}, fromSource: [{}]}}]}}\n",
            "{path: /a},".repeat(1000)
        )
    })
}

#[test]
fn what_aliases_and_products_make_too_large_is_refused() {
    let nested: String = (1..9)
        .map(|level| format!("a{level}: &a{level} [{}]\n", format!("*a{},", level - 1).repeat(9)))
        .collect();
    let long = "x".repeat(yaml::MAX_TEXT / 2);
    let deep: String = (1..40).map(|level| format!("- &a{level} [*a{}]\n", level - 1)).collect();
    for text in products() {
        let errors = parse("p.yaml", &text).unwrap_err().to_string();
        assert!(errors.contains("more than 20000 pairs"), "{errors}");
    }
    for (text, expected) in [
        (format!("a0: &a0 [x, x, x]\n{nested}"), "YAML nodes"),
        (format!("- &a0 {long}\n{}", "- *a0\n".repeat(100)), "YAML nodes"),
        (format!("- &a0 x\n{deep}"), "nested deeper"),
        ("- &a0 [*a0]\n".to_owned(), "nothing that ends before it"),
        ("- &a0 x\n---\n- *a0\n".to_owned(), "nothing that ends before it"),
    ] {
        let errors = parse("p.yaml", &text).unwrap_err().to_string();
        assert!(errors.contains(expected), "{errors}");
    }
}

#[test]
fn hostile_files_take_no_time() {
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..30 {
        let alias = format!("*a{},", level - 1).repeat(9);
        bomb.push_str(&format!("a{level}: &a{level} [{alias}]\n"));
    }
    let most = yaml::MAX_TEXT - 16;
    quickly("bomb", &bomb);
    for text in [
        "[",
        "{",
        "- ",
        "a: ",
        "? ",
        "\"",
        "'",
        "|\n",
        "#",
        "--- \n",
        "*a ",
        "&a ",
        "! ",
        "\t",
        "\n",
        "a\n",
        "]",
        ", ",
        "{{",
        "{{x",
        "{%",
        "# {{ a }}\n",
    ] {
        quickly(text, &text.repeat(most / text.len()));
        quickly(text, &format!("{HEAD}  file: {}", text.repeat(most / text.len() / 2)));
    }
    let indented: String = (0..1000).map(|depth| format!("{}a:\n", " ".repeat(depth))).collect();
    quickly("indented", &indented);
    let keys: String = (0..60_000).map(|key| format!("key{key}: x\n")).collect();
    quickly("keys", &keys);
    let errors = parse("large", &"#".repeat(yaml::MAX_TEXT + 1)).unwrap_err();
    assert_eq!(errors.to_string(), "large:1:1: the file has 1048577 bytes, more than 1048576 (split it)");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn no_text_makes_the_parser_panic(
        cuts in prop::collection::vec((any::<prop::sample::Index>(), 0..12_usize, "[\\PC\n\t]{0,6}|[-\\[\\]{}:,&*!|>'\"%@`#? \n]{0,6}"), 0..6),
    ) {
        let mut text: Vec<char> = format!(
            "{HEAD}  severity: 3\n  process:\n    matchPaths:\n    - path: /bin/sleep\n      fromSource:\n      - path: /a\n\
             \x20   matchPatterns:\n    - {{pattern: '/usr/{{a,b[c-d]}}/**/*', tags: [\"x\", y], action: Audit}}\n---\n{HEAD}"
        ).chars().collect();
        for (at, remove, insert) in cuts {
            let at = at.index(text.len() + 1);
            let end = text.len().min(at + remove);
            text.splice(at..end, insert.chars());
        }
        let text: String = text.into_iter().collect();
        if let Err(errors) = parse("mutated.yaml", &text) {
            prop_assert!(!errors.list.is_empty());
            let lines = text.lines().count() as u32;
            prop_assert!(errors.list.iter().all(|error| error.location.line <= lines + 1), "{errors}");
        }
    }
}
