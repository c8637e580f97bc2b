//! Requests of HTTP/2 that are malformed: what another server would make a request of HTTP/1 of, and not the one that was meant.
//! The refusals are the engine's, asserted through our loop.

use super::common::{Http1, RawHttp2, guard, http2_bytes, until};
use super::smuggling::{Served, reader};

/// Fields behind an ordinary `POST /first` that make a request of HTTP/2 malformed (RFC 9113, 8.1.1 to 8.2.3).
const MALFORMED: [(&str, &[(&str, &str)]); 18] = [
    ("connection", &[("connection", "close")]),
    ("keep-alive", &[("keep-alive", "timeout=5")]),
    ("proxy-connection", &[("proxy-connection", "close")]),
    ("transfer-encoding", &[("transfer-encoding", "chunked")]),
    ("upgrade", &[("upgrade", "h2c")]),
    ("te that is not trailers", &[("te", "gzip")]),
    ("a name in capitals", &[("X-Name", "a")]),
    ("a name with a space", &[("x name", "a")]),
    ("a name with a colon", &[("x:name", "a")]),
    ("a name with a line in it", &[("x\r\nhost", "a")]),
    ("no name", &[("", "a")]),
    ("a value with a line in it", &[("x", "a\r\nhost: other")]),
    ("a value with a zero byte", &[("x", "a\0b")]),
    ("two lengths", &[("content-length", "5"), ("content-length", "6")]),
    ("a signed length", &[("content-length", "+5")]),
    ("a second path", &[(":path", "/smuggled")]),
    (
        "a pseudo-field behind a field",
        &[("x", "a"), (":authority", "other")],
    ),
    ("an unknown pseudo-field", &[(":x", "a")]),
];

/// Whole blocks that are malformed, as what replaces the ordinary fields.
const MALFORMED_WHOLE: [(&str, &[(&str, &str)]); 8] = [
    (
        "no method",
        &[(":scheme", "http"), (":path", "/first"), (":authority", "test")],
    ),
    (
        "no scheme",
        &[(":method", "POST"), (":path", "/first"), (":authority", "test")],
    ),
    (
        "no path",
        &[(":method", "POST"), (":scheme", "http"), (":authority", "test")],
    ),
    (
        "an empty path",
        &[
            (":method", "POST"),
            (":scheme", "http"),
            (":path", ""),
            (":authority", "test"),
        ],
    ),
    (
        "a path with a line in it",
        &[
            (":method", "POST"),
            (":scheme", "http"),
            (":path", "/ HTTP/1.1\r\nx: y"),
            (":authority", "test"),
        ],
    ),
    (
        "a method with a line in it",
        &[
            (":method", "POST / HTTP/1.1\r\nx: y"),
            (":scheme", "http"),
            (":path", "/first"),
            (":authority", "test"),
        ],
    ),
    (
        "an authority that is none",
        &[
            (":method", "POST"),
            (":scheme", "http"),
            (":path", "/first"),
            (":authority", "a b"),
        ],
    ),
    (
        "a status",
        &[
            (":method", "POST"),
            (":scheme", "http"),
            (":path", "/first"),
            (":status", "200"),
        ],
    ),
];

const ORDINARY: [(&str, &str); 4] = [
    (":method", "POST"),
    (":scheme", "http"),
    (":path", "/first"),
    (":authority", "test"),
];

fn block<'a>(fields: impl IntoIterator<Item = &'a (&'a str, &'a str)>) -> Vec<u8> {
    fields
        .into_iter()
        .flat_map(|(name, value)| http2_bytes::field(name, value))
        .collect()
}

/// Sends a request of HTTP/2 with this header block and body, and then a good one. Says how the first one ended, if it was
/// reset or the connection was ended, and what was served before the good one.
async fn play_http2(block: &[u8], body: &[&[u8]]) -> (Option<u8>, Vec<Served>) {
    let (server, mut told) = reader().await;
    let mut client = RawHttp2::connect(server.addr).await;
    let end = |last: bool| if last { RawHttp2::END_STREAM } else { 0 };
    client
        .frame(
            RawHttp2::HEADERS,
            RawHttp2::END_HEADERS | end(body.is_empty()),
            1,
            block,
        )
        .await;
    for (nth, data) in body.iter().enumerate() {
        client
            .frame(RawHttp2::DATA, end(nth + 1 == body.len()), 1, data)
            .await;
    }
    let mut ended = None;
    while ended.is_none() {
        let Some(frame) = client.next().await else { break };
        match frame.kind {
            RawHttp2::RST_STREAM | RawHttp2::GOAWAY => ended = Some(frame.kind),
            RawHttp2::HEADERS if frame.stream == 1 => break,
            _ => {}
        }
    }
    let mut other = Http1::connect(server.addr).await;
    other.request("GET", "/good").await;
    assert_eq!(other.answer().await.status, 200);
    until("nothing to be under way", || {
        server.statistics.snapshot().requests == 0
    })
    .await;
    let mut served: Vec<_> = std::iter::from_fn(|| told.try_recv().ok()).collect();
    assert_eq!(served.pop(), Some(("/good".to_owned(), Some(String::new()))));
    (ended, served)
}

#[tokio::test]
async fn malformed_requests_of_http2_are_reset_and_no_handler_begins() {
    for (what, fields) in MALFORMED {
        let (ended, served) = play_http2(&block(ORDINARY.iter().chain(fields)), &[]).await;
        assert!(ended.is_some(), "{what}");
        assert_eq!(served, [], "{what}");
    }
    for (what, fields) in MALFORMED_WHOLE {
        let (ended, served) = play_http2(&block(fields), &[]).await;
        assert!(ended.is_some(), "{what}");
        assert_eq!(served, [], "{what}");
    }
}

#[tokio::test]
async fn too_much_of_a_head_of_http2_is_refused_and_no_more_than_that() {
    for (count, begins) in [(300, 1), (600, 0)] {
        let fields = vec![("x", "y"); count];
        let (ended, served) = play_http2(&block(ORDINARY.iter().chain(&fields)), &[]).await;
        assert_eq!(
            (ended, served.len()),
            (None, begins),
            "answered, by a handler or not: {count}"
        );
    }
}

#[tokio::test]
async fn a_body_of_http2_that_is_not_as_long_as_it_says_is_reset() {
    let five = block(ORDINARY.iter().chain(&[("content-length", "5")]));
    let (ended, served) = play_http2(&five, &[]).await;
    assert_eq!(
        (ended, served),
        (Some(RawHttp2::RST_STREAM), vec![]),
        "no body at all"
    );
    for body in [&[&b"hell"[..]][..], &[b"hello!"], &[b"hello", b"!"]] {
        let (ended, served) = play_http2(&five, body).await;
        assert!(ended.is_some(), "{body:?}");
        assert!(
            served.iter().all(|(_, read)| read.is_none()),
            "{body:?}: {served:?}"
        );
    }
}

#[tokio::test]
async fn s8_a_reset_is_no_end_of_a_body_whatever_it_says() {
    for code in [
        h2::Reason::NO_ERROR,
        h2::Reason::CANCEL,
        h2::Reason::INTERNAL_ERROR,
    ] {
        let (server, mut told) = reader().await;
        let mut client = RawHttp2::connect(server.addr).await;
        let head = block(&ORDINARY);
        client
            .frame(RawHttp2::HEADERS, RawHttp2::END_HEADERS, 1, &head)
            .await;
        client.frame(RawHttp2::DATA, 0, 1, b"half").await;
        until("the handler", || server.statistics.snapshot().requests == 1).await;
        let code = u32::from(code).to_be_bytes();
        client.frame(RawHttp2::RST_STREAM, 0, 1, &code).await;
        let (_, read) = guard("the handler to hear", told.recv())
            .await
            .expect("a handler");
        assert_eq!(read, None, "{code:?}");
    }
}

#[tokio::test]
async fn control_a_clear_request_of_http2_is_served() {
    for (what, fields, body, read) in [
        ("none", &[][..], &[][..], ""),
        ("trailers wanted", &[("te", "trailers")], &[], ""),
        (
            "a body",
            &[("content-length", "5")],
            &[&b"hel"[..], b"lo"],
            "hello",
        ),
        (
            "the same length twice",
            &[("content-length", "5"), ("content-length", "5")],
            &[b"hello"],
            "hello",
        ),
    ] {
        let (ended, served) = play_http2(&block(ORDINARY.iter().chain(fields)), body).await;
        assert_eq!(ended, None, "{what}");
        assert_eq!(served, [("/first".to_owned(), Some(read.to_owned()))], "{what}");
    }
}
