//! Compares the compiled tables with the oracle's answers, over random policies and paths.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod oracle;

use armor_policy::automaton::{Automaton, Slot};
use armor_policy::capability::{Capability, CapabilityRule};
use armor_policy::decision::{Decision, PerClass, Verdict};
use armor_policy::destination::{DestinationRule, DestinationTable, Direction, Ports, Transport};
use armor_policy::device::{DeviceRule, Function};
use armor_policy::dns::DnsName;
use armor_policy::keyed::KeyedTable;
use armor_policy::model::{Action, Kind, Location, Policy, Rule, RuleBody, RuleCommon, Selector, Source};
use armor_policy::network::{NetworkRule, Protocol, SocketKind};
use armor_policy::path::glob::Glob;
use armor_policy::path::{
    OBJECT_ANONYMOUS, OBJECT_UNRESOLVED, PERMISSIONS, PathRule, Permission, Section, Target,
};
use armor_policy::preset::Preset;
use armor_policy::syscall::{CallPath, Syscall, SyscallRule, SyscallTable};
use armor_policy::{Domain, Links, PolicySet, Posture, Postures, SUBJECT_NONE, compile, literal_paths};
use oracle::number;
use oracle::path::{Object, evaluate, of_arguments};
use oracle::{Asker, By};
use proptest::prelude::*;
use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

/// Generates few names, so that random rules match random paths.
fn name() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["a", "b", "ab", "etc", "x", "\u{e9}"]).prop_map(str::to_owned)
}

fn path() -> impl Strategy<Value = String> {
    prop::collection::vec(name(), 1..4).prop_map(|names| format!("/{}", names.join("/")))
}

fn directory() -> impl Strategy<Value = String> {
    prop::collection::vec(name(), 0..4)
        .prop_map(|names| names.iter().fold("/".to_owned(), |d, n| d + n + "/"))
}

fn glob() -> impl Strategy<Value = Target> {
    let piece = prop::sample::select(vec![
        "a",
        "b",
        "etc",
        "*",
        "**",
        "?",
        "[ab]",
        "[^a]",
        "[a-e]*",
        "{a,b}",
        "{a,b/x,*b}",
        "a*",
        "*b",
        "{,x}a",
        "\\x",
        "x/",
        "{a,{b,x}}c*",
        "?*?",
    ]);
    prop::collection::vec(piece, 1..4)
        .prop_map(|pieces| format!("/{}", pieces.join("/")))
        .prop_filter_map("a valid pattern", |text| Glob::new(&text).ok().map(Target::Glob))
}

fn target(section: Section) -> impl Strategy<Value = Target> {
    let any = prop_oneof![
        3 => path().prop_map(Target::Path),
        3 => (directory(), any::<bool>()).prop_map(|(path, recursive)| Target::Directory { path, recursive }),
        2 => glob(),
    ];
    match section {
        Section::File => any.boxed(),
        Section::Process => prop_oneof![6 => any, 1 => name().prop_map(Target::Name)].boxed(),
    }
}

const PROGRAMS: [&str; 7] = ["/bin/a", "/usr/bin/a", "/b", "/none", "/bin/d/e", "/usr/bin/b", "/usr/c/d"];

fn rule() -> impl Strategy<Value = Rule> {
    let sources = prop_oneof![
        3 => Just(Vec::new()),
        2 => prop::sample::subsequence(sources(), 1..3),
    ];
    let action = prop::sample::select(vec![Action::Block, Action::Allow, Action::Audit]);
    let body = prop_oneof![
        4 => path_body(),
        1 => capability().prop_map(|capability| RuleBody::Capability(CapabilityRule { capability })),
        2 => protocol().prop_map(|protocol| RuleBody::Network(NetworkRule { protocol })),
        3 => destination().prop_map(RuleBody::Destination),
        3 => prop::sample::select(DNS_NAMES.to_vec()).prop_map(|name| RuleBody::Dns(dns_name(name))),
        1 => prop::sample::select(Preset::ALL.to_vec()).prop_map(RuleBody::Preset),
        2 => syscall().prop_map(RuleBody::Syscall),
        3 => device().prop_map(RuleBody::Device),
    ];
    (sources, prop::bool::weighted(0.2), action, body).prop_map(|(sources, terminal, action, body)| {
        let has_no_sources = body.as_preset().is_some() || body.as_device().is_some();
        let common = RuleCommon {
            // A preset is about all programs, and allows nothing; a device is about none.
            sources: if has_no_sources { Vec::new() } else { sources },
            // The parser makes no Allow of it.
            terminal: terminal && !has_no_sources && action != Action::Allow,
            action: match body {
                RuleBody::Preset(_) if action == Action::Allow => Action::Block,
                // System calls are only reported.
                RuleBody::Syscall(_) => Action::Audit,
                _ => action,
            },
            severity: 0,
            tags: Vec::new(),
            message: String::new(),
            location: Location::default(),
        };
        Rule { common, body }
    })
}

fn askers() -> impl Iterator<Item = Asker<'static>> {
    PROGRAMS.into_iter().flat_map(|path| [false, true].map(|terminal| Asker { path, terminal }))
}

/// Returns the subject class of a program.
fn subject_of(domain: &Domain, program: Asker<'_>) -> u16 {
    let class = domain.subjects.class(domain.subjects.walk(program.path.as_bytes()));
    class + if program.terminal { domain.terminals as u16 } else { 0 }
}

/// Returns the programs and directories that rules are about.
fn sources() -> Vec<Source> {
    let programs = PROGRAMS[..3].iter().map(|path| Source::Program((*path).to_owned()));
    let directory = |path: &str, recursive: bool| Source::Directory { path: path.to_owned(), recursive };
    let directories = [
        directory("/bin/", false),
        directory("/usr/", true),
        directory("/usr/bin/", false),
        directory("/", false),
    ];
    programs.chain(directories).collect()
}

/// Returns few system calls, so that rules meet.
fn calls() -> Vec<Syscall> {
    ["unlink", "mount", "lsm_list_modules"].iter().filter_map(|name| Syscall::from_name(name)).collect()
}

/// Paths as calls name them, without a last slash.
const CALL_PATHS: [&str; 10] =
    ["", "/a", "/a/b", "/a/b/c", "/a/c", "/ab", "/a/b/cd/e", "/x", "/ax/b", SyscallTable::UNREADABLE];

fn syscall() -> impl Strategy<Value = SyscallRule> {
    let path = (prop::sample::select(CALL_PATHS[..6].to_vec()), any::<bool>())
        .prop_map(|(path, recursive)| CallPath { path: path.to_owned(), recursive });
    (prop::sample::select(calls()), prop::option::weighted(0.7, path))
        .prop_map(|(call, path)| SyscallRule { call, path })
}

fn path_body() -> impl Strategy<Value = RuleBody> {
    let section = prop::sample::select(vec![Section::Process, Section::File]);
    let lists = prop_oneof![
        3 => Just(Vec::new()),
        1 => prop::sample::subsequence(ARGUMENTS[..5].to_vec(), 1..4),
    ];
    let flags = (prop::bool::weighted(0.2), prop::bool::weighted(0.2));
    (section.prop_flat_map(target_of), flags, lists).prop_map(
        |((section, target), (owner_only, read_only), list)| {
            let read_only = read_only && section == Section::File;
            let has_list = section == Section::Process && matches!(target, Target::Path(_) | Target::Name(_));
            let allowed_args = list.into_iter().filter(|_| has_list).map(str::to_owned).collect();
            RuleBody::Path(PathRule { section, target, owner_only, read_only, allowed_args })
        },
    )
}

/// Arguments, of which the last are in no list.
const ARGUMENTS: [&str; 8] =
    ["", "-m", "-mr", "random and long", "random and longer", "-", "random", "random and longest"];

/// Generates names that stand for some of the same sockets.
fn protocol() -> impl Strategy<Value = Protocol> {
    use Protocol::{All, Dgram, Icmp, Packet, Raw, Sctp, Stream, Tcp, Udp};
    prop::sample::select(vec![Tcp, Udp, Icmp, Sctp, Packet, Raw, Stream, Dgram, All])
}

const PREFIXES: [&str; 11] = [
    "0.0.0.0/0",
    "10.0.0.0/7",
    "10.0.0.0/8",
    "10.16.0.0/13",
    "10.16.1.0/24",
    "10.16.1.1/32",
    "::/0",
    "fd00::/8",
    "fd00:0:8000::/33",
    "fd00:0:8000::1/128",
    "::ffff:0:0:0/95",
];
/// Some of each prefix that no longer one has.
const ADDRESSES: [&str; 15] = [
    "0.0.0.0",
    "9.255.255.255",
    "10.0.0.1",
    "10.16.0.0",
    "10.16.1.1",
    "10.16.1.2",
    "10.23.255.255",
    "11.1.1.1",
    "255.255.255.255",
    "::1",
    "fd00::1",
    "fd00:0:8000::1",
    "fd00:0:8000::2",
    "::ffff:0:1:1",
    "::ffff:10.16.1.1",
];
const PORTS: [(u16, u16); 7] =
    [(1, 65535), (80, 80), (80, 90), (85, 85), (81, 443), (443, 443), (65535, 65535)];

/// Generates rules for nested prefixes and overlapping ports.
fn destination() -> impl Strategy<Value = DestinationRule> {
    let direction = prop::sample::select(vec![Direction::Egress, Direction::Egress, Direction::Ingress]);
    let transports = vec![Transport::Tcp, Transport::Udp, Transport::Icmp];
    let ports = prop::option::of(prop::sample::select(PORTS.to_vec()));
    let prefix = prop::option::of(prop::sample::select(PREFIXES.to_vec()));
    (direction, prefix, ports, prop::option::of(prop::sample::select(transports))).prop_map(
        |(direction, prefix, ports, transport)| DestinationRule {
            direction,
            prefix: prefix.map(|prefix| prefix.parse().unwrap()),
            ports: ports
                .filter(|_| transport != Some(Transport::Icmp))
                .map(|(first, last)| Ports { first, last }),
            transport,
        },
    )
}

/// Names one below the other, and beside each other with the same beginning or end.
const DNS_NAMES: [&str; 9] = [
    "com",
    "a.com",
    "b.a.com",
    "c.b.a.com",
    "ba.com",
    "a.community",
    "x.com",
    "long-label-that-is-jumped-over.a.com",
    "e.long-label-that-is-jumped-over.a.com",
];

fn dns_name(name: &str) -> DnsName {
    DnsName::new(name).unwrap()
}

/// Generates few capabilities, so that rules meet.
fn capability() -> impl Strategy<Value = Capability> {
    prop::sample::select(Capability::all().step_by(20).collect::<Vec<_>>())
}

/// Generates rules for few devices, so that rules meet.
fn device() -> impl Strategy<Value = DeviceRule> {
    let number = |numbers: &[u8]| prop::option::of(prop::sample::select(numbers.to_vec()));
    let rule = |(class, sub_class, protocol, level)| DeviceRule { class, sub_class, protocol, level };
    (number(&[3, 8]), number(&[0, 1]), number(&[0, 1]), number(&[1, 2])).prop_map(rule)
}

fn target_of(section: Section) -> impl Strategy<Value = (Section, Target)> {
    target(section).prop_map(move |target| (section, target))
}

fn policies(rules: std::ops::Range<usize>) -> impl Strategy<Value = Vec<Policy>> {
    let names = prop::sample::select(vec!["first", "second", "third"]);
    let own = || prop::option::weighted(0.2, posture());
    let postures = (own(), own(), own(), own()).prop_map(|(file, network, capabilities, device)| PerClass {
        file,
        network,
        capabilities,
        device,
    });
    prop::collection::vec((names, postures, prop::collection::vec(rule(), rules)), 1..4).prop_map(|list| {
        let policy = |(file, (name, postures, mut rules)): (usize, (&str, _, Vec<Rule>))| {
            for (line, rule) in rules.iter_mut().enumerate() {
                rule.common.location = Location { line: line as u32 + 1, column: 1 };
            }
            Policy {
                kind: Kind::Host,
                name: name.to_owned(),
                namespace: None,
                postures,
                selector: Selector::default(),
                rules,
                file: format!("{file}.yaml"),
                location: Location::default(),
            }
        };
        list.into_iter().enumerate().map(policy).collect()
    })
}

fn posture() -> impl Strategy<Value = Posture> {
    prop::sample::select(vec![Posture::Allow, Posture::Audit, Posture::Block])
}

/// Generates the postures of two bundles, of which there may be none, and for each policy whether it is in the second one.
fn bundles() -> impl Strategy<Value = ([Option<Postures>; 2], Vec<bool>)> {
    let postures = || {
        let each = (posture(), posture(), posture(), posture());
        let each = each.prop_map(|(file, network, capabilities, device)| Postures {
            file,
            network,
            capabilities,
            device,
        });
        prop::option::weighted(0.9, each)
    };
    ([postures(), postures()], prop::collection::vec(any::<bool>(), 4))
}

/// Returns the policies in their bundles.
fn sets<'a>(
    policies: &'a [Policy],
    (postures, second): &([Option<Postures>; 2], Vec<bool>),
) -> Vec<PolicySet<'a>> {
    let of = |bundle: &'static str, postures: Option<Postures>, is_second: bool| PolicySet {
        bundle,
        postures,
        policies: policies.iter().zip(second).filter(|(_, at)| **at == is_second).map(|(of, _)| of).collect(),
    };
    vec![of("one", postures[0], false), of("two", postures[1], true)]
}

fn links() -> impl Strategy<Value = Links> {
    let to = prop_oneof![4 => path(), 1 => Just("/".to_owned())];
    let programs =
        prop::sample::subsequence(vec![("/bin/a".to_owned(), vec!["/usr/bin/a".to_owned()])], 0..=1);
    let ends = prop::collection::vec(to, 0..3);
    (prop::collection::btree_map(path(), ends, 0..3), programs).prop_map(|(mut links, programs)| {
        links.extend(programs);
        links
    })
}

/// Generates random paths of files and directories.
fn paths() -> impl Strategy<Value = Vec<String>> {
    prop::collection::vec(prop_oneof![path(), directory()], 1..12)
}

fn compare(sets: &[PolicySet<'_>], links: &Links, domain: &Domain, program: Asker<'_>, object: Object<'_>) {
    let subject = subject_of(domain, program);
    let class = match object {
        Object::Path(path) => domain.path.objects.class(domain.path.objects.walk(path)),
        Object::Anonymous => OBJECT_ANONYMOUS,
        Object::Unresolved => OBJECT_UNRESOLVED,
    };
    for permission in PERMISSIONS {
        for owner in [false, true] {
            let decision = domain.path.vector(subject, class).decision(permission, owner);
            let shown = match object {
                Object::Path(path) => String::from_utf8_lossy(path).into_owned(),
                other => format!("{other:?}"),
            };
            let expected = evaluate(sets, links, program, object, permission, owner);
            let case = format!("{program} {permission:?} {shown} owner={owner}");
            assert_decision(domain, decision, expected, &case);
        }
    }
    match object {
        Object::Path(path) => compare_arguments(sets, links, domain, program, path),
        _ => assert_eq!(domain.path.vector(subject, class).1, 0),
    }
}

fn compare_arguments(
    sets: &[PolicySet<'_>],
    links: &Links,
    domain: &Domain,
    program: Asker<'_>,
    path: &[u8],
) {
    let subject = subject_of(domain, program);
    let list = domain.path.vector(subject, domain.path.objects.class(domain.path.objects.walk(path))).1;
    let tables = &domain.path.arguments;
    let on = |argument: &str| {
        let class = tables.classes.class(tables.classes.walk(argument.as_bytes()));
        tables.lists.decision(list, class.into())
    };
    let few = ARGUMENTS.iter().map(|argument| vec![*argument]);
    let two = ARGUMENTS.windows(2).map(<[&str]>::to_vec);
    for arguments in few.chain(two).chain([Vec::new(), vec!["-m"; 20], vec!["-m"; 21]]) {
        // As the kernel side does: class 0 if there are none, or too many.
        let countable = (1..=20).contains(&arguments.len());
        let whole = if countable { Decision::new(Verdict::Allow, 0) } else { tables.lists.decision(list, 0) };
        let decision = arguments.iter().map(|argument| on(argument)).fold(whole, |strictest, decision| {
            if decision.verdict() > strictest.verdict() { decision } else { strictest }
        });
        let expected = of_arguments(sets, links, program, path, &arguments);
        assert_decision(domain, decision, expected, &format!("{program} {path:?} {arguments:?}"));
    }
}

fn compare_numbers(sets: &[PolicySet<'_>], links: &Links, domain: &Domain, program: Asker<'_>) {
    let subject = subject_of(domain, program);
    for capability in Capability::all() {
        let decision = domain.capability.decision(subject, capability.number());
        let expected = number::of_capability(sets, links, program, capability);
        assert_decision(domain, decision, expected, &format!("{program} {capability}"));
    }
    for kind in SocketKind::ALL {
        let decision = domain.network.decision(subject, kind as usize);
        let expected = number::of_socket(sets, links, program, kind);
        assert_decision(domain, decision, expected, &format!("{program} {kind:?}"));
    }
    for preset in Preset::ALL {
        let decision = domain.presets.decision(SUBJECT_NONE, preset as usize);
        assert_eq!(
            decision,
            domain.presets.decision(subject, preset as usize),
            "presets are about all programs"
        );
        let expected = number::of_preset(sets, links, program, preset);
        assert_decision(domain, decision, expected, &format!("{preset:?}"));
    }
    for call in calls() {
        for path in [None].into_iter().chain(CALL_PATHS.map(Some)) {
            let decision = domain.syscalls.decision(subject, call, path);
            let expected = number::of_syscall(sets, links, program, call, path);
            assert_decision(domain, decision, expected, &format!("{program} {call} {path:?}"));
        }
    }
    for (class, sub_class, protocol, level) in
        [(3, 0, 0, 1), (3, 0, 1, 2), (3, 1, 1, 1), (8, 1, 0, 2), (8, 2, 1, 3), (9, 0, 0, 1)]
    {
        let function = Function { class, sub_class, protocol };
        let decision = domain.devices.decision(function, level);
        let expected = number::of_device(sets, links, function, level);
        assert_decision(domain, decision, expected, &format!("{function} {level}"));
    }
    for (direction, table) in [(Direction::Egress, &domain.egress), (Direction::Ingress, &domain.ingress)] {
        compare_destinations(sets, links, domain, program, subject, (direction, table));
    }
    let mut strictest = Verdict::Allow;
    let others =
        ["org", "y.com", "cb.a.com", "d.c.b.a.com", "z.a.community", "long-label.a.com", "f.e.x.com"];
    for name in DNS_NAMES.into_iter().chain(others) {
        let decision = domain.dns.decision(subject, &dns_name(name));
        let expected = number::of_name(sets, links, program, &dns_name(name));
        assert_decision(domain, decision, expected, &format!("{program} {name}"));
        strictest = strictest.max(decision.verdict());
    }
    assert_eq!(domain.dns.decision_on_any_name(subject).verdict(), strictest);
    let unnamed = domain.capability.decision(subject, Capability::COUNT);
    assert!(
        Capability::all().map(|of| domain.capability.decision(subject, of.number())).any(|of| of == unnamed)
    );
}

fn compare_destinations(
    sets: &[PolicySet<'_>],
    links: &Links,
    domain: &Domain,
    program: Asker<'_>,
    subject: u16,
    (direction, table): (Direction, &DestinationTable),
) {
    let mut strictest = Verdict::Allow;
    for address in ADDRESSES {
        let address: IpAddr = address.parse().unwrap();
        for transport in Transport::ALL {
            for port in [0, 1, 79, 80, 81, 85, 86, 90, 91, 443, 444, 65535] {
                let port = if transport.has_ports() { port } else { 0 };
                let decision = table.decision(subject, address, DestinationTable::key(transport, port));
                let object = (address.to_canonical(), transport, port);
                let expected = number::of_destination(sets, links, program, direction, object);
                let case = format!("{program} {direction:?} {address} {transport:?} {port}");
                assert_decision(domain, decision, expected, &case);
                strictest = strictest.max(decision.verdict());
            }
        }
    }
    assert!(table.decision_on_everybody(subject).verdict() >= strictest);
    if direction == Direction::Ingress {
        compare_anybody(sets, links, program, subject, table);
    }
}

/// Compares the decision where the peer is not known yet with the least strict one of all addresses.
fn compare_anybody(
    sets: &[PolicySet<'_>],
    links: &Links,
    program: Asker<'_>,
    subject: u16,
    table: &DestinationTable,
) {
    for transport in Transport::ALL {
        for port in [0, 1, 80, 85, 90, 443, 65535] {
            let port = if transport.has_ports() { port } else { 0 };
            let key = DestinationTable::key(transport, port);
            let of = |address: &str| {
                let object = (address.parse::<IpAddr>().unwrap().to_canonical(), transport, port);
                number::of_destination(sets, links, program, Direction::Ingress, object).0
            };
            let anybody = table.decision_on_anybody(subject, key);
            let case = format!("{program} anybody {transport:?} {port}");
            assert_eq!(Some(anybody.verdict()), ADDRESSES.into_iter().map(of).min(), "{case}");
            if !table.depends_on_peer() {
                for address in ADDRESSES {
                    let decision = table.decision(subject, address.parse().unwrap(), key);
                    assert_eq!(decision, anybody, "{case} {address}");
                }
            }
        }
    }
}

/// Asserts that a decision is the expected one, and made by the expected rule.
fn assert_decision(domain: &Domain, decision: Decision, (verdict, by): (Verdict, By<'_>), case: &str) {
    let info = &domain.rules[decision.rule() as usize];
    let expected = match by {
        By::Nobody => ("one", "DefaultPosture", String::new()),
        By::Posture(bundle) => (bundle, "DefaultPosture", String::new()),
        By::Unresolved => ("", "UnresolvedPath", String::new()),
        By::Rule(bundle, policy, rule) => {
            (bundle, &*policy.name, format!("{}:{}", policy.file, rule.common.location.line))
        }
    };
    let found = (decision.verdict(), (&*info.bundle, &*info.policy, info.location.clone()));
    assert_eq!(found, (verdict, expected), "{case}");
}

/// Returns the states that can be reached from a state, itself included.
fn reachable(automaton: &Automaton, state: u32) -> BTreeSet<u32> {
    let mut seen = BTreeSet::from([state]);
    let mut todo = vec![state];
    while let Some(state) = todo.pop() {
        todo.extend((1..=255).map(|byte| automaton.step(state, byte)).filter(|next| seen.insert(*next)));
    }
    seen
}

fn check_below(domain: &Domain) {
    let automaton = &domain.path.objects;
    let mut strictest: HashMap<(u32, u16), [Verdict; 8]> = HashMap::new();
    for state in reachable(automaton, automaton.walk(b"")) {
        let after_slash = automaton.step(state, b'/');
        let below = automaton.below(after_slash);
        for subject in 0..domain.subject_count as u16 {
            let expected = *strictest.entry((after_slash, subject)).or_insert_with(|| {
                let classes: BTreeSet<u16> = reachable(automaton, after_slash)
                    .into_iter()
                    .map(|state| automaton.class(state))
                    .collect();
                std::array::from_fn(|cell| {
                    let verdicts =
                        classes.iter().map(|&class| domain.path.vector(subject, class).0[cell].verdict());
                    verdicts.max().unwrap()
                })
            });
            let found = domain.path.vector(subject, below).0.map(|decision| decision.verdict());
            assert_eq!(found, expected, "below state {after_slash}, subject {subject}");
        }
    }
}

/// Asserts the properties of the tables on which the kernel side relies without checking them.
fn check_shape(domain: &Domain) {
    for automaton in [&domain.path.objects, &domain.subjects, &domain.path.arguments.classes] {
        for (index, slot) in automaton.slots.iter().enumerate() {
            if slot.check == Slot::FREE.check {
                continue;
            }
            let target = if slot.check & Slot::RECORD != 0 {
                assert!(index + 255 < automaton.slots.len());
                slot.check & !Slot::RECORD
            } else if slot.next & Slot::JUMP != 0 {
                automaton.jumps[(slot.next & !Slot::JUMP) as usize].from
            } else {
                slot.next
            };
            let record = automaton.slots[target as usize].check;
            assert!(record != u32::MAX && record & Slot::RECORD != 0, "slot {index} leads to no state");
        }
        assert_eq!((automaton.slots[0].check, automaton.slots[0].next), (Slot::RECORD, 0), "state 0 is dead");
        assert!((1..=255).all(|byte| automaton.step(0, byte) == 0));
    }
    let cells = domain.path.object_count as usize * domain.subject_count as usize;
    assert_eq!(domain.path.cells.len(), cells);
    assert!(domain.path.cells.iter().all(|&vector| (vector as usize) < domain.path.vectors.len()));
    let lists = &domain.path.arguments.lists;
    assert!(domain.path.vectors.iter().all(|vector| usize::from(vector.1) < lists.row_of.len().max(1)));
    assert!(lists.rows.iter().all(|row| row.len() == lists.rows[0].len()));
    assert!(domain.decisions().map(|decision| decision.rule() as usize).max().unwrap() < domain.rules.len());
    for (table, keys) in [
        (&domain.capability, Capability::COUNT),
        (&domain.network, SocketKind::ALL.len()),
        (&domain.presets, Preset::ALL.len()),
        (&domain.syscalls.calls, Syscall::COUNT),
    ] {
        let KeyedTable { row_of, rows } = table;
        assert!(row_of.is_empty() || row_of.len() == domain.subject_count as usize);
        assert!(row_of.iter().all(|&row| (row as usize) < rows.len()));
        assert!(rows.iter().all(|row| row.len() == keys + 1));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn tables_say_what_the_oracle_says(
        policies in policies(1..6), bundles in bundles(), links in links(), paths in paths(), reversed in any::<bool>(),
    ) {
        let mut sets = sets(&policies, &bundles);
        let policies: Vec<&Policy> = policies.iter().collect();
        let domain = compile(&sets, &links).unwrap();
        check_shape(&domain);
        check_below(&domain);
        if reversed {
            sets.reverse();
            sets.iter_mut().for_each(|set| set.policies.reverse());
            prop_assert_eq!(&compile(&sets, &links).unwrap(), &domain, "the order of documents matters");
        }
        let mut paths: BTreeSet<String> = paths.into_iter().collect();
        for path in literal_paths(&policies) {
            paths.extend([format!("{path}/"), format!("{path}/a"), format!("{path}/a/b/"), path]);
        }
        for program in askers() {
            for path in &paths {
                let walked = path.bytes().fold(domain.path.objects.walk(b""), |state, byte| domain.path.objects.step(state, byte));
                prop_assert_eq!(domain.path.objects.walk(path.as_bytes()), walked, "jumps lead elsewhere: {}", path);
                compare(&sets, &links, &domain, program, Object::Path(path.as_bytes()));
            }
            compare_numbers(&sets, &links, &domain, program);
            compare(&sets, &links, &domain, program, Object::Anonymous);
            compare(&sets, &links, &domain, program, Object::Unresolved);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn many_rules_and_patterns_together(
        policies in policies(20..60), bundles in bundles(), links in links(), paths in paths(),
    ) {
        let sets = sets(&policies, &bundles);
        let domain = match compile(&sets, &links) {
            Ok(domain) => domain,
            Err(error) => return Err(TestCaseError::fail(error.to_string())),
        };
        check_shape(&domain);
        for program in askers() {
            compare_numbers(&sets, &links, &domain, program);
            for path in &paths {
                compare(&sets, &links, &domain, program, Object::Path(path.as_bytes()));
            }
        }
    }
}

#[test]
fn paths_longer_than_any_rule_still_have_a_class() {
    let rules = "matchDirectories: [{dir: /a/, recursive: true}]";
    let text = format!(
        "{{apiVersion: security.kubearmor.com/v1, kind: KubeArmorHostPolicy, metadata: {{name: p}}, \
         spec: {{nodeSelector: {{matchLabels: {{a: b}}}}, file: {{{rules}}}}}}}"
    );
    let policies = armor_policy::parse("p.yaml", &text).unwrap();
    let domain = compile(&[PolicySet::of(&policies)], &Links::new()).unwrap();
    let deep = "/a".repeat(2047);
    let class = domain.path.objects.class(domain.path.objects.walk(deep.as_bytes()));
    assert_eq!(domain.path.vector(0, class).decision(Permission::Read, true).verdict(), Verdict::Block);
}
