//! Reads what a sync service answers: lists of objects and destinations, and the state of an object.
#![no_main]

use armor_bundle::plain::{PlainFields, PlainSignature};
use armor_mms::{Destination, MetaData, ObjectStatus};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = ObjectStatus::parse(&String::from_utf8_lossy(bytes));
    let _ = serde_json::from_slice::<Option<Vec<Destination>>>(bytes);
    let Ok(Some(list)) = serde_json::from_slice::<Option<Vec<MetaData>>>(bytes) else { return };
    for meta in list {
        let written = serde_json::to_vec(&meta).expect("metadata is JSON");
        assert!(serde_json::from_slice::<MetaData>(&written).is_ok_and(|again| again == meta));
        let MetaData { hash_algorithm, public_key, signature, .. } = meta;
        let _ = PlainSignature::of(&PlainFields { hash_algorithm, public_key, signature });
    }
});
