//! Clients that are there and slow, and clients that are not there and do not say so: each limit with its own reason, on a
//! clock that the test moves, and its control without the limit.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use bequest::{Context, Reason};
use bequest_http::server::{BoxError, Limits, PeerState, RequestBody, Server, service_fn};
use bequest_test::proxy::{Faults, Proxy};
use bytes::Bytes;
use http::{Method, Request, Response};
use http_body::Frame;
use http_body_util::BodyExt;
use tokio::sync::mpsc;

use super::common::{
    Arrivals, Http1, Http2, RawHttp2, TestBody, TestClock, TestServer, full, guard, header_block,
    http2_bytes, probe, until,
};

const STEP: Duration = Duration::from_millis(500);
const SECOND: Duration = Duration::from_secs(1);

/// No limit but those that a test sets.
fn unlimited() -> Limits {
    Limits {
        header: Duration::MAX,
        idle: Duration::MAX,
        request: Duration::MAX,
        body_idle: Duration::MAX,
        write_stall: Duration::MAX,
        unreachable: Duration::MAX,
        ..Limits::default()
    }
}

/// A body that always has more.
struct Endless;

impl http_body::Body for Endless {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _cx: &mut TaskContext<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&[b'x'; 16 * 1024])))))
    }
}

fn endless() -> Response<TestBody> {
    Response::new(
        Endless
            .map_err(|never| -> BoxError { match never {} })
            .boxed_unsync(),
    )
}

/// What handlers tell of the bodies that they have read.
type Told = mpsc::UnboundedReceiver<(Context, Result<usize, String>)>;

/// A server whose handlers read their body and tell the test how that ended; then they wait for the end of their context.
async fn reader(clock: &TestClock, limits: Limits) -> (TestServer, Told) {
    let (tell, told) = mpsc::unbounded_channel();
    let service = service_fn(move |request: Request<RequestBody>| {
        let tell = tell.clone();
        async move {
            let ctx = request.extensions().get::<Context>().expect("a context").clone();
            let read = request.into_body().collect().await;
            let read = read
                .map(|body| body.to_bytes().len())
                .map_err(|error| error.to_string());
            // A test that has ended hears nothing any more.
            let _ = tell.send((ctx.clone(), read));
            match ctx.err() {
                Some(_) => std::future::pending().await,
                None => full("read"),
            }
        }
    });
    let builder = Server::builder().limits(limits);
    (TestServer::with(builder, clock.context(), service).await, told)
}

#[tokio::test]
async fn a_body_that_stops_is_cut_at_the_body_idle_limit_on_http1() {
    let clock = TestClock::new();
    let limits = Limits {
        body_idle: 10 * SECOND,
        ..unlimited()
    };
    let (_server, mut told) = reader(&clock, limits).await;
    let mut client = Http1::connect(_server.addr).await;
    client
        .send("POST / HTTP/1.1\r\nhost: test\r\ncontent-length: 10\r\n\r\n12345")
        .await;
    let (told, waited) = clock.step_until(STEP, "the limit", told.recv()).await;
    let (ctx, read) = told.expect("a handler");
    assert_eq!(ctx.err().expect("ended").reason(), Reason::Limit("body idle"));
    assert!(read.expect_err("cut").contains("body idle limit passed"));
    assert!(waited >= 10 * SECOND);
    let (answer, _) = clock.step_until(STEP, "the answer", client.answer()).await;
    assert_eq!(answer.status, 408);
}

#[tokio::test]
async fn a_body_that_stops_is_cut_at_the_body_idle_limit_on_http2() {
    let clock = TestClock::new();
    let limits = Limits {
        body_idle: 10 * SECOND,
        ..unlimited()
    };
    let (server, mut told) = reader(&clock, limits).await;
    let client = Http2::connect(server.addr).await;
    let mut stream = client.begin(Method::POST, "/", false).await;
    stream
        .body
        .send_data(Bytes::from_static(b"12345"), false)
        .expect("a window");
    let (told, waited) = clock.step_until(STEP, "the limit", told.recv()).await;
    assert_eq!(
        told.expect("a handler").0.err().expect("ended").reason(),
        Reason::Limit("body idle")
    );
    assert!(waited >= 10 * SECOND);
    let (answer, _) = clock.step_until(STEP, "the answer", stream.answer()).await;
    assert_eq!(answer.expect("an answer").0, 408);
}

#[tokio::test]
async fn control_without_the_limit_a_body_that_stops_is_waited_for() {
    let clock = TestClock::new();
    let (server, mut told) = reader(&clock, unlimited()).await;
    let mut client = Http1::connect(server.addr).await;
    client
        .send("POST / HTTP/1.1\r\nhost: test\r\ncontent-length: 10\r\n\r\n12345")
        .await;
    until("the handler", || server.statistics.snapshot().requests == 1).await;
    clock.advance(3600 * SECOND);
    client.send("67890").await;
    assert_eq!(guard("the body", told.recv()).await.expect("a handler").1, Ok(10));
    assert_eq!(client.answer().await.status, 200);
}

async fn trickle_http1(limits: Limits) -> (Option<Reason>, usize) {
    let clock = TestClock::new();
    let (server, told) = reader(&clock, limits).await;
    let mut client = Http1::connect(server.addr).await;
    client
        .send("POST / HTTP/1.1\r\nhost: test\r\ncontent-length: 60\r\n\r\n")
        .await;
    trickle(&clock, told, async |_| client.send("x").await).await
}

async fn trickle_http2(limits: Limits) -> (Option<Reason>, usize) {
    let clock = TestClock::new();
    let (server, told) = reader(&clock, limits).await;
    let client = Http2::connect(server.addr).await;
    let mut stream = client.begin(Method::POST, "/", false).await;
    let ended = trickle(&clock, told, async |sent| {
        let byte = Bytes::from_static(b"x");
        stream.body.send_data(byte, sent == 60).expect("a window");
    });
    ended.await
}

/// Sends a byte each second until the handler is done with the body; `send` is told which one it is.
async fn trickle(
    clock: &TestClock,
    mut told: Told,
    mut send: impl AsyncFnMut(usize),
) -> (Option<Reason>, usize) {
    let mut sent = 0;
    let (ctx, _) = guard("the handler to be done", async {
        loop {
            // The handler waits by then: the time that passes is time waited for the client.
            tokio::select! {
                biased;
                told = told.recv() => return told.expect("a handler"),
                () = tokio::time::sleep(Duration::from_millis(5)) => {}
            }
            clock.advance(SECOND);
            sent += 1;
            send(sent).await;
        }
    })
    .await;
    let reason = ctx.err().map(|end| end.reason());
    (reason.filter(|reason| reason.is_timeout()), sent)
}

#[tokio::test]
async fn a_body_that_trickles_is_cut_at_the_body_rate() {
    let limits = Limits {
        body_idle: 10 * SECOND,
        body_rate: 500,
        ..unlimited()
    };
    for (reason, sent) in [trickle_http1(limits.clone()).await, trickle_http2(limits).await] {
        assert_eq!(reason, Some(Reason::Limit("body rate")));
        assert!(
            (10..60).contains(&sent),
            "a look each ten seconds of waiting, not {sent}"
        );
    }
}

#[tokio::test]
async fn control_without_a_rate_a_body_may_trickle() {
    let limits = Limits {
        body_idle: 10 * SECOND,
        body_rate: 0,
        ..unlimited()
    };
    assert_eq!(trickle_http1(limits.clone()).await.0, None);
    assert_eq!(trickle_http2(limits).await.0, None);
}

/// A server that does not wait for long until a client takes something, and its requests.
async fn impatient(clock: &TestClock) -> (TestServer, Arrivals) {
    let (service, arrivals) = probe();
    let builder = Server::builder().limits(Limits {
        write_stall: 30 * SECOND,
        ..unlimited()
    });
    let server = TestServer::with(builder, clock.context(), service).await;
    (server, arrivals)
}

#[tokio::test]
async fn a_client_of_http1_that_never_reads_is_closed_at_the_write_stall() {
    let clock = TestClock::new();
    let (mut server, mut arrivals) = impatient(&clock).await;
    let mut client = Http1::connect(server.addr).await;
    client.request("GET", "/").await;
    let mut arrival = arrivals.next().await;
    arrival.answer(endless());
    let (end, waited) = clock.step_until(STEP, "the limit", server.events.closed()).await;
    assert_eq!(end.reason(), Reason::Limit("write stall"));
    assert!(waited >= 30 * SECOND);
    assert_eq!(arrival.end().await.reason(), Reason::Limit("write stall"));
}

#[tokio::test]
async fn a_client_of_http2_that_never_reads_is_closed_at_the_write_stall() {
    let clock = TestClock::new();
    let (mut server, mut arrivals) = impatient(&clock).await;
    let mut client = RawHttp2::connect(server.addr).await;
    // Windows as large as can be: what keeps the server from writing is the socket.
    let (largest, more) = (0x7fff_ffff_u32, 0x7fff_ffff_u32 - 0xffff);
    let window = [&[0, 4][..], &largest.to_be_bytes()].concat();
    client.frame(RawHttp2::SETTINGS, 0, 0, &window).await;
    client
        .frame(RawHttp2::WINDOW_UPDATE, 0, 0, &more.to_be_bytes())
        .await;
    client.get(1, "/").await;
    let mut arrival = arrivals.next().await;
    arrival.answer(endless());
    let (end, waited) = clock.step_until(STEP, "the limit", server.events.closed()).await;
    assert_eq!(end.reason(), Reason::Limit("write stall"));
    assert!(waited >= 30 * SECOND);
    assert_eq!(arrival.end().await.reason(), Reason::Limit("write stall"));
}

#[tokio::test]
async fn a_stream_of_http2_whose_window_stays_closed_is_reset_and_the_connection_stays() {
    let clock = TestClock::new();
    let (server, mut arrivals) = impatient(&clock).await;
    let client = Http2::connect(server.addr).await;
    let stalled = client.request("/stalled").await;
    let mut arrival = arrivals.next().await;
    arrival.answer(endless());
    let (end, waited) = clock.step_until(STEP, "the limit", arrival.end()).await;
    assert_eq!(end.reason(), Reason::Limit("write stall"));
    assert!(waited >= 30 * SECOND);
    until("the request to be over", || {
        server.statistics.snapshot().requests == 0
    })
    .await;
    let other = client.request("/other").await;
    arrivals.next().await.answer(Response::new(
        http_body_util::Empty::new()
            .map_err(|never| match never {})
            .boxed_unsync(),
    ));
    assert_eq!(other.answer().await.expect("an answer").0, 200);
    drop(stalled);
}

#[tokio::test]
async fn such_a_stream_is_reset_though_somebody_keeps_the_body_of_its_request() {
    let clock = TestClock::new();
    let (held, holds) = mpsc::unbounded_channel();
    let service = service_fn(move |request: Request<RequestBody>| {
        held.send(request).expect("a test");
        async { endless() }
    });
    let builder = Server::builder().limits(Limits {
        write_stall: 30 * SECOND,
        ..unlimited()
    });
    let server = TestServer::with(builder, clock.context(), service).await;
    let client = Http2::connect(server.addr).await;
    let stalled = client.begin(Method::POST, "/stalled", false).await;
    let mut upload = stalled.body;
    let reset = std::future::poll_fn(|cx| upload.poll_reset(cx));
    let (reset, _) = clock.step_until(STEP, "the limit", reset).await;
    assert_eq!(reset.expect("a reset"), h2::Reason::CANCEL);
    assert_eq!(holds.len(), 1);
}

#[tokio::test]
async fn control_without_the_limit_a_client_that_never_reads_is_kept() {
    let clock = TestClock::new();
    let (service, mut arrivals) = probe();
    let server = TestServer::with(Server::builder().limits(unlimited()), clock.context(), service).await;
    let mut one = Http1::connect(server.addr).await;
    one.request("GET", "/1").await;
    let two = Http2::connect(server.addr).await;
    let _stream = two.request("/2").await;
    let mut waiting = arrivals.take(2).await;
    for arrival in &mut waiting {
        arrival.answer(endless());
    }
    clock.advance(3600 * SECOND);
    let mut other = Http1::connect(server.addr).await;
    other.request("GET", "/other").await;
    arrivals.next().await.answer(full("served"));
    assert_eq!(other.answer().await.body, "served");
    assert!(waiting.iter().all(|arrival| !arrival.ctx.is_done()));
}

/// A request of HTTP/2 behind a network that begins to swallow everything once the handler runs.
async fn swallowed(clock: &TestClock, limits: Limits) -> (TestServer, Proxy, Http2, super::common::Arrival) {
    let (service, mut arrivals) = probe();
    let server = TestServer::with(Server::builder().limits(limits), clock.context(), service).await;
    let proxy = Proxy::start(server.addr).await.expect("a free port");
    let client = Http2::connect(proxy.address()).await;
    let _stream = client.request("/").await;
    let arrival = arrivals.next().await;
    proxy.both(Faults::none().black_hole());
    std::mem::drop(arrivals);
    (server, proxy, client, arrival)
}

#[tokio::test]
async fn a_peer_of_http2_that_falls_silent_is_unreachable() {
    let clock = TestClock::new();
    let limits = Limits {
        unreachable: 30 * SECOND,
        ..unlimited()
    };
    let (mut server, _proxy, _client, arrival) = swallowed(&clock, limits).await;
    let (end, waited) = clock.step_until(STEP, "the limit", arrival.end()).await;
    assert_eq!(end.reason(), Reason::Unreachable);
    assert!(
        waited >= 30 * SECOND && waited <= 30 * SECOND + 2 * STEP,
        "{waited:?}"
    );
    assert_eq!(arrival.peer.state(), PeerState::Unreachable);
    assert_eq!(server.events.closed().await.reason(), Reason::Unreachable);
}

#[tokio::test]
async fn control_without_the_limit_nobody_finds_out() {
    let clock = TestClock::new();
    let (server, _proxy, _client, arrival) = swallowed(&clock, unlimited()).await;
    clock.advance(3600 * SECOND);
    let mut other = Http1::connect(server.addr).await;
    other.send("nonsense\r\n\r\n").await;
    assert_eq!(other.head().await.status, 400);
    assert!(!arrival.ctx.is_done());
}

/// A client of HTTP/1 whose system answers is there, even if it reads nothing: its window is asked for, and it says that it is
/// closed. That has a limit of its own, which is longer here. The clock is the system's.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_client_of_http1_that_reads_nothing_is_not_unreachable() {
    let (service, mut arrivals) = probe();
    let limits = Limits {
        unreachable: SECOND,
        ..unlimited()
    };
    let builder = Server::builder().limits(limits);
    let server = TestServer::with(builder, Context::background(), service).await;
    let proxy = Proxy::start(server.addr).await.expect("a free port");
    let mut client = Http1::connect(proxy.address()).await;
    client.request("GET", "/").await;
    let mut arrival = arrivals.next().await;
    proxy.both(Faults::none().black_hole());
    arrival.answer(endless());
    // It begins later, and for this one its time is over then.
    let ended = what_the_system_alone_says_of_one_that_reads_nothing(SECOND).await;
    assert_eq!(ended.kind(), std::io::ErrorKind::TimedOut);
    assert!(!arrival.ctx.is_done(), "{:?}", arrival.ctx.err());
    drop(client);
}

/// The control: the same client, behind the same network, of a server that leaves it to the system (`TCP_USER_TIMEOUT`).
#[cfg(target_os = "linux")]
async fn what_the_system_alone_says_of_one_that_reads_nothing(limit: Duration) -> std::io::Error {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a free port");
    let proxy = Proxy::start(listener.local_addr().expect("an address"))
        .await
        .expect("a free port");
    proxy.both(Faults::none().black_hole());
    let _client = Http1::connect(proxy.address()).await;
    let (stream, _) = guard("a client", listener.accept()).await.expect("a listener");
    socket2::SockRef::from(&stream)
        .set_tcp_user_timeout(Some(limit))
        .expect("an option");
    let fill = async {
        loop {
            stream.writable().await?;
            match stream.try_write(&[b'x'; 16 * 1024]) {
                Err(error) if error.kind() != std::io::ErrorKind::WouldBlock => {
                    return std::io::Result::Err(error);
                }
                _ => {}
            }
        }
    };
    let ended: std::io::Result<()> = guard("the end", fill).await;
    ended.expect_err("it ends with an error")
}

/// Lets time pass until the server asks whether the client is there.
async fn question(clock: &TestClock, client: &mut RawHttp2) -> Vec<u8> {
    let asked = async {
        loop {
            let frame = client.next().await.expect("an open connection");
            if frame.kind == RawHttp2::PING && frame.flags & RawHttp2::ACK == 0 {
                return frame.payload;
            }
        }
    };
    clock.step_until(STEP, "a question", asked).await.0
}

#[tokio::test]
async fn a_question_and_its_answer_leave_the_request_and_the_response_whole() {
    let clock = TestClock::new();
    let echo = service_fn(async |request: Request<RequestBody>| {
        let body = request
            .into_body()
            .collect()
            .await
            .expect("a whole body")
            .to_bytes();
        Response::new(http_body_util::Full::new(body))
    });
    let limits = Limits {
        unreachable: 30 * SECOND,
        ..unlimited()
    };
    let server = TestServer::with(Server::builder().limits(limits), clock.context(), echo).await;
    let mut client = RawHttp2::connect(server.addr).await;
    client
        .frame(RawHttp2::HEADERS, RawHttp2::END_HEADERS, 1, &header_block("/"))
        .await;
    let asked = question(&clock, &mut client).await;
    // The answer amid the body, in two pieces, and one that looks like it within the body.
    let answer = http2_bytes::frame(RawHttp2::PING, RawHttp2::ACK, 0, &asked);
    let one = http2_bytes::frame(RawHttp2::DATA, 0, 1, b"one ");
    let two = http2_bytes::frame(RawHttp2::DATA, RawHttp2::END_STREAM, 1, &answer);
    let (half, rest) = answer.split_at(11);
    assert!(client.try_send(&[&one, half].concat()).await);
    assert!(client.try_send(&[rest, &two].concat()).await);
    let echoed = loop {
        let frame = client.next().await.expect("an open connection");
        if frame.kind == RawHttp2::DATA {
            break frame.payload;
        }
    };
    assert_eq!(echoed, [b"one ", &answer[..]].concat());
    assert!(client.is_answered().await, "and the connection goes on");
}

#[tokio::test]
async fn a_peer_of_http2_that_answers_its_pings_is_there() {
    let clock = TestClock::new();
    let (service, mut arrivals) = probe();
    let limits = Limits {
        unreachable: 30 * SECOND,
        ..unlimited()
    };
    let server = TestServer::with(Server::builder().limits(limits), clock.context(), service).await;
    let mut client = RawHttp2::connect(server.addr).await;
    client.get(1, "/").await;
    let arrival = arrivals.next().await;
    while clock.elapsed() < 120 * SECOND {
        let asked = question(&clock, &mut client).await;
        client.frame(RawHttp2::PING, RawHttp2::ACK, 0, &asked).await;
        // Once this is answered the server has read what came before it.
        client.frames_until_ping().await;
    }
    assert!(!arrival.ctx.is_done());
}

/// As one that was stopped, or whose machine was, and the answers of many clients have come meanwhile.
#[tokio::test]
async fn the_time_in_which_the_server_stood_still_is_not_that_of_its_peers() {
    let clock = TestClock::new();
    let (service, mut arrivals) = probe();
    let limits = Limits {
        unreachable: 30 * SECOND,
        ..unlimited()
    };
    let mut server = TestServer::with(Server::builder().limits(limits), clock.context(), service).await;
    let mut client = RawHttp2::connect(server.addr).await;
    client.get(1, "/").await;
    let arrival = arrivals.next().await;
    let asked = question(&clock, &mut client).await;
    clock.advance(3600 * SECOND);
    client.frame(RawHttp2::PING, RawHttp2::ACK, 0, &asked).await;
    client.frames_until_ping().await;
    assert!(!arrival.ctx.is_done());
    question(&clock, &mut client).await;
    let (end, waited) = clock.step_until(STEP, "the limit", server.events.closed()).await;
    assert_eq!(
        end.reason(),
        Reason::Unreachable,
        "who says nothing after that is"
    );
    assert!(waited <= 30 * SECOND, "{waited:?}");
}
