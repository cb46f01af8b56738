//! This test checks that bundles made to be expensive are refused within a second and in bounded memory.
#![allow(clippy::unwrap_used)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use armor_bundle::dsse::Envelope;
use armor_bundle::keys::{KeyType, PrivateKey};
use armor_bundle::trust::TrustStore;
use armor_bundle::{MAX_PAYLOAD, NodeIdentity, SerialFloor, verify};
use jiff::Timestamp;

/// `Counting` counts allocated bytes, so that the test can read the peak.
struct Counting;

static NOW: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is passed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let now = NOW.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        MOST.fetch_max(now, Ordering::Relaxed);
        // SAFETY: the caller guarantees the same for `layout`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // A large block moves without being in memory twice.
        if let Some(more) = size.checked_sub(layout.size()) {
            MOST.fetch_max(NOW.fetch_add(more, Ordering::Relaxed) + more, Ordering::Relaxed);
        } else {
            NOW.fetch_sub(layout.size() - size, Ordering::Relaxed);
        }
        // SAFETY: `pointer` is from the system's allocator, with this layout; the caller guarantees the same
        // for `size`.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: `pointer` is from the system's allocator, with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Returns a bundle signed with `key`; the verifier reads bundles of other keys less far.
fn bundle(key: &PrivateKey, policies: &[String]) -> Vec<u8> {
    let policies: Vec<_> = policies
        .iter()
        .enumerate()
        .map(|(n, text)| serde_json::json!({"file": format!("{n}.yaml"), "text": text}))
        .collect();
    let payload = serde_json::json!({
        "format": "horizon-armor.bundle/1", "name": "edge", "serial": 1, "created": "2026-01-01T00:00:00Z",
        "expires": "2099-01-01T00:00:00Z", "target": {"org": "myorg"}, "policies": policies,
    });
    envelope(key, payload.to_string().as_bytes())
}

fn envelope(key: &PrivateKey, payload: &[u8]) -> Vec<u8> {
    let mut envelope = Envelope::new(payload);
    envelope.sign(payload, key).unwrap();
    serde_json::to_vec(&envelope).unwrap()
}

fn alias_bomb() -> String {
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..30 {
        let alias = format!("*a{},", level - 1).repeat(9);
        bomb.push_str(&format!("a{level}: &a{level} [{alias}]\n"));
    }
    bomb
}

/// Returns a policy file whose rules all inherit one message.
fn described(message: usize, rules: usize) -> String {
    let message = "m".repeat(message);
    let rules: String = (0..rules).map(|rule| format!("    - path: /{rule}\n")).collect();
    format!(
        "apiVersion: security.kubearmor.com/v1\nkind: KubeArmorHostPolicy\nmetadata: {{name: x}}\nspec:\n  nodeSelector: \
         {{matchLabels: {{kubearmor.io/hostname: '*'}}}}\n  message: {message}\n  file:\n    matchPaths:\n{rules}"
    )
}

#[test]
fn hostile_bundles_are_refused_within_a_second_and_little_memory() {
    let dir = tempfile::tempdir().unwrap();
    let key = PrivateKey::generate(KeyType::Ed25519).unwrap();
    fs::create_dir(dir.path().join("trust.d")).unwrap();
    fs::write(dir.path().join("trust.d/operator.pem"), key.public().to_pem()).unwrap();
    let (trust, problems) = TrustStore::load(dir.path()).unwrap();
    assert!(problems.is_empty(), "{problems:?}");
    let node = NodeIdentity { org: "myorg".into(), id: "node1".into(), ..NodeIdentity::default() };

    let full = |text: &str| text.repeat((1 << 20) / text.len());
    // This is as much as fits into a payload.
    let three = |text: &str| vec![full(text); 3];
    let indented: String = (0..1000).map(|depth| format!("{}a:\n", " ".repeat(depth))).collect();
    let payload = |text: &str| envelope(&key, text.repeat(MAX_PAYLOAD / text.len()).as_bytes());
    let cases = [
        ("bad-policy", "alias bomb", bundle(&key, &[alias_bomb()])),
        ("bad-policy", "indented", bundle(&key, &[indented])),
        ("bad-policy", "flow lists", bundle(&key, &three("["))),
        ("bad-policy", "flow maps", bundle(&key, &three("{a: "))),
        ("bad-policy", "block lists", bundle(&key, &three("- "))),
        ("bad-policy", "nodes", bundle(&key, &three("- a\n"))),
        ("bad-policy", "documents", bundle(&key, &three("---\n"))),
        ("bad-policy", "one message", bundle(&key, &[described(500_000, 20_000)])),
        ("bad-policy", "many messages", bundle(&key, &vec![described(8_000, 500); 200])),
        ("bad-payload", "json lists", payload("[")),
        ("truncated", "bare json lists", "[".repeat(MAX_PAYLOAD).into_bytes()),
        ("too-large", "payload", envelope(&key, &vec![b' '; MAX_PAYLOAD + 1])),
        ("too-large", "100 MB", vec![b'['; 100 << 20]),
    ];
    for (code, name, bytes) in cases {
        let measured = || {
            let before = NOW.load(Ordering::Relaxed);
            MOST.store(before, Ordering::Relaxed);
            let start = Instant::now();
            let refusal = verify(&bytes, None, &trust, &node, &SerialFloor::new(), Timestamp::UNIX_EPOCH);
            (refusal.unwrap_err(), start.elapsed(), MOST.load(Ordering::Relaxed) - before)
        };
        // The machine may be busy during one of the runs.
        let (refusal, time, memory) = (0..3).map(|_| measured()).min_by_key(|(_, time, _)| *time).unwrap();
        println!("{name}: {time:?}, {} KiB", memory >> 10);
        let said = refusal.to_string();
        assert_eq!(refusal.code(), code, "{name}: {said}");
        assert!(time < Duration::from_secs(1), "{name} took {time:?}");
        assert!(memory < 16 << 20, "{name} took {memory} bytes");
        assert!(said.len() < 64 << 10, "{name}: {} bytes of text", said.len());
    }
}
