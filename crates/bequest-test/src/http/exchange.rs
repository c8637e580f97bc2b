//! What became of a request.
//!
//! # Invariants
//!
//! 1. Work that has not answered when its context ends is polled once after the end, and then dropped before the
//!    exchange is reported.
//! 2. An answer given in that last poll is an answer, and says that it came late: whether it would have been written is the
//!    server's to decide.
//! 3. Frames are kept as they came; none is joined with another.

use std::error::Error;
use std::fmt;
use std::future::poll_fn;
use std::pin::pin;

use bequest::{Canceled, Context};
use bytes::{Buf, Bytes};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body::Body;
use tower_service::Service;

/// What became of a request.
#[derive(Debug)]
pub enum Exchange<E> {
    /// There was an answer, complete or not.
    Answered(Box<Answer>),
    /// The context ended first: nothing was written, and what worked on it was dropped.
    Untouched(Canceled),
    /// The handler ended with an error instead of an answer: nothing was written.
    Failed(E),
}

/// An answer as the client would have seen it.
#[derive(Debug)]
#[non_exhaustive]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The data frames of the body, empty ones included.
    pub frames: Vec<Bytes>,
    /// The headers after the body, if there were any.
    pub trailers: Option<HeaderMap>,
    /// How the body ended.
    pub ending: Ending,
    /// The end of the context, if that came before the answer: the handler was told, and answered all the same, by an error
    /// perhaps. A client that has left is not sent it.
    pub late: Option<Canceled>,
}

/// How a body ended.
#[derive(Debug)]
pub enum Ending {
    /// Regularly.
    Complete,
    /// The context ended first, and the body was dropped.
    Cut(Canceled),
    /// The body reported an error.
    Broken(Box<dyn Error + Send + Sync>),
}

/// Runs what answers a request until it has answered or `ctx`, the request's context, has ended, and collects the
/// answer.
///
/// If the context has ended before the first poll, `handler` is never polled. Its error, if it fails, is kept: it is
/// the test that decides what it means.
///
/// # Cancel safety
///
/// Dropping the future drops the handler or the body wherever it stood.
///
/// # Example: the body, frame by frame
///
/// ```
/// use bequest::Context;
/// use bequest_test::{Clock, http::record};
/// use std::convert::Infallible;
///
/// let ctx = Context::background();
/// let handler = async { Ok::<_, Infallible>(http::Response::new("hello".to_string())) };
/// let answer = Clock::new().run(record(&ctx, handler)).expect_answer();
/// assert_eq!(answer.frames, ["hello"]);
/// assert!(answer.is_complete());
/// ```
pub async fn record<B, E>(ctx: &Context, handler: impl Future<Output = Result<Response<B>, E>>) -> Exchange<E>
where
    B: Body<Error: Into<Box<dyn Error + Send + Sync>>>,
{
    match ctx.run(handler).await {
        Err(end) => Exchange::Untouched(end),
        Ok(Err(error)) => Exchange::Failed(error),
        Ok(Ok(response)) => {
            let late = ctx.err();
            Exchange::Answered(Box::new(collect(ctx, response, late).await))
        }
    }
}

/// Calls a service once with `request`, as soon as it is ready, and [`record`]s it under the context that the request
/// carries; the background, if it carries none.
///
/// # Cancel safety
///
/// As [`record`].
///
/// ```
/// use bequest::Context;
/// use bequest_test::{Clock, http::{call, get}};
/// use http::{Request, Response};
/// use std::convert::Infallible;
/// use std::future::{Ready, ready};
/// use std::task::{Context as TaskContext, Poll};
///
/// struct Echo;
/// impl<B> tower_service::Service<Request<B>> for Echo {
///     type Response = Response<String>;
///     type Error = Infallible;
///     type Future = Ready<Result<Response<String>, Infallible>>;
///     fn poll_ready(&mut self, _: &mut TaskContext<'_>) -> Poll<Result<(), Infallible>> {
///         Poll::Ready(Ok(()))
///     }
///     fn call(&mut self, request: Request<B>) -> Self::Future {
///         ready(Ok(Response::new(request.uri().path().to_string())))
///     }
/// }
///
/// let request = get(&Context::background(), "/echo");
/// assert_eq!(Clock::new().run(call(Echo, request)).expect_answer().text(), "/echo");
/// ```
pub async fn call<S, B, R>(mut service: S, request: Request<B>) -> Exchange<S::Error>
where
    S: Service<Request<B>, Response = Response<R>>,
    R: Body<Error: Into<Box<dyn Error + Send + Sync>>>,
{
    let ctx = request
        .extensions()
        .get::<Context>()
        .cloned()
        .unwrap_or_else(Context::background);
    let handler = async {
        poll_fn(|task| service.poll_ready(task)).await?;
        service.call(request).await
    };
    record(&ctx, handler).await
}

async fn collect<B>(ctx: &Context, response: Response<B>, late: Option<Canceled>) -> Answer
where
    B: Body<Error: Into<Box<dyn Error + Send + Sync>>>,
{
    let (head, body) = response.into_parts();
    let mut body = pin!(body);
    let mut answer = Answer {
        status: head.status,
        headers: head.headers,
        frames: Vec::new(),
        trailers: None,
        ending: Ending::Complete,
        late,
    };
    loop {
        let frame = match ctx.run(poll_fn(|task| body.as_mut().poll_frame(task))).await {
            Ok(None) => break,
            Ok(Some(Ok(frame))) => frame,
            Ok(Some(Err(error))) => {
                answer.ending = Ending::Broken(error.into());
                break;
            }
            Err(end) => {
                answer.ending = Ending::Cut(end);
                break;
            }
        };
        match frame.into_data() {
            Ok(mut data) => answer.frames.push(data.copy_to_bytes(data.remaining())),
            Err(frame) => answer.trailers = frame.into_trailers().ok().or(answer.trailers),
        }
    }
    answer
}

impl<E: fmt::Debug> Exchange<E> {
    /// Whether nothing was written, be it that the context ended or that the handler failed.
    ///
    /// ```
    /// use bequest_test::http::Exchange;
    ///
    /// assert!(Exchange::Failed("no such table").is_untouched());
    /// ```
    pub fn is_untouched(&self) -> bool {
        !matches!(self, Exchange::Answered(_))
    }

    /// Fails the test if anything was written, be it an empty answer.
    ///
    /// ```should_panic
    /// use bequest::Context;
    /// use bequest_test::{Clock, http::record};
    /// use std::convert::Infallible;
    ///
    /// let empty = async { Ok::<_, Infallible>(http::Response::new(String::new())) };
    /// Clock::new().run(record(&Context::background(), empty)).assert_untouched();
    /// ```
    ///
    /// A handler that makes an answer of its own end, as axum's do whose error is a response, is not untouched:
    /// [`assert_unsent`](Exchange::assert_unsent) is for those.
    ///
    /// # Panics
    ///
    /// If there was an answer, with it.
    #[track_caller]
    pub fn assert_untouched(&self) {
        match self {
            Exchange::Answered(answer) => match &answer.late {
                Some(end) => {
                    panic!("there was an answer, given after \"{end}\" (see assert_unsent): {answer:?}")
                }
                None => panic!("there was an answer: {answer:?}"),
            },
            Exchange::Untouched(_) | Exchange::Failed(_) => {}
        }
    }

    /// Whether nothing would have been sent to the client: [untouched](Exchange::is_untouched), or answered only after the
    /// client had left. An answer to a deadline or a shutdown is sent, since somebody waits for it.
    ///
    /// A client of HTTP/1 that has closed its sending side counts as one that has left, and yet is sent what is answered
    /// within the grace. A test for that looks at [`Answer::late`] itself.
    pub fn is_unsent(&self) -> bool {
        match self {
            Exchange::Answered(answer) => answer
                .late
                .as_ref()
                .is_some_and(|end| end.reason().is_departure()),
            Exchange::Untouched(_) | Exchange::Failed(_) => true,
        }
    }

    /// Fails the test if anything would have been sent to the client; see [`is_unsent`](Exchange::is_unsent).
    ///
    /// ```
    /// use bequest::{Context, Reason};
    /// use bequest_test::{Clock, http::record};
    /// use std::convert::Infallible;
    /// use std::time::Duration;
    ///
    /// /// As axum's handlers: an error is an answer, too.
    /// async fn handler(ctx: &Context) -> Result<http::Response<String>, Infallible> {
    ///     let text = match ctx.sleep(Duration::from_secs(1)).await {
    ///         Ok(()) => "hello".to_owned(),
    ///         Err(end) => end.to_string(),
    ///     };
    ///     Ok(http::Response::new(text))
    /// }
    ///
    /// let clock = Clock::new();
    /// let request = clock.context().with_cancel();
    /// let client = request.canceller();
    /// clock.schedule(Duration::from_millis(5), move || client.cancel_for(Reason::ClientGone));
    /// let exchange = clock.run(record(&request, handler(&request)));
    /// exchange.assert_unsent();
    /// assert_eq!(exchange.expect_answer().late.unwrap().reason(), Reason::ClientGone);
    ///
    /// let late = clock.context().with_timeout(Duration::from_millis(5));
    /// assert!(!clock.run(record(&late, handler(&late))).is_unsent(), "it says that it was too late");
    /// ```
    ///
    /// # Panics
    ///
    /// If there was an answer in time, or one to a client that still waits, with it.
    #[track_caller]
    pub fn assert_unsent(&self) {
        assert!(
            self.is_unsent(),
            "there was an answer, and somebody to send it to: {self:?}"
        );
    }

    /// The answer.
    ///
    /// ```should_panic
    /// use bequest_test::http::Exchange;
    ///
    /// Exchange::Failed("no such table").expect_answer();
    /// ```
    ///
    /// # Panics
    ///
    /// If there was none, with what came instead.
    #[track_caller]
    pub fn expect_answer(self) -> Answer {
        match self {
            Exchange::Answered(answer) => *answer,
            other => panic!("there was no answer: {other:?}"),
        }
    }
}

impl Answer {
    /// The whole body: all frames, joined.
    pub fn body(&self) -> Bytes {
        self.frames.concat().into()
    }

    /// The whole body as text.
    ///
    /// # Panics
    ///
    /// If it is not UTF-8.
    #[track_caller]
    pub fn text(&self) -> String {
        match String::from_utf8(self.frames.concat()) {
            Ok(text) => text,
            Err(error) => panic!("the body is not text: {error}"),
        }
    }

    /// Whether the body ended regularly.
    pub fn is_complete(&self) -> bool {
        matches!(self.ending, Ending::Complete)
    }
}
