//! First byte, header, idle and request limits, on a clock that the test moves.
//!
//! Each comes with its control: the same client without the limit is still served after an hour.

use std::time::Duration;

use bequest::{Kind, Reason, inspect};
use bequest_http::server::{Limits, RequestBody, Server, service_fn};
use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::common::{
    Event, Http1, Http2, RawHttp2, TestClock, TestServer, full, guard, http2_bytes, probe, until,
};

const STEP: Duration = Duration::from_millis(500);
const SECOND: Duration = Duration::from_secs(1);

/// No limit but those that a test sets.
fn unlimited() -> Limits {
    Limits {
        first_byte: Duration::MAX,
        header: Duration::MAX,
        idle: Duration::MAX,
        request: Duration::MAX,
        ..Limits::default()
    }
}

/// A server whose handlers answer at once.
async fn server(clock: &TestClock, limits: Limits) -> TestServer {
    let service = service_fn(|_request: Request<RequestBody>| async { full("hello") });
    TestServer::with(Server::builder().limits(limits), clock.context(), service).await
}

/// Sends `opening`, waits for the connection's end on the clock, and says why and when it came.
async fn ends(limits: Limits, opening: &[u8]) -> (Reason, Duration) {
    let clock = TestClock::new();
    let mut server = server(&clock, limits).await;
    let mut client = Http1::connect(server.addr).await;
    client
        .stream
        .write_all(opening)
        .await
        .expect("the socket takes it");
    let (end, waited) = clock.step_until(STEP, "the limit", server.events.closed()).await;
    assert_eq!(end.kind(), Kind::DeadlineExceeded);
    until("the client to see it", || {
        server.statistics.snapshot().connections == 0
    })
    .await;
    (end.reason(), waited)
}

/// Sends `opening`, lets an hour pass, and then the rest: says what is answered.
async fn control(opening: &str, rest: &str) -> String {
    let clock = TestClock::new();
    let server = server(&clock, unlimited()).await;
    let mut client = Http1::connect(server.addr).await;
    client.send(opening).await;
    until("the connection", || server.statistics.snapshot().connections == 1).await;
    for _ in 0..60 {
        clock.advance(Duration::from_secs(60));
        tokio::task::yield_now().await;
    }
    client.send(rest).await;
    client.answer().await.body
}

#[tokio::test]
async fn a_silent_connection_is_closed_at_the_first_byte_limit() {
    let (reason, waited) = ends(
        Limits {
            first_byte: 5 * SECOND,
            ..unlimited()
        },
        b"",
    )
    .await;
    assert_eq!(reason, Reason::Limit("first byte"));
    assert!(waited >= 5 * SECOND, "{waited:?}");
    assert_eq!(control("", "GET / HTTP/1.1\r\nhost: x\r\n\r\n").await, "hello");
}

#[tokio::test]
async fn half_a_header_is_closed_at_the_header_limit() {
    let (reason, waited) = ends(
        Limits {
            header: 10 * SECOND,
            ..unlimited()
        },
        b"GET / HTTP/1.1\r\nho",
    )
    .await;
    assert_eq!(reason, Reason::Limit("header"));
    assert!(waited >= 10 * SECOND, "{waited:?}");
    assert_eq!(control("GET / HTTP/1.1\r\nho", "st: x\r\n\r\n").await, "hello");
}

#[tokio::test]
async fn half_a_preface_is_closed_at_the_header_limit() {
    let (reason, waited) = ends(
        Limits {
            header: 10 * SECOND,
            ..unlimited()
        },
        b"PRI * HTTP/2.0\r\n",
    )
    .await;
    assert_eq!(reason, Reason::Limit("header"));
    assert!(waited >= 10 * SECOND, "{waited:?}");
}

#[tokio::test]
async fn half_a_header_block_on_http2_is_closed_at_the_header_limit() {
    let mut opening = RawHttp2::PREFACE.to_vec();
    opening.extend_from_slice(&[0, 0, 0, RawHttp2::SETTINGS, 0, 0, 0, 0, 0]);
    // HEADERS without END_HEADERS: the rest of the block never comes.
    opening.extend_from_slice(&[0, 0, 1, RawHttp2::HEADERS, RawHttp2::END_STREAM, 0, 0, 0, 1, 0x82]);
    let (reason, waited) = ends(
        Limits {
            header: 10 * SECOND,
            ..unlimited()
        },
        &opening,
    )
    .await;
    assert_eq!(reason, Reason::Limit("header"));
    assert!(waited >= 10 * SECOND, "{waited:?}");
}

#[tokio::test]
async fn a_header_that_trickles_is_closed_all_the_same() {
    trickles(b"GET / HTTP/1.1\r\nx: ", b"a").await;
}

#[tokio::test]
async fn a_header_block_of_http2_that_trickles_is_closed_all_the_same() {
    let opening = http2_bytes::frame(RawHttp2::SETTINGS, 0, 0, &[]);
    // A frame as long as it may be, whose block comes by and by.
    let headers = http2_bytes::frame(RawHttp2::HEADERS, RawHttp2::END_HEADERS, 1, &[0; 16_384]);
    trickles(&[RawHttp2::PREFACE, &opening, &headers[..9]].concat(), b"a").await;
}

/// Sends `opening`, and then the same bit again and again, until the connection is closed at the header limit.
async fn trickles(opening: &[u8], bit: &[u8]) {
    let clock = TestClock::new();
    let mut server = server(
        &clock,
        Limits {
            header: 10 * SECOND,
            ..unlimited()
        },
    )
    .await;
    let mut client = Http1::connect(server.addr).await;
    client
        .stream
        .write_all(opening)
        .await
        .expect("the socket takes it");
    let mut sent = 0;
    let closed = async {
        loop {
            tokio::select! {
                end = server.events.closed() => return end,
                () = tokio::time::sleep(Duration::from_millis(1)) => {}
            }
            // The last writes may fail: the connection is being closed.
            sent += usize::from(client.stream.write_all(bit).await.is_ok());
        }
    };
    let (end, waited) = clock.step_until(STEP, "the limit", closed).await;
    assert_eq!(end.reason(), Reason::Limit("header"));
    assert!(waited >= 10 * SECOND, "{waited:?}");
    assert!(sent > 0);
}

#[tokio::test]
async fn an_idle_connection_is_closed_at_the_idle_limit() {
    let request = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n";
    let (reason, waited) = ends(
        Limits {
            idle: 60 * SECOND,
            ..unlimited()
        },
        request,
    )
    .await;
    assert_eq!(reason, Reason::Limit("idle"));
    assert!(waited >= 60 * SECOND, "{waited:?}");
}

#[tokio::test]
async fn pings_do_not_keep_an_idle_http2_connection_open() {
    let clock = TestClock::new();
    let mut server = server(
        &clock,
        Limits {
            idle: 60 * SECOND,
            ..unlimited()
        },
    )
    .await;
    let mut client = RawHttp2::connect(server.addr).await;
    let chatter = tokio::spawn(async move { client.ping_until_closed().await });
    let (end, waited) = clock.step_until(STEP, "the limit", server.events.closed()).await;
    assert_eq!(end.reason(), Reason::Limit("idle"));
    assert!(waited >= 60 * SECOND, "{waited:?}");
    assert!(
        guard("the client", chatter).await.expect("no panic") > 0,
        "it did talk"
    );
}

/// When this is over, whoever waits for bytes on this thread's runtime has read what was sent to it before: the runtime looks
/// at its sockets only when it has run what that woke the last time, and a new socket is ready only by such a look.
async fn sockets_are_read() {
    for _ in 0..2 {
        let (mut here, mut there) = tokio::net::UnixStream::pair().expect("a pair");
        here.write_all(b"!").await.expect("room for a byte");
        there.read_exact(&mut [0]).await.expect("a byte");
    }
}

#[tokio::test]
async fn frames_sent_by_halves_do_not_keep_an_idle_http2_connection_open() {
    let clock = TestClock::new();
    let limits = Limits {
        idle: 60 * SECOND,
        header: 10 * SECOND,
        ..unlimited()
    };
    let mut server = server(&clock, limits).await;
    let mut client = RawHttp2::connect(server.addr).await;
    let ping = http2_bytes::frame(RawHttp2::PING, 0, 0, b"are you?");
    let (half, rest) = ping.split_at(12);
    let waits = || inspect::on_clock_of(&clock.context()).armed_deadlines;
    let is_open = || server.statistics.snapshot().connections > 0;
    while clock.elapsed() < 120 * SECOND && client.try_send(half).await {
        // Whenever the limits are looked at, half a frame has been read, and not long ago.
        sockets_are_read().await;
        for _ in 0..4 {
            let before = waits();
            clock.advance(2 * SECOND);
            // Whoever was woken to look waits again, or has closed the connection.
            until("the server to have looked", || waits() >= before || !is_open()).await;
        }
        if !client.try_send(rest).await || !client.is_answered_once().await {
            break;
        }
    }
    let end = server.events.closed().await;
    assert_eq!(end.reason(), Reason::Limit("idle"));
    let open = clock.elapsed();
    assert!(
        open >= 60 * SECOND && open < 90 * SECOND,
        "no longer than for another header: {open:?}"
    );
}

#[tokio::test]
async fn a_busy_connection_is_not_idle() {
    let clock = TestClock::new();
    let (service, mut arrivals) = probe();
    let limits = Limits {
        idle: SECOND,
        header: SECOND,
        ..unlimited()
    };
    let server = TestServer::with(Server::builder().limits(limits), clock.context(), service).await;
    let mut client = Http1::connect(server.addr).await;
    client.request("GET", "/").await;
    let mut arrival = arrivals.next().await;
    for _ in 0..100 {
        clock.advance(SECOND);
        tokio::task::yield_now().await;
    }
    assert!(!arrival.ctx.is_done());
    arrival.answer(full("after all"));
    assert_eq!(client.answer().await.body, "after all");
}

#[tokio::test]
async fn the_request_limit_is_the_deadline_of_its_context_and_then_a_504() {
    let clock = TestClock::new();
    let (service, mut arrivals) = probe();
    let mut server = TestServer::with(Server::builder(), clock.context(), service).await;
    let mut one = Http1::connect(server.addr).await;
    let two = Http2::connect(server.addr).await;
    one.request("GET", "/1").await;
    let stream = two.request("/2").await;
    let arrivals = arrivals.take(2).await;
    assert_eq!(arrivals[0].ctx.remaining(), Some(30 * SECOND));
    let ends = async { (arrivals[0].end().await, arrivals[1].end().await) };
    let (ends, waited) = clock.step_until(STEP, "both deadlines", ends).await;
    for end in [&ends.0, &ends.1] {
        assert_eq!(
            (end.kind(), end.reason()),
            (Kind::DeadlineExceeded, Reason::Limit("request"))
        );
    }
    assert!(waited >= 30 * SECOND);
    let (answer, _) = clock.step_until(STEP, "the 504 on HTTP/1", one.answer()).await;
    assert_eq!(answer.status, 504);
    let (answer, _) = clock.step_until(STEP, "the 504 on HTTP/2", stream.answer()).await;
    assert_eq!(answer.expect("an answer").0, StatusCode::GATEWAY_TIMEOUT);
    // The handlers ignore their contexts: they get the rest of their grace, and are dropped.
    for _ in 0..2 {
        clock.step_until(STEP, "a drop", server.events.dropped()).await;
    }
    let counted = server.statistics.snapshot();
    assert_eq!((counted.timed_out, counted.dropped, counted.in_grace), (2, 2, 0));
}

#[tokio::test]
async fn a_handler_that_was_told_may_answer_for_itself() {
    let clock = TestClock::new();
    let service = service_fn(|request: Request<RequestBody>| async move {
        let ctx = request
            .extensions()
            .get::<bequest::Context>()
            .expect("a context")
            .clone();
        let end = ctx.done().await;
        assert!(end.is_timeout());
        // The server is given every chance to answer first.
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        full("what I have so far")
    });
    let mut server = TestServer::with(Server::builder(), clock.context(), service).await;
    let mut client = Http1::connect(server.addr).await;
    client.request("GET", "/").await;
    until("the handler", || server.statistics.snapshot().requests == 1).await;
    // One move to the deadline, none beyond: the time to answer for itself stands still.
    clock.advance(30 * SECOND);
    let answer = client.answer().await;
    assert_eq!((answer.status, answer.body.as_str()), (200, "what I have so far"));
    let Event::Finished {
        end, status, elapsed, ..
    } = server.events.finished().await
    else {
        unreachable!()
    };
    assert_eq!(
        (end.reason(), status),
        (Reason::Limit("request"), Some(StatusCode::OK))
    );
    assert_eq!(elapsed, 30 * SECOND);
}

#[tokio::test]
async fn a_body_that_never_ends_is_cut_after_the_request_limit() {
    let clock = TestClock::new();
    let (service, mut arrivals) = probe();
    let server = TestServer::with(Server::builder(), clock.context(), service).await;
    let client = Http2::connect(server.addr).await;
    let stream = client.request("/").await;
    let mut arrival = arrivals.next().await;
    let (mut sender, body) = http_body_util::channel::Channel::<Bytes, std::io::Error>::new(1);
    arrival.answer(http::Response::new(body.map_err(Into::into).boxed_unsync()));
    sender
        .send_data(Bytes::from_static(b"first"))
        .await
        .expect("the body is read");
    let (answer, waited) = clock.step_until(STEP, "the cut", stream.answer()).await;
    assert!(answer.expect_err("a reset").is_reset());
    assert!(waited >= 30 * SECOND);
    assert_eq!(arrival.end().await.reason(), Reason::Limit("request"));
    let refused = async { while sender.send_data(Bytes::from_static(b"more")).await.is_ok() {} };
    guard("the body to be dropped", refused).await;
}
