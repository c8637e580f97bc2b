//! A whole head, as a server reads it and a client writes one for the context that comes of it: lines of `name: value`.
#![no_main]

use std::time::Duration;

use bequest::{Codec, Context, Key};
use bequest_http::wire::{
    Allow, Baggage, DeadlineHeaders, MAX_BYTES, MAX_MEMBERS, Outbound, Trace, parse_grpc_timeout,
    parse_milliseconds,
};
use http::{HeaderMap, HeaderName, HeaderValue, Request};
use libfuzzer_sys::fuzz_target;

static TENANT: Key<String> = Key::new("tenant").crossing(Codec {
    encode: String::clone,
    decode: |text| Some(text.to_owned()),
    limit: 64,
});

/// Names that mean something, by one letter, so that they are found soon.
const NAMES: [&str; 8] = [
    "grpc-timeout",
    "connect-timeout-ms",
    "x-envoy-expected-rq-timeout-ms",
    "bequest-timeout-ms",
    "traceparent",
    "tracestate",
    "baggage",
    "content-type",
];

fuzz_target!(|text: &[u8]| {
    let mut headers = HeaderMap::new();
    for line in text.split(|byte| *byte == b'\n') {
        let Some((first, value)) = line.split_first() else {
            continue;
        };
        let name = HeaderName::from_static(NAMES[usize::from(*first) % NAMES.len()]);
        if let Ok(value) = HeaderValue::from_bytes(value) {
            headers.append(name, value);
        }
    }

    let reading = DeadlineHeaders::default().read(&headers);
    assert_eq!(reading.budget.is_some(), reading.header.is_some());
    let limit = Duration::from_secs(3600);
    let budget = reading.budget.unwrap_or(limit).min(limit);

    let allow = Allow::nothing().key(&TENANT).member("colour");
    let mut ctx = allow.read(&headers, Context::background());
    assert!(ctx.value(&TENANT).is_none_or(|tenant| tenant.len() <= 64));
    for member in Baggage::of(&ctx).map(Baggage::members).unwrap_or_default() {
        assert_eq!(member.key(), "colour");
    }
    let trace = Trace::read(&headers);
    if let Some(trace) = &trace {
        ctx = trace.child().carried_by(&ctx);
    }

    let scope = ctx.with_timeout(budget);
    let outbound = Outbound {
        trace: true,
        baggage: allow,
        ..Outbound::default()
    };
    let mut request = Request::new(());
    let kind = headers.get("content-type").filter(|_| text.len() % 2 == 0);
    if let Some(kind) = kind {
        request.headers_mut().insert("content-type", kind.clone());
    }
    let (mut head, ()) = request.into_parts();
    let Ok(()) = outbound.apply(&scope, &mut head) else {
        assert!(
            budget < Duration::from_secs(1),
            "{budget:?} is time enough to send it"
        );
        return;
    };
    let told = match head.headers.get("grpc-timeout") {
        Some(told) => parse_grpc_timeout(told.as_bytes()),
        None => parse_milliseconds(head.headers["bequest-timeout-ms"].as_bytes()),
    };
    let told = told.expect("our own format");
    assert!(!told.is_zero() && told < budget, "{told:?} of {budget:?}");
    match (trace, Trace::read(&head.headers)) {
        (None, None) => {}
        (Some(came), Some(went)) => {
            assert_eq!(came.parent().trace_id(), went.parent().trace_id());
            assert_ne!(came.parent().span_id(), went.parent().span_id());
            assert_eq!(came.state(), went.state());
        }
        other => panic!("{other:?}"),
    }
    if let Some(baggage) = head.headers.get("baggage") {
        assert!(baggage.len() <= MAX_BYTES);
        let again = Baggage::read([baggage.as_bytes()], |_| true);
        assert!(!again.is_cut && again.members_seen <= MAX_MEMBERS);
    }
});
