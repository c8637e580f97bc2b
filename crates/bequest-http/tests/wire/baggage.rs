//! `baggage`: its format, its caps, and who may send what.

use bequest::{Codec, Context, Key};
use bequest_http::wire::{Allow, Baggage, BaggageReading, MAX_BYTES, MAX_MEMBERS, Member, Outbound};
use http::{HeaderMap, HeaderValue, Request};

use super::random::Random;

static TENANT: Key<u32> = Key::new("tenant").crossing(Codec {
    encode: u32::to_string,
    decode: |text| text.parse().ok(),
    limit: 10,
});

static CITY: Key<String> = Key::new("city").crossing(Codec {
    encode: String::clone,
    decode: |text| Some(text.to_owned()),
    limit: 64,
});

static PASSWORD: Key<String> = Key::new("password").sensitive().crossing(Codec {
    encode: String::clone,
    decode: |text| Some(text.to_owned()),
    limit: 64,
});

fn read(lines: &[Vec<u8>]) -> BaggageReading {
    Baggage::read(lines.iter().map(Vec::as_slice), |_| true)
}

fn keys(reading: &BaggageReading) -> Vec<&str> {
    reading.baggage.members().iter().map(Member::key).collect()
}

#[test]
fn is_read_to_the_letter() {
    let one = |text: &str| read(&[text.as_bytes().to_vec()]);
    let reading = one(" a = 1 ; p ; q = r , b=,a=2,\tC=x%20y");
    assert_eq!(
        keys(&reading),
        ["a", "b", "a", "C"],
        "order and duplicates stay, case matters"
    );
    let members = reading.baggage.members();
    assert_eq!((members[0].raw(), &*members[0].value()), ("1 ; p ; q = r", "1"));
    assert_eq!(&*members[3].value(), "x y");
    for bad in [
        "a",
        "=1",
        "a b=1",
        "a=\"1\"",
        "a=1 2",
        "a=\\",
        "a=é",
        "a=1;",
        "a=1;=2",
        "a=1;p=q\"",
        "(a)=1",
    ] {
        let reading = one(&format!("{bad},good=1"));
        assert_eq!(keys(&reading), ["good"], "{bad}: that member alone is left out");
    }
}

#[test]
fn values_of_any_text_come_back() {
    let mut random = Random::new();
    for _ in 0..5_000 {
        let bytes = random.bytes(40, "abc%,;=\\\"  \u{e9}취".as_bytes());
        let text = String::from_utf8_lossy(&bytes);
        let member = Member::new("k", &text).unwrap();
        let mut baggage = Baggage::default();
        assert!(baggage.push(member));
        let header = baggage.to_header().unwrap();
        let reading = read(&[header.as_bytes().to_vec()]);
        assert_eq!(reading.baggage.members()[0].value(), text);
    }
    let value = |raw: &str| {
        read(&[format!("k={raw}").into_bytes()]).baggage.members()[0]
            .value()
            .into_owned()
    };
    assert_eq!(
        value("%ff%C3"),
        "\u{fffd}\u{fffd}",
        "what is no UTF-8 is replaced"
    );
    assert_eq!(value("%"), "%");
    assert_eq!(value("100%zz%4"), "100%zz%4");
}

#[test]
fn random_input_is_bounded_and_what_is_read_is_read_again() {
    let mut random = Random::new();
    let mut readable = 0;
    for _ in 0..3_000 {
        let lines: Vec<Vec<u8>> = (0..random.below(6))
            .map(|_| random.bytes(4_000, b"abc=,;%20 =,="))
            .collect();
        let reading = read(&lines);
        assert_bounded(&reading, &lines);
        readable += reading.baggage.members().len();
        if let Some(header) = reading.baggage.to_header() {
            let again = read(&[header.as_bytes().to_vec()]);
            assert_eq!(again.baggage, reading.baggage);
            assert!(!again.is_cut);
        }
    }
    assert!(readable > 1_000, "only {readable} of them meant anything");
}

#[test]
fn random_lists_within_the_caps_are_what_their_grammar_says() {
    let mut random = Random::new();
    let (mut kept, mut left_out) = (0, 0);
    for _ in 0..20_000 {
        let pieces = [
            "a=1",
            "B=",
            " c = x%20y ",
            "d=1;p",
            "e=1 ;p = q=; r",
            "a=2",
            "!=~",
            "f",
            "=1",
            "g h=1",
            "i=\"",
            "j=1;",
            "k=1;=",
            "l=1;p q",
            "m=\u{e9}",
            "n=1\\",
            "",
        ];
        let lines: Vec<Vec<u8>> = (0..random.below(4))
            .map(|_| {
                let members: Vec<&str> = (0..random.below(12)).map(|_| *random.one(&pieces)).collect();
                members.join(*random.one(&[",", ", ", "\t,"])).into_bytes()
            })
            .collect();
        let reading = read(&lines);
        let expected = by_its_grammar(&lines);
        let members = reading.baggage.members().iter();
        let found: Vec<(&str, &str)> = members.map(|member| (member.key(), member.raw())).collect();
        assert_eq!(found, expected, "{:?}", lines.join(&b'|').escape_ascii());
        assert!(!reading.is_cut);
        kept += found.len();
        left_out += reading.members_seen - found.len();
    }
    assert!(
        kept > 10_000 && left_out > 10_000,
        "{kept} kept, {left_out} left out"
    );
}

/// Key and rest of each member that the grammar allows, of all lines as one text.
fn by_its_grammar(lines: &[Vec<u8>]) -> Vec<(&str, &str)> {
    let text = |part: &str| part.trim_matches([' ', '\t']).to_owned();
    let is_token = |part: &str| {
        let fits = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
        !part.is_empty() && part.chars().all(fits)
    };
    let is_value = |part: &str| {
        part.chars()
            .all(|c| matches!(c, '!'..='~') && !"\",;\\".contains(c))
    };
    let is_property = |part: &str| match part.split_once('=') {
        Some((key, value)) => is_token(&text(key)) && is_value(&text(value)),
        None => is_token(&text(part)),
    };
    lines
        .iter()
        .flat_map(|line| std::str::from_utf8(line).expect("text").split(','))
        .filter_map(|member| member.split_once('='))
        .map(|(key, rest)| (key.trim_matches([' ', '\t']), rest.trim_matches([' ', '\t'])))
        .filter(|(key, rest)| {
            let mut parts = rest.split(';');
            is_token(key) && is_value(&text(parts.next().expect("one"))) && parts.all(is_property)
        })
        .collect()
}

fn assert_bounded(reading: &BaggageReading, lines: &[Vec<u8>]) {
    assert!(reading.bytes_seen <= MAX_BYTES, "{} bytes", reading.bytes_seen);
    assert!(
        reading.members_seen <= MAX_MEMBERS,
        "{} members",
        reading.members_seen
    );
    let all: usize = lines.iter().map(Vec::len).sum();
    let header = reading.baggage.to_header();
    assert!(header.is_none_or(|header| header.len() <= MAX_BYTES.min(all)));
}

#[test]
fn hostile_input_costs_no_more_than_the_caps() {
    let many = |count: usize, member: &str| vec![member.as_bytes().to_vec(); count];
    let attacks = [
        (
            "1 MiB in one member",
            vec![[b"a=".to_vec(), vec![b'x'; 1 << 20]].concat()],
        ),
        (
            "1 MiB of percent signs",
            vec![[b"a=".to_vec(), b"%25".repeat(350_000)].concat()],
        ),
        (
            "1 MiB of half escapes",
            vec![[b"a=".to_vec(), b"%".repeat(1 << 20)].concat()],
        ),
        ("5 000 members", vec![b"a=1,".repeat(5_000)]),
        ("5 000 empty members", vec![b",".repeat(5_000)]),
        ("400 lines", many(400, "a=1")),
        ("400 empty lines", many(400, "")),
        (
            "400 lines of 1 KiB",
            vec![[b"a=".to_vec(), vec![b'x'; 1024]].concat(); 400],
        ),
        (
            "properties without end",
            vec![[b"a=1".to_vec(), b";p".repeat(1 << 19)].concat()],
        ),
        ("equals signs", vec![b"=".repeat(1 << 20)]),
        ("no UTF-8", vec![vec![0xff; 1 << 20]]),
    ];
    for (name, lines) in attacks {
        let mut asked = 0;
        let reading = Baggage::read(lines.iter().map(Vec::as_slice), |_| {
            asked += 1;
            true
        });
        assert!(asked <= MAX_MEMBERS, "{name}: asked about {asked} members");
        assert_bounded(&reading, &lines);
        for member in reading.baggage.members() {
            assert!(member.value().len() <= MAX_BYTES, "{name}");
        }
    }
}

#[test]
fn control_without_the_caps_the_work_grows_with_the_attack() {
    // The same count for the naive way, which splits and decodes whatever comes.
    let attack = b"a=1,".repeat(5_000);
    let members = attack
        .split(|byte| *byte == b',')
        .filter(|member| !member.is_empty());
    let (seen, bytes) = members.fold((0, 0), |(seen, bytes), member| {
        (seen + 1, bytes + member.len() + 1)
    });
    assert!(
        seen > MAX_MEMBERS && bytes > MAX_BYTES,
        "{seen} members, {bytes} bytes"
    );
}

#[test]
fn a_member_is_kept_whole_or_not_at_all() {
    let full = MAX_BYTES - "b=1,".len();
    let fits = [b"a=".to_vec(), vec![b'x'; full - 2]].concat();
    let reading = read(&[fits.clone(), b"b=1".to_vec(), b"c=1".to_vec()]);
    assert_eq!(keys(&reading), ["a", "b"]);
    assert!(reading.is_cut, "c is beyond the cap");
    let reading = read(&[[fits, b",b=12".to_vec()].concat()]);
    assert_eq!(keys(&reading), ["a"], "half of b is nothing");
    let reading = read(&vec![b"m=1".to_vec(); MAX_MEMBERS + 1]);
    assert_eq!(reading.baggage.members().len(), MAX_MEMBERS);
    assert!(reading.is_cut);

    let mut baggage = Baggage::default();
    assert!(baggage.push(Member::new("a", &"x".repeat(MAX_BYTES - 2)).unwrap()));
    assert!(!baggage.push(Member::new("b", "1").unwrap()));
    assert_eq!(baggage.to_header().unwrap().len(), MAX_BYTES);
}

#[test]
fn nothing_crosses_that_is_not_listed() {
    let mut headers = HeaderMap::new();
    let line = "tenant=7,city=S%C3%A3o,password=x,colour=red;a=b,other=1,tenant=many";
    headers.insert("baggage", HeaderValue::from_static(line));
    let ctx = Allow::nothing().read(&headers, Context::background());
    assert_eq!((ctx.value(&TENANT), Baggage::of(&ctx)), (None, None));

    let inbound = Allow::nothing()
        .key(&TENANT)
        .key(&CITY)
        .key(&PASSWORD)
        .member("colour");
    let ctx = inbound.read(&headers, Context::background());
    assert_eq!(ctx.value(&TENANT), Some(&7), "what its codec refuses is left out");
    assert_eq!(ctx.value(&CITY).map(String::as_str), Some("São"));
    assert_eq!(
        ctx.value(&PASSWORD),
        None,
        "a sensitive key crosses in neither direction"
    );
    assert_eq!(Baggage::of(&ctx).unwrap().to_header().unwrap(), "colour=red;a=b");

    let ctx = ctx.with_value(&PASSWORD, "hush".to_owned());
    let outbound = Outbound {
        baggage: Allow::nothing().key(&PASSWORD),
        baggage_to: vec![(
            "friend.test:81".into(),
            Allow::nothing().key(&CITY).member("colour"),
        )],
        ..Outbound::default()
    };
    let sent = |uri: &str| {
        let (mut head, ()) = Request::get(uri).body(()).unwrap().into_parts();
        outbound.apply(&ctx, &mut head).unwrap();
        head.headers
            .get("baggage")
            .map(|sent| sent.to_str().unwrap().to_owned())
    };
    assert_eq!(
        sent("http://friend.test:81/").as_deref(),
        Some("city=S%C3%A3o,colour=red;a=b")
    );
    assert_eq!(
        sent("http://friend.test/"),
        None,
        "another port is another destination"
    );
    assert_eq!(sent("http://stranger.test/"), None);
}

#[test]
fn the_limit_of_a_key_is_on_the_value_however_it_is_encoded() {
    let allow = Allow::nothing().key(&CITY);
    let received = |value: String| {
        let headers = HeaderMap::from_iter([(
            http::HeaderName::from_static("baggage"),
            HeaderValue::try_from(format!("city={value}; p=1")).unwrap(),
        )]);
        let ctx = allow.read(&headers, Context::background());
        ctx.value(&CITY).map(String::len)
    };
    for (piece, bytes) in [("A", 1), ("%41", 1), ("%C3%A3", 2), ("%FF", 3), ("%E0%A0", 3)] {
        let most = 64 / bytes;
        assert_eq!(received(piece.repeat(most)), Some(most * bytes), "{piece}");
        assert_eq!(received(piece.repeat(most + 1)), None, "{piece}");
        assert_eq!(received(piece.repeat(10 * most)), None, "{piece}");
    }
}
