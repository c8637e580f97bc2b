//! A deadline counts as soon as it has passed, though its timer is late: whatever else wakes a call ends it.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context as TaskContext, Poll};
use std::time::{Duration, Instant};

use bequest::Context;
use bequest::clock::{Alarm, Clock};
use bequest_http::grpc::{RequestBody, ServerLayer};
use bequest_test::task;
use bytes::Bytes;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, Channel, Empty};
use tower_layer::Layer;
use tower_service::Service;

use super::support::status;

/// A clock whose time is moved by hand, and that rings for nobody.
#[derive(Clone, Debug)]
struct Late(Arc<Mutex<Instant>>);

impl Late {
    fn new() -> Late {
        Late(Arc::new(Mutex::new(Instant::now())))
    }

    fn advance(&self, time: Duration) {
        *self.0.lock().expect("no panic") += time;
    }
}

impl Clock for Late {
    fn now(&self) -> Instant {
        *self.0.lock().expect("no panic")
    }

    fn wake_at(&self, _at: Instant, _alarm: Alarm) {}
}

type Body = Channel<Bytes, Infallible>;

/// Answers with this body, once.
struct Handler(Option<Body>);

impl Service<Request<RequestBody<Empty<Bytes>>>> for Handler {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _cx: &mut TaskContext<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _request: Request<RequestBody<Empty<Bytes>>>) -> Self::Future {
        ready(Ok(Response::new(self.0.take().expect("asked once"))))
    }
}

/// Never answers.
struct Deaf;

impl Service<Request<RequestBody<Empty<Bytes>>>> for Deaf {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut TaskContext<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _request: Request<RequestBody<Empty<Bytes>>>) -> Self::Future {
        Box::pin(std::future::pending())
    }
}

fn message(text: &'static str) -> Frame<Bytes> {
    Frame::data(Bytes::from_static(text.as_bytes()))
}

/// A call that may take a second.
fn call() -> Request<Empty<Bytes>> {
    Request::post("http://test/bequest.test.Work/Down")
        .header("content-type", "application/grpc")
        .header("grpc-timeout", "1S")
        .body(Empty::new())
        .expect("a request")
}

fn layer(clock: &Late) -> ServerLayer {
    let base = Context::with_clock(clock.clone());
    ServerLayer::new().base(&base).grace(Duration::ZERO)
}

#[test]
fn a_message_after_the_deadline_is_the_end_of_its_stream() {
    for passed in [Duration::from_secs(1), Duration::from_secs(60)] {
        let clock = Late::new();
        let (mut sender, body) = Channel::new(2);
        let mut service = layer(&clock).layer(Handler(Some(body)));
        let answer = task(service.call(call())).assert_ready().expect("infallible");
        let mut body = answer.into_body();
        sender.try_send(message("in time")).expect("room");
        let first = task(body.frame())
            .assert_ready()
            .expect("a message")
            .expect("no failure");
        assert_eq!(first.into_data().expect("a message"), "in time");
        task(body.frame()).assert_pending();

        clock.advance(passed);
        sender.try_send(message("too late")).expect("room");
        let last = task(body.frame())
            .assert_ready()
            .expect("trailers")
            .expect("no failure");
        assert_eq!(status(&last.into_trailers().expect("trailers")), 4);
        assert!(task(body.frame()).assert_ready().is_none());
    }
}

#[test]
fn control_before_its_deadline_a_stream_goes_on() {
    let clock = Late::new();
    let (mut sender, body) = Channel::new(2);
    let mut service = layer(&clock).layer(Handler(Some(body)));
    let answer = task(service.call(call())).assert_ready().expect("infallible");
    let mut body = answer.into_body();
    task(body.frame()).assert_pending();
    // Less the margin.
    clock.advance(Duration::from_millis(998));
    sender.try_send(message("in time")).expect("room");
    let next = task(body.frame())
        .assert_ready()
        .expect("a message")
        .expect("no failure");
    assert_eq!(next.into_data().expect("a message"), "in time");
}

#[test]
fn a_handler_that_is_woken_after_its_deadline_is_answered_for() {
    let clock = Late::new();
    let mut answering = task(layer(&clock).layer(Deaf).call(call()));
    answering.assert_pending();
    clock.advance(Duration::from_secs(1));
    let answer = answering.assert_ready().expect("infallible");
    assert_eq!(status(answer.headers()), 4);
}
