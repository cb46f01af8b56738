//! Reads policy documents from text that anybody may have written, and compiles those that are valid.
#![no_main]

use armor_policy::{Links, PolicySet, check, compile, document::text, literal_paths};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = text::decode("fuzz.yaml", bytes.to_vec()) else { return };
    let Ok(checked) = check("fuzz.yaml", &text) else { return };
    let policies: Vec<_> = checked.policies.iter().collect();
    literal_paths(&policies);
    if let Ok(domain) = compile(&[PolicySet::of(&checked.policies)], &Links::new()) {
        assert!(domain.path.object_count > 0 && domain.subject_count > 0);
    }
});
