//! Requests about whose end two servers could be of two minds (request smuggling): the refusals are the engine's, asserted
//! through our loop.

use bequest_http::server::{RequestBody, service_fn};
use bytes::Bytes;
use http::Request;
use tokio::io::AsyncWriteExt;

use super::common::{Http1, TestServer, full};

/// What a server of HTTP/1 must not be in two minds about: each ends in a `GET /smuggled` that some would take for the next
/// request and others for a part of this one.
const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nhost: test\r\n\r\n";

/// Requests that are refused with 400, and the connection closed.
const REFUSED: [(&str, &str); 13] = [
    (
        "two lengths",
        "content-length: 5\r\ncontent-length: 6\r\n\r\nhello",
    ),
    ("a list of lengths", "content-length: 5, 6\r\n\r\nhello"),
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
        "an unknown coding",
        "transfer-encoding: xchunked\r\n\r\n0\r\n\r\n",
    ),
    ("a folded line", "x: a\r\n b\r\ncontent-length: 0\r\n\r\n"),
    (
        "a folded coding",
        "transfer-encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    ),
    ("a space before the colon", "content-length : 5\r\n\r\nhello"),
    ("a zero byte in a value", "x: a\0b\r\n\r\n"),
    ("a carriage return in a value", "x: a\rb\r\n\r\n"),
];

/// A server whose handlers read their body, and the paths that it has served.
async fn smuggled_to(head: &str) -> (String, Vec<String>) {
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let service = service_fn(move |request: Request<RequestBody>| {
        let tell = tell.clone();
        async move {
            tell.send(request.uri().path().to_owned())
                .expect("the test listens");
            let read = http_body_util::BodyExt::collect(request.into_body()).await;
            full(Bytes::from(format!(
                "{:?}",
                read.map(|body| body.to_bytes()).ok()
            )))
        }
    });
    let server = TestServer::start(service).await;
    let mut client = Http1::connect(server.addr).await;
    client
        .send(&format!("POST /first HTTP/1.1\r\nhost: test\r\n{head}{SMUGGLED}"))
        .await;
    client.stream.shutdown().await.expect("an open socket");
    let answer = client.rest().await;
    server.stop().await;
    let served = std::iter::from_fn(|| told.try_recv().ok()).collect();
    (answer, served)
}

#[tokio::test]
async fn ambiguous_requests_are_refused_and_the_connection_closed() {
    for (what, head) in REFUSED {
        let (answer, served) = smuggled_to(head).await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{what}: {answer}");
        assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{what}: {answer}");
        assert_eq!(served, [""; 0], "{what}");
    }
}

#[tokio::test]
async fn control_a_clear_request_is_served_and_so_is_the_next() {
    let (answer, served) = smuggled_to("content-length: 5\r\n\r\nhello").await;
    assert_eq!(served, ["/first", "/smuggled"]);
    assert_eq!(answer.matches("HTTP/1.1 200").count(), 2);
}
