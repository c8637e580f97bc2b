//! Clients that flood: every flood ends by a limit or by the engine's defence, a good client is served meanwhile, and no
//! context, handler or timer is left of it afterwards.
//!
//! Half a header, a byte a second and a client that never reads are in `limits.rs` and `slow.rs`.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bequest_http::server::{Disconnect, Limits, RequestBody, Server, service_fn};
use bytes::Bytes;
use http::Request;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::common::http2_bytes;
use super::common::{Http1, RawHttp2, TestServer, full, guard, until};

const SECOND: Duration = Duration::from_secs(1);

/// The most handlers that linger.
const LINGERING: usize = 64;

/// The most handlers that there may be: hyper's limit on the streams of a connection, once more for the connection before,
/// whose end may not have been seen, and ours on those that linger.
const CAP: usize = 200 + 200 + LINGERING;

/// Handlers that are alive now, and the most there ever were.
#[derive(Clone, Default)]
struct Gauge {
    now: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
}

/// Lowers the gauge when its handler goes.
struct Alive(Gauge);

impl Gauge {
    fn raise(&self) -> Alive {
        let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(now, Ordering::SeqCst);
        Alive(self.clone())
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.now.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Limits that pass within the test.
fn limits() -> Limits {
    Limits {
        header: SECOND,
        idle: SECOND,
        request: SECOND,
        write_stall: SECOND,
        lingering: LINGERING,
        ..Limits::default()
    }
}

/// A server whose handlers wait, but for those of `/good`, flooded by `attack`; then nothing is left of it.
async fn flooded<A>(attack: impl FnOnce(std::net::SocketAddr) -> A) -> Gauge
where
    A: Future<Output = ()> + Send + 'static,
{
    let gauge = Gauge::default();
    let service = service_fn({
        let gauge = gauge.clone();
        move |request: Request<RequestBody>| {
            let gauge = gauge.clone();
            async move {
                if request.uri().path() != "/good" {
                    let _alive = gauge.raise();
                    std::future::pending::<()>().await;
                }
                full("good")
            }
        }
    });
    let leak = bequest_test::Leak::watch();
    let builder = Server::builder()
        .limits(limits())
        .disconnect(Disconnect::Grace(SECOND / 4));
    let server = TestServer::with(builder, leak.context().clone(), service).await;
    let attack = tokio::spawn(attack(server.addr));
    while !attack.is_finished() {
        let mut good = Http1::connect(server.addr).await;
        good.request("GET", "/good").await;
        assert_eq!(good.answer().await.body, "good");
    }
    attack.await.expect("the attack meets its end");
    until("all to be over", || {
        let now = server.statistics.snapshot();
        now.connections + now.requests + now.in_grace + gauge.now.load(Ordering::SeqCst) == 0
    })
    .await;
    server.stop().await;
    leak.assert_none_within(Duration::from_secs(20));
    gauge
}

/// Writes the same bytes until the server has had enough.
async fn repeat(stream: &mut TcpStream, bytes: &[u8]) {
    let batch = bytes.repeat(64);
    guard("the server to have had enough", async {
        while stream.write_all(&batch).await.is_ok() {}
    })
    .await;
}

/// Opens a connection of HTTP/2, sends `opening`, and then `frame` until the server has had enough.
async fn flood(addr: std::net::SocketAddr, opening: Vec<u8>, frame: Vec<u8>) {
    let mut stream = RawHttp2::connect(addr).await.into_stream();
    stream.write_all(&opening).await.expect("an open connection");
    repeat(&mut stream, &frame).await;
}

/// Opens streams and resets them, at once or once their handlers have begun, until the engine has had enough.
async fn open_and_reset(addr: std::net::SocketAddr, at_once: bool, until: Instant) {
    let mut client = RawHttp2::connect(addr).await;
    let mut next = 1;
    while Instant::now() < until {
        let ids: Vec<u32> = (0..20).map(|nth| next + 2 * nth).collect();
        next += 40;
        let opening: Vec<u8> = ids
            .iter()
            .flat_map(|id| http2_bytes::get(*id, "/flood"))
            .collect();
        let resets: Vec<u8> = ids.iter().flat_map(|id| http2_bytes::reset(*id)).collect();
        if !client.try_send(&opening).await || !(at_once || client.is_answered().await) {
            return;
        }
        if !client.try_send(&resets).await {
            return;
        }
    }
}

#[tokio::test]
async fn s18_rapid_resets_for_some_seconds_never_hold_more_than_the_cap() {
    let gauge = flooded(|addr| async move {
        let until = Instant::now() + 3 * SECOND;
        let mut at_once = false;
        while Instant::now() < until {
            open_and_reset(addr, at_once, until).await;
            at_once = !at_once;
        }
    })
    .await;
    let most = gauge.most.load(Ordering::SeqCst);
    assert!(most > 0, "some handlers began");
    assert!(most <= CAP, "{most} handlers at once");
}

#[tokio::test]
async fn a_header_block_without_end_is_refused() {
    flooded(|addr| {
        let opening = http2_bytes::frame(RawHttp2::HEADERS, 0, 1, &super::common::header_block("/flood"));
        // A literal without indexing, as long as a frame may be by default.
        let field = [&[0x00, 0x01, b'x', 0x7f, 0x81, 0x7e][..], &[b'y'; 16_256]].concat();
        flood(addr, opening, http2_bytes::frame(9, 0, 1, &field))
    })
    .await;
}

#[tokio::test]
async fn empty_data_without_end_is_refused_or_limited() {
    flooded(|addr| {
        let opening = http2_bytes::frame(
            RawHttp2::HEADERS,
            RawHttp2::END_HEADERS,
            1,
            &super::common::header_block("/flood"),
        );
        flood(addr, opening, http2_bytes::frame(0, 0, 1, &[]))
    })
    .await;
}

#[tokio::test]
async fn pings_from_a_client_that_does_not_read_are_limited() {
    flooded(|addr| {
        flood(
            addr,
            Vec::new(),
            http2_bytes::frame(RawHttp2::PING, 0, 0, b"flooding"),
        )
    })
    .await;
}

#[tokio::test]
async fn settings_from_a_client_that_does_not_read_are_limited() {
    flooded(|addr| {
        flood(
            addr,
            Vec::new(),
            http2_bytes::frame(RawHttp2::SETTINGS, 0, 0, &[]),
        )
    })
    .await;
}

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
