//! Go's server behaviours on HTTP/1, under their IDs.

use std::time::Duration;

use bequest::{Context, Key, Kind, Reason};
use bequest_http::server::{Limits, Server};
use bytes::Bytes;
use http::{Method, StatusCode};
use http_body_util::BodyExt;
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;

use super::common::{
    Event, Http1, Probe, TestServer, begin_answer, full, guard, probe, telling_of_connections, until,
    until_a_write_fails,
};

static BASE: Key<&str> = Key::new("base");
static CONN: Key<u64> = Key::new("conn");

#[tokio::test]
async fn s1_context_is_live_in_the_handler_and_ended_after_the_response() {
    let (service, mut arrivals) = probe();
    let server = TestServer::start(service).await;
    let mut client = Http1::connect(server.addr).await;
    client.request("GET", "/").await;
    let mut arrival = arrivals.next().await;
    assert!(!arrival.ctx.is_done());
    assert!(
        arrival.ctx.deadline().is_some(),
        "a request has a limit by default"
    );
    arrival.answer(full("hello"));
    assert_eq!(client.answer().await.body, "hello");
    let end = arrival.end().await;
    assert_eq!(
        (end.kind(), end.reason()),
        (Kind::Canceled, Reason::ResponseEnded)
    );
    assert_eq!(end.scope().0, Some("request"));
    assert_eq!(server.stop().await.statistics.served, 1);
}

#[tokio::test]
async fn s1_context_lives_as_long_as_the_response_body() {
    // DIFFERENCE: Go's ends when the handler returns; here the body may outlive it.
    let (service, mut arrivals) = probe();
    let server = TestServer::start(service).await;
    let mut client = Http1::connect(server.addr).await;
    client.request("GET", "/").await;
    let mut arrival = arrivals.next().await;
    let mut sender = begin_answer(&mut arrival);
    sender
        .send_data(Bytes::from_static(b"first"))
        .await
        .expect("the body is read");
    client.head().await;
    arrival.dropped().await;
    assert!(
        !arrival.ctx.is_done(),
        "the handler has returned, its body has not ended"
    );
    drop(sender);
    assert_eq!(arrival.end().await.reason(), Reason::ResponseEnded);
}

#[tokio::test]
async fn s2_a_client_that_closes_ends_the_context() {
    let (service, mut arrivals) = probe();
    let server = TestServer::start(service).await;
    let mut client = Http1::connect(server.addr).await;
    client.request("GET", "/").await;
    let arrival = arrivals.next().await;
    drop(client);
    let end = arrival.end().await;
    assert_eq!((end.kind(), end.reason()), (Kind::Canceled, Reason::ClientGone));
}

#[tokio::test]
async fn s2_a_client_that_resets_ends_the_context() {
    let (service, mut arrivals) = probe();
    let server = TestServer::start(service).await;
    let mut client = Http1::connect(server.addr).await;
    client.request("GET", "/").await;
    let arrival = arrivals.next().await;
    client.reset();
    assert_eq!(arrival.end().await.reason(), Reason::ClientGone);
}

#[tokio::test]
async fn s3_a_client_is_seen_to_leave_whatever_of_its_body_is_unread() {
    // DIFFERENCE: Go looks only once the body has been read to its end. All cases: `matrix.rs`.
    let (service, mut arrivals) = probe();
    let server = TestServer::start(service).await;
    let mut client = Http1::connect(server.addr).await;
    client
        .send("POST / HTTP/1.1\r\nhost: test\r\ncontent-length: 1000\r\n\r\n123")
        .await;
    let arrival = arrivals.next().await;
    drop(client);
    assert_eq!(arrival.end().await.reason(), Reason::ClientGone);
}

#[tokio::test]
async fn s4_half_close_counts_as_gone_and_the_answer_is_delivered() {
    let (service, mut arrivals) = probe();
    let server = TestServer::start(service).await;
    let mut client = Http1::connect(server.addr).await;
    client.request("GET", "/").await;
    let mut arrival = arrivals.next().await;
    client.stream.shutdown().await.expect("an open socket");
    assert_eq!(arrival.end().await.reason(), Reason::ClientGone);
    arrival.answer(full("still here"));
    let answer = client.answer().await;
    assert_eq!((answer.status, answer.body.as_str()), (200, "still here"));
    assert_eq!(client.rest().await, "");
}

#[tokio::test]
async fn s5_s6_a_pipelined_request_ends_nothing_and_is_answered_in_its_turn() {
    let (service, mut arrivals) = probe();
    let server = TestServer::start(service).await;
    let mut client = Http1::connect(server.addr).await;
    client.request("GET", "/first").await;
    let mut first = arrivals.next().await;
    // In a segment of its own, and longer than what is read ahead at once.
    let long = "x".repeat(40_000);
    client
        .send(&format!(
            "GET /second HTTP/1.1\r\nhost: test\r\nlong: {long}\r\n\r\n"
        ))
        .await;
    until("the read-ahead", || {
        server.statistics.snapshot().read_ahead > 40_000
    })
    .await;
    assert!(!first.ctx.is_done());
    first.answer(full("1"));
    assert_eq!(client.answer().await.body, "1");
    let mut second = arrivals.next().await;
    assert_eq!((second.path.as_str(), second.ctx.is_done()), ("/second", false));
    second.answer(full("2"));
    assert_eq!(client.answer().await.body, "2");
    assert_eq!(server.statistics.snapshot().read_ahead, 0);
}

#[tokio::test]
async fn s5_a_client_that_leaves_behind_a_pipelined_request_is_seen() {
    // DIFFERENCE: Go sees it only if both requests came in one segment.
    let (service, mut arrivals) = probe();
    let server = TestServer::start(service).await;
    let mut client = Http1::connect(server.addr).await;
    client.request("GET", "/first").await;
    let mut first = arrivals.next().await;
    client.request("GET", "/second").await;
    drop(client);
    assert_eq!(first.end().await.reason(), Reason::ClientGone);
    // The second one is begun in case the client still reads, and told from the start.
    first.answer(full("1"));
    let second = arrivals.next().await;
    assert_eq!(second.ctx.err().expect("ended").reason(), Reason::ClientGone);
}

#[tokio::test]
async fn s7_a_failed_write_ends_the_context_of_the_connection() {
    let (builder, mut told) = telling_of_connections();
    let (service, mut arrivals) = probe();
    let server = TestServer::with(builder, Context::background(), service).await;
    let mut client = Http1::connect(server.addr).await;
    client.request("GET", "/").await;
    let mut arrival = arrivals.next().await;
    let writer = begin_answer(&mut arrival);
    client.reset();
    until_a_write_fails(writer).await;
    assert_eq!(arrival.end().await.reason(), Reason::ClientGone);
    let conn = told.recv().await.expect("a connection");
    assert_eq!(
        guard("the connection's end", conn.done()).await.reason(),
        Reason::ClientGone
    );
}

#[tokio::test]
async fn s8_a_failed_body_read_ends_the_context() {
    let (tell, mut told) = mpsc::unbounded_channel();
    let service = bequest_http::server::service_fn(move |request: http::Request<_>| {
        let tell = tell.clone();
        async move {
            let (head, body): (http::request::Parts, bequest_http::server::RequestBody) =
                request.into_parts();
            let ctx = head.extensions.get::<Context>().expect("a context").clone();
            tell.send(None).expect("the test listens");
            let read = body.collect().await;
            tell.send(Some((ctx.err().map(|end| end.reason()), read.is_err())))
                .expect("the test listens");
            full("too late")
        }
    });
    let server = TestServer::start(service).await;
    let mut client = Http1::connect(server.addr).await;
    client
        .send("POST / HTTP/1.1\r\nhost: test\r\ncontent-length: 10\r\n\r\n12345")
        .await;
    assert_eq!(guard("the handler", told.recv()).await, Some(None));
    drop(client);
    assert_eq!(
        guard("the end", told.recv()).await,
        Some(Some((Some(Reason::ClientGone), true)))
    );
}

#[tokio::test]
async fn s8_a_malformed_body_is_no_departure() {
    let (tell, mut told) = mpsc::unbounded_channel();
    let service = bequest_http::server::service_fn(move |request: http::Request<_>| {
        let tell = tell.clone();
        async move {
            let (head, body): (http::request::Parts, bequest_http::server::RequestBody) =
                request.into_parts();
            let read = body.collect().await;
            let ctx = head.extensions.get::<Context>().expect("a context");
            tell.send((ctx.is_done(), read.is_err()))
                .expect("the test listens");
            full("say that again")
        }
    });
    let server = TestServer::start(service).await;
    let mut client = Http1::connect(server.addr).await;
    client
        .send("POST / HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\nno number\r\n")
        .await;
    assert_eq!(guard("the handler", told.recv()).await, Some((false, true)));
    assert_eq!(client.answer().await.body, "say that again");
}

#[tokio::test]
async fn s13_base_context_is_above_everything() {
    let (service, mut arrivals) = probe();
    let builder = Server::builder().base_context(|ctx, listener| {
        assert!(listener.local_addr().ip().is_loopback());
        ctx.with_value(&BASE, "base")
    });
    let server = TestServer::with(builder, Context::background(), service).await;
    let mut client = Http1::connect(server.addr).await;
    client.request("GET", "/").await;
    let arrival = arrivals.next().await;
    assert_eq!(arrival.ctx.value(&BASE), Some(&"base"));
}

#[tokio::test]
async fn s13_conn_context_does_not_leak_to_other_connections() {
    let (service, mut arrivals) = probe();
    let builder = Server::builder().conn_context(|ctx, conn| match conn.id() {
        1 => ctx.with_value(&CONN, conn.id()),
        _ => ctx,
    });
    let server = TestServer::with(builder, Context::background(), service).await;
    let mut first = Http1::connect(server.addr).await;
    first.request("GET", "/").await;
    let one = arrivals.next().await;
    let mut second = Http1::connect(server.addr).await;
    second.request("GET", "/").await;
    let two = arrivals.next().await;
    assert_eq!((one.conn.id(), one.ctx.value(&CONN)), (1, Some(&1)));
    assert_eq!((two.conn.id(), two.ctx.value(&CONN)), (2, None));
}

#[tokio::test]
async fn s13_the_values_of_the_given_context_reach_the_handler_and_its_end_stops_accepting() {
    // DIFFERENCE: Go's server goes on accepting, and runs handlers whose context has ended.
    let (service, mut arrivals) = probe();
    let root = Context::background().with_value(&BASE, "given");
    let server = TestServer::with(Server::builder(), root, service).await;
    let mut client = Http1::connect(server.addr).await;
    client.request("GET", "/").await;
    let mut arrival = arrivals.next().await;
    assert_eq!(arrival.ctx.value(&BASE), Some(&"given"));
    server.process.cancel();
    let refused = async { while tokio::net::TcpStream::connect(server.addr).await.is_ok() {} };
    guard("the listener to close", refused).await;
    assert!(!arrival.ctx.is_done(), "a drain is not an end");
    arrival.answer(full("done"));
    assert_eq!(client.answer().await.body, "done");
    assert_eq!(server.ended().await.statistics.served, 1);
    assert!(arrivals.is_empty(), "no handler began after the end");
}

#[tokio::test]
async fn s14_each_request_knows_its_connection() {
    let (service, mut arrivals) = probe();
    let server = TestServer::start(service).await;
    let mut client = Http1::connect(server.addr).await;
    client.request("GET", "/").await;
    let arrival = arrivals.next().await;
    assert_eq!(arrival.conn.local_addr(), server.addr);
    assert_eq!(
        arrival.conn.peer_addr(),
        client.stream.local_addr().expect("an address")
    );
}

#[tokio::test]
async fn s15_dropping_the_server_ends_every_context_at_once() {
    let (service, mut arrivals) = probe();
    let server = TestServer::start(service).await;
    let mut client = Http1::connect(server.addr).await;
    client.request("GET", "/").await;
    let arrival = arrivals.next().await;
    server.abort();
    assert_eq!(arrival.end().await.reason(), Reason::ScopeEnded);
    arrival.dropped().await;
    assert_eq!(client.rest().await, "");
}

#[tokio::test]
async fn s16_shutdown_closes_idle_connections_and_leaves_requests_alone() {
    let (service, mut arrivals) = probe();
    let server = TestServer::start(service).await;
    let mut idle = Http1::connect(server.addr).await;
    idle.request("GET", "/").await;
    arrivals.next().await.answer(full("once"));
    idle.answer().await;
    let mut silent = Http1::connect(server.addr).await;
    let mut busy = Http1::connect(server.addr).await;
    busy.request("GET", "/").await;
    let mut arrival = arrivals.next().await;
    until("three connections", || {
        server.statistics.snapshot().connections == 3
    })
    .await;

    server.process.cancel();
    assert_eq!(idle.rest().await, "");
    assert_eq!(silent.rest().await, "");
    assert!(!arrival.ctx.is_done());
    arrival.answer(full("twice"));
    let answer = busy.answer().await;
    assert_eq!(
        (answer.body.as_str(), answer.header("connection")),
        ("twice", Some("close"))
    );
    let summary = server.ended().await;
    assert_eq!(
        (
            summary.statistics.served,
            summary.statistics.shut_down,
            summary.unfinished
        ),
        (2, 0, 0)
    );
}

#[tokio::test]
async fn s20_a_panic_ends_the_context_and_is_reported_with_its_place() {
    let (tell, mut told) = mpsc::unbounded_channel();
    let line = line!() + 5;
    let service = bequest_http::server::service_fn(move |request: http::Request<_>| {
        let ctx = request.extensions().get::<Context>().expect("a context").clone();
        tell.send(ctx).expect("the test listens");
        async move {
            assert!(request.uri().path() != "/panic", "on purpose");
            full("fine")
        }
    });
    let mut server = TestServer::start(service).await;
    let mut client = Http1::connect(server.addr).await;
    client.request("GET", "/panic").await;
    assert_eq!(client.answer().await.status, 500);
    let ctx = told.recv().await.expect("a context");
    assert_eq!(guard("the end", ctx.done()).await.reason(), Reason::Panicked);
    let report = server.events.next("a panic", |event| match event {
        Event::Panicked { message, file, line } => Some((message, file, line)),
        _ => None,
    });
    let (message, file, at) = report.await;
    assert!(message.contains("on purpose"), "{message}");
    assert!(file.ends_with("go_http1.rs"), "{file}");
    assert_eq!(at, line);
    // DIFFERENCE: Go closes the connection; here it goes on, as the answer was a whole one.
    client.request("GET", "/").await;
    assert_eq!(client.answer().await.body, "fine");
    assert_eq!(server.statistics.snapshot().panicked, 1);
}

#[tokio::test]
async fn s27_each_request_of_a_connection_has_a_context_of_its_own() {
    let (tell, mut told) = mpsc::unbounded_channel();
    let builder = Server::builder().conn_context(move |ctx, _| {
        tell.send(ctx.clone()).expect("the test listens");
        ctx.with_value(&CONN, 7)
    });
    let (service, mut arrivals) = probe();
    let server = TestServer::with(builder, Context::background(), service).await;
    let mut client = Http1::connect(server.addr).await;
    client.request("GET", "/first").await;
    let mut first = arrivals.next().await;
    first.answer(full("1"));
    client.answer().await;
    first.end().await;
    client.request("GET", "/second").await;
    let second = arrivals.next().await;
    assert!(!second.ctx.is_done());
    assert_eq!(
        (first.ctx.value(&CONN), second.ctx.value(&CONN)),
        (Some(&7), Some(&7))
    );
    let conn = told.recv().await.expect("a connection");
    assert!(
        !conn.is_done() && told.try_recv().is_err(),
        "one connection, still open"
    );
}

/// Reads the body before it answers, or not.
fn reader() -> impl Probe {
    bequest_http::server::service_fn(
        |request: http::Request<bequest_http::server::RequestBody>| async move {
            if request.uri().path() == "/read" {
                let body = request.into_body().collect().await.expect("a body").to_bytes();
                return full(String::from_utf8(body.to_vec()).expect("text"));
            }
            full("unread")
        },
    )
}

#[tokio::test]
async fn s23_a_client_that_waits_for_a_continue_gets_it_when_its_body_is_asked_for() {
    let server = TestServer::start(reader()).await;
    let mut client = Http1::connect(server.addr).await;
    client
        .send("POST /read HTTP/1.1\r\nhost: test\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n")
        .await;
    assert_eq!(client.head().await.status, 100);
    client.send("hello").await;
    let answer = client.answer().await;
    assert_eq!((answer.status, answer.body.as_str()), (200, "hello"));
}

#[tokio::test]
async fn s23_a_handler_that_answers_first_asks_for_no_body_and_the_connection_closes() {
    let server = TestServer::start(reader()).await;
    let mut client = Http1::connect(server.addr).await;
    client
        .send("POST /ignore HTTP/1.1\r\nhost: test\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n")
        .await;
    let answer = client.answer().await;
    assert_eq!((answer.status, answer.body.as_str()), (200, "unread"));
    assert_eq!(client.rest().await, "");
}

#[tokio::test]
async fn s24_s25_responses_that_have_no_body_end_and_are_not_gone() {
    // hyper drops these bodies without asking for their end; the contexts must not take that for a client that left.
    let (service, mut arrivals) = probe();
    let mut server = TestServer::start(service).await;
    let mut client = Http1::connect(server.addr).await;
    let mut exchange = async |method: &str, status: StatusCode, length: Option<&str>| {
        client.request(method, "/").await;
        let mut arrival = arrivals.next().await;
        assert_eq!(arrival.method, method.parse::<Method>().expect("a method"));
        let mut response = full("a body");
        *response.status_mut() = status;
        if let Some(length) = length {
            response
                .headers_mut()
                .insert("content-length", length.parse().expect("a value"));
        }
        arrival.answer(response);
        assert_eq!(client.head().await.status, status.as_u16());
        arrival.end().await.reason()
    };
    assert_eq!(
        exchange("HEAD", StatusCode::OK, None).await,
        Reason::ResponseEnded
    );
    assert_eq!(
        exchange("GET", StatusCode::NO_CONTENT, None).await,
        Reason::ResponseEnded
    );
    assert_eq!(
        exchange("GET", StatusCode::NOT_MODIFIED, None).await,
        Reason::ResponseEnded
    );
    let _ = exchange("GET", StatusCode::OK, Some("6")).await;
    for _ in 0..4 {
        let Event::Finished { end, .. } = server.events.finished().await else {
            unreachable!()
        };
        assert_eq!(end.reason(), Reason::ResponseEnded);
    }
}

#[tokio::test]
async fn s24_an_exhausted_content_length_is_the_end_of_a_body_that_says_nothing() {
    let (service, mut arrivals) = probe();
    let server = TestServer::start(service).await;
    let mut client = Http1::connect(server.addr).await;
    client.request("GET", "/").await;
    let mut arrival = arrivals.next().await;
    let (mut sender, body) = http_body_util::channel::Channel::<Bytes, std::io::Error>::new(1);
    let response = http::Response::builder().header("content-length", 5);
    arrival.answer(
        response
            .body(body.map_err(Into::into).boxed_unsync())
            .expect("a response"),
    );
    sender
        .send_data(Bytes::from_static(b"whole"))
        .await
        .expect("the body is read");
    assert_eq!(client.answer().await.body, "whole");
    assert_eq!(arrival.end().await.reason(), Reason::ResponseEnded);
    drop(sender);
}

#[tokio::test]
async fn connections_over_the_cap_wait_their_turn() {
    let (service, mut arrivals) = probe();
    let limits = Limits {
        connections: 1,
        idle: Duration::MAX,
        ..Limits::default()
    };
    let server = TestServer::with(Server::builder().limits(limits), Context::background(), service).await;
    let mut first = Http1::connect(server.addr).await;
    first.request("GET", "/first").await;
    let mut arrival = arrivals.next().await;
    let mut second = Http1::connect(server.addr).await;
    second.request("GET", "/second").await;
    arrival.answer(full("1"));
    first.answer().await;
    assert_eq!(server.statistics.snapshot().connections, 1);
    assert!(arrivals.is_empty(), "the second connection has to wait");
    drop(first);
    assert_eq!(arrivals.next().await.path, "/second");
    assert_eq!(server.statistics.snapshot().connections, 1);
}
