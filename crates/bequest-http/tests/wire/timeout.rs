//! Deadline headers.

use std::time::Duration;

use bequest::Context;
use bequest_http::wire::{
    DeadlineHeader, DeadlineHeaders, Outbound, encode_grpc_timeout, encode_milliseconds, parse_grpc_timeout,
    parse_milliseconds,
};
use http::{HeaderMap, HeaderName, HeaderValue, Request};

use super::random::Random;

#[test]
fn what_is_written_is_read_again_and_never_longer() {
    let mut random = Random::new();
    for _ in 0..20_000 {
        let time = Duration::from_nanos(random.next() >> random.below(64));
        if let Some(text) = encode_grpc_timeout(time) {
            let read = parse_grpc_timeout(text.as_bytes()).expect("our own format");
            assert!(!read.is_zero() && read <= time, "{time:?} became {read:?}");
            assert!(
                time - read <= time / 1_000,
                "{time:?} became {read:?}: the finest unit"
            );
        }
        match encode_milliseconds(time) {
            Some(text) => {
                let read = parse_milliseconds(text.as_bytes()).expect("our own format");
                let most = Duration::from_millis(9_999_999_999);
                assert_eq!(read, Duration::from_millis(time.as_millis() as u64).min(most));
            }
            None => assert!(time < Duration::from_millis(1)),
        }
    }
}

#[test]
fn what_is_read_is_what_a_pattern_says() {
    let mut random = Random::new();
    let mut readable = 0;
    for _ in 0..50_000 {
        let text = random.bytes(12, b"0123456789000HMSmun");
        let expected = grpc_by_pattern(&text);
        assert_eq!(parse_grpc_timeout(&text), expected, "{:?}", text.escape_ascii());
        readable += usize::from(expected.is_some());
        let text = random.bytes(12, b"0123456789");
        let expected = milliseconds_by_pattern(&text);
        assert_eq!(parse_milliseconds(&text), expected, "{:?}", text.escape_ascii());
    }
    assert!(readable > 100, "only {readable} of them meant anything");
}

/// The format by the standard library's parser of numbers.
fn grpc_by_pattern(text: &[u8]) -> Option<Duration> {
    let text = std::str::from_utf8(text).ok()?;
    let unit = text.chars().last()?;
    let nanos: u128 = match unit {
        'H' => 3_600_000_000_000,
        'M' => 60_000_000_000,
        'S' => 1_000_000_000,
        'm' => 1_000_000,
        'u' => 1_000,
        'n' => 1,
        _ => return None,
    };
    let digits = text.strip_suffix(unit)?;
    let fits = (1..=8).contains(&digits.len()) && digits.chars().all(|digit| digit.is_ascii_digit());
    let total = fits.then(|| digits.parse::<u128>().ok())?? * nanos;
    let (seconds, rest) = (total / 1_000_000_000, total % 1_000_000_000);
    Some(Duration::new(seconds as u64, rest as u32))
}

fn milliseconds_by_pattern(text: &[u8]) -> Option<Duration> {
    let text = std::str::from_utf8(text).ok()?;
    let fits = (1..=10).contains(&text.len()) && text.chars().all(|digit| digit.is_ascii_digit());
    fits.then(|| Duration::from_millis(text.parse().expect("digits")))
}

#[test]
fn every_header_is_read_and_the_smallest_holds() {
    let names = [
        ("grpc-timeout", "70m"),
        ("connect-timeout-ms", "60"),
        ("x-envoy-expected-rq-timeout-ms", "50"),
        ("bequest-timeout-ms", "40"),
    ];
    let mut headers = HeaderMap::new();
    for (name, value) in names {
        headers.insert(name, HeaderValue::from_static(value));
        let reading = DeadlineHeaders::default().read(&headers);
        assert_eq!(reading.header.unwrap(), name);
        assert_eq!(
            DeadlineHeaders::none().read(&headers).budget,
            None,
            "each can be switched off"
        );
    }
    let own = DeadlineHeaders {
        other: Some(HeaderName::from_static("x-budget-ms")),
        ..DeadlineHeaders::none()
    };
    headers.insert("x-budget-ms", HeaderValue::from_static("9"));
    assert_eq!(own.read(&headers).budget, Some(Duration::from_millis(9)));
}

#[test]
fn of_random_headers_the_smallest_that_can_be_read_holds() {
    let mut random = Random::new();
    let names = [
        "grpc-timeout",
        "connect-timeout-ms",
        "x-envoy-expected-rq-timeout-ms",
        "bequest-timeout-ms",
    ];
    let mut readable = 0;
    for _ in 0..20_000 {
        let mut headers = HeaderMap::new();
        let mut said: Vec<(&str, Vec<u8>)> = Vec::new();
        for _ in 0..random.below(5) {
            let name = *random.one(&names);
            let value = match random.below(4) {
                0 => b"soon".to_vec(),
                _ if name == "grpc-timeout" => format!("{}m", random.below(50)).into_bytes(),
                _ => random.below(50).to_string().into_bytes(),
            };
            headers.append(name, HeaderValue::from_bytes(&value).unwrap());
            said.push((name, value));
        }
        let once = said
            .iter()
            .filter(|(name, _)| said.iter().filter(|(other, _)| other == name).count() == 1);
        let budgets = once.clone().filter_map(|(name, value)| match *name {
            "grpc-timeout" => grpc_by_pattern(value),
            _ => milliseconds_by_pattern(value),
        });
        let reading = DeadlineHeaders::default().read(&headers);
        assert_eq!(reading.budget, budgets.clone().min(), "{headers:?}");
        assert_eq!(
            reading.unreadable.is_some(),
            budgets.count() < headers.keys_len(),
            "{headers:?}"
        );
        readable += usize::from(reading.budget.is_some());
    }
    assert!(readable > 5_000, "only {readable} of them meant anything");
}

#[test]
fn nothing_unreadable_becomes_a_budget() {
    let long = "9".repeat(1 << 20);
    let cases: [&[u8]; 9] = [
        b"-1",
        b"",
        b"soon",
        b"1.5",
        b"0x10",
        b"12345678901",
        b"1 000",
        b"\xff\xfe",
        long.as_bytes(),
    ];
    for case in cases {
        let mut headers = HeaderMap::new();
        headers.insert("bequest-timeout-ms", HeaderValue::from_bytes(case).unwrap());
        let reading = DeadlineHeaders::default().read(&headers);
        assert_eq!(reading.budget, None, "{:?}", &case[..case.len().min(20)]);
        assert!(reading.unreadable.is_some());
    }
}

fn told(outbound: &Outbound, ctx: &Context, request: Request<()>) -> Option<(String, String)> {
    let (mut head, ()) = request.into_parts();
    outbound.apply(ctx, &mut head).ok()?;
    let name = ["grpc-timeout", "bequest-timeout-ms", "x-budget-ms"];
    let name = name.into_iter().find(|name| head.headers.contains_key(*name))?;
    Some((name.to_owned(), head.headers[name].to_str().unwrap().to_owned()))
}

#[test]
fn the_remaining_time_goes_out_less_the_margin() {
    let clock = bequest_test::Clock::new();
    let ctx = Context::with_clock(clock.clone()).with_timeout(Duration::from_millis(100));
    let outbound = Outbound {
        margin: Duration::from_millis(30),
        ..Outbound::default()
    };
    let plain = || Request::new(());
    assert_eq!(
        told(&outbound, &ctx, plain()).unwrap(),
        ("bequest-timeout-ms".into(), "70".into())
    );
    let grpc = || {
        let kind = ("content-type", "application/grpc+proto");
        Request::builder().header(kind.0, kind.1).body(()).unwrap()
    };
    assert_eq!(
        told(&outbound, &ctx, grpc()).unwrap(),
        ("grpc-timeout".into(), "70000000n".into())
    );
    let nowhere = Outbound {
        deadline: DeadlineHeader::None,
        ..outbound.clone()
    };
    assert_eq!(told(&nowhere, &ctx, plain()), None);
    let named = Outbound {
        deadline: DeadlineHeader::Milliseconds(HeaderName::from_static("x-budget-ms")),
        ..outbound.clone()
    };
    assert_eq!(
        told(&named, &ctx, plain()).unwrap(),
        ("x-budget-ms".into(), "70".into())
    );
    clock.advance(Duration::from_millis(69));
    assert_eq!(told(&outbound, &ctx, plain()).unwrap().1, "1");
    clock.advance(Duration::from_millis(1));
    assert_eq!(
        told(&outbound, &ctx, plain()),
        None,
        "a budget of 0 is not sent: it is refused here"
    );
}

#[test]
fn what_the_program_set_itself_can_only_be_shorter() {
    let clock = bequest_test::Clock::new();
    let ctx = Context::with_clock(clock).with_timeout(Duration::from_millis(100));
    for (set, sent) in [("20", "20"), ("5000", "95"), ("none", "95"), ("0", "0")] {
        let request = Request::builder().header("bequest-timeout-ms", set).body(());
        assert_eq!(
            told(&Outbound::default(), &ctx, request.unwrap()).unwrap().1,
            sent
        );
    }
    // Said twice is not said, to a peer neither.
    let twice = Request::builder()
        .header("bequest-timeout-ms", "20")
        .header("bequest-timeout-ms", "9999");
    let (mut head, ()) = twice.body(()).unwrap().into_parts();
    Outbound::default().apply(&ctx, &mut head).unwrap();
    let lines: Vec<_> = head.headers.get_all("bequest-timeout-ms").iter().collect();
    assert_eq!(lines, ["95"]);
    let forever = Context::background();
    assert_eq!(told(&Outbound::default(), &forever, Request::new(())), None);
}
