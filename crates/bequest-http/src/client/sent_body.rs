//! The body of a request, which ends with its context even when nobody waits for the exchange any more.
//!
//! A protocol engine sends a body beside the exchange: on HTTP/2 it would go on doing so after the answer was given up, and
//! the peer would hear of nothing until the body is at its end.

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context as TaskContext, Poll, ready};

use bequest::{Canceled, Context, DoneOwned};
use http_body::{Body, Frame, SizeHint};

use super::BoxError;

/// The body of a request on its way to the peer: when its context ends, what is wrapped is dropped, and the body fails, so
/// that the stream is reset (HTTP/2) or the connection closed (HTTP/1).
#[cfg_attr(not(feature = "grpc"), allow(unreachable_pub))]
pub struct SentBody<B> {
    /// `None` once it is at its end.
    inner: Option<Pin<Box<B>>>,
    end: DoneOwned,
}

/// The error of a body whose context has ended.
#[derive(Debug)]
struct BodyEnded {
    end: Canceled,
    /// Tells the protocol engine to reset the stream as cancelled, and not as broken.
    reset: h2::Error,
}

impl<B> SentBody<B> {
    pub(crate) fn new(inner: B, ctx: Context) -> SentBody<B> {
        SentBody {
            inner: Some(Box::pin(inner)),
            end: ctx.done_owned(),
        }
    }
}

impl<B> Body for SentBody<B>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    type Data = B::Data;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, BoxError>>> {
        let this = &mut *self;
        let Some(inner) = &mut this.inner else {
            return Poll::Ready(None);
        };
        if let Poll::Ready(end) = Pin::new(&mut this.end).poll(cx) {
            this.inner = None;
            return Poll::Ready(Some(Err(BodyEnded::boxed(end))));
        }
        let frame = ready!(inner.as_mut().poll_frame(cx));
        if frame.is_none() {
            this.inner = None;
        }
        Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(|inner| inner.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        let none = SizeHint::with_exact(0);
        self.inner.as_ref().map_or(none, |inner| inner.size_hint())
    }
}

impl BodyEnded {
    fn boxed(end: Canceled) -> BoxError {
        let reset = h2::Error::from(h2::Reason::CANCEL);
        Box::new(BodyEnded { end, reset })
    }
}

impl fmt::Display for BodyEnded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.end, f)
    }
}

impl Error for BodyEnded {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.reset)
    }
}

impl<B> fmt::Debug for SentBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SentBody")
            .field("is_open", &self.inner.is_some())
            .finish_non_exhaustive()
    }
}
