//! The body of a request as it comes from a connection of this server, of either protocol.

use std::pin::Pin;
use std::task::{Context as TaskContext, Poll, ready};

use bytes::Bytes;
use h2::RecvStream;
use http::request::Parts;
use http_body::{Body, Frame, SizeHint};

use super::BoxError;
use super::service::Come;

/// The body of a request as it comes from a connection of this server, over HTTP/1 or HTTP/2: what
/// [`RequestBody`](super::RequestBody) watches unless it says otherwise.
///
/// A handler that is named for other accept loops as well is generic over it; one that is for this server need not name it.
///
/// # Cancel safety
///
/// Polling loses nothing: a frame is either handed out or still to come.
///
/// # Errors
///
/// Those of the protocol's engine: `hyper::Error` over HTTP/1, `h2::Error` over HTTP/2. A handler sees them through a
/// `RequestBody`, which says how the context has ended where that is the reason.
///
/// ```
/// use bequest_http::server::{Incoming, RequestBody};
/// use std::any::TypeId;
///
/// assert_eq!(TypeId::of::<RequestBody>(), TypeId::of::<RequestBody<Incoming>>());
/// ```
#[derive(Debug)]
pub struct Incoming(Source);

#[derive(Debug)]
enum Source {
    Nothing,
    Http1(hyper::body::Incoming),
    Stream(Stream),
}

#[derive(Debug)]
struct Stream {
    received: RecvStream,
    /// How much of what was announced is to come.
    left: Option<u64>,
    /// Whether nothing but trailers can follow.
    is_data_over: bool,
}

impl Incoming {
    pub(super) fn nothing() -> Incoming {
        Incoming(Source::Nothing)
    }

    pub(super) fn of_http1(body: hyper::body::Incoming) -> Incoming {
        Incoming(match body.is_end_stream() {
            true => Source::Nothing,
            false => Source::Http1(body),
        })
    }

    pub(super) fn of_stream(received: RecvStream, announced: impl FnOnce() -> Option<u64>) -> Incoming {
        Incoming(match received.is_end_stream() {
            true => Source::Nothing,
            false => Source::Stream(Stream {
                received,
                left: announced(),
                is_data_over: false,
            }),
        })
    }

    /// The request that has come with this head and this body, to a server that reads the connection itself.
    pub(super) fn under(self, head: Parts) -> Come<Incoming> {
        Come {
            head,
            has_body: !matches!(self.0, Source::Nothing),
            body: self,
            checks_form: true,
        }
    }
}

impl Body for Incoming {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match &mut self.0 {
            Source::Nothing => Poll::Ready(None),
            Source::Http1(body) => Pin::new(body).poll_frame(cx).map_err(Into::into),
            Source::Stream(stream) => stream.poll_frame(cx).map_err(Into::into),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Source::Nothing => true,
            Source::Http1(body) => body.is_end_stream(),
            Source::Stream(stream) => stream.received.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Source::Nothing => SizeHint::with_exact(0),
            Source::Http1(body) => body.size_hint(),
            Source::Stream(stream) => stream.left.map_or_else(SizeHint::default, SizeHint::with_exact),
        }
    }
}

impl Stream {
    fn poll_frame(&mut self, cx: &mut TaskContext<'_>) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        if !self.is_data_over {
            if let Some(data) = ready!(self.received.poll_data(cx)) {
                let data = data?;
                // Whoever is given it has room for it. Of a stream that was reset nobody asks.
                let _ = self.received.flow_control().release_capacity(data.len());
                let size = data.len() as u64;
                self.left = self.left.map(|left| left.saturating_sub(size));
                return Poll::Ready(Some(Ok(Frame::data(data))));
            }
            self.is_data_over = true;
        }
        let trailers = ready!(self.received.poll_trailers(cx))?;
        Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))))
    }
}
