//! The two bodies of a call that is being answered: both end with its context.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context as TaskContext, Poll, ready};

use bequest::{Canceled, Context, DoneOwned, Reason};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use super::BoxError;
use super::call::Call;
use crate::wire::grpc::{GrpcStatus, read_code};

pin_project! {
    /// The body of a request, as the handlers inside a [`ServerLayer`](super::ServerLayer) get it: it fails when their
    /// context ends, with a [`BrokenOff`].
    ///
    /// # Cancel safety
    ///
    /// Polling loses nothing: a frame is either handed out or still to come.
    pub struct RequestBody<B> {
        #[pin]
        inner: B,
        // `None`: not a call, and passed on as it is.
        ctx: Option<Context>,
        // Made when the body first has to wait.
        end: Option<DoneOwned>,
    }
}

pin_project! {
    /// The body of an answer on its way out of a [`ServerLayer`](super::ServerLayer): when its context ends, the stream is
    /// dropped, and trailers say why.
    ///
    /// # Cancel safety
    ///
    /// Dropping it ends the context of the call.
    pub struct ResponseBody<B> {
        // `None` once all is said.
        #[pin]
        inner: Option<B>,
        // `None`: not a call, and passed on as it is.
        call: Option<Call>,
    }
}

/// The error of a request's body that did not come to its end. tonic has it as the source of the status that a handler gets
/// for its read.
///
/// It has no source itself. tonic takes a request whose body failed as cancelled for one that is complete, wherever among the
/// sources it finds that; a handler would store half an upload.
#[derive(Debug)]
pub struct BrokenOff(Broken);

#[derive(Debug)]
enum Broken {
    Ended(Canceled),
    Failed(BoxError),
}

impl BrokenOff {
    /// The end of the context, if that is why.
    pub fn canceled(&self) -> Option<&Canceled> {
        match &self.0 {
            Broken::Ended(end) => Some(end),
            Broken::Failed(_) => None,
        }
    }

    fn ended(end: Canceled) -> BoxError {
        Box::new(BrokenOff(Broken::Ended(end)))
    }

    fn failed(error: impl Into<BoxError>) -> BoxError {
        Box::new(BrokenOff(Broken::Failed(error.into())))
    }
}

impl fmt::Display for BrokenOff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Broken::Ended(end) => fmt::Display::fmt(end, f),
            Broken::Failed(error) => write!(f, "the request broke off: {error}"),
        }
    }
}

impl std::error::Error for BrokenOff {}

impl<B> RequestBody<B> {
    /// The body of a request under this context; without one it is passed on as it is.
    pub(super) fn new(inner: B, ctx: Option<Context>) -> RequestBody<B> {
        RequestBody {
            inner,
            ctx,
            end: None,
        }
    }
}

impl<B> Body for RequestBody<B>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    type Data = B::Data;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, BoxError>>> {
        let this = self.project();
        let Some(ctx) = this.ctx else {
            return this.inner.poll_frame(cx).map_err(Into::into);
        };
        // Asked first, so that a stream that always has a message ends too.
        if let Some(end) = ctx.err() {
            return Poll::Ready(Some(Err(BrokenOff::ended(end))));
        }
        if let Poll::Ready(frame) = this.inner.poll_frame(cx) {
            // Reading may have been what showed that the caller has left.
            let broken_off = |error| {
                ctx.err()
                    .map_or_else(|| BrokenOff::failed(error), BrokenOff::ended)
            };
            return Poll::Ready(frame.map(|frame| frame.map_err(broken_off)));
        }
        let end = this.end.get_or_insert_with(|| ctx.clone().done_owned());
        let end = ready!(Pin::new(end).poll(cx));
        Poll::Ready(Some(Err(BrokenOff::ended(end))))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl<B> ResponseBody<B> {
    /// The body of an answer; without a call it is passed on as it is.
    pub(super) fn new(inner: B, call: Option<Call>) -> ResponseBody<B> {
        ResponseBody {
            inner: Some(inner),
            call,
        }
    }

    /// None: all is said in the head.
    pub(super) fn none() -> ResponseBody<B> {
        ResponseBody {
            inner: None,
            call: None,
        }
    }
}

impl<B> Body for ResponseBody<B>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    type Data = B::Data;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, BoxError>>> {
        let mut this = self.project();
        let Some(inner) = this.inner.as_mut().as_pin_mut() else {
            return Poll::Ready(None);
        };
        let polled = inner.poll_frame(cx);
        let Some(call) = this.call.as_mut() else {
            return polled.map(|frame| frame.map(|frame| frame.map_err(Into::into)));
        };
        let is_message = matches!(&polled, Poll::Ready(Some(Ok(frame))) if !frame.is_trailers());
        let frame = match (polled, call.poll_end(cx)) {
            (Poll::Pending, Poll::Pending) => return Poll::Pending,
            (Poll::Ready(frame), Poll::Pending) if is_message => {
                return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
            }
            (Poll::Ready(frame), Poll::Pending) => frame,
            (Poll::Ready(Some(Ok(frame))), Poll::Ready(end)) if frame.is_trailers() => {
                Some(Ok(blamed(frame, &end)))
            }
            // A stream that always has a message ends too.
            (_, Poll::Ready(end)) => Some(Ok(Frame::trailers(GrpcStatus::of(&end).trailers()))),
        };
        // Trailers, the end or a failure: nothing comes after them.
        this.inner.set(None);
        call.finish(Reason::ResponseEnded);
        Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        match &self.inner {
            None => SizeHint::with_exact(0),
            // It may end before its end.
            Some(_) if self.call.is_some() => SizeHint::default(),
            Some(inner) => inner.size_hint(),
        }
    }
}

/// Trailers of a call whose context has ended: a failure is the context's failure.
fn blamed<D>(frame: Frame<D>, end: &Canceled) -> Frame<D> {
    match frame.into_trailers() {
        Ok(mut trailers) => {
            if read_code(&trailers) != Some(0) {
                GrpcStatus::of(end).write(&mut trailers);
            }
            Frame::trailers(trailers)
        }
        Err(frame) => frame,
    }
}

impl<B> fmt::Debug for RequestBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestBody").finish_non_exhaustive()
    }
}

impl<B> fmt::Debug for ResponseBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseBody")
            .field("is_open", &self.inner.is_some())
            .finish_non_exhaustive()
    }
}
