//! `traceparent` and `tracestate`: whatever is read is read again unchanged, and can be added to.
#![no_main]

use bequest_http::wire::{TraceParent, TraceState};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &[u8]| {
    if let Some(parent) = TraceParent::parse(text) {
        assert_eq!(TraceParent::parse(parent.to_string().as_bytes()), Some(parent));
    }
    if let Some(state) = TraceState::parse(text.split(|byte| *byte == b'\n')) {
        let again = TraceState::parse([state.as_str().as_bytes()]);
        assert_eq!(again.as_ref(), Some(&state));
        let added = state.with("own", "1").expect("well-formed");
        assert_eq!(added.get("own"), Some("1"));
        let again = TraceState::parse([added.as_str().as_bytes()]);
        assert_eq!(again, Some(added));
    }
});
