//! These tests provoke every refusal, and check that no altered bundle is accepted.

use proptest::prelude::*;

use super::*;
use crate::keys::{KeyType, PrivateKey};
use crate::payload::tests::payload;
use crate::payload::{Payload, Requires};
use crate::trust::{KeyChanges, TrustChanges};

fn node() -> NodeIdentity {
    NodeIdentity {
        org: "myorg".to_owned(),
        id: "node1".to_owned(),
        arch: "amd64".to_owned(),
        properties: Properties::from([("purpose".to_owned(), "security".into())]),
    }
}

fn now() -> Timestamp {
    "2026-06-01T00:00:00Z".parse().unwrap()
}

fn key(kind: KeyType) -> PrivateKey {
    PrivateKey::generate(kind).unwrap()
}

fn trusting(keys: &[&PrivateKey]) -> TrustStore {
    TrustStore::of_bundle_keys(keys.iter().map(|key| key.public().clone()))
}

fn envelope(payload: &[u8], keys: &[&PrivateKey]) -> Vec<u8> {
    let mut envelope = Envelope::new(payload);
    for key in keys {
        envelope.sign(payload, key).unwrap();
    }
    serde_json::to_vec(&envelope).unwrap()
}

fn signed(payload: &Payload, key: &PrivateKey) -> Vec<u8> {
    envelope(&payload.to_bytes().unwrap(), &[key])
}

fn check(bytes: &[u8], trust: &TrustStore) -> Result<VerifiedBundle, Refusal> {
    verify(bytes, None, trust, &node(), &SerialFloor::new(), now())
}

fn code(bytes: &[u8], trust: &TrustStore) -> &'static str {
    check(bytes, trust).map_or_else(|refusal| refusal.code(), |_| "accepted")
}

fn plain(data: &[u8], key: &PrivateKey) -> PlainFields {
    PlainSignature::make(data, key).unwrap().unwrap().fields()
}

#[test]
fn a_bundle_of_a_pinned_key_is_accepted() {
    for kind in [KeyType::Ed25519, KeyType::P256, KeyType::Rsa] {
        let key = key(kind);
        let bundle = check(&signed(&payload(3), &key), &trusting(&[&key])).unwrap();
        assert_eq!((bundle.payload.serial, bundle.policies.len()), (3, 1));
        assert_eq!(bundle.keys, [key.public().id().clone()]);
    }
}

#[test]
fn truncated_at_any_length_is_refused_whole() {
    let key = key(KeyType::Ed25519);
    let (bytes, trust) = (signed(&payload(1), &key), trusting(&[&key]));
    for length in 0..bytes.len() {
        assert_eq!(code(&bytes[..length], &trust), "truncated", "{length} of {}", bytes.len());
    }
}

#[test]
fn what_is_no_bundle_is_refused() {
    let key = key(KeyType::Ed25519);
    let trust = trusting(&[&key]);
    assert_eq!(code(b"hello", &trust), "not-json");
    assert_eq!(code(b"\0\0", &trust), "not-json");
    assert_eq!(code(&[b"{}".as_slice(), b"{}"].concat(), &trust), "not-json");
    assert_eq!(code(b"{}", &trust), "not-a-bundle");
    assert_eq!(code(b"[1]", &trust), "not-a-bundle");
    assert_eq!(code(br#"{"payloadType":"x","payload":"","signatures":[]}"#, &trust), "not-a-bundle");
    assert_eq!(code(&[b"[".repeat(100_000), b"]".repeat(100_000)].concat(), &trust), "not-a-bundle");

    let good = payload(1).to_bytes().unwrap();
    let text = String::from_utf8(envelope(&good, &[&key])).unwrap();
    assert_eq!(
        code(text.replacen(r#""payload":"#, r#""extra":1,"payload":"#, 1).as_bytes(), &trust),
        "not-a-bundle"
    );
    let doubled = text.replacen(r#""payload":"#, r#""payload":"","payload":"#, 1);
    assert_eq!(code(doubled.as_bytes(), &trust), "not-a-bundle");
    let anonymous = EnvelopeSignature { keyid: String::new(), sig: String::new() };
    let named = EnvelopeSignature { keyid: "other".to_owned(), ..anonymous.clone() };
    for crowd in [vec![named; MAX_SIGNATURES + 1], vec![anonymous; 2]] {
        let crowd = Envelope { signatures: crowd, ..Envelope::new(&good) };
        assert_eq!(code(&serde_json::to_vec(&crowd).unwrap(), &trust), "not-a-bundle");
    }
}

#[test]
fn a_hundred_megabytes_are_refused_unread() {
    let trust = trusting(&[&key(KeyType::Ed25519)]);
    assert_eq!(code(&vec![b' '; 100 << 20], &trust), "too-large");
    let payload = vec![b' '; MAX_PAYLOAD + 1];
    assert_eq!(code(&envelope(&payload, &[]), &trust), "too-large");
}

#[test]
fn signers_that_are_unknown_too_few_or_none_are_refused() {
    let (mine, other) = (key(KeyType::Ed25519), key(KeyType::P256));
    let bytes = payload(1).to_bytes().unwrap();
    assert_eq!(code(&envelope(&bytes, &[&other]), &trusting(&[&mine])), "unknown-signer");
    assert_eq!(code(&envelope(&bytes, &[]), &trusting(&[&mine])), "unsigned");
    assert_eq!(code(&envelope(&bytes, &[&mine]), &TrustStore::default()), "no-pinned-keys");
    assert_eq!(code(&envelope(&bytes, &[&other, &mine]), &trusting(&[&mine])), "accepted");

    let both = TrustChanges { threshold: Some(2), ..TrustChanges::default() };
    let two = trusting(&[&mine, &other]).changed(&both).unwrap();
    assert_eq!(code(&envelope(&bytes, &[&mine]), &two), "too-few-signatures");
    assert_eq!(code(&envelope(&bytes, &[&mine, &other]), &two), "accepted");
    // One key that signs twice is one signer.
    let mut twice = Envelope::new(&bytes);
    twice.sign(&bytes, &mine).unwrap();
    let mut anonymous = twice.signatures[0].clone();
    anonymous.keyid = String::new();
    twice.signatures.push(anonymous);
    assert_eq!(code(&serde_json::to_vec(&twice).unwrap(), &two), "too-few-signatures");
}

#[test]
fn a_signature_under_another_pinned_keys_name_is_refused() {
    let (a, b) = (key(KeyType::Ed25519), key(KeyType::Ed25519));
    let bytes = payload(1).to_bytes().unwrap();
    let mut envelope = Envelope::new(&bytes);
    envelope.sign(&bytes, &a).unwrap();
    envelope.signatures[0].keyid = b.public().id().to_string();
    assert_eq!(code(&serde_json::to_vec(&envelope).unwrap(), &trusting(&[&a, &b])), "bad-signature");
    envelope.signatures[0].keyid = String::new();
    assert_eq!(code(&serde_json::to_vec(&envelope).unwrap(), &trusting(&[&a, &b])), "accepted");
}

#[test]
fn a_signature_of_the_bare_payload_is_none_of_the_envelope() {
    let key = key(KeyType::Ed25519);
    let bytes = payload(1).to_bytes().unwrap();
    let mut envelope = Envelope::new(&bytes);
    envelope.sign(&bytes, &key).unwrap();
    use base64::Engine as _;
    envelope.signatures[0].sig = base64::engine::general_purpose::STANDARD.encode(key.sign(&bytes).unwrap());
    assert_eq!(code(&serde_json::to_vec(&envelope).unwrap(), &trusting(&[&key])), "bad-signature");
}

#[test]
fn a_bare_payload_is_trusted_only_by_metadata_and_a_pinned_key() {
    let (mine, other) = (key(KeyType::Rsa), key(KeyType::Rsa));
    let data = payload(1).to_bytes().unwrap();
    let trust = trusting(&[&mine]);
    let with = |meta: &PlainFields| {
        verify(&data, Some(meta), &trust, &node(), &SerialFloor::new(), now())
            .map_or_else(|r| r.code(), |_| "accepted")
    };
    let good = plain(&data, &mine);
    assert_eq!(with(&good), "accepted");
    assert_eq!(with(&plain(&data, &other)), "unknown-signer");
    assert_eq!(with(&plain(b"other data", &mine)), "bad-signature");
    assert_eq!(
        with(&PlainFields { hash_algorithm: "SHA1".to_owned(), ..good.clone() }),
        "unsupported-signature"
    );
    assert_eq!(with(&PlainFields { signature: "?".to_owned(), ..good.clone() }), "unsupported-signature");
    assert_eq!(with(&PlainFields { public_key: "AAAA".to_owned(), ..good.clone() }), "unsupported-signature");
    for missing in [
        PlainFields { hash_algorithm: String::new(), ..good.clone() },
        PlainFields { public_key: String::new(), ..good.clone() },
        PlainFields { signature: String::new(), ..good.clone() },
    ] {
        assert_eq!(with(&missing), "unsigned");
    }
    assert_eq!(code(&data, &trust), "unsigned");
    // The signature in the metadata does not help an envelope.
    let stranger = envelope(&data, &[&other]);
    let meta = plain(&stranger, &mine);
    let refusal = verify(&stranger, Some(&meta), &trust, &node(), &SerialFloor::new(), now()).unwrap_err();
    assert_eq!(refusal.code(), "unknown-signer");
}

#[test]
fn a_bundle_for_others_is_refused() {
    let key = key(KeyType::Ed25519);
    let trust = trusting(&[&key]);
    type Change = fn(&mut Payload);
    let cases: [(Change, &str); 6] = [
        (|p| p.target.org = "other".to_owned(), "wrong-target"),
        (|p| p.target.nodes = vec!["node2".to_owned()], "wrong-target"),
        (|p| p.target.nodes.clear(), "accepted"),
        (|p| p.target.constraints = vec!["purpose == other".to_owned()], "wrong-target"),
        (
            |p| p.target.constraints = vec!["openhorizon.arch == amd64 AND purpose == security".to_owned()],
            "accepted",
        ),
        (
            |p| p.target.constraints = vec!["purpose == security".to_owned(), "gpu == true".to_owned()],
            "wrong-target",
        ),
    ];
    for (change, expected) in cases {
        let mut payload = payload(1);
        change(&mut payload);
        assert_eq!(code(&signed(&payload, &key), &trust), expected, "{:?}", payload.target);
    }
}

#[test]
fn a_nodes_own_word_about_its_arch_wins() {
    let key = key(KeyType::Ed25519);
    let mut payload = payload(1);
    payload.target.constraints = vec!["openhorizon.arch == arm64".to_owned()];
    let mut node = node();
    node.properties.insert("openhorizon.arch".to_owned(), "arm64".into());
    let refusal =
        verify(&signed(&payload, &key), None, &trusting(&[&key]), &node, &SerialFloor::new(), now());
    assert_eq!(refusal.unwrap_err().code(), "wrong-target");
}

#[test]
fn serials_never_go_back_per_name() {
    let key = key(KeyType::Ed25519);
    let trust = trusting(&[&key]);
    let accepted = check(&signed(&payload(5), &key), &trust).unwrap();
    let floor = SerialFloor::from([("edge".to_owned(), Accepted { serial: 5, digest: accepted.digest })]);
    let with = |payload: &Payload| verify(&signed(payload, &key), None, &trust, &node(), &floor, now());
    assert_eq!(with(&payload(4)).unwrap_err().code(), "serial-too-low");
    assert_eq!(with(&payload(5)).unwrap_err().code(), "already-accepted");
    assert_eq!(with(&payload(6)).unwrap().payload.serial, 6);
    let mut same_serial = payload(5);
    same_serial.settings.alerts_per_second = Some(1);
    assert_eq!(with(&same_serial).unwrap_err().code(), "serial-reused");
    let mut other_name = payload(1);
    other_name.name = "other".to_owned();
    assert!(with(&other_name).is_ok());
}

#[test]
fn an_expired_bundle_is_refused_unless_it_was_accepted() {
    let key = key(KeyType::Ed25519);
    let trust = trusting(&[&key]);
    let bytes = signed(&payload(5), &key);
    let later = payload(5).expires;
    let at = |floor: &SerialFloor| verify(&bytes, None, &trust, &node(), floor, later).unwrap_err().code();
    assert_eq!(at(&SerialFloor::new()), "expired");
    let digest = SignedBundle::open(&bytes, None).unwrap().digest();
    assert_eq!(
        at(&SerialFloor::from([("edge".to_owned(), Accepted { serial: 5, digest: digest.clone() })])),
        "already-accepted"
    );
    assert_eq!(reopen(&bytes, &digest).unwrap().payload.serial, 5);
    assert_eq!(reopen(&bytes, &"0".repeat(64)).unwrap_err().code(), "not-a-bundle");
}

#[test]
fn payloads_that_cannot_be_used_are_refused() {
    let key = key(KeyType::Ed25519);
    let trust = trusting(&[&key]);
    let text = String::from_utf8(payload(1).to_bytes().unwrap()).unwrap();
    let with = |text: &str| code(&envelope(text.as_bytes(), &[&key]), &trust);
    assert_eq!(with("{}"), "bad-payload");
    assert_eq!(with("not json"), "bad-payload");
    assert_eq!(with(&text.replacen(r#""serial": 1"#, r#""serial": 0"#, 1)), "bad-payload");
    assert_eq!(with(&text.replacen(r#""serial""#, r#""sequel""#, 1)), "bad-payload");
    let mut demanding = payload(1);
    demanding.requires = Requires { agent: Some("99.0.0".to_owned()) };
    assert_eq!(code(&signed(&demanding, &key), &trust), "unsupported-requirement");
    let mut lockout = payload(1);
    lockout.trust.bundle = KeyChanges { add: vec![], remove: vec![key.public().id().clone()] };
    assert_eq!(code(&signed(&lockout, &key), &trust), "bad-trust-change");
}

#[test]
fn one_bad_policy_refuses_the_whole_bundle_and_is_named() {
    let key = key(KeyType::Ed25519);
    let mut payload = payload(1);
    let mut bad = payload.policies[0].clone();
    bad.file = "bad.yaml".to_owned();
    bad.text = bad.text.replace("readOnly", "readonly");
    payload.policies.push(bad);
    let refusal = check(&signed(&payload, &key), &trusting(&[&key])).unwrap_err();
    assert_eq!(refusal.code(), "bad-policy");
    assert!(refusal.to_string().contains("bad.yaml:"), "{refusal}");
}

#[test]
fn a_bundle_without_policies_is_how_enforcement_is_lifted() {
    let key = key(KeyType::Ed25519);
    let mut empty = payload(2);
    empty.policies.clear();
    assert!(check(&signed(&empty, &key), &trusting(&[&key])).unwrap().policies.is_empty());
}

#[test]
fn text_of_others_is_short_and_plain_in_messages() {
    let long = shortened(&format!("\u{1b}[31m{}", "x".repeat(1000)));
    assert!(long.len() < 400 && !long.contains('\u{1b}'));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn no_altered_byte_is_ever_accepted(position in any::<prop::sample::Index>(), flip in 1..=255u8) {
        let key = PrivateKey::from_pem(FIXED_KEY).unwrap();
        let mut bytes = signed(&payload(1), &key);
        let position = position.index(bytes.len());
        bytes[position] ^= flip;
        prop_assert!(check(&bytes, &trusting(&[&key])).is_err(), "byte {position} altered by {flip:#x}");
    }

    #[test]
    fn any_bytes_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let key = PrivateKey::from_pem(FIXED_KEY).unwrap();
        prop_assert!(check(&bytes, &trusting(&[&key])).is_err());
    }
}

/// Fixed key for tests, so that a failing case can be repeated.
const FIXED_KEY: &[u8] = b"-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f
-----END PRIVATE KEY-----
";

#[test]
fn a_serial_far_ahead_is_refused_and_the_highest_has_a_successor() {
    use crate::payload::MAX_AHEAD;
    let key = key(KeyType::Ed25519);
    let trust = trusting(&[&key]);
    let most = u64::try_from(now().as_second()).unwrap() + MAX_AHEAD;
    for serial in [u64::MAX, 1_790_000_000_000, most + 1] {
        assert_eq!(code(&signed(&payload(serial), &key), &trust), "serial-too-high", "{serial}");
    }
    let highest = check(&signed(&payload(most), &key), &trust).unwrap();
    let accepted = Accepted { serial: most, digest: highest.digest };
    let floor = SerialFloor::from([(highest.payload.name, accepted)]);
    let later = now() + jiff::SignedDuration::from_secs(1);
    let next = verify(&signed(&payload(most + 1), &key), None, &trust, &node(), &floor, later).unwrap();
    assert_eq!(next.payload.serial, most + 1);
    // A node that does not know the time also accepts the seconds since 1970.
    let unset: Timestamp = "1970-01-01T00:00:09Z".parse().unwrap();
    let serial = u64::try_from(now().as_second()).unwrap();
    assert!(
        verify(&signed(&payload(serial), &key), None, &trust, &node(), &SerialFloor::new(), unset).is_ok()
    );
}
