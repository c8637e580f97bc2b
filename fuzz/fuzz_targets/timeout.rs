//! Deadline headers: whatever is read is written and read again, and never becomes longer.
#![no_main]

use bequest_http::wire::{encode_grpc_timeout, encode_milliseconds, parse_grpc_timeout, parse_milliseconds};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &[u8]| {
    if let Some(time) = parse_grpc_timeout(text) {
        assert!(text.len() <= 9);
        if let Some(again) = encode_grpc_timeout(time) {
            let again = parse_grpc_timeout(again.as_bytes()).expect("our own format");
            assert!(!again.is_zero() && again <= time);
        }
    }
    if let Some(time) = parse_milliseconds(text) {
        assert!(text.len() <= 10);
        let again = encode_milliseconds(time);
        assert_eq!(again.is_none(), time.is_zero());
        let again = again.map(|again| parse_milliseconds(again.as_bytes()));
        assert!(again.is_none_or(|again| again == Some(time)));
    }
});
