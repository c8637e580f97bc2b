//! The answer to a call that is made: its head, its body and its trailers, as our side sees them.

use std::fmt;
use std::pin::Pin;
use std::task::{Context as TaskContext, Poll, ready};
use std::time::Duration;

use bequest::{Context, Reason};
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};

use super::{BoxError, Here, MARK};
use crate::client::{Error, ResponseBody};
use crate::wire::grpc::{CANCELLED, DEADLINE_EXCEEDED, GrpcStatus, code, read_code};

/// The body of an answer, as a [`ClientLayer`](super::ClientLayer) hands it out: when its context ends, the stream is
/// reset, and trailers say so.
pub struct CallBody<R>(Option<Receiving<R>>);

/// An answer that is still coming.
struct Receiving<R> {
    body: ResponseBody<R>,
    own: Own,
}

/// Our own side of a call: what to make of the peer's.
#[derive(Clone)]
pub(super) struct Own {
    ctx: Context,
    /// What of our time the peer was not told of.
    margin: Duration,
    /// How much of our time may be left when a peer, or one behind it, gives up for our deadline: each keeps something.
    late: Duration,
}

impl Own {
    pub(super) fn new(ctx: Context, margin: Duration) -> Own {
        let budget = ctx.remaining().unwrap_or(Duration::MAX);
        Own {
            ctx,
            margin,
            late: margin.saturating_add(margin.saturating_mul(3).min(budget / 8)),
        }
    }

    /// Whether what the channel was told of our time is over.
    pub(super) fn is_over(&self) -> bool {
        self.ctx.remaining().is_some_and(|left| left <= self.margin)
    }

    /// Whether so little of our time is left that a peer whose time is over means ours.
    fn is_late(&self) -> bool {
        self.ctx.remaining().is_some_and(|left| left <= self.late)
    }

    /// Makes the head or the trailers of a peer ours: nobody else may set our mark, and a call that the peer cancelled when
    /// its time was over is one whose time was over.
    pub(super) fn receive(&self, headers: &mut HeaderMap) {
        headers.remove(MARK);
        let is_end = matches!(read_code(headers), Some(CANCELLED | DEADLINE_EXCEEDED));
        if is_end && self.is_late() {
            let message = "context deadline exceeded: the peer has seen our deadline pass".to_owned();
            let code = DEADLINE_EXCEEDED;
            ended_here(&GrpcStatus { code, message }, Here::Context).write(headers);
        }
    }
}

/// A status that is made here, and marked so.
pub(super) struct EndedHere<'a>(&'a GrpcStatus, Here);

pub(super) fn ended_here(status: &GrpcStatus, here: Here) -> EndedHere<'_> {
    EndedHere(status, here)
}

impl EndedHere<'_> {
    pub(super) fn write(&self, headers: &mut HeaderMap) {
        self.0.write(headers);
        headers.insert(MARK, self.1.mark());
    }
}

/// What our side makes of its own error: the status of an end, or `None` if it is a failure.
pub(super) fn status_of(error: &Error) -> Option<(GrpcStatus, Here)> {
    let message = error.to_string();
    if error.is_too_little_time() {
        let code = DEADLINE_EXCEEDED;
        return Some((GrpcStatus { code, message }, Here::TooLittle));
    }
    let end = error.canceled()?;
    let here = match end.reason() {
        Reason::Limit("exchange") => Here::Limit,
        _ => Here::Context,
    };
    Some((
        GrpcStatus {
            code: code(end),
            message,
        },
        here,
    ))
}

impl<R> CallBody<R> {
    pub(super) fn new(body: ResponseBody<R>, own: Own) -> CallBody<R> {
        CallBody(Some(Receiving { body, own }))
    }

    /// None: all is said in the head.
    pub(super) fn none() -> CallBody<R> {
        CallBody(None)
    }
}

impl<R> Body for CallBody<R>
where
    R: Body + Send + 'static,
    R::Error: Into<BoxError>,
{
    type Data = R::Data;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
    ) -> Poll<Option<Result<Frame<R::Data>, Error>>> {
        let Some(receiving) = &mut self.0 else {
            return Poll::Ready(None);
        };
        let frame = match ready!(Pin::new(&mut receiving.body).poll_frame(cx)) {
            Some(Ok(frame)) if !frame.is_trailers() => return Poll::Ready(Some(Ok(frame))),
            Some(Ok(frame)) => Some(Ok(match frame.into_trailers() {
                Ok(mut trailers) => {
                    receiving.own.receive(&mut trailers);
                    Frame::trailers(trailers)
                }
                Err(frame) => frame,
            })),
            Some(Err(error)) => Some(match status_of(&error) {
                Some((status, here)) => {
                    let mut trailers = HeaderMap::with_capacity(3);
                    ended_here(&status, here).write(&mut trailers);
                    Ok(Frame::trailers(trailers))
                }
                None => Err(error),
            }),
            None => None,
        };
        // Trailers, the end or a failure: nothing comes after them.
        self.0 = None;
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.0
            .as_ref()
            .is_none_or(|receiving| receiving.body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        // Trailers may come in place of messages.
        match self.is_end_stream() {
            true => SizeHint::with_exact(0),
            false => SizeHint::default(),
        }
    }
}

impl<R> fmt::Debug for CallBody<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallBody")
            .field("is_open", &self.0.is_some())
            .finish_non_exhaustive()
    }
}
