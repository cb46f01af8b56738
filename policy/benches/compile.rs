//! Measures how long parsing and compiling take, for 1, 100 and 10,000 rules.
#![allow(missing_docs, clippy::unwrap_used, reason = "a benchmark")]

use armor_policy::{Links, Policy, PolicySet, compile, parse};
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use std::fmt::Write as _;
use std::hint::black_box;

/// Returns documents of half exact paths, half directories, spread over a file system like packages.
fn documents(rules: usize) -> Vec<String> {
    let per_document = 5_000;
    (0..rules.div_ceil(per_document))
        .map(|document| {
            let mut text = format!(
                "apiVersion: security.kubearmor.com/v1\nkind: KubeArmorHostPolicy\nmetadata: {{name: bench-{document}}}\n\
                 spec:\n  nodeSelector: {{matchLabels: {{a: b}}}}\n  file:\n    matchPaths:\n"
            );
            let rules = document * per_document..rules.min((document + 1) * per_document);
            for rule in rules.clone().filter(|rule| rule % 2 == 0) {
                let _ = writeln!(text, "    - path: /usr/share/package-{}/data/file-{rule}.conf", rule % 97);
            }
            if rules.len() > 1 {
                text.push_str("    matchDirectories:\n");
            }
            for rule in rules.filter(|rule| rule % 2 == 1) {
                let _ = writeln!(text, "    - {{dir: /var/lib/service-{}/{rule}/, recursive: true}}", rule % 89);
            }
            text
        })
        .collect()
}

fn policies(rules: usize) -> Vec<Policy> {
    documents(rules).iter().flat_map(|text| parse("bench.yaml", text).unwrap()).collect()
}

fn benchmarks(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("parse");
    group.sample_size(10);
    for rules in [1, 100, 10_000] {
        let documents = documents(rules);
        group.bench_with_input(BenchmarkId::from_parameter(rules), &documents, |bencher, documents| {
            bencher.iter(|| {
                documents
                    .iter()
                    .map(|text| parse("bench.yaml", black_box(text)).unwrap().len())
                    .sum::<usize>()
            });
        });
    }
    group.finish();
    let mut group = criterion.benchmark_group("compile");
    group.sample_size(10);
    for rules in [1, 100, 10_000] {
        let policies = policies(rules);
        let sets = [PolicySet::of(&policies)];
        group.bench_with_input(BenchmarkId::from_parameter(rules), &sets, |bencher, sets| {
            bencher.iter(|| compile(black_box(sets), &Links::new()).unwrap());
        });
    }
    group.finish();
}

criterion_group!(benches, benchmarks);
criterion_main!(benches);
