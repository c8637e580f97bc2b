//! Drain, tell, drop.

use std::io::{Read, Write};
use std::time::Duration;

use bequest::{Context, Kind, Reason};
use bequest_http::server::{Limits, RequestBody, Server, WhyDropped, service_fn};
use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use tokio::sync::mpsc;

use super::common::{Http1, Http2, RawHttp2, TestClock, TestServer, full, guard, probe, until};

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: test\r\n\r\n";
const STEP: Duration = Duration::from_millis(500);
/// How long a client may be silent, when the drain begins, before it counts as idle.
const FRESH: Duration = Duration::from_secs(1);

#[tokio::test]
async fn idle_connections_of_both_protocols_delay_nothing() {
    let clock = TestClock::new();
    let (service, mut arrivals) = probe();
    let server = TestServer::with(Server::builder(), clock.context(), service).await;
    let mut one = Http1::connect(server.addr).await;
    one.request("GET", "/").await;
    arrivals.next().await.answer(full("1"));
    one.answer().await;
    let two = Http2::connect(server.addr).await;
    let stream = two.request("/").await;
    arrivals.next().await.answer(full("2"));
    stream.answer().await.expect("an answer");
    let _silent = Http1::connect(server.addr).await;
    until("three connections", || {
        server.statistics.snapshot().connections == 3
    })
    .await;
    // Long enough for the silent one to have asked for something.
    clock.advance(FRESH);
    // From here on the clock stands still: no drain, no grace, only the closing itself.
    let summary = server.stop().await;
    assert_eq!(clock.elapsed(), FRESH);
    assert_eq!(summary.end.reason(), Reason::Shutdown);
    assert_eq!((summary.statistics.served, summary.unfinished), (2, 0));
}

#[tokio::test]
async fn a_request_that_is_on_its_way_when_the_drain_begins_is_answered() {
    let clock = TestClock::new();
    let (service, mut arrivals) = probe();
    let server = TestServer::with(Server::builder(), clock.context(), service).await;
    let (mut asks, mut begins) = (
        Http1::connect(server.addr).await,
        Http1::connect(server.addr).await,
    );
    until("two connections", || {
        server.statistics.snapshot().connections == 2
    })
    .await;
    server.process.cancel();
    asks.request("GET", "/").await;
    arrivals.next().await.answer(full("in time"));
    assert_eq!(asks.answer().await.body, "in time");
    // Who has sent but a letter of it by then is not waited for any longer.
    begins.send("G").await;
    clock.advance(FRESH);
    let summary = server.ended().await;
    assert_eq!((summary.unfinished, summary.statistics.served), (0, 1));
}

#[tokio::test]
async fn what_waits_to_be_accepted_when_the_end_comes_is_answered() {
    let (service, mut arrivals) = probe();
    let server = TestServer::with(Server::builder(), Context::background(), service).await;
    let _first = Http1::connect(server.addr).await;
    until("the server to accept", || {
        server.statistics.snapshot().connections == 1
    })
    .await;
    // The server runs on this very thread: it has not seen the next client when it hears of its end.
    let mut client = std::net::TcpStream::connect(server.addr).expect("the system accepts");
    client.write_all(REQUEST).expect("the system takes it");
    server.process.cancel();
    arrivals.next().await.answer(full("in time"));
    assert_eq!(server.ended().await.statistics.served, 1);
    assert!(rest(client).ends_with("in time"));
}

#[tokio::test]
async fn control_a_listener_that_is_just_closed_loses_what_waits_there() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port");
    let mut client =
        std::net::TcpStream::connect(listener.local_addr().unwrap()).expect("the system accepts");
    client.write_all(REQUEST).expect("the system takes it");
    drop(listener);
    assert_eq!(rest(client), "");
}

#[tokio::test]
async fn a_request_that_has_come_on_an_idle_connection_is_answered() {
    let (service, mut arrivals) = probe();
    let server = TestServer::with(Server::builder(), Context::background(), service).await;
    let mut client = Http1::connect(server.addr).await;
    client.request("GET", "/first").await;
    arrivals.next().await.answer(full("first"));
    client.answer().await;
    until("an idle connection", || {
        server.statistics.snapshot().requests == 0
    })
    .await;
    // Both before the server is polled again.
    assert_eq!(client.stream.try_write(REQUEST).expect("room"), REQUEST.len());
    server.process.cancel();
    arrivals.next().await.answer(full("in time"));
    assert_eq!(client.answer().await.body, "in time");
    assert_eq!(server.ended().await.statistics.served, 2);
}

#[tokio::test]
async fn a_client_that_asks_while_the_server_drains_is_told_that_the_connection_is_closed() {
    let service = service_fn(|_: Request<RequestBody>| async { full("at once") });
    let server = TestServer::with(Server::builder(), Context::background(), service).await;
    let mut client = Http1::connect(server.addr).await;
    client.request("GET", "/first").await;
    assert_eq!(client.answer().await.header("connection"), None);
    until("an idle connection", || {
        server.statistics.snapshot().requests == 0
    })
    .await;
    assert_eq!(client.stream.try_write(REQUEST).expect("room"), REQUEST.len());
    server.process.cancel();
    let answer = client.answer().await;
    assert_eq!((answer.status, answer.header("connection")), (200, Some("close")));
    assert_eq!(client.rest().await, "");
    server.ended().await;
}

#[tokio::test]
async fn an_idle_client_may_be_given_the_time_to_ask_once_more() {
    let clock = TestClock::new();
    let (service, mut arrivals) = probe();
    let limits = Limits {
        drain_idle: Duration::from_secs(3),
        ..Limits::default()
    };
    let mut server = TestServer::with(Server::builder().limits(limits), clock.context(), service).await;
    let (mut asks, mut silent) = (
        Http1::connect(server.addr).await,
        Http1::connect(server.addr).await,
    );
    for client in [&mut asks, &mut silent] {
        client.request("GET", "/first").await;
        arrivals.next().await.answer(full("first"));
        client.answer().await;
    }
    server.process.cancel();
    until("the listener to be closed", || {
        std::net::TcpListener::bind(server.addr).is_ok()
    })
    .await;
    asks.request("GET", "/").await;
    arrivals.next().await.answer(full("in time"));
    let answer = asks.answer().await;
    assert_eq!(
        (answer.body.as_str(), answer.header("connection")),
        ("in time", Some("close"))
    );
    assert_eq!(asks.rest().await, "", "it asks once, and not again");
    assert_eq!(server.events.closed().await.reason(), Reason::Shutdown);
    assert_eq!(clock.elapsed(), Duration::ZERO);

    let (end, waited) = clock.step_until(STEP, "the close", server.events.closed()).await;
    assert_eq!(end.reason(), Reason::Shutdown);
    assert!(
        waited >= Duration::from_secs(3) && waited < Duration::from_secs(10),
        "{waited:?}"
    );
    assert_eq!(silent.rest().await, "");
    assert_eq!(server.ended().await.unfinished, 0);
}

#[tokio::test]
async fn control_hyper_alone_closes_an_idle_connection_on_what_has_come() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port");
    let addr = listener.local_addr().expect("an address");
    let (close, mut closes) = tokio::sync::oneshot::channel::<()>();
    let served = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.expect("a client");
        let service = hyper::service::service_fn(|_: Request<hyper::body::Incoming>| async {
            Ok::<_, std::convert::Infallible>(full("an answer"))
        });
        let io = hyper_util::rt::TokioIo::new(stream);
        let mut http =
            std::pin::pin!(hyper::server::conn::http1::Builder::new().serve_connection(io, service));
        tokio::select! {
            biased;
            _ = &mut closes => {}
            _ = http.as_mut() => panic!("nobody closes it"),
        }
        http.as_mut().graceful_shutdown();
        // Whether a client that is reset is an error is not the question.
        let _ = http.await;
    });
    let mut client = Http1::connect(addr).await;
    client.request("GET", "/first").await;
    client.answer().await;
    client.stream.try_write(REQUEST).expect("room");
    close.send(()).expect("it is served");
    served.await.expect("no panic");
    assert_eq!(client.rest().await, "");
}

#[tokio::test]
async fn a_peer_that_takes_no_part_in_the_goodbye_is_given_its_time_and_not_more() {
    let clock = TestClock::new();
    let (service, _arrivals) = probe();
    let mut server = TestServer::with(Server::builder(), clock.context(), service).await;
    let mut client = RawHttp2::connect(server.addr).await;
    // Idle for a while already: that does not count against it.
    clock.advance(Duration::from_secs(30));
    server.process.cancel();
    let (end, waited) = clock.step_until(STEP, "the close", server.events.closed()).await;
    assert_eq!(end.reason(), Reason::Shutdown);
    assert!(
        waited >= Duration::from_secs(2) && waited < Duration::from_secs(10),
        "{waited:?}"
    );
    let mut goodbyes = 0;
    while let Some(frame) = client.next().await {
        goodbyes += usize::from(frame.kind == RawHttp2::GOAWAY);
    }
    assert!(goodbyes > 0, "closed with a word");
    assert_eq!(server.ended().await.unfinished, 0);
}

#[tokio::test]
async fn fifty_open_requests_are_told_answered_and_dropped_within_the_bounds() {
    let clock = TestClock::new();
    let (service, mut arrivals) = probe();
    let server = TestServer::with(Server::builder(), clock.context(), service).await;
    let mut ones = Vec::new();
    for _ in 0..25 {
        let mut client = Http1::connect(server.addr).await;
        client.request("GET", "/").await;
        ones.push(client);
    }
    let two = Http2::connect(server.addr).await;
    let mut streams = Vec::new();
    for _ in 0..25 {
        streams.push(two.request("/").await);
    }
    let handlers = arrivals.take(50).await;
    assert_eq!(server.statistics.snapshot().requests, 50);

    server.process.cancel_for(Reason::Shutdown);
    let (summary, waited) = clock.step_until(STEP, "the shutdown", server.ended()).await;
    assert!(
        waited >= Duration::from_secs(10),
        "the whole drain, not {waited:?}"
    );
    for handler in &handlers {
        let end = handler.end().await;
        assert_eq!((end.kind(), end.reason()), (Kind::Canceled, Reason::Shutdown));
        assert!(!handler.is_alive());
    }
    for client in &mut ones {
        let answer = client.answer().await;
        assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")));
    }
    for stream in streams {
        assert_eq!(
            stream.answer().await.expect("an answer").0,
            StatusCode::SERVICE_UNAVAILABLE
        );
    }
    let counted = summary.statistics;
    assert_eq!(
        (counted.shut_down, counted.dropped, summary.unfinished),
        (50, 50, 0)
    );
    assert_eq!(
        (counted.connections, counted.requests, counted.in_grace),
        (0, 0, 0)
    );
}

#[tokio::test]
async fn a_handler_that_hears_the_shutdown_answers_for_itself() {
    let clock = TestClock::new();
    let (tell, mut told) = mpsc::unbounded_channel();
    let service = service_fn(move |request: Request<RequestBody>| {
        let tell = tell.clone();
        async move {
            let ctx = request.extensions().get::<Context>().expect("a context").clone();
            tell.send(()).expect("the test listens");
            let end = ctx.done().await;
            full(end.reason().to_string())
        }
    });
    let limits = Limits {
        answer: Duration::from_secs(1),
        ..Limits::default()
    };
    let server = TestServer::with(Server::builder().limits(limits), clock.context(), service).await;
    let mut client = Http1::connect(server.addr).await;
    client.request("GET", "/").await;
    guard("the handler", told.recv()).await;
    server.process.cancel();
    let (answer, waited) = clock.step_until(STEP, "the answer", client.answer()).await;
    assert_eq!((answer.status, answer.body.as_str()), (200, "shutting down"));
    assert!(waited >= Duration::from_secs(10));
    let (summary, _) = clock.step_until(STEP, "the end", server.ended()).await;
    assert_eq!((summary.statistics.shut_down, summary.statistics.dropped), (1, 0));
}

#[tokio::test]
async fn a_stream_that_never_ends_is_told_and_cut() {
    let clock = TestClock::new();
    let (service, mut arrivals) = probe();
    let server = TestServer::with(Server::builder(), clock.context(), service).await;
    let mut client = Http1::connect(server.addr).await;
    client.request("GET", "/").await;
    let mut arrival = arrivals.next().await;
    let (mut sender, body) = http_body_util::channel::Channel::<Bytes, std::io::Error>::new(1);
    arrival.answer(http::Response::new(body.map_err(Into::into).boxed_unsync()));
    sender
        .send_data(Bytes::from_static(b"an event"))
        .await
        .expect("the body is read");
    client.head().await;
    server.process.cancel();
    let (summary, _) = clock.step_until(STEP, "the shutdown", server.ended()).await;
    assert_eq!(arrival.end().await.reason(), Reason::Shutdown);
    assert!(!client.rest().await.ends_with("0\r\n\r\n"), "cut, not ended");
    assert_eq!((summary.statistics.shut_down, summary.unfinished), (1, 0));
}

#[tokio::test]
async fn a_lingering_handler_is_waited_for_and_dropped_at_the_last_step() {
    let clock = TestClock::new();
    let (service, mut arrivals) = probe();
    let builder = Server::builder().disconnect(bequest_http::server::Disconnect::Detach(
        Duration::from_secs(3600),
    ));
    let mut server = TestServer::with(builder, clock.context(), service).await;
    let mut client = Http1::connect(server.addr).await;
    client.request("GET", "/").await;
    let arrival = arrivals.next().await;
    drop(client);
    until("the handler to be detached", || {
        server.statistics.snapshot().detached == 1
    })
    .await;
    server.process.cancel();
    let told = async { (arrival.end().await, server.events.dropped().await) };
    let ((end, why), waited) = clock.step_until(STEP, "the drop", told).await;
    assert_eq!((end.reason(), why), (Reason::Shutdown, WhyDropped::GraceOver));
    assert!(waited >= Duration::from_secs(10), "{waited:?}");
    assert_eq!(server.ended().await.unfinished, 0);
}

#[tokio::test]
async fn a_context_that_has_ended_is_a_server_that_accepts_nothing() {
    let (service, mut arrivals) = probe();
    let root = Context::background().with_cancel();
    root.cancel();
    let server = TestServer::with(Server::builder(), root.context(), service).await;
    let addr = server.addr;
    let summary = server.ended().await;
    assert_eq!(summary.end.reason(), Reason::Explicit);
    assert!(tokio::net::TcpStream::connect(addr).await.is_err());
    assert!(arrivals.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_handler_that_blocks_its_thread_is_reported_and_not_waited_for() {
    let (tell, mut told) = mpsc::unbounded_channel();
    let (release, released) = std::sync::mpsc::channel::<()>();
    let released = std::sync::Arc::new(std::sync::Mutex::new(released));
    let service = service_fn(move |_request: Request<RequestBody>| {
        let (tell, released) = (tell.clone(), released.clone());
        async move {
            tell.send(()).expect("the test listens");
            // Ends with the test, whose end of the channel is dropped.
            let _ = released.lock().unwrap().recv();
            full("too late")
        }
    });
    let brief = Duration::from_millis(10);
    let limits = Limits {
        drain: brief,
        drain_grace: brief,
        ..Limits::default()
    };
    let server = TestServer::with(Server::builder().limits(limits), Context::background(), service).await;
    let mut client = Http1::connect(server.addr).await;
    client.request("GET", "/").await;
    guard("the handler", told.recv()).await;
    assert_eq!(server.stop().await.unfinished, 1);
    drop(release);
}

/// What a client is sent to the end. A reset is an end as well.
fn rest(mut client: std::net::TcpStream) -> String {
    let mut text = String::new();
    let _ = client.read_to_string(&mut text);
    text
}
