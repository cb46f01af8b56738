//! These tests verify keys and signatures of another implementation; `vectors/README` has the commands.

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use armor_bundle::keys::{KeyError, Malformed, PublicKey};

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors").join(name)
}

fn read(name: &str) -> Vec<u8> {
    std::fs::read(path(name)).unwrap()
}

fn verifies(key: &str, signature: &str) -> bool {
    PublicKey::load(&path(key)).unwrap().verifies(&read("message.json"), &read(signature))
}

#[test]
fn rsa_pss_verifies_at_any_salt_length() {
    for salt in ["0", "32", "max"] {
        assert!(verifies("rsa.pem", &format!("rsa-salt-{salt}.sig")), "salt {salt}");
    }
}

#[test]
fn rsa_signatures_of_another_scheme_or_hash_do_not_verify() {
    assert!(!verifies("rsa.pem", "rsa-sha1.sig"));
    assert!(!verifies("rsa.pem", "rsa-pkcs1v15.sig"));
}

#[test]
fn an_altered_byte_never_verifies() {
    let message = read("message.json");
    for (key, signature) in [
        ("rsa.pem", "rsa-salt-0.sig"),
        ("rsa.pem", "rsa-salt-32.sig"),
        ("rsa.pem", "rsa-salt-max.sig"),
        ("p256.pem", "p256.sig"),
        ("ed25519.pem", "ed25519.sig"),
    ] {
        let (key, good) = (PublicKey::load(&path(key)).unwrap(), read(signature));
        assert!(key.verifies(&message, &good), "{signature}");
        for position in 0..good.len() {
            let mut bad = good.clone();
            bad[position] ^= 1;
            assert!(!key.verifies(&message, &bad), "{signature}, byte {position}");
        }
        let mut other = message.clone();
        other[0] ^= 1;
        assert!(!key.verifies(&other, &good), "{signature}");
    }
}

#[test]
fn weak_and_unknown_keys_are_refused() {
    for name in ["refused-rsa-1024.pem", "refused-p384.pem"] {
        let error = PublicKey::load(&path(name)).unwrap_err();
        assert!(
            matches!(&error, KeyError::Content { problem: Malformed::Unsupported(_), .. }),
            "{name}: {error}"
        );
    }
}
