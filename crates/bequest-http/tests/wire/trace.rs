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
}

#[test]
fn flags_are_single_bits_and_those_without_a_meaning_are_not_passed_on() {
    for version in ["00", "01"] {
        for flags in 0..=0xff_u8 {
            let text = format!("{version}{}{flags:02x}", &GOOD[2..53]);
            let parent = TraceParent::parse(text.as_bytes()).expect("a good one");
            assert_eq!(
                (parent.is_sampled(), parent.is_random()),
                (flags & 1 != 0, flags & 2 != 0),
                "{text}"
            );
            let sent = format!("00{}{:02x}", &GOOD[2..53], flags & 3);
            assert_eq!(parent.to_string(), sent);
        }
    }
}

#[test]
fn a_span_may_decide_for_itself_whether_it_is_recorded() {
    let start = Trace::start();
    assert!(
        !start.parent().is_sampled() && start.parent().is_random(),
        "a random id says so"
    );
    for is_sampled in [true, false] {
        let child = start.sampled_child(!is_sampled).sampled_child(is_sampled);
        assert_eq!(child.parent().is_sampled(), is_sampled);
        assert!(child.parent().is_random(), "the id is still the same");
        assert_eq!(child.parent().trace_id(), start.parent().trace_id());
        assert_ne!(
            child.parent().span_id(),
            start.parent().span_id(),
            "never under the same span"
        );
    }
}

#[test]
fn random_changes_are_read_only_if_they_stay_well_formed() {
    let mut random = Random::new();
    let mut readable = [0, 0];
    for _ in 0..100_000 {
        let mut text = GOOD.as_bytes().to_vec();
        if random.below(2) == 0 {
            text[..2].copy_from_slice(*random.one(&[b"01", b"cc", b"fe", b"ff", b"0F", b"0-"]));
        }
        for _ in 0..random.below(3) {
            let at = random.below(text.len());
            text[at] = random.bytes(1, b"0af-AFg_").first().copied().unwrap_or(b'0');
        }
        text.truncate(text.len() - random.below(2) * random.below(3));
        let tail: &&[u8] = random.one(&[b"", b"", b"", b"-", b"-more", b".", b"0"]);
        text.extend_from_slice(tail);
        let expected = by_its_parts(&text);
        let read = TraceParent::parse(&text);
        assert_eq!(
            read.map(|read| read.to_string()),
            expected,
            "{}",
            text.escape_ascii()
        );
        if let Some(parent) = read {
            assert_eq!(TraceParent::parse(parent.to_string().as_bytes()), Some(parent));
            readable[usize::from(text.starts_with(b"00"))] += 1;
        }
    }
    assert!(readable.iter().all(|count| *count > 1_000), "{readable:?}");
}

/// What is passed on of a `traceparent`, by the dashes in it.
fn by_its_parts(text: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(text).ok()?;
    let parts: Vec<&str> = text.splitn(5, '-').collect();
    let [version, trace, span, flags] = parts.get(..4)?.try_into().expect("four");
    let is_hex = |part: &str| {
        part.bytes()
            .all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
    };
    let fits = [(version, 2), (trace, 32), (span, 16), (flags, 2)]
        .into_iter()
        .all(|(part, length)| part.len() == length && is_hex(part));
    let has_ids = [trace, span].iter().all(|id| id.bytes().any(|byte| byte != b'0'));
    let is_known = version != "ff" && (version != "00" || parts.len() == 4);
    let flags = u8::from_str_radix(flags, 16).ok()? & 3;
    (fits && has_ids && is_known).then(|| format!("00-{trace}-{span}-{flags:02x}"))
}

#[test]
fn a_tracestate_is_read_to_the_letter() {
    let long = |size: usize| "k".repeat(size);
    let good = [
        ("".to_owned(), ""),
        ("a=1".to_owned(), "a=1"),
        ("a=1 ,\tb=2,,".to_owned(), "a=1,b=2"),
        ("1tenant@sys=x y".to_owned(), "1tenant@sys=x y"),
        ("1a=1,a@=2,a@b@c=3".to_owned(), "1a=1,a@=2,a@b@c=3"),
        (
            "a@1b=1,a@abcdefghijklmno=1".to_owned(),
            "a@1b=1,a@abcdefghijklmno=1",
        ),
        ("a= 1 ,b=  2".to_owned(), "a= 1,b=  2"),
        ("a=1,b=2,a=3,b=2".to_owned(), "a=1,b=2,a=3,b=2"),
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
        "a b=1",
        "a =1",
        "a.b=1",
        "a=1=2",
        "a=é",
        "@a=1",
        "a=\t1",
        "a=\u{7f}",
        "good=1,bad",
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
    assert!(
        TraceState::parse([vec!["a=1"; 33].join(",").as_bytes()]).is_none(),
        "of one key, too"
    );
    let lines: Vec<String> = (0..33).map(|n| format!("k{n}=v")).collect();
    assert!(
        TraceState::parse(lines.iter().map(String::as_bytes)).is_none(),
        "over all lines together"
    );
    assert!(TraceState::parse([vec![b'a'; 1 << 20].as_slice()]).is_none());
}

#[test]
fn random_lists_are_what_their_grammar_says() {
    let mut random = Random::new();
    let (mut readable, mut refused) = (0, 0);
    for _ in 0..20_000 {
        let pieces = [
            "a=1", "b=2", "c@d=x y", "1=0", "a=3", "k=\"!\"", "E=1", "=", "f=\u{e9}", "g",
        ];
        let commas = [",", ", ", " ,\t", ",,"];
        // Half of them of well-formed members alone.
        let pieces = &pieces[..*random.one(&[6, pieces.len()])];
        let lines: Vec<Vec<u8>> = (0..=random.below(3))
            .map(|_| {
                (0..random.below(16))
                    .flat_map(|_| [*random.one(pieces), *random.one(&commas)])
                    .flat_map(str::bytes)
                    .collect()
            })
            .collect();
        let state = TraceState::parse(lines.iter().map(Vec::as_slice));
        assert_eq!(
            state.as_ref().map(TraceState::as_str),
            by_its_grammar(&lines).as_deref(),
            "{:?}",
            lines.join(&b'|').escape_ascii()
        );
        let Some(state) = state else {
            refused += 1;
            continue;
        };
        let again = TraceState::parse([state.as_str().as_bytes()]);
        assert_eq!(again.as_ref(), Some(&state));
        assert!(HeaderValue::try_from(state.as_str()).is_ok());
        readable += usize::from(!state.as_str().is_empty());
    }
    assert!(
        readable > 1_000 && refused > 1_000,
        "{readable} read, {refused} refused"
    );
}

/// The list that is passed on, of its lines as one text.
fn by_its_grammar(lines: &[Vec<u8>]) -> Option<String> {
    let text = String::from_utf8(lines.join(&b',')).ok()?;
    let members: Vec<&str> = text
        .split(',')
        .map(|member| member.trim_matches([' ', '\t']))
        .filter(|member| !member.is_empty())
        .collect();
    let mut kept: Vec<(&str, &str)> = Vec::new();
    for member in &members {
        let (key, value) = member.split_once('=')?;
        let is_key = key
            .chars()
            .enumerate()
            .all(|(at, c)| matches!(c, 'a'..='z' | '0'..='9') || at > 0 && "_-*/@".contains(c));
        let is_value = value.chars().all(|c| matches!(c, ' '..='~' if c != '='));
        let lengths = 1..=256;
        if !is_key || !is_value || !lengths.contains(&key.len()) || !lengths.contains(&value.len()) {
            return None;
        }
        kept.push((key, value));
    }
    let kept: Vec<String> = kept.iter().map(|(key, value)| format!("{key}={value}")).collect();
    (members.len() <= 32).then(|| kept.join(","))
}

#[test]
fn a_note_of_ones_own_stands_in_front_and_the_oldest_goes() {
    let members: Vec<String> = (0..32).map(|n| format!("k{n}=v")).collect();
    let full = TraceState::parse([members.join(",").as_bytes()]).unwrap();
    let state = full.with("own", "1").expect("well-formed");
    assert_eq!(state.as_str(), format!("own=1,{}", members[..31].join(",")));
    assert_eq!((state.get("own"), state.get("k31")), (Some("1"), None));

    let moved = state.with("k7", "new").expect("well-formed");
    assert!(
        moved.as_str().starts_with("k7=new,own=1,k0=v,"),
        "{}",
        moved.as_str()
    );
    assert_eq!(moved.as_str().matches("k7=").count(), 1);

    let twice = TraceState::parse([&b"a=1,b=2,a=3"[..]]).unwrap();
    assert_eq!(twice.get("a"), Some("1"), "the first is the newest");
    assert_eq!(twice.with("a", "4").unwrap().as_str(), "a=4,b=2", "said once");

    let long = "k".repeat(257);
    for (key, value) in [
        ("", "1"),
        ("A", "1"),
        ("a", ""),
        ("a", "1,2"),
        ("a", "1 "),
        (&long, "1"),
        ("a", &long),
    ] {
        assert_eq!(full.with(key, value), None, "{key}={value}");
    }
    let mut random = Random::new();
    for _ in 0..20_000 {
        let text =
            |random: &mut Random| String::from_utf8_lossy(&random.bytes(4, b"aB0@_=, ~\t")).into_owned();
        let (key, value) = (text(&mut random), text(&mut random));
        let one = TraceState::default().with(&key, &value);
        if let Some(state) = &one {
            let again = TraceState::parse([state.as_str().as_bytes()]);
            assert_eq!(again.as_ref(), one.as_ref(), "what is added can be read");
            assert_eq!(state.get(&key), Some(&*value));
        }
    }
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
    headers.append("tracestate", HeaderValue::from_static("A=3"));
    let trace = Trace::read(&headers).unwrap();
    assert_eq!(
        trace.state().as_str(),
        "",
        "a bad state is dropped, the trace goes on"
    );
    headers.append("traceparent", HeaderValue::from_static(GOOD));
    assert_eq!(Trace::read(&headers), None, "said twice is not said");

    let blank = HeaderValue::try_from(format!(" \t{GOOD} ")).unwrap();
    let headers = HeaderMap::from_iter([(http::HeaderName::from_static("traceparent"), blank)]);
    let trace = Trace::read(&headers).expect("blanks around it are not a part of it");
    assert_eq!(trace.parent().to_string(), GOOD);

    let (one, two) = (Trace::start(), Trace::start());
    assert_ne!(one.parent().trace_id(), two.parent().trace_id());
    let child = one.child();
    assert_eq!(child.parent().trace_id(), one.parent().trace_id());
    assert_ne!(child.parent().span_id(), one.parent().span_id());
}
