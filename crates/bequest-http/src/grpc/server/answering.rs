//! A handler on its way to its answer, and where it runs on when it has been answered for.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use bequest::{Context, Reason};
use http::Response;
use http_body::Body;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use super::body::ResponseBody;
use super::call::Call;
use crate::server::{ExchangeHandle, Handler};
use crate::wire::grpc::{GrpcStatus, read_code};

/// The future of a [`ServerService`](super::ServerService).
///
/// # Cancel safety
///
/// Dropping it says that the caller has left: the handler is told, and runs on for its grace.
#[must_use = "futures do nothing unless awaited"]
pub struct Answering<R: Send + 'static, E: Send + 'static>(Stage<R, E>);

enum Stage<R, E> {
    /// Not a call: the handler is left alone.
    Untouched(Handler<Result<Response<R>, E>>),
    /// Not worth beginning.
    Refused(GrpcStatus),
    Called(Called<R, E>),
    Over,
}

/// A call with its handler.
pub(super) struct Called<R, E> {
    pub(super) handler: Handler<Result<Response<R>, E>>,
    pub(super) call: Call,
    pub(super) elsewhere: Elsewhere,
    /// Whether the handler was polled at all.
    pub(super) has_begun: bool,
}

/// Where a handler runs on when nobody waits for it.
#[derive(Clone)]
pub(super) enum Elsewhere {
    /// With the server of this crate, which has a mode for each route, and caps.
    Server(ExchangeHandle),
    /// In a task, for the grace, if there is a place.
    Task {
        clock: Context,
        grace: Duration,
        places: Arc<Semaphore>,
    },
}

impl<R: Send + 'static, E: Send + 'static> Answering<R, E> {
    pub(super) fn untouched(handler: Handler<Result<Response<R>, E>>) -> Answering<R, E> {
        Answering(Stage::Untouched(handler))
    }

    pub(super) fn refused(status: GrpcStatus) -> Answering<R, E> {
        Answering(Stage::Refused(status))
    }

    pub(super) fn called(called: Called<R, E>) -> Answering<R, E> {
        Answering(Stage::Called(called))
    }
}

impl<R: Body + Send + 'static, E: Send + 'static> Future for Answering<R, E> {
    type Output = Result<Response<ResponseBody<R>>, E>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            Stage::Untouched(handler) => {
                let answer = std::task::ready!(handler.as_mut().poll(cx));
                Poll::Ready(answer.map(|answer| answer.map(|body| ResponseBody::new(body, None))))
            }
            Stage::Refused(status) => Poll::Ready(Ok(without_messages(status))),
            Stage::Called(called) => {
                called.has_begun = true;
                if let Poll::Ready(answer) = called.handler.as_mut().poll(cx) {
                    let Stage::Called(called) = std::mem::replace(&mut self.0, Stage::Over) else {
                        unreachable!("matched above");
                    };
                    return Poll::Ready(answer.map(|answer| called.answer(answer)));
                }
                let end = std::task::ready!(called.call.poll_end(cx));
                let Stage::Called(called) = std::mem::replace(&mut self.0, Stage::Over) else {
                    unreachable!("matched above");
                };
                called.elsewhere.linger(called.handler);
                Poll::Ready(Ok(without_messages(&GrpcStatus::of(&end))))
            }
            Stage::Over => panic!("polled again after it was ready"),
        }
    }
}

impl<R: Body, E> Called<R, E> {
    /// What the handler said; once the context has ended, a failure is the context's failure.
    fn answer(self, answer: Response<R>) -> Response<ResponseBody<R>> {
        let (mut head, body) = answer.into_parts();
        let is_failure = read_code(&head.headers).is_some_and(|code| code != 0);
        if let Some(end) = self.call.ended().filter(|_| is_failure) {
            GrpcStatus::of(&end).write(&mut head.headers);
        }
        let mut call = self.call;
        if body.is_end_stream() {
            call.finish(Reason::ResponseEnded);
        }
        Response::from_parts(head, ResponseBody::new(body, Some(call)))
    }
}

impl Elsewhere {
    /// Lets a handler run on for its grace, told of its end.
    fn linger<T: Send + 'static>(&self, handler: Handler<T>) {
        match self {
            Elsewhere::Server(exchange) => exchange.linger(handler),
            Elsewhere::Task { grace, .. } if grace.is_zero() => {}
            Elsewhere::Task { clock, grace, places } => {
                let place = places.clone().try_acquire_owned();
                let (Ok(place), Ok(runtime)) = (place, Handle::try_current()) else {
                    return;
                };
                let (clock, grace) = (clock.clone(), *grace);
                // Not joined: it ends with its grace.
                drop(runtime.spawn(async move {
                    // Whatever it says, nobody waits for it.
                    let _ = clock.timeout(grace, handler).await;
                    drop(place);
                }));
            }
        }
    }
}

impl<R: Send + 'static, E: Send + 'static> Drop for Answering<R, E> {
    fn drop(&mut self) {
        let Stage::Called(mut called) = std::mem::replace(&mut self.0, Stage::Over) else {
            return;
        };
        // On this crate's server it has ended already, and its handler has had its grace.
        called.call.finish(Reason::ClientGone);
        if called.has_begun && matches!(called.elsewhere, Elsewhere::Task { .. }) {
            called.elsewhere.linger(called.handler);
        }
    }
}

/// An answer that says all in its head.
fn without_messages<R>(status: &GrpcStatus) -> Response<ResponseBody<R>> {
    let mut answer = Response::new(ResponseBody::none());
    *answer.headers_mut() = status.head();
    answer
}

impl<R: Send + 'static, E: Send + 'static> fmt::Debug for Answering<R, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Stage::Untouched(_) => "Answering(untouched)",
            Stage::Refused(_) => "Answering(refused)",
            Stage::Called(_) => "Answering(called)",
            Stage::Over => "Answering(over)",
        })
    }
}
