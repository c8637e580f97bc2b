//! Clients that flood: every flood ends by a limit or by the engine's defence, a good client is served meanwhile, and no
//! context, handler or timer is left of it afterwards.
//!
//! Half a header, a byte a second and a client that never reads are in `limits.rs` and `slow.rs`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bequest_http::server::{Disconnect, Limits, RequestBody, Server, service_fn};
use http::Request;
use http_body_util::BodyExt;
use tokio::io::AsyncWriteExt;

use super::common::{Http1, RawHttp2, TestServer, full, guard, header_block, http2_bytes, until};

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

impl Gauge {
    fn most(&self) -> usize {
        self.most.load(Ordering::SeqCst)
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
        // The caps are to hold by themselves; `resets.rs` is about this limit.
        resets: u32::MAX,
        lingering_per_connection: LINGERING_HERE,
        lingering: LINGERING,
        ..Limits::default()
    }
}

/// A server whose handlers wait, but for those of `/good`, flooded by `attack`; then nothing is left of it.
async fn flooded<A>(gauge: &Gauge, limits: Limits, attack: impl FnOnce(SocketAddr) -> A) -> A::Output
where
    A: Future<Output: Send> + Send + 'static,
{
    let service = service_fn({
        let gauge = gauge.clone();
        move |request: Request<RequestBody>| {
            let gauge = gauge.clone();
            async move {
                if request.uri().path() == "/good" {
                    return full("good");
                }
                let _alive = gauge.raise();
                if request.uri().path() == "/reads" {
                    // However it ends, it is not answered.
                    let _ = request.into_body().collect().await;
                }
                std::future::pending().await
            }
        }
    });
    let leak = bequest_test::Leak::watch();
    let builder = Server::builder()
        .limits(limits)
        .disconnect(Disconnect::Grace(SECOND / 4));
    let server = TestServer::with(builder, leak.context().clone(), service).await;
    let attack = tokio::spawn(attack(server.addr));
    while !attack.is_finished() {
        let mut good = Http1::connect(server.addr).await;
        good.request("GET", "/good").await;
        assert_eq!(good.answer().await.body, "good");
    }
    let outcome = attack.await.expect("the attack meets its end");
    until("all to be over", || {
        let now = server.statistics.snapshot();
        now.connections + now.requests + now.in_grace + gauge.now.load(Ordering::SeqCst) == 0
    })
    .await;
    server.stop().await;
    leak.assert_none_within(Duration::from_secs(20));
    outcome
}

/// Floods a server by one connection of HTTP/2: sends `opening`, and then `frame` until the server has had enough.
async fn play(opening: Vec<u8>, frame: Vec<u8>, reads: bool) {
    flooded(&Gauge::default(), limits(), |addr| {
        flood(addr, opening, frame, reads)
    })
    .await;
}

async fn flood(addr: SocketAddr, opening: Vec<u8>, frame: Vec<u8>, reads: bool) {
    let (mut read, mut write) = RawHttp2::connect(addr).await.into_stream().into_split();
    write.write_all(&opening).await.expect("an open connection");
    let reading = async {
        if reads {
            // How it ends is told by the writes as well.
            let _ = tokio::io::copy(&mut read, &mut tokio::io::sink()).await;
        }
    };
    let batch = frame.repeat(64);
    let writing = async { while write.write_all(&batch).await.is_ok() {} };
    guard("the server to have had enough", async {
        tokio::join!(reading, writing)
    })
    .await;
}

/// On one connection: fills it with streams whose handlers begin, and then ends them all and opens as many in one breath, again
/// and again. The engine has nothing against that, as nothing is ended that was not begun.
async fn end_what_has_begun(
    addr: SocketAddr,
    end: fn(u32) -> Vec<u8>,
    mut go_on: impl FnMut() -> bool,
) -> usize {
    let mut client = RawHttp2::connect(addr).await;
    let (mut rounds, mut next, mut open) = (0, 1, Vec::new());
    while go_on() {
        let ids: Vec<u32> = (0..STREAMS).map(|nth| next + 2 * nth).collect();
        next += 2 * STREAMS;
        let ending = open.iter().flat_map(|id| end(*id));
        let opening = ids.iter().flat_map(|id| http2_bytes::get(*id, "/flood"));
        let bytes: Vec<u8> = ending.chain(opening).collect();
        if !client.try_send(&bytes).await || !client.is_answered().await {
            break;
        }
        (rounds, open) = (rounds + 1, ids);
    }
    rounds
}

/// Has the server reset a stream: its window would be larger than one may be.
fn open_too_far(id: u32) -> Vec<u8> {
    http2_bytes::frame(RawHttp2::WINDOW_UPDATE, 0, id, &0x7fff_ffff_u32.to_be_bytes())
}

/// Opens streams and resets them, at once or once their handlers have begun, until the engine has had enough.
async fn open_and_reset(addr: SocketAddr, at_once: bool, until: Instant) {
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
    let gauge = Gauge::default();
    flooded(&gauge, limits(), |addr| async move {
        let until = Instant::now() + 3 * SECOND;
        let mut at_once = false;
        while Instant::now() < until {
            open_and_reset(addr, at_once, until).await;
            at_once = !at_once;
        }
    })
    .await;
    let most = gauge.most();
    assert!(most > 0, "some handlers began");
    assert!(most <= CAP, "{most} handlers at once");
}

#[tokio::test]
async fn s18_one_connection_that_resets_what_has_begun_for_five_seconds_never_holds_more_than_the_cap() {
    resets_what_has_begun(0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s18_nor_on_several_threads() {
    // Each of them may be dropping a handler that counts no more.
    resets_what_has_begun(2).await;
}

async fn resets_what_has_begun(threads: usize) {
    let gauge = Gauge::default();
    let rounds = flooded(&gauge, limits(), |addr| {
        let until = Instant::now() + 5 * SECOND;
        end_what_has_begun(addr, http2_bytes::reset, move || Instant::now() < until)
    })
    .await;
    let most = gauge.most();
    assert!(
        rounds > 20 && most > 200,
        "the engine lets it: {rounds} rounds, {most} handlers"
    );
    assert!(
        most <= STREAMS as usize + LINGERING_HERE + threads,
        "{most} handlers at once"
    );
}

#[tokio::test]
async fn s18_streams_that_the_server_is_made_to_reset_never_hold_more_than_the_cap_either() {
    let gauge = Gauge::default();
    let rounds = flooded(&gauge, limits(), |addr| {
        let until = Instant::now() + 5 * SECOND;
        end_what_has_begun(addr, open_too_far, move || Instant::now() < until)
    })
    .await;
    let most = gauge.most();
    assert!(
        rounds > 1 && most > 200,
        "the engine lets it for a while: {rounds} rounds, {most} handlers"
    );
    assert!(
        most <= STREAMS as usize + LINGERING_HERE,
        "{most} handlers at once"
    );
}

#[tokio::test]
async fn s18_control_without_the_caps_the_same_client_piles_handlers_up() {
    let gauge = Gauge::default();
    let uncapped = Limits {
        lingering_per_connection: usize::MAX,
        lingering: usize::MAX,
        ..limits()
    };
    let seen = gauge.clone();
    flooded(&gauge, uncapped, |addr| {
        end_what_has_begun(addr, http2_bytes::reset, move || seen.most() <= 2 * CAP)
    })
    .await;
    assert!(gauge.most() > 2 * CAP);
}

#[tokio::test]
async fn a_header_block_without_end_is_refused() {
    // A literal without indexing, as long as a frame may be by default; and nothing at all, again and again.
    let field = [&[0x00, 0x01, b'x', 0x7f, 0x81, 0x7e][..], &[b'y'; 16_256]].concat();
    for block in [field, Vec::new()] {
        let opening = http2_bytes::frame(RawHttp2::HEADERS, 0, 1, &header_block("/flood"));
        play(
            opening,
            http2_bytes::frame(RawHttp2::CONTINUATION, 0, 1, &block),
            false,
        )
        .await;
    }
}

#[tokio::test]
async fn data_of_nothing_or_next_to_nothing_without_end_is_refused_or_limited() {
    for (path, data) in [
        ("/flood", &b""[..]),
        ("/reads", b""),
        ("/flood", b"x"),
        ("/reads", b"x"),
    ] {
        let opening = http2_bytes::frame(RawHttp2::HEADERS, RawHttp2::END_HEADERS, 1, &header_block(path));
        play(opening, http2_bytes::frame(RawHttp2::DATA, 0, 1, data), false).await;
    }
}

#[tokio::test]
async fn pings_are_limited_whether_their_answers_are_read_or_not() {
    let ping = http2_bytes::frame(RawHttp2::PING, 0, 0, b"flooding");
    play(Vec::new(), ping.clone(), false).await;
    play(Vec::new(), ping, true).await;
}

#[tokio::test]
async fn settings_are_limited_whether_their_answers_are_read_or_not() {
    let settings = http2_bytes::frame(RawHttp2::SETTINGS, 0, 0, &[]);
    play(Vec::new(), settings.clone(), false).await;
    play(Vec::new(), settings, true).await;
}

#[tokio::test]
async fn frames_that_nobody_answers_are_limited() {
    let nothing_new = http2_bytes::frame(RawHttp2::PRIORITY, 0, 1, &[0, 0, 0, 0, 16]);
    let wider = http2_bytes::frame(RawHttp2::WINDOW_UPDATE, 0, 0, &1_u32.to_be_bytes());
    let unknown = http2_bytes::frame(0xfe, 0, 0, b"");
    for frame in [nothing_new, wider, unknown] {
        play(Vec::new(), frame, true).await;
    }
}
