//! Requests in memory, and what became of them (feature `http`): T4 for handlers that answer with a value.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use bequest::{Canceled, Context, Kind, Reason};
use bequest_test::Clock;
use bequest_test::http::{Ending, Exchange, call, get, post, record};
use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body::{Body, Frame};
use http_body_util::BodyExt;

const PIECE: Duration = Duration::from_millis(10);

/// A handler that looks at the request's context.
async fn slow<B>(request: Request<B>) -> Result<Response<String>, Canceled> {
    let ctx = request.extensions().get::<Context>().expect("it carries one");
    ctx.sleep(PIECE).await?;
    Ok(Response::new("hello, world".into()))
}

/// A clock and a request on it whose client leaves after `after`.
fn leaving(after: Duration) -> (Clock, bequest::CancelScope) {
    let clock = Clock::new();
    let request = clock.context().with_cancel();
    let client = request.canceller();
    clock.schedule(after, move || client.cancel_for(Reason::ClientGone));
    (clock, request)
}

#[test]
fn an_answer_is_recorded() {
    let clock = Clock::new();
    let request = clock.context().with_cancel();
    let handler = async {
        let body = slow(get(&request, "/")).await?.into_body();
        Ok::<_, Canceled>(
            Response::builder()
                .status(201)
                .header("etag", "7")
                .body(body)
                .unwrap(),
        )
    };
    let answer = clock.run(record(&request, handler)).expect_answer();
    assert_eq!(answer.status, StatusCode::CREATED);
    assert_eq!(answer.headers["etag"], "7");
    assert_eq!(answer.text(), "hello, world");
    assert!(answer.is_complete());
    assert_eq!(clock.elapsed(), PIECE);
}

#[test]
fn a_handler_that_is_told_fails_and_nothing_is_written() {
    let (clock, request) = leaving(PIECE / 2);
    let exchange = clock.run(record(&request, slow(get(&request, "/"))));
    exchange.assert_untouched();
    assert!(matches!(exchange, Exchange::Failed(end) if end == Kind::Canceled));
    assert_eq!(clock.elapsed(), PIECE / 2);
}

#[test]
fn a_handler_that_does_not_look_is_dropped() {
    let (clock, request) = leaving(PIECE / 2);
    let own = clock.context();
    let dropped = std::cell::Cell::new(false);
    let handler = async {
        let _guard = Guard(&dropped);
        own.sleep(PIECE).await?;
        Ok::<_, Canceled>(Response::new(String::new()))
    };
    let exchange = clock.run(record(&request, handler));
    assert!(matches!(exchange, Exchange::Untouched(end) if end.reason() == Reason::ClientGone));
    assert!(dropped.get());
    assert_eq!(clock.elapsed(), PIECE / 2);

    struct Guard<'a>(&'a std::cell::Cell<bool>);
    impl Drop for Guard<'_> {
        fn drop(&mut self) {
            self.0.set(true);
        }
    }
}

/// Negative control: a handler that answers a client that has left, be it with nothing, did not notice.
#[test]
fn control_an_empty_answer_to_a_client_that_left_is_seen() {
    let (clock, request) = leaving(PIECE / 2);
    let ctx = request.context();
    let handler = async {
        ctx.done().await;
        Ok::<_, Infallible>(Response::new(String::new()))
    };
    let exchange = clock.run(record(&request, handler));
    assert!(!exchange.is_untouched());
    assert!(exchange.expect_answer().body().is_empty());
}

/// A handler whose errors are answers, as axum's are; and what became of it when its context ended for `reason`.
fn answered_after(reason: Reason) -> Exchange<Infallible> {
    let clock = Clock::new();
    let request = clock.context().with_cancel();
    let canceller = request.canceller();
    clock.schedule(PIECE / 2, move || canceller.cancel_for(reason));
    let ctx = request.context();
    clock.run(record(&request, async {
        let answer = slow(get(&ctx, "/")).await;
        Ok(answer.unwrap_or_else(|end| Response::builder().status(503).body(end.to_string()).unwrap()))
    }))
}

#[test]
fn an_error_that_is_an_answer_is_not_sent_to_a_client_that_left() {
    for reason in [Reason::ClientGone, Reason::StreamReset, Reason::Unreachable] {
        let exchange = answered_after(reason);
        exchange.assert_unsent();
        assert!(!exchange.is_untouched());
        let answer = exchange.expect_answer();
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(answer.late.unwrap().reason(), reason);
    }
}

/// Negative control: what somebody waits for is sent, late or not.
#[test]
fn control_an_answer_that_somebody_waits_for_is_sent() {
    for reason in [Reason::Shutdown, Reason::Limit("request"), Reason::Explicit] {
        assert!(!answered_after(reason).is_unsent(), "{reason}");
    }
    let (clock, request) = leaving(PIECE * 2);
    let in_time = clock.run(record(&request, slow(get(&request, "/"))));
    assert!(!in_time.is_unsent());
    assert!(in_time.expect_answer().late.is_none());

    let (clock, request) = leaving(PIECE * 5 / 2);
    let handler = async { Ok::<_, Infallible>(Response::new(Pieces::new(&clock))) };
    assert!(
        !clock.run(record(&request, handler)).is_unsent(),
        "the client left in the middle of it"
    );
}

/// A body of three frames and trailers, `PIECE` apart, that breaks after `breaks_after` frames.
struct Pieces {
    time: Context,
    sent: usize,
    breaks_after: usize,
    pause: Option<bequest::RunOwned<Pin<Box<dyn Future<Output = ()> + Send>>>>,
}

impl Pieces {
    fn new(clock: &Clock) -> Pieces {
        Pieces {
            time: clock.context(),
            sent: 0,
            breaks_after: usize::MAX,
            pause: None,
        }
    }
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = &'static str;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        task: &mut TaskContext<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, &'static str>>> {
        let time = self.time.clone();
        let pause = self.pause.get_or_insert_with(|| {
            let ctx = time.clone();
            let sleep: Pin<Box<dyn Future<Output = ()> + Send>> =
                Box::pin(async move { ctx.sleep(PIECE).await.expect("a root never ends") });
            time.run_owned(sleep)
        });
        if Pin::new(pause).poll(task).is_pending() {
            return Poll::Pending;
        }
        self.pause = None;
        self.sent += 1;
        Poll::Ready(match self.sent {
            sent if sent > self.breaks_after => Some(Err("the disk is full")),
            1 => Some(Ok(Frame::data("one".into()))),
            2 => Some(Ok(Frame::data(Bytes::new()))),
            3 => Some(Ok(Frame::data("three".into()))),
            4 => Some(Ok(Frame::trailers(HeaderMap::from_iter([(
                "x-sum".parse().unwrap(),
                "2".parse().unwrap(),
            )])))),
            _ => None,
        })
    }
}

#[test]
fn a_body_is_recorded_frame_by_frame() {
    let clock = Clock::new();
    let handler = async { Ok::<_, Infallible>(Response::new(Pieces::new(&clock))) };
    let answer = clock.run(record(&Context::background(), handler)).expect_answer();
    assert_eq!(answer.frames, ["one", "", "three"], "an empty frame is one");
    assert_eq!(answer.trailers.as_ref().unwrap()["x-sum"], "2");
    assert_eq!(answer.body(), "onethree");
    assert!(answer.is_complete());
}

#[test]
fn a_client_that_leaves_in_the_middle_of_the_body_cuts_it() {
    let (clock, request) = leaving(PIECE * 5 / 2);
    let handler = async { Ok::<_, Infallible>(Response::new(Pieces::new(&clock))) };
    let answer = clock.run(record(&request, handler)).expect_answer();
    assert_eq!(answer.frames, ["one", ""]);
    assert!(matches!(answer.ending, Ending::Cut(end) if end.reason() == Reason::ClientGone));
    assert_eq!(clock.elapsed(), PIECE * 5 / 2);
}

#[test]
fn a_body_that_breaks_is_not_complete() {
    let clock = Clock::new();
    let body = Pieces {
        breaks_after: 1,
        ..Pieces::new(&clock)
    };
    let handler = async { Ok::<_, Infallible>(Response::new(body)) };
    let answer = clock.run(record(&Context::background(), handler)).expect_answer();
    assert_eq!(answer.frames, ["one"]);
    assert!(!answer.is_complete());
    assert!(matches!(answer.ending, Ending::Broken(error) if error.to_string() == "the disk is full"));
}

/// A service that is not ready at first, and then answers with the request's body.
struct Echo {
    asked: usize,
}

impl<B> tower_service::Service<Request<B>> for Echo
where
    B: Body<Data = Bytes, Error = Infallible> + 'static,
{
    type Response = Response<String>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<String>, Infallible>>>>;

    fn poll_ready(&mut self, task: &mut TaskContext<'_>) -> Poll<Result<(), Infallible>> {
        self.asked += 1;
        if self.asked == 1 {
            task.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        assert!(self.asked > 1, "called before it was ready");
        Box::pin(async move {
            let Ok(body) = request.into_body().collect().await;
            let text = String::from_utf8_lossy(&body.to_bytes()).into_owned();
            Ok(Response::new(text))
        })
    }
}

#[test]
fn a_service_is_called_when_it_is_ready() {
    let request = post(&Context::background(), "/echo", "hello");
    let answer = Clock::new().run(call(Echo { asked: 0 }, request)).expect_answer();
    assert_eq!(answer.text(), "hello");
}

#[test]
fn a_request_whose_context_has_ended_reaches_nobody() {
    let scope = Context::background().with_cancel();
    scope.cancel();
    let exchange = Clock::new().run(call(Echo { asked: 0 }, post(&scope, "/echo", "hello")));
    assert!(matches!(exchange, Exchange::Untouched(_)));
}
