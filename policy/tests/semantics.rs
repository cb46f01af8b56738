//! Checks in the compiled tables, case by case, the meaning of each field, precedence rule and inheritance.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use Permission::{Exec, Map, Read, Write};
use Posture::{Audit, Block};
use armor_policy::capability::Capability;
use armor_policy::decision::Verdict;
use armor_policy::destination::{DestinationTable, Transport};
use armor_policy::device::Function;
use armor_policy::keyed::KeyedTable;
use armor_policy::network::SocketKind;
use armor_policy::path::{OBJECT_ANONYMOUS, OBJECT_UNRESOLVED, Permission};
use armor_policy::preset::Preset;
use armor_policy::{Domain, Links, Policy, PolicySet, Posture, Postures, SUBJECT_NONE, compile, parse};

/// Returns a host policy made from the lines of its spec.
fn policy(name: &str, spec: &str) -> Policy {
    let text = format!(
        "apiVersion: security.kubearmor.com/v1\nkind: KubeArmorHostPolicy\nmetadata: {{name: {name}}}\n\
         spec:\n  nodeSelector: {{matchLabels: {{a: b}}}}\n{spec}"
    );
    parse(name, &text).unwrap_or_else(|errors| panic!("{errors}")).remove(0)
}

fn compiled(posture: Posture, specs: &[&str]) -> Domain {
    let policies: Vec<Policy> =
        specs.iter().enumerate().map(|(i, spec)| policy(&format!("p{i}"), spec)).collect();
    compile(
        &[PolicySet { postures: Some(Postures::all(posture)), ..PolicySet::of(&policies) }],
        &Links::new(),
    )
    .unwrap()
}

/// Returns the verdict, and the message of the rule that decided or, if it has none, its policy.
fn decide<'d>(
    domain: &'d Domain,
    program: &str,
    path: &str,
    permission: Permission,
    owner: bool,
) -> (Verdict, &'d str) {
    let subject = domain.subjects.class(domain.subjects.walk(program.as_bytes()));
    let object = domain.path.objects.class(domain.path.objects.walk(path.as_bytes()));
    let decision = domain.path.vector(subject, object).decision(permission, owner);
    let rule = &domain.rules[decision.rule() as usize];
    (decision.verdict(), if rule.message.is_empty() { &rule.policy } else { &rule.message })
}

/// Checks lines of `PROGRAM PATH PERMISSION WHO VERDICT [RULE]`: `-` is a program that no rule names, `*` is
/// all permissions or both kinds of tasks.
fn check(domain: &Domain, cases: &str) {
    for case in cases.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let words: Vec<&str> = case.split_whitespace().collect();
        let [program, path, permission, who, verdict, rule @ ..] = words.as_slice() else { panic!("{case}") };
        let permissions = match *permission {
            "read" => vec![Read],
            "write" => vec![Write],
            "exec" => vec![Exec],
            "map" => vec![Map],
            "file" => vec![Read, Write],
            "process" => vec![Exec, Map],
            "*" => vec![Read, Write, Exec, Map],
            _ => panic!("{case}"),
        };
        let owners = match *who {
            "owner" => vec![true],
            "other" => vec![false],
            "*" => vec![true, false],
            _ => panic!("{case}"),
        };
        for permission in permissions {
            for &owner in &owners {
                let (found, by) = decide(domain, program, path, permission, owner);
                assert_eq!(format!("{found:?}").to_lowercase(), *verdict, "{case}: {permission:?} by {by}");
                if let [rule] = rule {
                    assert_eq!(by, *rule, "{case}: {permission:?}");
                }
            }
        }
    }
}

#[test]
fn each_target_matches_what_it_says() {
    let domain = compiled(
        Audit,
        &["  process:
    matchPaths: [{path: /usr/bin/a}, {execname: named}]
    matchDirectories: [{dir: /opt/flat/}, {dir: /opt/deep/, recursive: true}]
    matchPatterns: [{pattern: '/srv/*/run'}, {pattern: '/srv/**/x?'}, {pattern: '/lib[0-9]/{c,d*}'}, {pattern: '/set/[^a]b?'}]
"],
    );
    check(
        &domain,
        "- /usr/bin/a       process * block
         - /usr/bin/a       file    * allow
         - /usr/bin/a/      exec    * block
         - /usr/bin/ab      *       * allow
         - /usr/bin         *       * allow
         - /any/where/named exec    * block
         - /named           exec    * block
         - /any/named/x     exec    * allow
         - /any/unnamed     exec    * allow
         - /opt/flat/       exec    * block
         - /opt/flat        exec    * allow
         - /opt/flat/x      exec    * block
         - /opt/flat/x/     exec    * block
         - /opt/flat/x/y    exec    * allow
         - /opt/deep/       exec    * block
         - /opt/deep/x/y/z  exec    * block
         - /opt/deeper      exec    * allow
         - /srv/a/run       exec    * block
         - /srv/a/run/      exec    * block
         - /srv/a/b/run     exec    * allow
         - /srv/a/b/c/x1    exec    * block
         - /srv/a/b/c/x     exec    * allow
         - /lib3/c          exec    * block
         - /lib3/d-anything exec    * block
         - /libx/c          exec    * allow
         - /set/xbx         exec    * block
         - /set/abx         exec    * allow
         - /set//bx         exec    * allow
         - /set/xb/         exec    * allow",
    );
}

#[test]
fn read_only_and_owner_only() {
    let domain = compiled(
        Audit,
        &["  file:
    matchPaths:
    - {path: /block/ro, readOnly: true}
    - {path: /block/own, ownerOnly: true}
    - {path: /block/both, readOnly: true, ownerOnly: true}
    - {path: /audit/ro, readOnly: true, action: Audit}
    - {path: /audit/own, ownerOnly: true, action: Audit}
    - {path: /audit/both, readOnly: true, ownerOnly: true, action: Audit}
  process:
    matchPaths: [{path: /bin/own, ownerOnly: true}, {path: /bin/told, ownerOnly: true, action: Audit}]
"],
    );
    check(
        &domain,
        "- /block/ro   read  * allow
         - /block/ro   write * block
         - /block/own  file  owner allow
         - /block/own  file  other block
         - /block/both read  owner allow
         - /block/both write owner block
         - /block/both file  other block
         - /audit/ro   read  * allow
         - /audit/ro   write * audit
         - /audit/own  file  owner allow
         - /audit/own  file  other audit
         - /audit/both read  owner allow
         - /audit/both write owner audit
         - /audit/both file  other audit
         - /bin/own process  owner allow
         - /bin/own process  other block
         - /bin/told process owner allow
         - /bin/told process other audit",
    );
    let allowed = "  file:
    action: Allow
    matchPaths: [{path: /ro, readOnly: true}, {path: /own, ownerOnly: true}, {path: /plain}]
";
    check(
        &compiled(Audit, &[allowed]),
        "- /ro    read  * allow
         - /ro    write * block p0
         - /own   file  owner allow
         - /own   file  other block p0
         - /plain file  * allow
         - /else  file  * audit DefaultPosture",
    );
}

/// Returns the verdict on arguments of a program, and the message of the rule that decided.
fn on_arguments<'d>(domain: &'d Domain, program: &str, path: &str, arguments: &[&str]) -> (Verdict, &'d str) {
    let subject = domain.subjects.class(domain.subjects.walk(program.as_bytes()));
    let vector =
        domain.path.vector(subject, domain.path.objects.class(domain.path.objects.walk(path.as_bytes())));
    let tables = &domain.path.arguments;
    let decisions = arguments.iter().map(|argument| {
        let class = tables.classes.class(tables.classes.walk(argument.as_bytes()));
        tables.lists.decision(vector.1, class.into())
    });
    let decision = decisions.max_by_key(|decision| decision.verdict());
    let decision = decision.unwrap_or_else(|| tables.lists.decision(vector.1, 0));
    (decision.verdict(), &domain.rules[decision.rule() as usize].message)
}

#[test]
fn arguments_are_permitted_by_the_list_of_the_rule_that_decides() {
    let domain = compiled(
        Block,
        &["  process:
    matchPaths:
    - {path: /usr/bin/python3.6, allowedArgs: [-m, random], message: sample}
    - {path: /usr/bin/python3.6, allowedArgs: [-c], fromSource: [{path: /boss}], message: boss}
    - {execname: told, allowedArgs: ['', a b], action: Audit, message: told}
    - {path: /own, allowedArgs: [x], ownerOnly: true}
    - {path: /both, allowedArgs: [x], message: listed}
    - {path: /both, message: plain}
    - {path: /audited, allowedArgs: [x]}
    - {path: /audited, action: Allow, allowedArgs: [y], fromSource: [{path: /boss}]}
"],
    );
    check(
        &domain,
        "-     /usr/bin/python3.6 exec * allow
         -     /usr/bin/python3.6 map  * block sample
         /boss /usr/bin/python3.6 exec * allow
         /boss /usr/bin/python3.6 map  * block boss
         -     /any/told          exec * allow
         -     /any/told          map  * audit told
         -     /own               exec owner allow
         -     /own               exec other block
         -     /own               map  * block
         -     /both              process * block plain
         -     /elsewhere         process * allow",
    );
    for (program, path, arguments, verdict, by) in [
        ("-", "/usr/bin/python3.6", &["-m", "random"][..], Verdict::Allow, ""),
        ("-", "/usr/bin/python3.6", &["random", "-m", "-m"], Verdict::Allow, ""),
        ("-", "/usr/bin/python3.6", &["-m", "pydoc"], Verdict::Block, "sample"),
        ("-", "/usr/bin/python3.6", &[], Verdict::Block, "sample"),
        ("-", "/usr/bin/python3.6", &["-m random"], Verdict::Block, "sample"),
        ("-", "/usr/bin/python3.6", &["-M"], Verdict::Block, "sample"),
        ("-", "/usr/bin/python3.6", &[""], Verdict::Block, "sample"),
        ("/boss", "/usr/bin/python3.6", &["-m"], Verdict::Block, "boss"),
        ("/boss", "/usr/bin/python3.6", &["-c"], Verdict::Allow, ""),
        ("-", "/any/told", &["", "a b"], Verdict::Allow, ""),
        ("-", "/any/told", &["a", "b"], Verdict::Audit, "told"),
        ("-", "/elsewhere", &["anything"], Verdict::Allow, ""),
        ("-", "/audited", &["y"], Verdict::Block, ""),
        ("/boss", "/audited", &["y"], Verdict::Allow, ""),
    ] {
        assert_eq!(on_arguments(&domain, program, path, arguments), (verdict, by), "{path} {arguments:?}");
    }
    assert_eq!(compiled(Audit, &["  file: {matchPaths: [{path: /a}]}\n"]).path.arguments.lists.rows.len(), 0);
}

#[test]
fn an_allow_list_with_arguments_refuses_the_others_whatever_the_posture() {
    let domain = compiled(
        Audit,
        &["  process:
    action: Allow
    matchPaths: [{path: /listed, allowedArgs: [start, stop]}, {path: /plain}]
"],
    );
    check(
        &domain,
        "- /listed exec * allow
         - /listed map  * block p0
         - /plain  process * allow
         - /other  exec * audit DefaultPosture",
    );
    assert_eq!(on_arguments(&domain, "-", "/listed", &["stop"]).0, Verdict::Allow);
    assert_eq!(on_arguments(&domain, "-", "/listed", &["status"]).0, Verdict::Block);
    assert_eq!(on_arguments(&domain, "-", "/plain", &["status"]).0, Verdict::Allow);
}

#[test]
fn the_more_specific_rule_decides() {
    let domain = compiled(
        Audit,
        &["  process:
    matchPaths:
    - {path: /opt/a/b/named, action: Audit, message: path}
    - {execname: named, action: Audit, message: name}
    - {execname: other, action: Audit, message: name}
    matchDirectories:
    - {dir: /opt/, recursive: true, message: shallow}
    - {dir: /opt/a/, recursive: true, action: Audit, message: deep}
    - {dir: /opt/a/flat/, message: flat}
    matchPatterns:
    - {pattern: /opt/**, action: Audit, message: pattern}
    - {pattern: /opt/a/*/named, message: longer-pattern}
"],
    );
    check(
        &domain,
        "- /opt/a/b/named exec * audit path
         - /opt/a/c/named exec * block longer-pattern
         - /opt/x/named   exec * audit pattern
         - /srv/named     exec * audit name",
    );
    let directories = compiled(
        Audit,
        &["  process:
    matchPaths: [{execname: other, action: Audit, message: name}]
    matchDirectories:
    - {dir: /opt/, recursive: true, message: shallow}
    - {dir: /opt/a/, recursive: true, action: Audit, message: deep}
    - {dir: /opt/a/flat/, message: flat}
"],
    );
    check(
        &directories,
        "- /opt/x          exec * block shallow
         - /opt/a/x        exec * audit deep
         - /opt/a/flat/x   exec * block flat
         - /opt/a/flat/x/y exec * audit deep
         - /opt/other      exec * audit name",
    );
}

#[test]
fn a_rule_for_the_program_comes_before_every_rule_for_all() {
    let domain = compiled(
        Audit,
        &["  file:
    matchPaths: [{path: /etc/ssl/x, message: path}]
    matchDirectories:
    - {dir: /etc/ssl/, recursive: true, fromSource: [{path: /usr/bin/dpkg}], action: Audit, message: source}
    - {dir: /etc/, recursive: true, fromSource: [{path: /usr/bin/apt}, {path: /usr/bin/dpkg}], message: wide}
"],
    );
    check(
        &domain,
        "/usr/bin/dpkg   /etc/ssl/x  read * audit source
         /usr/bin/apt    /etc/ssl/x  read * block wide
         /usr/bin/dpkg-x /etc/ssl/x  read * block path
         -               /etc/ssl/y  read * allow
         /usr/bin/dpkg   /etc/passwd read * block wide",
    );
}

#[test]
fn ties_go_to_block_then_allow_then_audit_then_the_first_policy() {
    let rule = |action: &str, message: &str| {
        format!("  file: {{matchPaths: [{{path: /x, action: {action}, message: {message}}}]}}\n")
    };
    let (block, allow, audit) = (rule("Block", "block"), rule("Allow", "allow"), rule("Audit", "audit"));
    check(&compiled(Audit, &[&audit, &allow, &block]), "- /x file * block block");
    check(&compiled(Audit, &[&audit, &allow]), "- /x file * allow");
    check(&compiled(Audit, &[&block, &rule("Block", "later")]), "- /x file * block block");
    let partial = "  file: {matchPaths: [{path: /x, readOnly: true, message: partial}]}\n";
    check(&compiled(Audit, &[partial, &block]), "- /x file * block block");
}

#[test]
fn an_allow_rule_makes_its_section_an_allow_list() {
    let spec = "  process: {action: allow, matchPaths: [{path: /bin/a}, {path: /bin/b, action: AUDIT, message: b}]}\n";
    check(
        &compiled(Block, &[spec]),
        "- /bin/a process * allow
         - /bin/b process * audit b
         - /bin/c exec    * block DefaultPosture
         - /bin/c map     * allow
         - /bin/c file    * allow",
    );
    check(&compiled(Audit, &[spec]), "- /bin/c exec * audit DefaultPosture\n - /bin/c map * allow");
    check(&compiled(Posture::Allow, &[spec]), "- /bin/c exec * allow");
}

#[test]
fn an_allow_rule_for_a_program_restricts_that_program_only() {
    let spec = "  file: {matchDirectories: [{dir: /data/, action: Allow, fromSource: [{path: /bin/a}]}]}\n";
    check(
        &compiled(Block, &[spec]),
        "/bin/a /data/x file * allow
         /bin/a /etc/x  file * block DefaultPosture
         /bin/b /data/x file * allow
         /bin/b /etc/x  file * allow",
    );
}

#[test]
fn an_exception_for_a_program_restricts_nobody() {
    let spec = "  file:
    matchDirectories:
    - {dir: /etc/ssl/certs/, recursive: true, readOnly: true}
    - {dir: /etc/ssl/certs/, recursive: true, action: Allow, fromSource: [{path: /usr/bin/dpkg}]}
  process:
    matchPaths:
    - path: /usr/sbin/update-ca-certificates
    - {path: /usr/sbin/update-ca-certificates, action: Allow, fromSource: [{path: /usr/bin/dpkg}]}
";
    check(
        &compiled(Block, &[spec]),
        "- /etc/ssl/certs/x.pem read  * allow
         - /etc/ssl/certs/x.pem write * block p0
         - /usr/sbin/update-ca-certificates exec * block p0
         /usr/bin/dpkg /etc/ssl/certs/x.pem file * allow
         /usr/bin/dpkg /usr/sbin/update-ca-certificates process * allow
         /usr/bin/dpkg /var/lib/dpkg/status file * allow
         /usr/bin/dpkg /bin/sh process * allow",
    );
}

#[test]
fn rules_inherit_from_the_section_and_the_section_from_the_spec() {
    let inherited = policy(
        "p",
        "  severity: 1
  tags: [spec]
  message: spec
  action: audit
  process:
    matchPaths: [{path: /a}]
  file:
    severity: 2
    tags: [section]
    message: section
    action: allow
    matchPaths:
    - {path: /a}
    - {path: /b, severity: 3, tags: [rule, more], message: rule, action: Block}
    - {path: /c, tags: []}
",
    );
    use armor_policy::model::Action;
    let all: Vec<_> = inherited
        .rules
        .iter()
        .map(|rule| &rule.common)
        .map(|r| (r.severity, r.tags.join(","), r.message.as_str(), r.action))
        .collect();
    assert_eq!(
        all,
        [
            (1, "spec".into(), "spec", Action::Audit),
            (2, "section".into(), "section", Action::Allow),
            (3, "rule,more".into(), "rule", Action::Block),
            (2, "section".into(), "section", Action::Allow),
        ]
    );
    let plain = policy("p", "  file: {matchPaths: [{path: /a}]}\n").rules.remove(0).common;
    assert_eq!(
        (plain.severity, plain.tags.len(), plain.message.as_str(), plain.action),
        (0, 0, "", Action::Block)
    );
    let domain = compile(&[PolicySet::of([&inherited])], &Links::new()).unwrap();
    let info = &domain.rules[4];
    assert_eq!((info.policy.as_str(), info.location.as_str(), info.severity), ("p", "p:19", 3));
    assert_eq!(
        (info.tags.as_slice(), info.message.as_str()),
        (["rule".to_owned(), "more".to_owned()].as_slice(), "rule")
    );
}

#[test]
fn what_has_no_path_is_refused_where_rules_could_refuse() {
    let of = |domain: &Domain, object: u16| -> Vec<Verdict> {
        let vector = domain.path.vector(0, object);
        [Read, Write, Exec, Map].map(|permission| vector.decision(permission, false).verdict()).to_vec()
    };
    use Verdict::{Allow as A, Audit as W, Block as B};
    let process = "  process: {matchPaths: [{path: /bin/a}]}\n";
    let file = "  file: {matchPaths: [{path: /a}]}\n";
    let audits =
        "  action: Audit\n  process: {matchPaths: [{path: /bin/a}]}\n  file: {matchPaths: [{path: /a}]}\n";
    let allows = "  action: Allow\n  process: {matchPaths: [{path: /bin/a}]}\n";
    for (posture, spec, anonymous, unresolved) in [
        (Audit, process, [A, A, B, A], [A, A, B, B]),
        (Audit, file, [A, A, A, A], [B, B, A, A]),
        (Audit, audits, [A, A, W, A], [W, W, W, W]),
        (Audit, allows, [A, A, B, A], [A, A, B, B]),
        (Block, allows, [A, A, B, B], [A, A, B, B]),
    ] {
        let domain = compiled(posture, &[spec]);
        assert_eq!(of(&domain, OBJECT_ANONYMOUS), anonymous, "{spec}");
        assert_eq!(of(&domain, OBJECT_UNRESOLVED), unresolved, "{spec}");
    }
}

#[test]
fn a_rule_matches_what_is_written_and_what_that_resolves_to() {
    let spec = "  process:
    matchPaths: [{path: /bin/sleep, fromSource: [{path: /bin/sh}]}]
    matchDirectories: [{dir: /sbin/}]
    matchPatterns: [{pattern: /lib/*.so}]
";
    let policy = policy("p", spec);
    let paths: Vec<String> = armor_policy::literal_paths(&[&policy]).into_iter().collect();
    assert_eq!(paths, ["/bin/sh", "/bin/sleep", "/lib", "/sbin"]);
    let links =
        paths.iter().map(|path| (path.clone(), vec![format!("/usr{path}"), format!("/b{path}")])).collect();
    let domain = compile(&[PolicySet::of([&policy])], &links).unwrap();
    check(
        &domain,
        "/usr/bin/sh /usr/bin/sleep exec * block
         /bin/sh     /usr/bin/sleep exec * block
         /usr/bin/sh /bin/sleep     exec * block
         /bin/a      /usr/bin/sleep exec * allow
         -           /usr/sbin/x    exec * block
         -           /b/sbin/x      exec * block
         /b/bin/sh   /usr/bin/sleep exec * block
         -           /b/lib/x.so    exec * block
         -           /usr/lib/x.so  exec * block
         -           /usr/lib/a/x.so exec * allow",
    );
}

#[test]
fn a_directory_knows_what_lies_below_it() {
    let domain = compiled(
        Audit,
        &["  file:
    matchPaths: [{path: /srv/a/secret}, {path: /srv/b/log, action: Audit}]
"],
    );
    let below = |path: &str| {
        let state = domain.path.objects.walk(path.as_bytes());
        domain.path.vector(0, domain.path.objects.below(state)).decision(Write, false).verdict()
    };
    assert_eq!(below("/"), Verdict::Block);
    assert_eq!(below("/srv/"), Verdict::Block);
    assert_eq!(below("/srv/b/"), Verdict::Audit);
    assert_eq!(below("/srv/b/log/"), Verdict::Audit);
    assert_eq!(below("/srv/c/"), Verdict::Allow);
    // Directories that no rule tells apart are in the same state, so that a rename between them is permitted.
    assert_eq!(domain.path.objects.walk(b"/srv/c/"), domain.path.objects.walk(b"/home/"));
    assert_ne!(domain.path.objects.walk(b"/srv/a/"), domain.path.objects.walk(b"/srv/b/"));
}

#[test]
fn bundles_share_one_precedence_and_the_strictest_posture() {
    let file = |rules: &str| format!("  file: {{matchPaths: [{rules}]}}\n");
    let site = policy(
        "site",
        &file("{path: /srv/a, action: Allow, message: site}, {path: /srv/b, action: Audit, message: site}"),
    );
    let fleet = policy(
        "fleet",
        &file(
            "{path: /srv/a, message: fleet}, {path: /x, action: Allow, message: fleet, fromSource: [{path: /bin/f}]}",
        ),
    );
    let of = |bundle, posture, policy| PolicySet {
        bundle,
        postures: Some(Postures::all(posture)),
        policies: vec![policy],
    };
    let domain = compile(&[of("site", Audit, &site), of("fleet", Block, &fleet)], &Links::new()).unwrap();
    check(
        &domain,
        "-      /srv/a read * block fleet
         -      /srv/b read * audit site
         -      /c     read * audit DefaultPosture
         /bin/f /c     read * block DefaultPosture",
    );
    let bundle = |program: &str| {
        let subject = domain.subjects.class(domain.subjects.walk(program.as_bytes()));
        let rule = domain.path.vector(subject, 0).decision(Read, false).rule();
        domain.rules[rule as usize].bundle.as_str()
    };
    assert_eq!((bundle("/bin/sh"), bundle("/bin/f")), ("site", "fleet"));
}

/// Checks lines of `PROGRAM OBJECT VERDICT [RULE]`, as [`check`] does, in the table of a kind whose objects are numbers.
fn check_numbers(domain: &Domain, table: &KeyedTable, number: fn(&str) -> Option<usize>, cases: &str) {
    for case in cases.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let words: Vec<&str> = case.split_whitespace().collect();
        let [program, object, verdict, rule @ ..] = words.as_slice() else { panic!("{case}") };
        let subject = domain.subjects.class(domain.subjects.walk(program.as_bytes()));
        let decision = table.decision(subject, number(object).unwrap_or_else(|| panic!("{case}")));
        let info = &domain.rules[decision.rule() as usize];
        assert_eq!(format!("{:?}", decision.verdict()).to_lowercase(), *verdict, "{case}");
        if let [rule] = rule {
            assert_eq!(if info.message.is_empty() { &info.policy } else { &info.message }, rule, "{case}");
        }
    }
}

fn check_capabilities(domain: &Domain, cases: &str) {
    let number = |name: &str| match name {
        "unnamed" => Some(Capability::COUNT),
        name => Capability::from_name(name).map(Capability::number),
    };
    check_numbers(domain, &domain.capability, number, cases);
}

#[test]
fn capabilities_are_named_in_any_case_with_or_without_prefix_and_in_lists() {
    let domain = compiled(
        Audit,
        &["  capabilities:
    matchCapabilities: [{capability: 'net_raw,NET_ADMIN , CAP_Sys_Admin'}, {capability: checkpoint_restore, action: Audit}]
"],
    );
    check_capabilities(
        &domain,
        "- net_raw            block
         - net_admin          block
         - sys_admin          block
         - checkpoint_restore audit
         - chown              allow
         - unnamed            allow",
    );
    check(&domain, "- /any * * allow");
}

#[test]
fn a_capabilities_section_with_allow_rules_is_an_allow_list_of_its_own() {
    let domain = compiled(
        Block,
        &["  capabilities:
    matchCapabilities: [{capability: chown, action: Allow}, {capability: kill, action: Audit, message: killed}]
  file:
    matchPaths: [{path: /f}]
"],
    );
    check_capabilities(
        &domain,
        "- chown   allow
         - kill    audit killed
         - setuid  block DefaultPosture
         - unnamed block DefaultPosture",
    );
    check(&domain, "- /other file * allow");
}

#[test]
fn capabilities_with_sources_come_first_and_may_be_exceptions() {
    let domain = compiled(
        Block,
        &["  capabilities:
    matchCapabilities:
    - {capability: net_raw, message: all}
    - {capability: net_raw, action: Allow, fromSource: [{path: /bin/ping}]}
    - {capability: sys_time, action: Allow, fromSource: [{path: /bin/date}]}
"],
    );
    check_capabilities(
        &domain,
        "-         net_raw  block all
         /bin/ping net_raw  allow
         /bin/ping sys_time allow
         /bin/date net_raw  block all
         /bin/date sys_time allow
         /bin/date kill     block DefaultPosture
         -         kill     allow",
    );
}

#[test]
fn presets_name_what_they_refuse_and_leave_an_exception() {
    let text = "apiVersion: security.kubearmor.com/v1
kind: KubeArmorPolicy
metadata: {name: presets}
spec:
  selector: {matchLabels: {a: b}}
  presets: [{name: filelessExec, message: memory}, {name: PROTECTPROC, action: Audit}]
  process: {matchPaths: [{path: /dev/shm/own, action: Allow, fromSource: [{path: /bin/app}]}]}
";
    let policies = parse("presets", text).unwrap_or_else(|errors| panic!("{errors}"));
    let domain = compile(&[PolicySet::of(&policies)], &Links::new()).unwrap();
    let number = |name: &str| Preset::from_name(name).map(|preset| preset as usize);
    check_numbers(
        &domain,
        &domain.presets,
        number,
        "- filelessExec     block memory
         - protectProc      audit
         - protectEnv       allow
         - anonymousMapExec allow
         - exec             allow",
    );
    check(
        &domain,
        "-        /dev/shm/any   process * block memory
         -        /dev/any       process * block memory
         -        /run/shm/d/any process * block memory
         /bin/app /dev/shm/own   exec    * allow
         -        /bin/any       exec    * allow",
    );
    let anonymous = domain.path.vector(SUBJECT_NONE, OBJECT_ANONYMOUS).decision(Exec, true);
    assert_eq!(domain.rules[anonymous.rule() as usize].message, "memory");
}

fn check_sockets(domain: &Domain, cases: &str) {
    let number = |name: &str| SocketKind::ALL.iter().position(|kind| format!("{kind:?}") == name);
    check_numbers(domain, &domain.network, number, cases);
}

#[test]
fn protocols_stand_for_kinds_of_sockets() {
    for (protocol, kinds) in [
        ("tcp", "Tcp"),
        ("UDP", "Udp"),
        ("icmp", "Ping RawIcmp"),
        ("ICMPv6", "Ping6 RawIcmp6"),
        ("sctp", "SctpStream SctpSeqpacket"),
        ("dccp", "Dccp"),
        ("packet", "Packet"),
        ("raw", "RawIcmp RawIcmp6 Raw Packet"),
        ("stream", "Tcp SctpStream Stream"),
        ("dgram", "Udp Ping Ping6 Dgram"),
        ("rdm", "Rdm"),
        ("seqpacket", "SctpSeqpacket Seqpacket"),
    ] {
        let domain =
            compiled(Audit, &[&format!("  network: {{matchProtocols: [{{protocol: {protocol}}}]}}\n")]);
        let blocked: Vec<&str> = kinds.split(' ').collect();
        for kind in SocketKind::ALL {
            let verdict = domain.network.decision(0, kind as usize).verdict();
            assert_eq!(
                verdict == Verdict::Block,
                blocked.contains(&&*format!("{kind:?}")),
                "{protocol} {kind:?}"
            );
        }
    }
    let all = compiled(Audit, &["  network: {matchProtocols: [{protocol: ALL}]}\n"]);
    assert!(
        SocketKind::ALL
            .iter()
            .all(|kind| all.network.decision(0, *kind as usize).verdict() == Verdict::Block)
    );
}

#[test]
fn a_protocol_comes_before_a_type_and_a_type_before_all() {
    let domain = compiled(
        Audit,
        &["  network:
    matchProtocols:
    - {protocol: all, message: all}
    - {protocol: stream, action: Audit, message: stream}
    - {protocol: 'tcp, icmp', action: Allow, message: named}
    - {protocol: raw, action: Audit, message: raw}
"],
    );
    check_sockets(
        &domain,
        "- Tcp        allow
         - SctpStream audit stream
         - Udp        block all
         - Ping       allow
         - RawIcmp    allow
         - Raw        audit raw
         - Packet     audit raw
         - Other      block all",
    );
}

#[test]
fn a_network_section_with_allow_rules_is_an_allow_list() {
    let domain = compiled(Block, &["  network: {matchProtocols: [{protocol: tcp, action: Allow}]}\n"]);
    check_sockets(&domain, "- Tcp allow\n - Udp block DefaultPosture\n - Other block DefaultPosture");
    check(&domain, "- /any * * allow");
}

#[test]
fn each_class_has_a_posture_and_a_policy_may_have_its_own() {
    let spec = |annotations: &str| {
        format!(
            "apiVersion: security.kubearmor.com/v1\nkind: KubeArmorHostPolicy\n\
             metadata: {{name: p, annotations: {{{annotations}}}}}\n\
             spec:\n  nodeSelector: {{matchLabels: {{a: b}}}}\n  action: Allow\n\
             \x20 network: {{matchProtocols: [{{protocol: tcp}}], matchDestinations: [{{cidr: 10.0.0.0/8}}]}}\n\
             \x20 capabilities: {{matchCapabilities: [{{capability: kill}}]}}\n\
             \x20 file: {{matchPaths: [{{path: /a}}]}}\n"
        )
    };
    let bundle = Postures { file: Audit, network: Block, capabilities: Posture::Allow, device: Audit };
    for (annotations, [file, network, capabilities]) in [
        ("", ["audit", "block", "allow"]),
        ("kubearmor-network-posture: audit", ["audit", "audit", "allow"]),
        ("kubearmor-file-posture: block, kubearmor-capabilities-posture: audit", ["block", "block", "audit"]),
    ] {
        let policies = parse("p.yaml", &spec(annotations)).unwrap();
        let set = PolicySet { postures: Some(bundle), ..PolicySet::of(&policies) };
        let domain = compile(&[set], &Links::new()).unwrap();
        check(&domain, &format!("- /b read * {file}"));
        check_sockets(&domain, &format!("- Udp {network}"));
        check_capabilities(&domain, &format!("- net_raw {capabilities}"));
        let key = DestinationTable::key(Transport::Tcp, 80);
        let decision = domain.egress.decision(0, "11.0.0.1".parse().unwrap(), key);
        assert_eq!(format!("{:?}", decision.verdict()).to_lowercase(), network);
    }
    let policies = parse("p.yaml", &spec("kubearmor-file-posture: block")).unwrap();
    let set = PolicySet { postures: None, ..PolicySet::of(&policies) };
    check(&compile(&[set], &Links::new()).unwrap(), "- /b read * allow");
}

#[test]
fn a_network_rule_with_sources_may_be_an_exception_from_a_wider_one() {
    let domain = compiled(
        Block,
        &["  network:
    matchProtocols:
    - {protocol: all, message: all}
    - {protocol: udp, action: Allow, fromSource: [{path: /bin/dig}]}
"],
    );
    check_sockets(&domain, "/bin/dig Udp allow\n /bin/dig Tcp block all\n - Udp block all");
}

/// The same rules in a network policy and in the section `network`.
#[test]
fn a_network_policy_decides_as_its_destinations_do() {
    let document = |kind: &str, spec: &str| {
        let selector = if kind == "KubeArmorNetworkPolicy" { "nodeSelector" } else { "selector" };
        format!(
            "apiVersion: security.kubearmor.com/v1\nkind: {kind}\nmetadata: {{name: p}}\n\
             spec:\n  {selector}: {{matchLabels: {{kubernetes.io/hostname: '*'}}}}\n{spec}"
        )
    };
    let firewall = document(
        "KubeArmorNetworkPolicy",
        "  severity: 5
  egress:
  - {to: [{ipBlock: {cidr: 10.0.0.0/8}}, {ipBlock: {cidr: 'fd00::/8'}}], ports: [{port: dns, protocol: udp}, {port: '8000', endPort: 8010}]}
  - {to: [{ipBlock: {cidr: 10.1.0.0/16}}], action: Allow}
  - {ports: [{port: 25}], action: Audit}
  ingress:
  - {ports: [{port: ssh}]}
  - {from: [{ipBlock: {cidr: 10.0.0.0/8}}], ports: [{port: ssh}], action: Allow}
",
    );
    let section = document(
        "KubeArmorPolicy",
        "  severity: 5
  network:
    matchDestinations:
    - {cidr: 10.0.0.0/8, ports: [53], protocol: udp}
    - {cidr: 10.0.0.0/8, ports: [8000-8010], protocol: tcp}
    - {cidr: 'fd00::/8', ports: [53], protocol: udp}
    - {cidr: 'fd00::/8', ports: [8000-8010], protocol: tcp}
    - {cidr: 10.1.0.0/16, action: Allow}
    - {ports: [25], protocol: tcp, action: Audit}
    - {direction: ingress, ports: [22], protocol: tcp}
    - {direction: ingress, cidr: 10.0.0.0/8, ports: [22], protocol: tcp, action: Allow}
",
    );
    let rules = |document: &str| -> Vec<_> {
        let policies = parse("p.yaml", document).unwrap();
        policies[0]
            .rules
            .iter()
            .map(|rule| (rule.common.action, rule.common.severity, rule.body.clone()))
            .collect()
    };
    let mut found = rules(&firewall);
    found.rotate_left(2);
    assert_eq!(found, rules(&section));

    for (selector, kind) in [
        ("selector: {matchLabels: {app: web}}", armor_policy::model::Kind::Container),
        ("nodeSelector: {matchLabels: {a: b}}", armor_policy::model::Kind::Host),
    ] {
        let text = format!(
            "apiVersion: security.kubearmor.com/v1\nkind: KubeArmorNetworkPolicy\nmetadata: {{name: p}}\n\
             spec:\n  {selector}\n  egress: [{{action: Block}}]\n"
        );
        assert_eq!(parse("p.yaml", &text).unwrap()[0].kind, kind);
    }
}

/// Checks lines of `CLASS/SUBCLASS/PROTOCOL[,...] LEVEL VERDICT [RULE]`: what becomes of a device with these functions.
fn check_devices(domain: &Domain, cases: &str) {
    for case in cases.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let words: Vec<&str> = case.split_whitespace().collect();
        let [functions, level, verdict, rule @ ..] = words.as_slice() else { panic!("{case}") };
        let function = |text: &str| {
            let numbers: Vec<u8> = text.split('/').map(|number| number.parse().unwrap()).collect();
            let [class, sub_class, protocol] = numbers.as_slice() else { panic!("{case}") };
            Function { class: *class, sub_class: *sub_class, protocol: *protocol }
        };
        let functions: Vec<Function> = functions.split(',').map(function).collect();
        let (decision, about) = domain.devices.strictest(&functions, level.parse().unwrap());
        assert_eq!(format!("{:?}", decision.verdict()).to_lowercase(), *verdict, "{case}");
        assert_eq!(decision.verdict(), domain.devices.decision(about, level.parse().unwrap()).verdict());
        if let [rule] = rule {
            let info = &domain.rules[decision.rule() as usize];
            assert_eq!(if info.message.is_empty() { &info.policy } else { &info.message }, *rule, "{case}");
        }
    }
}

#[test]
fn a_device_rule_is_about_what_it_names_and_the_closer_one_decides() {
    let domain = compiled(
        Block,
        &["  device:
    matchDevice:
    - {class: hid, action: Audit, message: hid}
    - {class: HID, subClass: 1, protocol: 1, message: keyboard}
    - {class: \"0x3\", subClass: 1, protocol: 2, level: 1, action: Audit, message: mouse}
    - {class: \"8\", message: storage}
    - {class: All, level: 2, action: Audit, message: behind}
"],
    );
    check_devices(
        &domain,
        "3/0/0  1 audit hid
         3/1/1  1 block keyboard
         3/1/2  1 audit mouse
         3/1/1  2 audit behind
         3/1/1  3 block keyboard
         8/6/80 1 block storage
         8/6/80 2 audit behind
         9/0/0  1 allow
         9/0/0  2 audit behind",
    );
    assert!(domain.devices.refuses());
}

#[test]
fn a_device_is_what_the_strictest_of_its_functions_is() {
    let domain =
        compiled(Audit, &["  device: {matchDevice: [{class: MASS-STORAGE}, {class: HID, action: Audit}]}\n"]);
    check_devices(
        &domain,
        "3/1/1,8/6/80 1 block\n 8/6/80,3/1/1 1 block\n 9/0/0,3/1/1 1 audit\n 9/0/0,1/1/0 1 allow",
    );
}

#[test]
fn allowed_devices_make_an_allow_list_and_block_comes_before_allow() {
    let allowed = "  action: Allow\n  device: {matchDevice: [{class: HID}, {class: HUB}]}\n";
    let domain = compiled(Block, &[allowed]);
    check_devices(
        &domain,
        "3/1/1 1 allow\n 9/0/0 2 allow\n 8/6/80 1 block DefaultPosture\n 3/1/1,0/0/0 1 block DefaultPosture",
    );
    check(&domain, "- /any * * allow");
    assert!(!compiled(Audit, &[allowed]).devices.refuses());
    let other = "  device: {matchDevice: [{class: \"3\", message: no}]}\n";
    check_devices(&compiled(Audit, &[allowed, other]), "3/1/1 1 block no\n 8/6/80 1 audit DefaultPosture");
    assert!(compiled(Block, &["  file: {matchPaths: [{path: /a}]}\n"]).devices.is_empty());
}

#[test]
fn a_rule_without_pts_is_about_programs_that_a_terminal_controls() {
    let decide = |spec: &str, program: &str, terminal: bool| {
        let domain = compiled(Block, &[spec]);
        let subject = domain.subjects.class(domain.subjects.walk(program.as_bytes()));
        let subject = subject + if terminal { domain.terminals as u16 } else { 0 };
        let object = domain.path.objects.class(domain.path.objects.walk(b"/bin/sleep"));
        let verdict = domain.path.vector(subject, object).decision(Permission::Exec, false).verdict();
        format!("{verdict:?}")
    };
    let rule = |fields: &str| format!("  process: {{matchPaths: [{{path: /bin/sleep, {fields}}}]}}\n");
    for (fields, without, with) in [
        ("pts: true", "Block", "Block"),
        ("pts: false", "Allow", "Block"),
        ("pts: false, action: Audit", "Allow", "Audit"),
        ("pts: false, action: Allow", "Allow", "Block"),
    ] {
        let spec = rule(fields);
        assert_eq!(
            (decide(&spec, "/any", false).as_str(), decide(&spec, "/any", true).as_str()),
            (without, with),
            "{fields}"
        );
    }
    let spec = rule("pts: false, fromSource: [{path: /bin/sh}]");
    assert_eq!(
        [("/bin/sh", true), ("/bin/sh", false), ("/any", true)]
            .map(|(program, terminal)| decide(&spec, program, terminal)),
        ["Block", "Allow", "Allow"]
    );
    // An allow-list is one for all programs.
    let spec = "  process: {matchPaths: [{path: /bin/true, pts: false, action: Allow}]}\n";
    assert_eq!(
        (decide(spec, "/any", false), decide(spec, "/any", true)),
        ("Block".to_owned(), "Block".to_owned())
    );
    assert_eq!(compiled(Block, &[&rule("pts: true")]).terminals, 0);
}
