//! Go's server behaviours on HTTP/2, under their IDs.

use std::time::Duration;

use bequest::{Context, Kind, Reason};
use bequest_http::server::{Disconnect, Limits, RequestBody, Server, service_fn};
use bytes::Bytes;
use http::{Method, StatusCode};
use http_body_util::BodyExt;
use tokio::sync::mpsc;

use super::common::{
    Http2, RawHttp2, TestServer, begin_answer, full, guard, http2_bytes, probe, telling_of_connections,
    until, until_a_write_fails,
};

#[tokio::test]
async fn s1_context_is_live_in_the_handler_and_ended_after_the_response() {
    let (service, mut arrivals) = probe();
    let server = TestServer::start(service).await;
    let client = Http2::connect(server.addr).await;
    let stream = client.request("/").await;
    let mut arrival = arrivals.next().await;
    assert!(!arrival.ctx.is_done());
    arrival.answer(full("hello"));
    assert_eq!(
        stream.answer().await.expect("an answer"),
        (StatusCode::OK, "hello".into())
    );
    let end = arrival.end().await;
    assert_eq!(
        (end.kind(), end.reason()),
        (Kind::Canceled, Reason::ResponseEnded)
    );
}

#[tokio::test]
async fn s17_a_reset_ends_the_context_of_its_stream_only() {
    let (service, mut arrivals) = probe();
    let server = TestServer::start(service).await;
    let client = Http2::connect(server.addr).await;
    let (left, stays) = (client.request("/left").await, client.request("/stays").await);
    let mut arrivals = arrivals.take(2).await;
    arrivals.sort_by(|a, b| a.path.cmp(&b.path));
    left.reset();
    assert_eq!(arrivals[0].end().await.reason(), Reason::StreamReset);
    assert!(!arrivals[1].ctx.is_done());
    arrivals[1].answer(full("still here"));
    assert_eq!(stays.answer().await.expect("an answer").1, "still here");
}

#[tokio::test]
async fn s17_no_further_frame_of_a_reset_stream_is_sent() {
    let (service, mut arrivals) = probe();
    let server = TestServer::start(service).await;
    let mut client = RawHttp2::connect(server.addr).await;
    client.get(1, "/left").await;
    let mut left = arrivals.next().await;
    client.get(3, "/stays").await;
    let mut stays = arrivals.next().await;
    client.reset(1).await;
    assert_eq!(left.end().await.reason(), Reason::StreamReset);
    assert!(left.is_alive(), "in its grace");
    left.answer(full("to nobody"));
    left.dropped().await;
    stays.answer(full("to you"));
    until("both to be over", || server.statistics.snapshot().requests == 0).await;
    let frames = client.frames_until_ping().await;
    assert!(frames.iter().all(|frame| frame.stream != 1), "{frames:?}");
    assert!(
        frames
            .iter()
            .any(|frame| frame.stream == 3 && frame.payload == b"to you"),
        "{frames:?}"
    );
}

#[tokio::test]
async fn s17_a_reset_is_seen_with_an_open_and_unread_body() {
    let (service, mut arrivals) = probe();
    let server = TestServer::start(service).await;
    let client = Http2::connect(server.addr).await;
    let mut stream = client.begin(Method::POST, "/", false).await;
    stream
        .body
        .send_data(Bytes::from_static(b"unread"), false)
        .expect("room");
    let arrival = arrivals.next().await;
    stream.reset();
    assert_eq!(arrival.end().await.reason(), Reason::StreamReset);
}

#[tokio::test]
async fn s17_a_closed_connection_ends_every_stream_and_the_connection() {
    let (service, mut arrivals) = probe();
    let mut server = TestServer::start(service).await;
    let client = Http2::connect(server.addr).await;
    let _streams = (client.request("/a").await, client.request("/b").await);
    let open = client.begin(Method::POST, "/c", false).await;
    let arrivals = arrivals.take(3).await;
    client.leave();
    for arrival in &arrivals {
        assert_eq!(
            arrival.end().await.reason(),
            Reason::ClientGone,
            "{}",
            arrival.path
        );
    }
    drop(open);
    assert_eq!(server.events.closed().await.reason(), Reason::ClientGone);
}

#[tokio::test]
async fn s18_a_client_that_opens_and_resets_can_not_pile_up_handlers() {
    let (service, mut arrivals) = probe();
    let limits = Limits {
        lingering_per_connection: 4,
        ..Limits::default()
    };
    let builder = Server::builder()
        .limits(limits)
        .disconnect(Disconnect::Grace(Duration::MAX));
    let server = TestServer::with(builder, Context::background(), service).await;
    let mut client = RawHttp2::connect(server.addr).await;
    let mut handlers = Vec::new();
    for round in 0..50 {
        let stream = 2 * round + 1;
        client.get(stream, "/").await;
        handlers.push(arrivals.next().await);
        client.reset(stream).await;
        handlers.last().expect("pushed").end().await;
    }
    until("all to have left", || {
        server.statistics.snapshot().client_gone == 50
    })
    .await;
    until("the rest to be dropped", || {
        handlers.iter().filter(|handler| handler.is_alive()).count() == 4
    })
    .await;
    let counted = server.statistics.snapshot();
    assert_eq!(
        (counted.in_grace, counted.refused_grace, counted.dropped),
        (4, 46, 46)
    );
}

#[tokio::test]
async fn s18_control_without_the_cap_they_pile_up() {
    let (service, mut arrivals) = probe();
    let limits = Limits {
        lingering_per_connection: usize::MAX,
        ..Limits::default()
    };
    let builder = Server::builder()
        .limits(limits)
        .disconnect(Disconnect::Grace(Duration::MAX));
    let server = TestServer::with(builder, Context::background(), service).await;
    let mut client = RawHttp2::connect(server.addr).await;
    let mut handlers = Vec::new();
    for round in 0..50 {
        client.get(2 * round + 1, "/").await;
        handlers.push(arrivals.next().await);
        client.reset(2 * round + 1).await;
        handlers.last().expect("pushed").end().await;
    }
    until("all to linger", || server.statistics.snapshot().in_grace == 50).await;
    assert!(handlers.iter().all(super::common::Arrival::is_alive));
}

#[tokio::test]
async fn s18_a_stream_beyond_the_cap_is_refused_and_may_be_asked_for_again() {
    let (service, mut arrivals) = probe();
    let limits = Limits {
        streams: 4,
        lingering_per_connection: 1,
        ..Limits::default()
    };
    let builder = Server::builder().limits(limits);
    let server = TestServer::with(builder, Context::background(), service).await;
    let mut client = RawHttp2::connect(server.addr).await;
    let opening: Vec<u8> = [1, 3, 5, 7]
        .iter()
        .flat_map(|id| http2_bytes::get(*id, "/reset"))
        .collect();
    assert!(client.try_send(&opening).await);
    let reset = arrivals.take(4).await;
    // In one piece and on one thread: the streams are reset, and their handlers not dropped yet when the next ones come.
    let resets = [1, 3, 5, 7].iter().flat_map(|id| http2_bytes::reset(*id));
    let others = [9, 11, 13, 15]
        .iter()
        .flat_map(|id| http2_bytes::get(*id, "/next"));
    assert!(client.try_send(&resets.chain(others).collect::<Vec<u8>>()).await);
    let mut next = arrivals.next().await;
    let frames = client.frames_until_ping().await;
    let refused: Vec<_> = frames
        .iter()
        .filter(|frame| frame.kind == RawHttp2::RST_STREAM)
        .map(|frame| (frame.stream, frame.payload.as_slice()))
        .collect();
    let reason: &[u8] = &u32::from(h2::Reason::REFUSED_STREAM).to_be_bytes();
    assert_eq!(refused, [(11, reason), (13, reason), (15, reason)]);
    assert_eq!(server.statistics.snapshot().refused_streams, 3);
    assert!(arrivals.is_empty());

    until("all but one to be dropped", || {
        reset.iter().filter(|handler| handler.is_alive()).count() == 1
    })
    .await;
    client.get(17, "/again").await;
    arrivals.next().await.answer(full("again"));
    next.answer(full("next"));
    assert!(
        client
            .frames_until_ping()
            .await
            .iter()
            .all(|frame| frame.kind != RawHttp2::RST_STREAM)
    );
}

#[tokio::test]
async fn s18_a_request_that_is_reset_before_its_handler_begins_is_not_begun() {
    let (service, mut arrivals) = probe();
    let server = TestServer::start(service).await;
    let mut client = RawHttp2::connect(server.addr).await;
    // At first a stream begins right where it was read; behind one that waits, as a task.
    for id in [1, 7] {
        // In one piece, so that the reset has been read when the request is looked at.
        let reset = [http2_bytes::get(id, "/reset"), http2_bytes::reset(id)];
        let bytes = [&reset.concat()[..], &http2_bytes::get(id + 2, "/stays")].concat();
        assert!(client.try_send(&bytes).await);
        assert_eq!(arrivals.next().await.path, "/stays");
    }
    until("the requests to be over", || {
        server.statistics.snapshot().client_gone == 2
    })
    .await;
    let counted = server.statistics.snapshot();
    assert_eq!((counted.not_begun, counted.requests, counted.dropped), (2, 2, 0));
    assert!(arrivals.is_empty());
}

#[tokio::test]
async fn s20_a_panic_is_answered_and_leaves_the_other_streams_alone() {
    let (probe, mut arrivals) = probe();
    let service = bequest_http::server::service_fn(move |request: http::Request<_>| {
        let mut probe = probe.clone();
        async move {
            assert!(request.uri().path() != "/panic", "on purpose");
            let Ok(answer) = tower_service::Service::call(&mut probe, request).await;
            answer
        }
    });
    let server = TestServer::start(service).await;
    let client = Http2::connect(server.addr).await;
    let stays = client.request("/stays").await;
    let mut arrival = arrivals.next().await;
    let panics = client.request("/panic").await;
    assert_eq!(
        panics.answer().await.expect("an answer").0,
        StatusCode::INTERNAL_SERVER_ERROR
    );
    assert!(!arrival.ctx.is_done());
    arrival.answer(full("unharmed"));
    assert_eq!(stays.answer().await.expect("an answer").1, "unharmed");
}

#[tokio::test]
async fn s27_each_stream_has_a_context_of_its_own() {
    let (service, mut arrivals) = probe();
    let server = TestServer::start(service).await;
    let client = Http2::connect(server.addr).await;
    let (first, _second) = (client.request("/1").await, client.request("/2").await);
    let mut arrivals = arrivals.take(2).await;
    arrivals.sort_by(|a, b| a.path.cmp(&b.path));
    arrivals[0].answer(full("1"));
    first.answer().await.expect("an answer");
    arrivals[0].end().await;
    assert!(!arrivals[1].ctx.is_done());
    assert_eq!(arrivals[0].conn, arrivals[1].conn);
}

#[tokio::test]
async fn s2_s7_a_client_that_closes_while_it_is_written_to_ends_its_connection_too() {
    let (builder, mut told) = telling_of_connections();
    let (service, mut arrivals) = probe();
    let server = TestServer::with(builder, Context::background(), service).await;
    let client = Http2::connect(server.addr).await;
    let _stream = client.request("/").await;
    let mut arrival = arrivals.next().await;
    let writer = begin_answer(&mut arrival);
    client.leave();
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
    let service = service_fn(move |request: http::Request<RequestBody>| {
        let tell = tell.clone();
        async move {
            let (head, body) = request.into_parts();
            let ctx = head.extensions.get::<Context>().expect("a context").clone();
            tell.send(None).expect("the test listens");
            let read = body.collect().await;
            tell.send(Some((ctx.err().map(|end| end.reason()), read.is_err())))
                .expect("the test listens");
            full("too late")
        }
    });
    let server = TestServer::start(service).await;
    let client = Http2::connect(server.addr).await;
    let stream = client.begin(Method::POST, "/", false).await;
    assert_eq!(guard("the handler", told.recv()).await, Some(None));
    stream.reset();
    assert_eq!(
        guard("the end", told.recv()).await,
        Some(Some((Some(Reason::StreamReset), true)))
    );
}

#[tokio::test]
async fn s13_s14_the_streams_of_a_connection_share_its_context_and_no_other() {
    static NUMBER: bequest::Key<u64> = bequest::Key::new("number");
    let builder = Server::builder().conn_context(|ctx, conn| ctx.with_value(&NUMBER, conn.id()));
    let (service, mut arrivals) = probe();
    let server = TestServer::with(builder, Context::background(), service).await;
    let (one, two) = (
        Http2::connect(server.addr).await,
        Http2::connect(server.addr).await,
    );
    let mut numbers = Vec::new();
    for client in [&one, &one, &two] {
        let _stream = client.request("/").await;
        let arrival = arrivals.next().await;
        assert_eq!(arrival.ctx.value(&NUMBER), Some(&arrival.conn.id()));
        assert_eq!(arrival.conn.local_addr(), server.addr);
        numbers.push(arrival.conn.id());
    }
    assert_eq!(numbers[0], numbers[1]);
    assert_ne!(numbers[0], numbers[2]);
}

#[tokio::test]
async fn s15_dropping_the_server_ends_every_context_at_once() {
    let (service, mut arrivals) = probe();
    let server = TestServer::start(service).await;
    let client = Http2::connect(server.addr).await;
    let stream = client.request("/").await;
    let arrival = arrivals.next().await;
    server.abort();
    assert_eq!(arrival.end().await.reason(), Reason::ScopeEnded);
    arrival.dropped().await;
    assert!(stream.answer().await.is_err());
}

#[tokio::test]
async fn s16_shutdown_closes_idle_connections_and_leaves_requests_alone() {
    let (service, mut arrivals) = probe();
    let server = TestServer::start(service).await;
    let (idle, busy) = (
        Http2::connect(server.addr).await,
        Http2::connect(server.addr).await,
    );
    let once = idle.request("/").await;
    arrivals.next().await.answer(full("once"));
    once.answer().await.expect("an answer");
    let twice = busy.request("/").await;
    let mut arrival = arrivals.next().await;
    server.process.cancel();
    until("the idle one to be closed", || {
        server.statistics.snapshot().connections == 1
    })
    .await;
    assert!(!arrival.ctx.is_done());
    arrival.answer(full("twice"));
    assert_eq!(twice.answer().await.expect("an answer").1, "twice");
    let summary = server.ended().await;
    let counted = summary.statistics;
    assert_eq!((counted.served, counted.shut_down, summary.unfinished), (2, 0, 0));
}

#[tokio::test]
async fn s23_a_client_that_waits_for_a_continue_is_served_when_it_goes_on() {
    // DIFFERENCE: the engine sends no 100 on HTTP/2; clients go on after a moment (RFC 9110 §10.1.1).
    let service = service_fn(|request: http::Request<RequestBody>| async move {
        let body = request.into_body().collect().await.expect("a body").to_bytes();
        full(String::from_utf8(body.to_vec()).expect("text"))
    });
    let server = TestServer::start(service).await;
    let client = Http2::connect(server.addr).await;
    let mut stream = client.begin(Method::POST, "/", false).await;
    stream
        .body
        .send_data(Bytes::from_static(b"hello"), true)
        .expect("an open stream");
    assert_eq!(stream.answer().await.expect("an answer").1, "hello");
}

#[tokio::test]
async fn s24_s25_responses_that_have_no_body_end_and_are_not_gone() {
    let (service, mut arrivals) = probe();
    let server = TestServer::start(service).await;
    let client = Http2::connect(server.addr).await;
    for (method, status) in [
        (Method::HEAD, StatusCode::OK),
        (Method::GET, StatusCode::NO_CONTENT),
        (Method::GET, StatusCode::NOT_MODIFIED),
    ] {
        let stream = client.begin(method.clone(), "/", true).await;
        let mut arrival = arrivals.next().await;
        let mut response = full(if method == Method::HEAD { "a body" } else { "" });
        *response.status_mut() = status;
        arrival.answer(response);
        assert_eq!(stream.answer().await.expect("an answer").0, status);
        assert_eq!(
            arrival.end().await.reason(),
            Reason::ResponseEnded,
            "{method} {status}"
        );
    }
    assert_eq!(server.statistics.snapshot().served, 3);
}
