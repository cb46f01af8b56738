//! Decodes records of events, of which the kernel side writes one behind the other.
#![no_main]

use armor_bpf::Event;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut rest = bytes;
    while let Some((event, length)) = Event::decode_first(rest) {
        assert!(length > 0 && length <= rest.len());
        event.guard();
        rest = &rest[length..];
    }
});
