//! Reads envelopes of bundles, receipts and status reports, and batches of alerts, before and behind their
//! signatures.
#![no_main]

use std::sync::LazyLock;

use armor_alerts::receipt::Receipt;
use armor_alerts::status::AgentReport;
use armor_alerts::{batch, receipt, signed, status};
use armor_bundle::dsse::Envelope;
use armor_bundle::keys::{KeyType, PrivateKey};
use libfuzzer_sys::fuzz_target;

static KEY: LazyLock<PrivateKey> = LazyLock::new(|| PrivateKey::generate(KeyType::Ed25519).expect("a key"));

fuzz_target!(|bytes: &[u8]| {
    if let Ok(envelope) = serde_json::from_slice::<Envelope<'_>>(bytes)
        && let Some(message) = envelope.message()
    {
        assert!(message.bytes().ends_with(message.payload()));
    }
    let key = KEY.public();
    for kind in [receipt::PAYLOAD_TYPE, status::PAYLOAD_TYPE] {
        if let Ok(object) = signed::Unverified::read(kind, bytes) {
            let _ = object.content::<AgentReport>();
            assert!(object.verify::<AgentReport>([key]).is_err(), "nobody has signed it");
        }
    }
    let _ = Receipt::verify(bytes, [key], ("org", "node", key.id()));
    assert!(batch::open(bytes, key).is_err(), "nobody has signed it");
});
