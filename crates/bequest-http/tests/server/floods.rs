//! Clients that flood: every flood ends by a limit or by the engine's defence, a good client is served meanwhile, and no
//! context, handler or timer is left of it afterwards.
//!
//! Half a header, a byte a second and a client that never reads are in `limits.rs` and `slow.rs`.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bequest_http::server::{Disconnect, Limits, RequestBody, Server, service_fn};
use http::Request;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::common::http2_bytes;
use super::common::{Http1, RawHttp2, TestServer, full, guard, until};

const SECOND: Duration = Duration::from_secs(1);

/// The most handlers of a connection that linger, and of the server.
const LINGERING_HERE: usize = 32;
const LINGERING: usize = 64;

/// The most streams of a connection at once.
const STREAMS: u32 = 200;

/// The most handlers that there may be while a client comes back: those of a connection, once more for the connection before,
/// whose end may not have been seen, and those that linger of others.
const CAP: usize = 2 * STREAMS as usize + LINGERING;

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
        streams: STREAMS,
        lingering_per_connection: LINGERING_HERE,
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

/// On one connection: fills it with streams whose handlers begin, and then resets them all and opens as many in one breath,
/// again and again. The engine has nothing against it; nothing is reset that was not begun.
async fn reset_what_has_begun(addr: std::net::SocketAddr, until: Instant) -> usize {
    let mut client = RawHttp2::connect(addr).await;
    let (mut rounds, mut next, mut open) = (0, 1, Vec::new());
    while Instant::now() < until {
        let ids: Vec<u32> = (0..STREAMS).map(|nth| next + 2 * nth).collect();
        next += 2 * STREAMS;
        let resets = open.iter().flat_map(|id| http2_bytes::reset(*id));
        let opening = ids.iter().flat_map(|id| http2_bytes::get(*id, "/flood"));
        let bytes: Vec<u8> = resets.chain(opening).collect();
        if !client.try_send(&bytes).await || !client.is_answered().await {
            break;
        }
        (rounds, open) = (rounds + 1, ids);
    }
    rounds
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
async fn s18_one_connection_that_resets_what_has_begun_for_five_seconds_never_holds_more_than_the_cap() {
    let (tell, told) = tokio::sync::oneshot::channel();
    let gauge = flooded(|addr| async move {
        let rounds = reset_what_has_begun(addr, Instant::now() + 5 * SECOND).await;
        tell.send(rounds).expect("the test listens");
    })
    .await;
    let rounds = told.await.expect("the attack says");
    let most = gauge.most.load(Ordering::SeqCst);
    assert!(rounds > 100, "the engine lets it: {rounds} rounds");
    assert!(
        most <= STREAMS as usize + LINGERING_HERE,
        "{most} handlers at once"
    );
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
