//! Responses without an end of their own: ended by the shutdown at once, on both protocols.

use std::time::Duration;

use bequest::{Context, Reason};
use bequest_http::server::{BoxError, Server, UntilShutdown};
use bytes::Bytes;
use http::Response;
use http_body_util::BodyExt;
use http_body_util::channel::{Channel, Sender};

use super::common::{Arrivals, Http1, Http2, TestBody, TestClock, TestServer, full, probe};

/// An answer with one event, and more to come.
async fn event_stream(marked: bool) -> (Response<TestBody>, Sender<Bytes, BoxError>) {
    let (mut sender, body) = Channel::new(1);
    sender
        .send_data(Bytes::from_static(b"data: one\n\n"))
        .await
        .expect("the body is there");
    let mut response = Response::new(body.boxed_unsync());
    if marked {
        response.extensions_mut().insert(UntilShutdown);
    }
    (response, sender)
}

async fn server(clock: &TestClock) -> (TestServer, Arrivals) {
    let (service, arrivals) = probe();
    (
        TestServer::with(Server::builder(), clock.context(), service).await,
        arrivals,
    )
}

#[tokio::test]
async fn shutdown_ends_event_streams_and_idle_connections_at_once() {
    let clock = TestClock::new();
    let (server, mut arrivals) = server(&clock).await;
    let mut one = Http1::connect(server.addr).await;
    one.request("GET", "/one").await;
    let mut first = arrivals.next().await;
    let (response, _sender) = event_stream(true).await;
    first.answer(response);
    assert_eq!(one.head().await.status, 200);
    let two = Http2::connect(server.addr).await;
    let stream = two.request("/two").await;
    let mut second = arrivals.next().await;
    let (response, _other_sender) = event_stream(true).await;
    second.answer(response);
    let mut idle = Http1::connect(server.addr).await;
    idle.request("GET", "/idle").await;
    arrivals.next().await.answer(full("done"));
    idle.answer().await;

    let reading = tokio::spawn(stream.answer());
    let summary = server.stop().await;
    // No part of the drain was waited for.
    assert_eq!(clock.elapsed(), Duration::ZERO);
    assert_eq!((summary.unfinished, summary.statistics.shut_down), (0, 2));
    for arrival in [first, second] {
        assert_eq!(arrival.end().await.reason(), Reason::Shutdown);
    }
    // In good order: the last chunk, and the end of the stream.
    assert!(one.rest().await.ends_with("data: one\n\n\r\n0\r\n\r\n"));
    let (status, body) = reading.await.expect("no panic").expect("no reset");
    assert_eq!((status.as_u16(), body.as_str()), (200, "data: one\n\n"));
}

#[tokio::test]
async fn control_without_the_mark_the_whole_drain_is_used_up() {
    let clock = TestClock::new();
    let (server, mut arrivals) = server(&clock).await;
    let mut one = Http1::connect(server.addr).await;
    one.request("GET", "/").await;
    let (response, _sender) = event_stream(false).await;
    arrivals.next().await.answer(response);
    assert_eq!(one.head().await.status, 200);
    server.process.cancel_for(Reason::Shutdown);
    let step = Duration::from_millis(500);
    clock.step_until(step, "the end", server.ended()).await;
    assert!(
        clock.elapsed() >= Duration::from_secs(10),
        "{:?}",
        clock.elapsed()
    );
}

#[tokio::test]
async fn a_client_that_leaves_its_event_stream_is_noticed() {
    let (service, mut arrivals) = probe();
    let server = TestServer::with(Server::builder(), Context::background(), service).await;
    let mut client = Http1::connect(server.addr).await;
    client.request("GET", "/").await;
    let mut arrival = arrivals.next().await;
    let (response, _sender) = event_stream(true).await;
    arrival.answer(response);
    client.head().await;
    drop(client);
    assert_eq!(arrival.end().await.reason(), Reason::ClientGone);
}
