//! The body of a request as the engine sends it, which notes when it is at its end.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context as TaskContext, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::BoxError;
use super::call::Call;
use super::observe::{Event, Exchange};
use super::sent_body::SentBody;

/// A body of any type, so that one pool can send them all.
pub(super) type AnyBody = Pin<Box<dyn Body<Data = Bytes, Error = BoxError> + Send>>;

/// Whether a request's body has been handed over to the connection to its end.
#[derive(Clone, Debug)]
pub(super) struct Sent(Arc<AtomicBool>);

pin_project_lite::pin_project! {
    /// A body that notes its end.
    pub(super) struct Sending<B> {
        #[pin]
        body: B,
        sent: Sent,
        has_failed: bool,
        // Until its observers are told that all is sent.
        observed: Option<Arc<Exchange>>,
    }

    impl<B> PinnedDrop for Sending<B> {
        fn drop(this: Pin<&mut Self>) {
            let this = this.project();
            // The engine lets go of a body that it needs no more of, without asking for its end.
            if !*this.has_failed {
                this.sent.note();
            }
        }
    }
}

/// A body made ready to be sent, and the note of its end.
pub(super) fn sending<B>(body: B, call: &Call) -> (AnyBody, Sent)
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let is_empty = body.is_end_stream();
    let sent = Sent(Arc::new(AtomicBool::new(is_empty)));
    let mut observed = call.observed().cloned();
    if is_empty {
        tell_sent(&mut observed);
    }
    let body = Sending {
        body: SentBody::new(body, call.context()),
        sent: sent.clone(),
        has_failed: false,
        observed,
    };
    (Box::pin(body), sent)
}

/// Tells once that all is sent; as it is told of the connection, no sooner than there is one.
fn tell_sent(observed: &mut Option<Arc<Exchange>>) {
    if let Some(exchange) = observed.take() {
        exchange.tell_of_connection(Event::Sent);
    }
}

impl Sent {
    pub(super) fn is_all(&self) -> bool {
        self.0.load(Relaxed)
    }

    fn note(&self) {
        self.0.store(true, Relaxed);
    }
}

impl<B> Body for Sending<B>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let mut this = self.project();
        let frame = ready!(this.body.as_mut().poll_frame(cx));
        match &frame {
            None => this.sent.note(),
            Some(frame) => *this.has_failed = frame.is_err(),
        }
        if !*this.has_failed && (frame.is_none() || this.observed.is_some() && this.body.is_end_stream()) {
            tell_sent(this.observed);
        }
        Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
