//! These tests run the spool on damaged files, with failing writes, and against a plain model under random
//! operations.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use armor_agent::delivery::spool::{Mismatch, Spool, SpoolConfig, SpoolError};
use armor_alerts::alert::Alert;
use armor_alerts::batch::{self, Batch, Digest, LostReason, Mark, Sealer};
use armor_alerts::receipt::{Range, Receipt};
use armor_bundle::keys::{KeyType, PrivateKey};
use armor_mms::ALERTS_TYPE;
use jiff::Timestamp;
use proptest::prelude::*;

const RECORD_COST: u64 = 128;
const LOST_COST: u64 = 96;

fn sealer() -> Sealer {
    let key = PrivateKey::generate(KeyType::Ed25519).unwrap();
    Sealer { org: "myorg".into(), node: "node1".into(), key }
}

fn alert(severity: u8, size: usize) -> Alert {
    Alert { severity: severity.to_string(), resource: "x".repeat(size), ..Alert::at(Timestamp::UNIX_EPOCH) }
}

fn open(dir: &Path, max_bytes: u64) -> Spool {
    Spool::open(dir, SpoolConfig { max_bytes }).unwrap()
}

fn receipt(sealer: &Sealer, up_to: Mark, held: Vec<Range>, serial: u64) -> Receipt {
    Receipt {
        org: sealer.org.clone(),
        node: sealer.node.clone(),
        key: sealer.key.public().id().clone(),
        up_to,
        held,
        serial,
        issued: Timestamp::UNIX_EPOCH,
    }
}

fn next(spool: &mut Spool, sealer: &Sealer) -> Option<Batch> {
    let outgoing = spool.next_batch(sealer, Timestamp::UNIX_EPOCH).unwrap()?;
    assert_eq!(spool.content(&outgoing.id).unwrap().as_ref(), Some(&outgoing.content));
    Some(batch::open(&outgoing.content, sealer.key.public()).unwrap())
}

fn end(batch: &Batch) -> Mark {
    Mark { sequence: batch.header.last, chain: batch.header.chain }
}

#[test]
fn numbers_go_on_after_a_restart_and_batches_are_the_same_bytes() {
    let (dir, sealer) = (tempfile::tempdir().unwrap(), sealer());
    let mut spool = open(dir.path(), 1 << 20);
    assert_eq!(spool.append(&[alert(1, 10), alert(5, 10)]).unwrap(), 1..=2);
    let sent = spool.next_batch(&sealer, Timestamp::UNIX_EPOCH).unwrap().unwrap();
    drop(spool);
    let mut spool = open(dir.path(), 1 << 20);
    assert_eq!(spool.content(&sent.id).unwrap(), Some(sent.content));
    assert_eq!(spool.append(&[alert(1, 10)]).unwrap(), 3..=3);
    assert!(spool.append(&[]).unwrap().is_empty());
    let batch = next(&mut spool, &sealer).unwrap();
    assert_eq!((batch.header.first, batch.header.last), (3, 3));
    assert!(spool.recovered().is_none());
}

#[test]
fn a_second_process_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let _spool = open(dir.path(), 1 << 20);
    let error = Spool::open(dir.path(), SpoolConfig { max_bytes: 1 << 20 }).err().unwrap();
    assert!(matches!(error, SpoolError::InUse { .. }), "{error}");
}

#[test]
fn a_newer_schema_is_refused_with_the_file_named() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path(), 1 << 20));
    let db = rusqlite::Connection::open(dir.path().join("spool.db")).unwrap();
    db.pragma_update(None, "user_version", 99).unwrap();
    drop(db);
    let error = Spool::open(dir.path(), SpoolConfig { max_bytes: 1 << 20 }).err().unwrap();
    assert!(matches!(error, SpoolError::Newer { found: 99, .. }));
    assert!(error.to_string().contains("spool.db"));
}

#[test]
fn a_damaged_database_is_moved_aside_and_numbers_never_go_back() {
    let (dir, sealer) = (tempfile::tempdir().unwrap(), sealer());
    let mut spool = open(dir.path(), 1 << 20);
    spool.append(&[alert(1, 10), alert(1, 10)]).unwrap();
    let first = next(&mut spool, &sealer).unwrap();
    spool.apply_receipt(&receipt(&sealer, end(&first), vec![], 1)).unwrap().unwrap();
    spool.append(&[alert(1, 10)]).unwrap();
    drop(spool);
    for garbage in
        [&b"not a database at all, but long enough to be looked at as one ............."[..], &[0; 8192]]
    {
        fs::write(dir.path().join("spool.db"), garbage).unwrap();
        let _ = fs::remove_file(dir.path().join("spool.db-wal"));
        let mut spool = open(dir.path(), 1 << 20);
        assert!(spool.recovered().unwrap().contains("spool.db.damaged"), "{:?}", spool.recovered());
        assert_eq!(fs::read(dir.path().join("spool.db.damaged")).unwrap(), garbage);
        let range = spool.append(&[alert(1, 10)]).unwrap();
        let batch = next(&mut spool, &sealer).unwrap();
        assert_eq!((batch.header.first, batch.header.last), (3, *range.end()));
        assert_eq!(batch.header.previous, first.header.chain);
        assert_eq!(batch.header.lost.len(), 1);
        let lost = batch.header.lost[0];
        assert_eq!((lost.first, lost.last, lost.reason), (3, range.start() - 1, LostReason::Damaged));
        assert_eq!(spool.stats().unwrap().receipted, 2);
    }
}

#[test]
fn damage_found_while_running_begins_afresh_without_losing_the_alert_at_hand() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = open(dir.path(), 1 << 20);
    spool.append(&[alert(1, 10)]).unwrap();
    drop(spool);
    let db = rusqlite::Connection::open(dir.path().join("spool.db")).unwrap();
    db.execute_batch("DROP TABLE record").unwrap();
    drop(db);
    let mut spool = open(dir.path(), 1 << 20);
    let range = spool.append(&[alert(1, 10)]).unwrap();
    assert!(*range.start() > 1 && spool.recovered().is_some());
    assert_eq!(spool.stats().unwrap().records, 1);
}

#[test]
fn an_older_copy_of_the_database_does_not_give_numbers_twice() {
    let (dir, sealer) = (tempfile::tempdir().unwrap(), sealer());
    drop(open(dir.path(), 1 << 24));
    let db = dir.path().join("spool.db");
    fs::copy(&db, dir.path().join("copy")).unwrap();
    let mut spool = open(dir.path(), 1 << 24);
    let many = vec![alert(1, 1); 10_000];
    spool.append(&many).unwrap();
    spool.append(&many).unwrap();
    drop(spool);
    fs::copy(dir.path().join("copy"), &db).unwrap();
    let mut spool = open(dir.path(), 1 << 24);
    assert!(spool.recovered().unwrap().contains("older than spool.floor"));
    assert!(*spool.append(&[alert(1, 1)]).unwrap().start() > 20_000);
    let batch = next(&mut spool, &sealer).unwrap();
    assert_eq!((batch.header.first, batch.records.len()), (1, 1));
}

#[test]
fn an_altered_record_is_lost_alone() {
    let (dir, sealer) = (tempfile::tempdir().unwrap(), sealer());
    let mut spool = open(dir.path(), 1 << 20);
    spool.append(&[alert(1, 10), alert(1, 10), alert(1, 10)]).unwrap();
    drop(spool);
    let db = rusqlite::Connection::open(dir.path().join("spool.db")).unwrap();
    db.execute_batch(
        "UPDATE record SET line = CAST(replace(CAST(line AS TEXT), 'xxx', 'xyx') AS BLOB) WHERE sequence = 2",
    )
    .unwrap();
    drop(db);
    let mut spool = open(dir.path(), 1 << 20);
    let batch = next(&mut spool, &sealer).unwrap();
    assert_eq!(batch.records.iter().map(|record| record.sequence).collect::<Vec<_>>(), [1, 3]);
    assert_eq!(batch.header.lost.len(), 1);
    assert_eq!((batch.header.lost[0].first, batch.header.lost[0].reason), (2, LostReason::Damaged));
    assert_eq!(spool.stats().unwrap().records, 2);
}

#[test]
fn alerts_that_cannot_be_written_are_counted_and_named_as_lost() {
    let (dir, sealer) = (tempfile::tempdir().unwrap(), sealer());
    let mut spool = open(dir.path(), 1 << 20);
    // A directory at the path of the floor's next version makes reserving numbers fail, as a full disk does.
    let blocker = dir.path().join("spool.floor.new");
    fs::create_dir(&blocker).unwrap();
    let error = spool.append(&[alert(1, 10), alert(1, 10)]).unwrap_err();
    assert!(matches!(error, SpoolError::Unwritten { count: 2, .. }), "{error}");
    assert_eq!(spool.stats().unwrap().unwritten, 2);
    fs::remove_dir(&blocker).unwrap();
    assert_eq!(spool.append(&[alert(1, 10)]).unwrap(), 3..=3);
    let batch = next(&mut spool, &sealer).unwrap();
    let lost = batch.header.lost[0];
    assert_eq!((lost.first, lost.last, lost.reason), (1, 2, LostReason::Unwritten));
    assert_eq!(spool.stats().unwrap().unwritten, 2);
}

#[test]
fn taken_alerts_without_a_receipt_make_room_first_then_the_least_severe() {
    let (dir, sealer) = (tempfile::tempdir().unwrap(), sealer());
    let mut spool = open(dir.path(), 4000);
    spool.append(&[alert(9, 300), alert(9, 300)]).unwrap();
    let taken = next(&mut spool, &sealer).unwrap();
    spool.mark_taken(&taken.header.id, Timestamp::UNIX_EPOCH).unwrap();
    spool.append(&[alert(2, 300), alert(1, 300), alert(3, 300), alert(3, 300), alert(3, 300)]).unwrap();
    assert_eq!(spool.stats().unwrap().evicted, 0);
    spool.append(&[alert(3, 300)]).unwrap();
    spool.append(&[alert(3, 300)]).unwrap();
    spool.append(&[alert(3, 300)]).unwrap();
    spool.append(&[alert(3, 300)]).unwrap();
    let stats = spool.stats().unwrap();
    assert!(stats.bytes <= 4000 && stats.evicted == 4, "{stats:?}");
    let batch = next(&mut spool, &sealer).unwrap();
    assert_eq!(batch.records[0].sequence, 5, "severities 1 and 2 are gone");
    assert_eq!(batch.header.lost.len(), 1);
    // The taken batch is issued again: it names both of its alerts as lost, and the chain still links.
    let again = spool.reissue(&taken.header.id, &sealer, Timestamp::UNIX_EPOCH).unwrap().unwrap();
    let again = batch::open(&again.content, sealer.key.public()).unwrap();
    assert_eq!((again.header.lost[0].first, again.header.lost[0].last, again.records.len()), (1, 2, 0));
    assert_eq!(again.header.chain, batch.header.previous);
}

#[test]
fn a_receipt_must_fit_the_spools_own_chain() {
    let (dir, sealer) = (tempfile::tempdir().unwrap(), sealer());
    let mut spool = open(dir.path(), 1 << 20);
    spool.append(&[alert(1, 10), alert(1, 10)]).unwrap();
    let batch = next(&mut spool, &sealer).unwrap();
    spool.append(&[alert(1, 10)]).unwrap();
    let other = Mark { sequence: 2, chain: Digest([7; 32]) };
    let refused = spool.apply_receipt(&receipt(&sealer, other, vec![], 1)).unwrap().unwrap_err();
    assert!(matches!(refused, Mismatch::Chain { .. }));
    let beyond = Mark { sequence: 3, chain: batch.header.chain };
    let refused = spool.apply_receipt(&receipt(&sealer, beyond, vec![], 1)).unwrap().unwrap_err();
    assert_eq!(refused, Mismatch::BeyondSent { up_to: 3, sent: 2 });
    let inside = Mark { sequence: 1, chain: batch.records[0].chain };
    let refused = spool.apply_receipt(&receipt(&sealer, inside, vec![], 1)).unwrap().unwrap_err();
    assert_eq!(refused, Mismatch::NoBoundary { up_to: 1 });
    assert_eq!(spool.stats().unwrap().records, 3);

    let applied = spool.apply_receipt(&receipt(&sealer, end(&batch), vec![], 1)).unwrap().unwrap();
    assert_eq!((applied.covered, spool.stats().unwrap().records), (2, 1));
    let stale = (ALERTS_TYPE.to_owned(), batch.header.id.clone());
    assert_eq!(spool.stale().unwrap(), [stale], "it may still lie at the ESS");
    spool.forget_stale(ALERTS_TYPE, &batch.header.id).unwrap();
    assert!(spool.stale().unwrap().is_empty());
    let again = spool.apply_receipt(&receipt(&sealer, end(&batch), vec![], 1)).unwrap().unwrap();
    assert_eq!(again.covered, 0);
}

#[test]
fn a_receipt_shows_what_is_missing_before_what_is_held() {
    let (dir, sealer) = (tempfile::tempdir().unwrap(), sealer());
    let mut spool = open(dir.path(), 1 << 20);
    let mut sent = Vec::new();
    for _ in 0..3 {
        spool.append(&[alert(1, 10)]).unwrap();
        let batch = next(&mut spool, &sealer).unwrap();
        spool.mark_taken(&batch.header.id, Timestamp::UNIX_EPOCH).unwrap();
        sent.push(batch);
    }
    let held = vec![Range { first: 3, last: 3 }];
    let applied = spool.apply_receipt(&receipt(&sealer, end(&sent[0]), held.clone(), 5)).unwrap().unwrap();
    let missing: Vec<_> = applied.missing.unwrap().iter().map(|batch| batch.range.first).collect();
    assert_eq!(missing, [2]);
    let again = spool.apply_receipt(&receipt(&sealer, end(&sent[0]), held, 5)).unwrap().unwrap();
    assert!(again.missing.is_none(), "an old serial asks for nothing");
}

#[test]
fn a_batch_with_too_many_gaps_is_split_at_a_lasting_boundary() {
    let (dir, sealer) = (tempfile::tempdir().unwrap(), sealer());
    let mut spool = open(dir.path(), 8 << 20);
    let count = 20_000;
    let alerts: Vec<_> = (0..count)
        .map(|n| Alert { severity: if n % 2 == 0 { "1" } else { "9" }.into(), ..Alert::default() })
        .collect();
    spool.append(&alerts).unwrap();
    let whole = next(&mut spool, &sealer).unwrap();
    spool.mark_taken(&whole.header.id, Timestamp::UNIX_EPOCH).unwrap();
    drop(spool);
    // A smaller spool makes room by dropping every other record.
    let mut spool = open(dir.path(), 3 << 20);
    spool.append(&[Alert::default()]).unwrap();
    let mut previous = Digest::default();
    let mut first = 1;
    while let Some(due) = spool.batches().unwrap().into_iter().find(|batch| batch.taken.is_some()) {
        let part = spool.reissue(&due.id, &sealer, Timestamp::UNIX_EPOCH).unwrap().unwrap();
        let part = batch::open(&part.content, sealer.key.public()).unwrap();
        assert_eq!((part.header.first, part.header.previous), (first, previous));
        (first, previous) = (part.header.last + 1, part.header.chain);
    }
    assert!(spool.batches().unwrap().len() > 1);
    assert_eq!((first - 1, previous), (whole.header.last, whole.header.chain));
    spool.apply_receipt(&receipt(&sealer, end(&whole), vec![], 1)).unwrap().unwrap();
}

/// A `Model` is the spool as one would write it without a disk.
#[derive(Default)]
struct Model {
    records: BTreeMap<u64, (Class, u8, u64)>,
    chain: BTreeMap<u64, Digest>,
    lost: BTreeSet<u64>,
    last: u64,
    receipted: u64,
    evicted: u64,
    batches: Vec<(u64, u64, bool)>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Class {
    Taken,
    Unsent,
    Sent,
}

impl Model {
    fn bytes(&self) -> u64 {
        let runs = self.lost.iter().filter(|n| !self.lost.contains(&(*n - 1))).count() as u64;
        self.records.values().map(|(_, _, size)| size + RECORD_COST).sum::<u64>() + runs * LOST_COST
    }

    fn append(&mut self, alerts: &[Alert], max_bytes: u64) {
        for alert in alerts {
            let line = Alert { sequence: self.last + 1, ..alert.clone() }.to_line().unwrap();
            let before = self.chain.get(&self.last).copied().unwrap_or_default();
            self.last += 1;
            self.chain.insert(self.last, before.link(self.last, &line));
            self.records.insert(self.last, (Class::Unsent, alert.rank(), line.len() as u64));
        }
        while self.bytes() > max_bytes && !self.records.is_empty() {
            let (_, _, first) =
                self.records.iter().map(|(n, (class, rank, _))| (*class, *rank, *n)).min().unwrap();
            self.records.remove(&first);
            self.lost.insert(first);
            self.evicted += 1;
        }
    }

    fn classify(&mut self, first: u64, last: u64, class: Class) {
        self.records.range_mut(first..=last).for_each(|(_, record)| record.0 = class);
    }

    fn check_batch(&self, batch: &Batch) {
        let range = batch.header.first..=batch.header.last;
        let numbers: Vec<u64> = batch.records.iter().map(|record| record.sequence).collect();
        let expected: Vec<u64> = self.records.range(range.clone()).map(|(n, _)| *n).collect();
        assert_eq!(numbers, expected);
        let lost: Vec<u64> = batch.header.lost.iter().flat_map(|lost| lost.first..=lost.last).collect();
        assert_eq!(lost, self.lost.range(range).copied().collect::<Vec<_>>());
        assert_eq!(batch.header.chain, self.chain[&batch.header.last]);
        assert_eq!(batch.header.receipted.sequence, self.receipted);
    }
}

#[derive(Debug, Clone)]
enum Step {
    Append(Vec<(u8, usize)>),
    Batch,
    Take(prop::sample::Index),
    Reissue(prop::sample::Index),
    Receipt(prop::sample::Index),
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => prop::collection::vec((1u8..=10, 0usize..400), 0..6).prop_map(Step::Append),
        3 => Just(Step::Batch),
        2 => any::<prop::sample::Index>().prop_map(Step::Take),
        2 => any::<prop::sample::Index>().prop_map(Step::Reissue),
        1 => any::<prop::sample::Index>().prop_map(Step::Receipt),
        1 => Just(Step::Reopen),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn behaves_as_the_model_does(steps in prop::collection::vec(step(), 1..40)) {
        let max_bytes = 4000;
        let (dir, sealer, mut model) = (tempfile::tempdir().unwrap(), sealer(), Model::default());
        let mut spool = open(dir.path(), max_bytes);
        for step in steps {
            match step {
                Step::Append(alerts) => {
                    let alerts: Vec<_> = alerts.into_iter().map(|(severity, size)| alert(severity, size)).collect();
                    let range = spool.append(&alerts).unwrap();
                    prop_assert_eq!(range, model.last + 1..=model.last + alerts.len() as u64);
                    model.append(&alerts, max_bytes);
                }
                Step::Batch => {
                    let sent = model.batches.last().map_or(model.receipted, |batch| batch.1);
                    let open = model.batches.iter().filter(|batch| !batch.2).count();
                    let batch = next(&mut spool, &sealer);
                    prop_assert_eq!(batch.is_some(), open < 2 && sent < model.last);
                    if let Some(batch) = batch {
                        model.check_batch(&batch);
                        prop_assert_eq!((batch.header.first, batch.header.last), (sent + 1, model.last));
                        model.batches.push((sent + 1, model.last, false));
                        model.classify(sent + 1, model.last, Class::Sent);
                    }
                }
                Step::Take(index) if !model.batches.is_empty() => {
                    let at = index.index(model.batches.len());
                    let id = spool.batches().unwrap()[at].id.clone();
                    spool.mark_taken(&id, Timestamp::UNIX_EPOCH).unwrap();
                    let (first, last, taken) = &mut model.batches[at];
                    *taken = true;
                    let (first, last) = (*first, *last);
                    model.classify(first, last, Class::Taken);
                }
                Step::Reissue(index) if !model.batches.is_empty() => {
                    let at = index.index(model.batches.len());
                    let id = spool.batches().unwrap()[at].id.clone();
                    let again = spool.reissue(&id, &sealer, Timestamp::UNIX_EPOCH).unwrap().unwrap();
                    prop_assert_ne!(&again.id, &id);
                    prop_assert_eq!(spool.stale().unwrap().iter().any(|(_, stale)| *stale == id), !model.batches[at].2);
                    let batch = batch::open(&again.content, sealer.key.public()).unwrap();
                    let (first, last, _) = model.batches[at];
                    prop_assert_eq!((batch.header.first, batch.header.last), (first, last));
                    model.check_batch(&batch);
                    model.batches[at].2 = false;
                    model.classify(first, last, Class::Sent);
                }
                Step::Receipt(index) if !model.batches.is_empty() => {
                    let at = index.index(model.batches.len());
                    let up_to = model.batches[at].1;
                    let mark = Mark { sequence: up_to, chain: model.chain[&up_to] };
                    let applied = spool.apply_receipt(&receipt(&sealer, mark, vec![], 1)).unwrap().unwrap();
                    prop_assert_eq!(applied.covered, up_to - model.receipted);
                    model.receipted = up_to;
                    model.batches.drain(..=at);
                    model.records = model.records.split_off(&(up_to + 1));
                    model.lost = model.lost.split_off(&(up_to + 1));
                }
                Step::Reopen => {
                    drop(spool);
                    spool = open(dir.path(), max_bytes);
                    prop_assert!(spool.recovered().is_none());
                }
                Step::Take(_) | Step::Reissue(_) | Step::Receipt(_) => {}
            }
            let stats = spool.stats().unwrap();
            prop_assert_eq!(stats.bytes, model.bytes());
            prop_assert_eq!((stats.records, stats.evicted), (model.records.len() as u64, model.evicted));
            prop_assert_eq!((stats.last, stats.receipted), (model.last, model.receipted));
            let batches: Vec<_> = spool.batches().unwrap().into_iter()
                .map(|batch| (batch.range.first, batch.range.last, batch.taken.is_some())).collect();
            prop_assert_eq!(&batches, &model.batches);
        }
    }
}
