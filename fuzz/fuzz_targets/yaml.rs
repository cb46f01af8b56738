//! Reads policy documents from text that anybody may have written, migrates them, and compiles those that are valid.
#![no_main]

use armor_policy::{Choices, Links, PolicySet, check, compile, document::text, literal_paths, migrate};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(text) = text::decode("fuzz.yaml", bytes.to_vec()) else { return };
    let choices = Choices {
        spelling: true,
        maps: ["app:horizon.image", ":kubernetes.io/os=linux"].map(|map| map.parse().unwrap()).to_vec(),
    };
    if let Ok(migration) = migrate("fuzz.yaml", &text, &choices) {
        let again = migrate("fuzz.yaml", &migration.text, &choices).unwrap();
        assert_eq!(again.text, migration.text);
        assert_eq!(check("fuzz.yaml", &migration.text).is_ok(), migration.errors.is_empty());
    }
    let Ok(checked) = check("fuzz.yaml", &text) else { return };
    let policies: Vec<_> = checked.policies.iter().collect();
    literal_paths(&policies);
    if let Ok(domain) = compile(&[PolicySet::of(&checked.policies)], &Links::new()) {
        assert!(domain.path.object_count > 0 && domain.subject_count > 0);
    }
});
