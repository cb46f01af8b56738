//! Measures large and hostile rule sets, and checks that the too costly are refused with the policy named.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use armor_policy::automaton::Slot;
use armor_policy::destination::ENTRIES;
use armor_policy::{CompileError, Domain, Links, Policy, PolicySet, compile, parse};
use std::alloc::{GlobalAlloc, Layout, System};
use std::fmt::Write as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// A `Counting` allocator counts allocated bytes, so that a test can measure the peak.
struct Counting;

static NOW: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is passed on unchanged to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let now = NOW.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        MOST.fetch_max(now, Ordering::Relaxed);
        // SAFETY: the caller makes the same promise about `layout`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: `pointer` is from the system's allocator, with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The allocator counts for the whole process, so only one measurement runs at a time.
static ALONE: Mutex<()> = Mutex::new(());

fn parsed(name: &str, rules: &str) -> Policy {
    let text = format!(
        "apiVersion: security.kubearmor.com/v1\nkind: KubeArmorHostPolicy\nmetadata: {{name: {name}}}\n\
         spec:\n  nodeSelector: {{matchLabels: {{a: b}}}}\n{rules}"
    );
    parse("test.yaml", &text).unwrap_or_else(|errors| panic!("{errors}")).remove(0)
}

fn paths(count: usize) -> String {
    let mut rules = "  file:\n    matchPaths:\n".to_owned();
    for rule in 0..count {
        let _ = writeln!(rules, "    - path: /usr/share/package-{}/data/file-{rule}.conf", rule % 97);
    }
    rules
}

fn directories(count: usize) -> String {
    let mut rules = "  file:\n    matchDirectories:\n".to_owned();
    for rule in 0..count {
        let _ = writeln!(rules, "    - {{dir: /var/lib/service-{}/{rule}/, recursive: true}}", rule % 89);
    }
    rules
}

/// Compiles the policies, and returns the peak memory in bytes and the time that it took.
fn measured(policies: &[&Policy]) -> (Result<Domain, CompileError>, usize, Duration) {
    let before = NOW.load(Ordering::Relaxed);
    MOST.store(before, Ordering::Relaxed);
    let start = Instant::now();
    let result = compile(&[PolicySet::of(policies.iter().copied())], &Links::new());
    (result, MOST.load(Ordering::Relaxed) - before, start.elapsed())
}

#[test]
fn ten_thousand_paths_stay_small() {
    let _alone = ALONE.lock();
    let policies = [parsed("paths", &paths(5_000)), parsed("directories", &directories(5_000))];
    let (domain, memory, _) = measured(&policies.each_ref());
    let domain = domain.unwrap();
    println!(
        "{} KiB, {} slots, {} classes",
        memory >> 10,
        domain.path.objects.slots.len(),
        domain.path.object_count
    );
    assert!(memory < 64 << 20, "{memory} bytes");
    let kernel = size_of::<Slot>() * domain.path.objects.slots.len()
        + 4 * domain.path.cells.len()
        + 32 * domain.path.vectors.len();
    assert!(kernel < 8 << 20, "{kernel} bytes of tables");
}

#[test]
fn a_hundred_rules_take_little_of_the_kernels_memory() {
    let policies = [parsed("paths", &paths(50)), parsed("directories", &directories(50))];
    let domain = compile(&[PolicySet::of(&policies)], &Links::new()).unwrap();
    let kernel = size_of::<Slot>() * domain.path.objects.slots.len()
        + 4 * domain.path.cells.len()
        + 32 * domain.path.vectors.len();
    assert!(kernel < 64 << 10, "{kernel} bytes of tables");
}

/// Asserts that the policies are refused with the policy named, in bounded memory and time. The time is
/// generous, for a slow machine without optimisation.
fn assert_refused(name: &str, policies: &[&Policy]) -> CompileError {
    let _alone = ALONE.lock();
    let (result, memory, time) = measured(policies);
    println!("{name}: {} KiB, {time:?}", memory >> 10);
    let error = result.err().unwrap_or_else(|| panic!("{name} compiled"));
    assert!(error.to_string().contains(&format!("policy `{name}`")), "{error}");
    assert!(memory < 512 << 20, "{memory} bytes");
    assert!(time < Duration::from_secs(60), "{time:?}");
    error
}

#[test]
fn patterns_that_multiply_are_refused() {
    let mut rules = "  file:\n    matchPatterns:\n    - pattern: /harmless/*\n".to_owned();
    // Each `?` doubles the states, because any of the bytes before may have been the `a`.
    for length in 1..40 {
        let _ = writeln!(rules, "    - pattern: /**a{}", "?".repeat(length));
    }
    let harmless = parsed("harmless", &paths(10));
    let error = assert_refused("bomb", &[&harmless, &parsed("bomb", &rules)]);
    assert!(error.to_string().starts_with("test.yaml:"), "{error}");
    let CompileError::Pattern { pattern, .. } = error else { panic!("{error}") };
    assert!(pattern.starts_with("/**a??????"), "{pattern}");
}

#[test]
fn patterns_times_directories_are_refused() {
    let mut rules = directories(3_000);
    rules.push_str("    matchPatterns:\n");
    for rule in 0..20 {
        let _ = writeln!(rules, "    - pattern: /**/some-long-name-{rule}/*/x");
    }
    assert_refused("product", &[&parsed("product", &rules)]);
}

#[test]
fn more_outcomes_than_classes_are_refused() {
    let many: Vec<Policy> = (0..8)
        .map(|part| {
            let mut rules = "  file:\n    matchPaths:\n".to_owned();
            for rule in 0..9_000 {
                let _ = writeln!(rules, "    - path: /{part}/{rule}");
            }
            parsed(if part == 0 { "many" } else { "other" }, &rules)
        })
        .collect();
    let error = assert_refused("other", &many.iter().collect::<Vec<_>>());
    assert!(matches!(error, CompileError::Classes { .. }), "{error}");
}

#[test]
fn paths_that_fill_the_tables_are_refused() {
    let long: Vec<Policy> = (0..5)
        .map(|part| {
            let mut rules = "  file:\n    matchPaths:\n".to_owned();
            for rule in 0..200 {
                let _ =
                    writeln!(rules, "    - path: /{part}-{rule}/{}", format!("{rule}/").repeat(1_000) + "x");
            }
            parsed("long", &rules)
        })
        .collect();
    let error = assert_refused("long", &long.iter().collect::<Vec<_>>());
    assert!(matches!(error, CompileError::Slots { .. }), "{error}");
}

#[test]
fn programs_times_system_calls_are_refused() {
    let mut rules = "  syscalls:\n    action: Audit\n    matchSyscalls:\n".to_owned();
    for rule in 0..15_000 {
        let _ = writeln!(rules, "    - {{syscall: [chown], fromSource: [{{path: /bin/{rule}}}]}}");
    }
    let error = assert_refused("calls", &[&parsed("calls", &rules)]);
    assert!(matches!(error, CompileError::Classes { .. }), "{error}");
}

#[test]
fn programs_times_paths_are_refused() {
    let mut rules = "  file:\n    matchPaths:\n".to_owned();
    for rule in 0..4_000 {
        let _ = writeln!(rules, "    - {{path: /data/{rule}, fromSource: [{{path: /bin/{rule}}}]}}");
    }
    let error = assert_refused("square", &[&parsed("square", &rules)]);
    assert!(matches!(error, CompileError::Classes { .. }), "{error}");
}

#[test]
fn twenty_thousand_destinations_stay_small() {
    let policies: Vec<Policy> = (0..4)
        .map(|policy| {
            let mut rules = "  network:\n    matchDestinations:\n".to_owned();
            for rule in policy * 5_000..(policy + 1) * 5_000u32 {
                let [a, b, ..] = rule.wrapping_mul(2_654_435_769).to_be_bytes();
                let _ =
                    writeln!(rules, "    - {{cidr: '10.{a}.{b}.{}/32', ports: [{}]}}", rule % 200, rule + 1);
            }
            parsed(&format!("p{policy}"), &rules)
        })
        .collect();
    let _alone = ALONE.lock();
    let (domain, peak, _) = measured(&policies.iter().collect::<Vec<_>>());
    let egress = domain.unwrap().egress;
    let words =
        egress.nodes.len() * ENTRIES / 2 + egress.lists.iter().map(|list| list.len() + 1).sum::<usize>();
    assert!(words * 8 < 10 << 20, "{words} words");
    assert!(peak < 200 << 20, "{peak} bytes");
}

#[test]
fn destinations_that_multiply_are_refused() {
    let mut rules = "  network:\n    matchDestinations:\n".to_owned();
    for rule in 0..2_000u32 {
        let _ = writeln!(rules, "    - {{ports: [{}]}}", rule * 2 + 1);
        let _ = writeln!(rules, "    - {{cidr: 10.0.{}.{}/32}}", rule / 250, rule % 250);
    }
    assert_refused("many", &[&parsed("many", &rules)]);
}

#[test]
fn twenty_thousand_names_stay_small() {
    let policies: Vec<Policy> = (0..4)
        .map(|policy| {
            let mut rules = "  network:\n    matchDNSQueries:\n".to_owned();
            for rule in policy * 5_000..(policy + 1) * 5_000u32 {
                let host = rule.wrapping_mul(2_654_435_769);
                let _ = writeln!(rules, "    - {{domain: h{host:08x}.site-{}.example.com}}", rule % 500);
            }
            parsed(&format!("p{policy}"), &rules)
        })
        .collect();
    let _alone = ALONE.lock();
    let (domain, peak, _) = measured(&policies.iter().collect::<Vec<_>>());
    let slots = domain.unwrap().dns.names.slots.len();
    assert!(slots * 8 < 10 << 20, "{slots} slots");
    assert!(peak < 200 << 20, "{peak} bytes");
}

#[test]
fn names_times_programs_are_refused() {
    let mut rules = "  network:\n    matchDNSQueries:\n".to_owned();
    for rule in 0..4_000 {
        let _ = writeln!(rules, "    - {{domain: n{rule}.example, fromSource: [{{path: /bin/{rule}}}]}}");
    }
    assert_refused("square", &[&parsed("square", &rules)]);
}

#[test]
fn no_rules_permit_everything() {
    let domain = compile(&[], &Links::new()).unwrap();
    let class = domain.path.objects.class(domain.path.objects.walk(b"/bin/sh"));
    assert_eq!((class, domain.subject_count, domain.rules.len()), (0, 1, 2));
    assert!(domain.path.vectors.iter().flat_map(|vector| vector.0).all(|decision| decision.0 == 0));
}

#[test]
fn a_link_must_be_a_path() {
    let mut links = Links::new();
    links.insert("/etc/x".into(), vec!["/y".into(), "../y".into()]);
    let policy = parsed("p", "  file: {matchPaths: [{path: /etc/x}]}\n");
    let error = compile(&[PolicySet::of([&policy])], &links).unwrap_err();
    assert_eq!(error, CompileError::Link { from: "/etc/x".into(), to: "../y".into() });
}
