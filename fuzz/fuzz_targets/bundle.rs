//! Opens bundles, signed in either way, and reads their payloads, their policies and their constraints.
#![no_main]

use armor_bundle::payload::Payload;
use armor_bundle::plain::PlainFields;
use armor_bundle::verify::SignedBundle;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let fields = PlainFields::default();
    if let Ok(bundle) = SignedBundle::open(bytes, Some(&fields)) {
        let _ = bundle.digest();
        read(bundle.payload());
    }
    read(bytes);
});

fn read(payload: &[u8]) {
    let Ok(payload) = Payload::parse(payload) else { return };
    let _ = (payload.constraints(), payload.parse_policies());
    if let Ok(bytes) = payload.to_bytes() {
        assert!(
            Payload::parse(&bytes).is_ok_and(|again| again == payload),
            "it is not read as it was written"
        );
    }
}
