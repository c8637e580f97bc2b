//! Responses without an end of their own: ended by the shutdown at once, on both protocols.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use bequest::{Context, DoneOwned, Reason};
use bequest_http::server::{BoxError, Limits, Server, UntilShutdown};
use bytes::Bytes;
use http::Response;
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use http_body_util::channel::{Channel, Sender};

use super::common::{
    Arrivals, Http1, Http2, RawHttp2, TestBody, TestClock, TestServer, full, http2_bytes, probe, until,
};

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

/// One event, and another that says why it ends when its context does.
struct Telling {
    first: Option<Bytes>,
    end: Pin<Box<DoneOwned>>,
    /// Counts the bodies that have handed out their first event.
    begun: Arc<AtomicUsize>,
}

impl Body for Telling {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = &mut *self;
        if let Some(first) = this.first.take() {
            this.begun.fetch_add(1, SeqCst);
            return Poll::Ready(Some(Ok(Frame::data(first))));
        }
        // It would say so for ever.
        let end = std::task::ready!(this.end.as_mut().poll(cx));
        let text = format!("event: end\ndata: {}\n\n", end.reason());
        Poll::Ready(Some(Ok(Frame::data(text.into()))))
    }
}

/// An answer with this body, ended by the shutdown.
fn until_shutdown(body: impl Body<Data = Bytes, Error = Infallible> + Send + 'static) -> Response<TestBody> {
    let body = body.map_err(|never| -> BoxError { match never {} });
    let mut response = Response::new(body.boxed_unsync());
    response.extensions_mut().insert(UntilShutdown);
    response
}

/// More than any two sockets hold: a client that does not read it leaves its server waiting.
const TOO_MUCH: usize = 64 << 20;

/// An answer that a client does not read to its end, with more to come.
fn overwhelming(marked: bool) -> Response<TestBody> {
    let body = Telling {
        first: Some(Bytes::from(vec![b'x'; TOO_MUCH])),
        end: Box::pin(Context::background().done_owned()),
        begun: Arc::default(),
    };
    let mut response = until_shutdown(body);
    if !marked {
        response.extensions_mut().remove::<UntilShutdown>();
    }
    response
}

/// How far the clock goes until a server has ended whose only client, on the protocol of `ask`, has stopped reading.
async fn shutdown_with_a_reader_that_stopped<C>(
    marked: bool,
    ask: impl AsyncFnOnce(&TestServer) -> C,
) -> (Duration, Reason) {
    let clock = TestClock::new();
    let (service, mut arrivals) = probe();
    let builder = Server::builder().limits(limits());
    let server = TestServer::with(builder, clock.context(), service).await;
    let client = ask(&server).await;
    let mut arrival = arrivals.next().await;
    arrival.answer(overwhelming(marked));
    server.process.cancel_for(Reason::Shutdown);
    let step = Duration::from_millis(50);
    let (_, waited) = clock.step_until(step, "the end", server.ended()).await;
    drop(client);
    (waited, arrival.end().await.reason())
}

/// Those that matter here, said.
fn limits() -> Limits {
    Limits {
        answer: Duration::from_millis(250),
        drain: Duration::from_secs(10),
        ..Limits::default()
    }
}

async fn http1(server: &TestServer) -> Http1 {
    let mut client = Http1::connect(server.addr).await;
    client.request("GET", "/").await;
    client
}

async fn http2(server: &TestServer) -> (Http2, super::common::Stream) {
    let client = Http2::connect(server.addr).await;
    let stream = client.request("/").await;
    (client, stream)
}

/// A client whose windows are wide open, and which does not read its socket.
async fn http2_of_an_unread_socket(server: &TestServer) -> RawHttp2 {
    let mut client = RawHttp2::connect(server.addr).await;
    let most = (1_u32 << 31) - 1;
    let initial_window = [&[0, 4][..], &most.to_be_bytes()].concat();
    client.frame(RawHttp2::SETTINGS, 0, 0, &initial_window).await;
    let window = http2_bytes::frame(8, 0, 0, &(most - 65_535).to_be_bytes());
    assert!(client.try_send(&window).await);
    client.get(1, "/").await;
    client
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
async fn an_event_stream_says_why_it_ends_and_then_no_more() {
    let clock = TestClock::new();
    let (server, mut arrivals) = server(&clock).await;
    let mut one = Http1::connect(server.addr).await;
    one.request("GET", "/one").await;
    let two = Http2::connect(server.addr).await;
    let stream = two.request("/two").await;
    let begun = Arc::new(AtomicUsize::new(0));
    for mut arrival in arrivals.take(2).await {
        let body = Telling {
            first: Some(Bytes::from_static(b"data: one\n\n")),
            end: Box::pin(arrival.ctx.clone().done_owned()),
            begun: begun.clone(),
        };
        arrival.answer(until_shutdown(body));
    }
    assert_eq!(one.head().await.status, 200);
    until("both to have begun", || begun.load(SeqCst) == 2).await;
    let reading = tokio::spawn(stream.answer());
    let summary = server.stop().await;
    assert_eq!(clock.elapsed(), Duration::ZERO);
    assert_eq!((summary.unfinished, summary.statistics.shut_down), (0, 2));
    let last_word = "event: end\ndata: shutting down\n\n";
    let rest = one.rest().await;
    assert!(rest.ends_with(&format!("{last_word}\r\n0\r\n\r\n")), "{rest:?}");
    assert_eq!(rest.matches(last_word).count(), 1);
    let (_, body) = reading.await.expect("no panic").expect("no reset");
    assert_eq!(body, format!("data: one\n\n{last_word}"));
}

#[tokio::test]
async fn a_reader_that_has_stopped_does_not_hold_the_shutdown_up() {
    let limits = limits();
    for (waited, reason) in [
        shutdown_with_a_reader_that_stopped(true, http1).await,
        shutdown_with_a_reader_that_stopped(true, http2).await,
        shutdown_with_a_reader_that_stopped(true, http2_of_an_unread_socket).await,
    ] {
        assert!((limits.answer..limits.drain).contains(&waited), "{waited:?}");
        assert_eq!(reason, Reason::Shutdown);
    }
}

#[tokio::test]
async fn control_without_the_mark_a_reader_that_has_stopped_uses_up_the_drain() {
    let drain = limits().drain;
    for (waited, _) in [
        shutdown_with_a_reader_that_stopped(false, http1).await,
        shutdown_with_a_reader_that_stopped(false, http2).await,
        shutdown_with_a_reader_that_stopped(false, http2_of_an_unread_socket).await,
    ] {
        assert!(waited >= drain, "{waited:?}");
    }
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
