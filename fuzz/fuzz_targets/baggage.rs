//! `baggage`: within its caps whatever comes, and whatever is read is read again unchanged.
#![no_main]

use bequest_http::wire::{Baggage, MAX_BYTES, MAX_MEMBERS};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &[u8]| {
    let reading = Baggage::read(text.split(|byte| *byte == b'\n'), |_| true);
    assert!(reading.bytes_seen <= MAX_BYTES && reading.members_seen <= MAX_MEMBERS);
    for member in reading.baggage.members() {
        // A byte that is no UTF-8 becomes a character of three.
        assert!(member.value().len() <= 3 * member.raw().len());
    }
    if let Some(header) = reading.baggage.to_header() {
        let again = Baggage::read([header.as_bytes()], |_| true);
        assert_eq!(again.baggage, reading.baggage);
    }
});
