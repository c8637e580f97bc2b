//! `traceparent` and `tracestate`.

use bequest_http::wire::{Trace, TraceParent, TraceState};
use http::{HeaderMap, HeaderValue};

use super::random::Random;

const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

#[test]
fn a_traceparent_is_read_to_the_letter() {
    let zeros = |from: usize, to: usize| {
        let mut text = GOOD.to_owned();
        text.replace_range(from..to, &"0".repeat(to - from));
        text
    };
    let good = [
        GOOD.to_owned(),
        GOOD.replacen("00", "cc", 1),
        GOOD.replacen("00", "01", 1) + "-what-the-future-is-like",
        GOOD.replacen("00", "01", 1) + "-",
    ];
    for text in good {
        let parent = TraceParent::parse(text.as_bytes()).expect(&text);
        assert_eq!(parent.to_string(), GOOD, "{text}: passed on as version 00");
    }
    let bad = [
        String::new(),
        GOOD.replacen("00", "ff", 1),
        GOOD.replacen("00", "01", 1) + ".what",
        format!("{GOOD}-"),
        format!("{GOOD}-more"),
        format!(" {GOOD}"),
        GOOD[..54].to_owned(),
        GOOD.to_uppercase(),
        GOOD.replace('-', "_"),
        GOOD.replace("4bf9", "4bg9"),
        zeros(3, 35),
        zeros(36, 52),
    ];
    for text in bad {
        assert_eq!(TraceParent::parse(text.as_bytes()), None, "{text}");
    }
    let unknown_flags = GOOD.replace("-01", "-fe");
    let parent = TraceParent::parse(unknown_flags.as_bytes()).unwrap();
    assert!(!parent.is_sampled());
    assert!(
        parent.to_string().ends_with("-00"),
        "flags without a meaning are not passed on"
    );
}

#[test]
fn random_changes_are_read_only_if_they_stay_well_formed() {
    let mut random = Random::new();
    for _ in 0..50_000 {
        let mut text = GOOD.as_bytes().to_vec();
        for _ in 0..=random.below(2) {
            let at = random.below(text.len());
            text[at] = random.bytes(1, b"0af-AFg_").first().copied().unwrap_or(b'0');
        }
        text.truncate(text.len() - random.below(2) * random.below(3));
        let lower = |part: &[u8]| {
            part.iter()
                .all(|c| c.is_ascii_digit() || (b'a'..=b'f').contains(c))
        };
        let parts: Vec<&[u8]> = text.split(|byte| *byte == b'-').collect();
        let well_formed = match parts[..] {
            [version, trace, span, flags] => {
                version.len() == 2
                    && trace.len() == 32
                    && span.len() == 16
                    && flags.len() == 2
                    && [version, trace, span, flags].into_iter().all(lower)
                    && version != b"ff"
                    && trace.iter().any(|c| *c != b'0')
                    && span.iter().any(|c| *c != b'0')
            }
            _ => false,
        };
        let read = TraceParent::parse(&text);
        assert_eq!(read.is_some(), well_formed, "{}", text.escape_ascii());
        if let Some(parent) = read {
            assert_eq!(TraceParent::parse(parent.to_string().as_bytes()), Some(parent));
        }
    }
}

#[test]
fn a_tracestate_is_read_to_the_letter() {
    let long = |size: usize| "k".repeat(size);
    let good = [
        ("".to_owned(), ""),
        ("a=1".to_owned(), "a=1"),
        ("a=1 ,\tb=2,,".to_owned(), "a=1,b=2"),
        ("1tenant@sys=x y".to_owned(), "1tenant@sys=x y"),
        ("a_-*/0=!\"#".to_owned(), "a_-*/0=!\"#"),
    ];
    for (text, read) in good {
        assert_eq!(TraceState::parse([text.as_bytes()]).expect(&text).as_str(), read);
    }
    for size in [(256, true), (257, false)] {
        let text = format!("{}={}", long(size.0), long(256));
        assert_eq!(TraceState::parse([text.as_bytes()]).is_some(), size.1);
        let text = format!("a={}", long(size.0));
        assert_eq!(TraceState::parse([text.as_bytes()]).is_some(), size.1);
    }
    for bad in [
        "a",
        "a=",
        "=1",
        "A=1",
        "1a=1",
        "a b=1",
        "a=1=2",
        "a=é",
        "a@=1",
        "@a=1",
        "a@1b=1",
        "a@b@c=1",
        "a=1,a=2",
        "a=\u{7f}",
        "a@abcdefghijklmno=1",
    ] {
        assert_eq!(TraceState::parse([bad.as_bytes()]), None, "{bad}");
    }
    let members = |count: usize| {
        (0..count)
            .map(|n| format!("k{n}=v"))
            .collect::<Vec<_>>()
            .join(",")
    };
    assert!(TraceState::parse([members(32).as_bytes()]).is_some());
    assert!(TraceState::parse([members(33).as_bytes()]).is_none());
    let lines: Vec<String> = (0..33).map(|n| format!("k{n}=v")).collect();
    assert!(
        TraceState::parse(lines.iter().map(String::as_bytes)).is_none(),
        "over all lines together"
    );
    assert!(TraceState::parse([vec![b'a'; 1 << 20].as_slice()]).is_none());
}

#[test]
fn whatever_is_read_is_read_again_unchanged() {
    let mut random = Random::new();
    let mut readable = 0;
    for _ in 0..20_000 {
        let pieces = [
            "a=1", "b=2", "c@d=x y", ",", ", ", ",\t", " ", "=", "E=1", "f=\u{e9}",
        ];
        let lines: Vec<Vec<u8>> = (0..=random.below(3))
            .map(|_| {
                (0..random.below(6))
                    .flat_map(|_| random.one(&pieces).bytes())
                    .collect()
            })
            .collect();
        if let Some(state) = TraceState::parse(lines.iter().map(Vec::as_slice)) {
            let again = TraceState::parse([state.as_str().as_bytes()]);
            assert_eq!(again.as_ref(), Some(&state));
            assert!(HeaderValue::try_from(state.as_str()).is_ok());
            readable += usize::from(!state.as_str().is_empty());
        }
    }
    assert!(readable > 50, "only {readable} of them meant anything");
}

#[test]
fn a_trace_goes_on_only_from_a_good_header() {
    let mut headers = HeaderMap::new();
    assert_eq!(Trace::read(&headers), None);
    headers.append("traceparent", HeaderValue::from_static(GOOD));
    headers.append("tracestate", HeaderValue::from_static("a=1"));
    headers.append("tracestate", HeaderValue::from_static("b=2"));
    let trace = Trace::read(&headers).unwrap();
    assert_eq!(
        trace.state().as_str(),
        "a=1,b=2",
        "lines are one list, in their order"
    );
    headers.append("tracestate", HeaderValue::from_static("a=3"));
    let trace = Trace::read(&headers).unwrap();
    assert_eq!(
        trace.state().as_str(),
        "",
        "a bad state is dropped, the trace goes on"
    );
    headers.append("traceparent", HeaderValue::from_static(GOOD));
    assert_eq!(Trace::read(&headers), None, "said twice is not said");

    let (one, two) = (Trace::start(), Trace::start());
    assert_ne!(one.parent().trace_id(), two.parent().trace_id());
    let child = one.child();
    assert_eq!(child.parent().trace_id(), one.parent().trace_id());
    assert_ne!(child.parent().span_id(), one.parent().span_id());
}
