//! The body of an answer on its way into its stream.
//!
//! # Invariants
//!
//! 1. There is one frame in hand at the most, and it is sent before the body is asked for another: what is too slow to take
//!    keeps the body waiting.
//! 2. Nothing is claimed of the connection's window before there is a frame to send. A body that never has one would hold up the
//!    others.
//! 3. A reset of the stream wakes whoever waits here, whatever it is for.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context as TaskContext, Poll, ready};

use bytes::Bytes;
use h2::{Reason, SendStream};
use http_body::Body;
use pin_project_lite::pin_project;

use super::super::BoxError;

pin_project! {
    /// Sends a body into a stream. Ready when it is sent, or will never be.
    pub(super) struct Pipe<B> {
        stream: SendStream<Bytes>,
        // A frame that waits for room, and whether it is the last one.
        in_hand: Option<(Bytes, bool)>,
        #[pin]
        body: B,
    }
}

impl<B> Pipe<B> {
    pub(super) fn new(body: B, stream: SendStream<Bytes>) -> Pipe<B> {
        Pipe {
            stream,
            in_hand: None,
            body,
        }
    }

    pub(super) fn body(&self) -> &B {
        &self.body
    }
}

impl<B: Body<Data = Bytes, Error = BoxError>> Pipe<B> {
    /// Sends until something is to be waited for, or to the end. An error is the body's; of a client that takes nothing more
    /// the body learns by its drop.
    fn poll_send(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Result<(), BoxError>> {
        let mut this = self.project();
        loop {
            if let Some((_, is_last)) = *this.in_hand {
                if ready!(poll_room(this.stream, cx)).is_err() {
                    return Poll::Ready(Ok(()));
                }
                let data = this.in_hand.take().map(|(data, _)| data).unwrap_or_default();
                if this.stream.send_data(data, is_last).is_err() || is_last {
                    return Poll::Ready(Ok(()));
                }
            }
            let Some(frame) = ready!(this.body.as_mut().poll_frame(cx)) else {
                // Whether it still may be sent or not, it is the last thing.
                let _ = this.stream.send_data(Bytes::new(), true);
                return Poll::Ready(Ok(()));
            };
            match frame?.into_data() {
                Ok(data) => {
                    let is_last = this.body.is_end_stream();
                    if !data.is_empty() {
                        // A byte: the rest is claimed for with the frame, and not before it (invariant 2).
                        this.stream.reserve_capacity(1);
                        *this.in_hand = Some((data, is_last));
                    } else if this.stream.send_data(data, is_last).is_err() || is_last {
                        // Nothing needs no room.
                        return Poll::Ready(Ok(()));
                    }
                }
                Err(frame) => {
                    if let Ok(trailers) = frame.into_trailers() {
                        this.stream.reserve_capacity(0);
                        if this.stream.send_trailers(trailers).is_err() {
                            // There are fields in them that must not be. Of a stream that is no more this says nothing.
                            this.stream.send_reset(Reason::INTERNAL_ERROR);
                        }
                        return Poll::Ready(Ok(()));
                    }
                }
            }
        }
    }
}

impl<B: Body<Data = Bytes, Error = BoxError>> Future for Pipe<B> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<()> {
        match self.as_mut().poll_send(cx) {
            Poll::Ready(Ok(())) => Poll::Ready(()),
            Poll::Ready(Err(error)) => {
                self.project().stream.send_reset(reset_for(&*error));
                Poll::Ready(())
            }
            // Invariant 3.
            Poll::Pending => self.project().stream.poll_reset(cx).map(drop),
        }
    }
}

/// Ready when there is room for a byte at least, or will never be. It has to be claimed; the rest is, with the data.
pub(super) fn poll_room(
    stream: &mut SendStream<Bytes>,
    cx: &mut TaskContext<'_>,
) -> Poll<Result<(), h2::Error>> {
    while stream.capacity() == 0 {
        match ready!(stream.poll_capacity(cx)) {
            Some(room) => drop(room?),
            None => return Poll::Ready(Err(Reason::STREAM_CLOSED.into())),
        }
    }
    Poll::Ready(Ok(()))
}

/// With which word a stream is reset for an error of the service's: its own, if there is one in it.
pub(super) fn reset_for(error: &(dyn std::error::Error + 'static)) -> Reason {
    std::iter::successors(Some(error), |error| error.source())
        .find_map(|error| error.downcast_ref::<h2::Error>()?.reason())
        .unwrap_or(Reason::INTERNAL_ERROR)
}
