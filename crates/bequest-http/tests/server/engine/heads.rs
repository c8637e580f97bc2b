//! Heads of requests: what a handler is given of them, and what a client sees of one that is none.

use super::super::common::{RawHttp2, TestBody, full};
use super::blocks::{block, lines};
use super::client::Client;
use super::stage::{Answer, Cue, always, same};

type Fields<'a> = &'a [(&'a str, &'a str)];

const ORDINARY: Fields<'_> = &[
    (":method", "GET"),
    (":scheme", "http"),
    (":path", "/a?b=c"),
    (":authority", "test:80"),
];

/// Answers with nothing, and tells what it was given.
async fn echo(request: http::Request<TestBody>, cue: Cue) -> Answer {
    let (head, body) = request.into_parts();
    let (method, uri, version) = (head.method, head.uri, head.version);
    let fields: Vec<String> = lines(&head.headers)
        .into_iter()
        .map(|(name, value)| format!("{name}: {value}"))
        .collect();
    cue.tell(format!("{method} {uri} {version:?} [{}]", fields.join("; ")));
    let size = http_body::Body::size_hint(&body).exact();
    let is_over = http_body::Body::is_end_stream(&body);
    cue.tell(format!("size {size:?}, over: {is_over}"));
    Ok(full(""))
}

#[tokio::test]
async fn a_handler_is_given_the_request_as_it_came() {
    let no_authority = [&ORDINARY[..3], &[("host", "test")]].concat();
    let https = [
        (":method", "PURGE"),
        (":scheme", "https"),
        (":path", "/%20"),
        (":authority", "[::1]"),
    ];
    let of_all = [
        (":method", "OPTIONS"),
        (":scheme", "http"),
        (":path", "*"),
        (":authority", "test"),
    ];
    let more = [
        ("host", "other"),
        ("cookie", "a=b"),
        ("te", "trailers"),
        ("cookie", "c=d"),
        ("x-empty", ""),
        ("x-bytes", "\u{e9}"),
    ];
    let more = [ORDINARY, &more].concat();
    let plain = "GET http://test:80/a?b=c HTTP/2.0 []";
    for (name, fields, request) in [
        ("ordinary", ORDINARY, plain),
        ("no authority", &no_authority, "GET /a?b=c HTTP/2.0 [host: test]"),
        ("https", &https, "PURGE https://[::1]/%20 HTTP/2.0 []"),
        // It is the types that say so of a whole URI.
        ("of all", &of_all, "OPTIONS http://test* HTTP/2.0 []"),
        (
            "more",
            &more,
            "GET http://test:80/a?b=c HTTP/2.0 \
             [cookie: a=b; cookie: c=d; host: other; te: trailers; x-bytes: \u{e9}; x-empty: ]",
        ),
    ] {
        let script = async |client: &mut Client| {
            client.fields(1, true, fields).await;
            client.over(1).await;
        };
        let told = format!("told: {request}");
        let sees = ["1: 200 [date: now] END", &told, "told: size Some(0), over: true"];
        same(name, echo, script, &sees).await;
    }
}

#[tokio::test]
async fn a_handler_knows_of_a_body_what_its_head_says() {
    for (length, end, sees, size) in [
        (
            None,
            true,
            "1: 200 [date: now] END",
            "told: size Some(0), over: true",
        ),
        (
            Some("0"),
            true,
            "1: 200 [date: now] END",
            "told: size Some(0), over: true",
        ),
        (
            None,
            false,
            "1: 200 [date: now] END, RST_STREAM NO_ERROR",
            "told: size None, over: false",
        ),
        (
            Some("5"),
            false,
            "1: 200 [date: now] END, RST_STREAM NO_ERROR",
            "told: size Some(5), over: false",
        ),
    ] {
        let script = async |client: &mut Client| {
            let length = length.map(|length| ("content-length", length));
            let fields = [ORDINARY, length.as_slice()].concat();
            client.fields(1, end, &fields).await;
            client.over(1).await;
        };
        let fields = length.map_or(String::new(), |length| format!("content-length: {length}"));
        let told = format!("told: GET http://test:80/a?b=c HTTP/2.0 [{fields}]");
        same("a length", echo, script, &[sees, &told, size]).await;
    }
}

#[tokio::test]
async fn a_malformed_request_is_the_end_of_its_stream_only() {
    let with = |field| [ORDINARY, &[field]].concat();
    for (name, fields) in [
        ("no path", &[ORDINARY[0], ORDINARY[1], ORDINARY[3]][..]),
        ("no method", &ORDINARY[1..]),
        ("a field of HTTP/1", &with(("connection", "close"))),
        ("a te that is not trailers", &with(("te", "gzip"))),
        ("a status", &with((":status", "200"))),
        ("two paths", &with((":path", "/"))),
        (
            "a pseudo-field behind a field",
            &[&[("x", "a")], ORDINARY].concat(),
        ),
        (
            "a protocol, which nobody has offered",
            &with((":protocol", "websocket")),
        ),
    ] {
        let script = async |client: &mut Client| {
            client.fields(1, true, fields).await;
            client
                .until("an end", |seen| seen.is_over(1) || seen.is_closed())
                .await;
            client.get(3).await;
            client.over(3).await;
        };
        let sees = ["1: RST_STREAM PROTOCOL_ERROR", "3: 200 [date: now] END"];
        same(name, always(|_| full("")), script, &sees).await;
    }
}

#[tokio::test]
async fn fields_that_are_too_large_are_answered_with_431() {
    // Each counts 138 bytes, and the limit is 16 KiB.
    for (count, sees) in [(116, "1: 200 [date: now] END"), (120, "1: 431 [] END")] {
        let script = async |client: &mut Client| {
            let value = "x".repeat(100);
            let fields: Vec<_> = (0..count).map(|_| ("x-name", &value[..])).collect();
            let block = block(&[ORDINARY, &fields].concat());
            let (first, rest) = block.split_at(block.len() / 2);
            client
                .frame(RawHttp2::HEADERS, RawHttp2::END_STREAM, 1, first)
                .await;
            client
                .frame(RawHttp2::CONTINUATION, RawHttp2::END_HEADERS, 1, rest)
                .await;
            client.over(1).await;
        };
        same("many fields", always(|_| full("")), script, &[sees]).await;
    }
}

#[tokio::test]
async fn a_name_in_capitals_is_the_end_of_the_connection() {
    let script = async |client: &mut Client| {
        client
            .fields(1, true, &[ORDINARY, &[("X-Name", "a")]].concat())
            .await;
        client.closed().await;
    };
    let sees = r#"0: GOAWAY 0 PROTOCOL_ERROR "", closed"#;
    same("capitals", always(|_| full("")), script, &[sees]).await;
}
