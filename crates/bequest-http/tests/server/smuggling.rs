//! Requests about which two servers in a row could be of two minds (request smuggling). What the engine refuses is asserted
//! through our loop; what it leaves to the server is ours. HTTP/2 is in `malformed.rs`.

use std::net::SocketAddr;

use bequest_http::server::{RequestBody, service_fn};
use bytes::Bytes;
use http::Request;
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;

use super::common::{Http1, TestServer, full};

/// Behind each request: some would take it for the next one, and others for a part of this one.
const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nhost: test\r\n\r\n";

/// Heads of `POST /first`, without the host, that are refused with 400.
const REFUSED: [(&str, &str); 39] = [
    (
        "two lengths",
        "content-length: 5\r\ncontent-length: 6\r\n\r\nhello",
    ),
    ("a list of lengths", "content-length: 5, 6\r\n\r\nhello"),
    ("a list of one length", "content-length: 5, 5\r\n\r\nhello"),
    ("no length", "content-length: \r\n\r\nhello"),
    ("a length and a space", "content-length: 5 5\r\n\r\nhello"),
    ("a signed length", "content-length: +5\r\n\r\nhello"),
    ("a negative length", "content-length: -5\r\n\r\nhello"),
    ("a hexadecimal length", "content-length: 0x5\r\n\r\nhello"),
    (
        "an overflowing length",
        "content-length: 99999999999999999999\r\n\r\nhello",
    ),
    (
        "chunked, and then something else",
        "transfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    ),
    (
        "the same on two lines",
        "transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n\r\n0\r\n\r\n",
    ),
    (
        "chunked, and then nothing",
        "transfer-encoding: chunked,\r\n\r\n0\r\n\r\n",
    ),
    (
        "chunked with a parameter",
        "transfer-encoding: chunked;q=1\r\n\r\n0\r\n\r\n",
    ),
    (
        "chunked in quotes",
        "transfer-encoding: \"chunked\"\r\n\r\n0\r\n\r\n",
    ),
    (
        "chunked behind a vertical tab",
        "transfer-encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "an unknown coding",
        "transfer-encoding: xchunked\r\n\r\n0\r\n\r\n",
    ),
    ("no coding", "transfer-encoding:\r\n\r\n0\r\n\r\n"),
    ("identity", "transfer-encoding: identity\r\n\r\n"),
    (
        "identity and a length",
        "transfer-encoding: identity\r\ncontent-length: 5\r\n\r\nhello",
    ),
    ("a folded line", "x: a\r\n b\r\ncontent-length: 0\r\n\r\n"),
    (
        "a folded coding",
        "transfer-encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    ),
    ("a space before the colon", "content-length : 5\r\n\r\nhello"),
    (
        "a tab before the colon",
        "transfer-encoding\t: chunked\r\n\r\n0\r\n\r\n",
    ),
    ("a space in a name", "content length: 5\r\n\r\nhello"),
    ("no name", ": 5\r\n\r\nhello"),
    ("no colon", "content-length\r\n\r\n"),
    ("a zero byte in a name", "content-length\0: 5\r\n\r\nhello"),
    ("a zero byte in a value", "x: a\0b\r\n\r\n"),
    ("a delete character in a value", "x: a\x7fb\r\n\r\n"),
    ("a carriage return in a value", "x: a\rb\r\n\r\n"),
    (
        "a carriage return as the end of a line",
        "x: a\rcontent-length: 5\r\n\r\nhello",
    ),
    ("two carriage returns", "x: a\r\r\ncontent-length: 5\r\n\r\nhello"),
    ("two hosts", "host: other\r\n\r\n"),
    ("the same host twice", "host: test\r\n\r\n"),
    ("a host with a path", "host: other/path\r\n\r\n"),
    ("a host with a space", "host: test other\r\n\r\n"),
    ("a host with a user", "host: user@test\r\n\r\n"),
    ("a host in another case and once more", "HOST: test\r\n\r\n"),
    ("two hosts, one folded", "x: y\r\n host: other\r\n\r\n"),
];

/// Whole heads that are refused with 400.
const REFUSED_WHOLE: [(&str, &str); 15] = [
    ("no host", "POST /first HTTP/1.1\r\n\r\n"),
    (
        "one host that is none",
        "POST /first HTTP/1.1\r\nhost: a/b\r\n\r\n",
    ),
    (
        "chunked in HTTP/1.0",
        "POST /first HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "a folded first line",
        "POST /first HTTP/1.1\r\n host: test\r\n\r\n",
    ),
    ("two spaces", "POST  /first HTTP/1.1\r\nhost: test\r\n\r\n"),
    ("tabs", "POST\t/first\tHTTP/1.1\r\nhost: test\r\n\r\n"),
    (
        "a space in the target",
        "POST /fir st HTTP/1.1\r\nhost: test\r\n\r\n",
    ),
    (
        "a space behind the version",
        "POST /first HTTP/1.1 \r\nhost: test\r\n\r\n",
    ),
    (
        "a carriage return in the target",
        "POST /fir\rst HTTP/1.1\r\nhost: test\r\n\r\n",
    ),
    (
        "a zero byte in the target",
        "POST /fir\0st HTTP/1.1\r\nhost: test\r\n\r\n",
    ),
    (
        "a target without a slash",
        "POST first HTTP/1.1\r\nhost: test\r\n\r\n",
    ),
    ("no version", "POST /first\r\nhost: test\r\n\r\n"),
    ("another version", "POST /first HTTP/1.2\r\nhost: test\r\n\r\n"),
    ("the wrong version", "POST /first HTTP/2.0\r\nhost: test\r\n\r\n"),
    (
        "a version in small letters",
        "POST /first http/1.1\r\nhost: test\r\n\r\n",
    ),
];

/// Codings that are refused with 501.
const NOT_UNDERSTOOD: [(&str, &str); 5] = [
    (
        "chunked twice",
        "transfer-encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "chunked on two lines",
        "transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "something else, and then chunked",
        "transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "identity, and then chunked",
        "transfer-encoding: identity, chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "nothing, and then chunked",
        "transfer-encoding: , chunked\r\n\r\n0\r\n\r\n",
    ),
];

/// Chunked bodies whose reading fails; nothing that follows is served.
const BROKEN: [(&str, &str); 16] = [
    ("a size that overflows", "10000000000000005\r\nhello\r\n0\r\n\r\n"),
    ("a size that is negative", "-5\r\nhello\r\n0\r\n\r\n"),
    ("a size with a sign", "+5\r\nhello\r\n0\r\n\r\n"),
    ("a size with a prefix", "0x5\r\nhello\r\n0\r\n\r\n"),
    ("a size with an underscore", "0_5\r\nhello\r\n0\r\n\r\n"),
    ("a size behind a space", " 5\r\nhello\r\n0\r\n\r\n"),
    ("two sizes", "5 5\r\nhello\r\n0\r\n\r\n"),
    ("no size", "\r\nhello\r\n0\r\n\r\n"),
    ("a size that a bare line feed ends", "5\nhello\r\n0\r\n\r\n"),
    (
        "an extension that a bare line feed ends",
        "5;a\nhello\r\n0\r\n\r\n",
    ),
    (
        "an extension with a carriage return",
        "5;a\rb\r\nhello\r\n0\r\n\r\n",
    ),
    ("a chunk that a bare line feed ends", "5\r\nhello\n0\r\n\r\n"),
    ("a chunk that is too long", "5\r\nhello!\r\n0\r\n\r\n"),
    ("a last chunk of bare line feeds", "0\n\n"),
    ("a folded trailer", "0\r\nx: a\r\n b\r\n\r\n"),
    ("a trailer without a colon", "0\r\nx\r\n\r\n"),
];

/// Chunked bodies whose trailers the engine takes to go on: what follows is a part of them, and nobody's request.
const SWALLOWING: [(&str, &str); 2] = [
    ("an end with a bare line feed", "0\r\n\n"),
    ("a trailer that a bare line feed ends", "0\r\nx: a\n\r\n"),
];

/// Requests that can be read in one way only, and the body that is read.
const CLEAR: [(&str, &str, &str); 13] = [
    ("a length", "content-length: 5\r\n\r\nhello", "hello"),
    (
        "the same length twice",
        "content-length: 5\r\ncontent-length: 5\r\n\r\nhello",
        "hello",
    ),
    (
        "a length with zeros in front",
        "content-length: 0005\r\n\r\nhello",
        "hello",
    ),
    ("bare line feeds", "x: y\ncontent-length: 5\n\nhello", "hello"),
    (
        "a length that the connection disowns",
        "connection: content-length\r\ncontent-length: 5\r\n\r\nhello",
        "hello",
    ),
    (
        "a length and an upgrade",
        "connection: upgrade\r\nupgrade: x\r\ncontent-length: 5\r\n\r\nhello",
        "hello",
    ),
    ("another name", "transfer_encoding: chunked\r\n\r\n", ""),
    (
        "chunks",
        "transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        "hello",
    ),
    (
        "chunks in capitals, between tabs",
        "transfer-encoding:\tCHUNKED\t\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        "hello",
    ),
    (
        "a chunk with an extension",
        "transfer-encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n0\r\n\r\n",
        "hello",
    ),
    (
        "a size with zeros in front",
        "transfer-encoding: chunked\r\n\r\n00000000000000000005\r\nhello\r\n0\r\n\r\n",
        "hello",
    ),
    (
        "a size before a space",
        "transfer-encoding: chunked\r\n\r\n5 \r\nhello\r\n0\r\n\r\n",
        "hello",
    ),
    (
        "a length among the trailers",
        "transfer-encoding: chunked\r\n\r\n0\r\ncontent-length: 40\r\n\r\n",
        "",
    ),
];

/// The path of a request that was served, and its body, if that could be read.
pub(crate) type Served = (String, Option<String>);

/// What came of a request and of what is behind it.
struct Outcome {
    answer: String,
    served: Vec<Served>,
}

/// A server whose handlers read their body, and what they tell of it.
pub(crate) async fn reader() -> (TestServer, mpsc::UnboundedReceiver<Served>) {
    let (tell, told) = mpsc::unbounded_channel();
    let service = service_fn(move |request: Request<RequestBody>| {
        let tell = tell.clone();
        async move {
            let path = request.uri().path().to_owned();
            let read = http_body_util::BodyExt::collect(request.into_body()).await;
            let text = read.map(|body| String::from_utf8_lossy(&body.to_bytes()).into_owned());
            // A test that has ended hears nothing any more.
            let _ = tell.send((path, text.ok()));
            full(Bytes::new())
        }
    });
    (TestServer::start(service).await, told)
}

/// Sends a request, and what is smuggled right behind it.
async fn play(first: &str) -> Outcome {
    let (server, mut told) = reader().await;
    let answer = ask(server.addr, first).await;
    server.stop().await;
    let served = std::iter::from_fn(|| told.try_recv().ok()).collect();
    Outcome { answer, served }
}

async fn ask(addr: SocketAddr, first: &str) -> String {
    let mut client = Http1::connect(addr).await;
    client.send(&format!("{first}{SMUGGLED}")).await;
    client.stream.shutdown().await.expect("an open socket");
    client.rest().await
}

fn post(head: &str) -> String {
    format!("POST /first HTTP/1.1\r\nhost: test\r\n{head}")
}

fn chunked(body: &str) -> String {
    post(&format!("transfer-encoding: chunked\r\n\r\n{body}"))
}

fn assert_refused(what: &str, outcome: &Outcome, status: u16) {
    let Outcome { answer, served } = outcome;
    assert!(
        answer.starts_with(&format!("HTTP/1.1 {status}")),
        "{what}: {answer}"
    );
    assert_eq!(answer.matches("HTTP/1.").count(), 1, "{what}: {answer}");
    assert!(answer.contains("connection: close"), "{what}: {answer}");
    assert_eq!(served, &[], "{what}");
}

#[tokio::test]
async fn ambiguous_requests_are_refused_and_the_connection_closed() {
    for (what, head) in REFUSED {
        assert_refused(what, &play(&post(head)).await, 400);
    }
    for (what, head) in REFUSED_WHOLE {
        assert_refused(what, &play(head).await, 400);
    }
}

#[tokio::test]
async fn codings_that_are_not_understood_are_refused_and_the_connection_closed() {
    for (what, head) in NOT_UNDERSTOOD {
        assert_refused(what, &play(&post(head)).await, 501);
    }
}

#[tokio::test]
async fn control_the_engine_alone_serves_what_it_leaves_to_the_server() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a free port");
    let addr = listener.local_addr().expect("an address");
    let engine = tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.expect("a client");
            let service = hyper::service::service_fn(|_: Request<hyper::body::Incoming>| async {
                Ok::<_, std::convert::Infallible>(full(Bytes::new()))
            });
            let io = hyper_util::rt::TokioIo::new(stream);
            let mut http = hyper::server::conn::http1::Builder::new();
            // Whether a client that closes is an error is not the question.
            let _ = http.half_close(true).serve_connection(io, service).await;
        }
    });
    let hosts = REFUSED
        .iter()
        .filter(|(what, _)| what.contains("host") && !what.contains("folded"));
    let heads = hosts
        .chain(&NOT_UNDERSTOOD)
        .map(|(what, head)| (*what, post(head)));
    let whole = REFUSED_WHOLE
        .iter()
        .filter(|(what, _)| what.contains("host") || what.contains("slash"));
    let whole = whole.map(|(what, head)| (*what, (*head).to_owned()));
    for (what, request) in heads.chain(whole) {
        let answer = ask(addr, &request).await;
        assert_eq!(answer.matches("HTTP/1.1 200").count(), 2, "{what}: {answer}");
    }
    engine.abort();
}

#[tokio::test]
async fn a_length_beside_a_coding_counts_for_nothing_and_the_connection_is_closed_behind_it() {
    let chunked = "transfer-encoding: chunked\r\n";
    let chunks = "\r\n5\r\nhello\r\n0\r\n\r\n";
    for lines in [
        format!("{chunked}content-length: 3\r\n"),
        format!("content-length: 3\r\n{chunked}"),
        format!("content-length: 3\r\n{chunked}content-length: x\r\n"),
    ] {
        let Outcome { answer, served } = play(&post(&format!("{lines}{chunks}"))).await;
        assert_eq!(
            served,
            [("/first".to_owned(), Some("hello".to_owned()))],
            "{lines}"
        );
        assert!(answer.contains("connection: close"), "{lines}: {answer}");
        assert_eq!(answer.matches("HTTP/1.1 200").count(), 1, "{lines}: {answer}");
    }
}

#[tokio::test]
async fn behind_a_body_that_is_broken_nothing_is_served() {
    let too_much = "x".repeat(20_000);
    let long = [
        (
            "too long an extension",
            format!("5;{too_much}\r\nhello\r\n0\r\n\r\n"),
        ),
        (
            "too many trailers",
            format!("0\r\n{}\r\n", "x: y\r\n".repeat(2_000)),
        ),
    ];
    let broken = BROKEN.map(|(what, body)| (what, body.to_owned()));
    for (what, body) in broken.into_iter().chain(long) {
        let outcome = play(&chunked(&body)).await;
        assert_eq!(outcome.served, [("/first".to_owned(), None)], "{what}");
    }
    for (what, body) in SWALLOWING {
        let outcome = play(&chunked(body)).await;
        assert_eq!(
            outcome.served,
            [("/first".to_owned(), Some(String::new()))],
            "{what}"
        );
    }
    let outcome = play(&post("content-length: 500\r\n\r\nhello")).await;
    assert_eq!(outcome.served, [("/first".to_owned(), None)], "a body cut short");
}

#[tokio::test]
async fn too_much_of_a_head_is_refused_and_no_more_than_that() {
    let line = |size: usize| post(&format!("x: {}\r\n\r\n", "y".repeat(size)));
    let lines = |count: usize| post(&format!("{}\r\n", "x: y\r\n".repeat(count)));
    for (what, head) in [("a long line", line(65 << 10)), ("many lines", lines(100))] {
        assert_refused(what, &play(&head).await, 431);
    }
    for (what, head) in [
        ("a line that fits", line(63 << 10)),
        ("lines that fit", lines(99)),
    ] {
        assert_eq!(play(&head).await.served.len(), 2, "{what}");
    }
}

#[tokio::test]
async fn control_a_clear_request_is_served_and_so_is_the_next() {
    for (what, head, body) in CLEAR {
        let outcome = play(&post(head)).await;
        let served = [("/first", body), ("/smuggled", "")]
            .map(|(path, body)| (path.to_owned(), Some(body.to_owned())));
        assert_eq!(outcome.served, served, "{what}");
        assert_eq!(outcome.answer.matches("HTTP/1.1 200").count(), 2, "{what}");
    }
    for (what, whole) in [
        (
            "an old request",
            "POST /first HTTP/1.0\r\nconnection: keep-alive\r\n\r\n",
        ),
        (
            "a whole URI",
            "POST http://other/first HTTP/1.1\r\nhost: test\r\n\r\n",
        ),
        ("a host without a name", "POST /first HTTP/1.1\r\nhost:\r\n\r\n"),
        (
            "empty lines in front",
            "\r\n\r\nPOST /first HTTP/1.1\r\nhost: test\r\n\r\n",
        ),
        ("bare line feeds", "POST /first HTTP/1.1\nhost: test\n\n"),
    ] {
        assert_eq!(play(whole).await.served.len(), 2, "{what}");
    }
}
