//! The two bodies of an exchange, watched: the request's for a client that leaves, the response's for its end.
//!
//! # Invariants
//!
//! 1. A response has *ended* if all of it was handed to the connection, or if there was nothing to hand over. A body
//!    is not polled to its `None` for `HEAD`, 204, 304, a tunnel or an exhausted `Content-Length`; that is an end as well.
//! 2. The drop of a response body finishes its exchange, always.
//! 3. What has no body by its method or status is sent without one. On HTTP/1 the engine sees to that; on HTTP/2 it would
//!    send what the service answered, which a client takes for an error of the protocol.

use std::any::TypeId;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll, ready};

use bequest::{Canceled, DoneOwned, Reason};
use bytes::{Buf, Bytes};
use http::{HeaderMap, Method, StatusCode, Version, header};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use super::BoxError;
use super::exchange::Exchange;
use super::incoming::Incoming;
use super::oversee::Overseer;
use super::pace::Pace;
use super::panic;
use crate::wire::grpc::GrpcStatus;

/// The body of a request, as handlers get it.
///
/// When reading it shows that the client has left, the request's context ends with the reason before the error is
/// handed out. The error of a request whose context has ended is that end, a [`Canceled`].
///
/// `R` is the body that the request came with: this server's, unless an accept loop of another makes another of it.
///
/// # Cancel safety
///
/// Polling loses nothing: a frame is either handed out or still to come.
#[derive(Debug)]
pub struct RequestBody<R = Incoming> {
    incoming: R,
    /// `None` if there is nothing to watch, as the request has no body.
    exchange: Option<Held>,
    pace: Pace,
}

/// Says of a response that its body has no end of its own and is ended by the server's shutdown, at once and in good order:
/// an event stream, a long poll, a log that is followed.
///
/// Put into the response's extensions. Without it an open stream uses up the whole [`Limits::drain`](super::Limits::drain)
/// of a shutdown.
///
/// When the shutdown begins, the context of the request ends with [`Shutdown`](Reason::Shutdown), and the body is polled
/// once more: a frame that is ready then is its last word. A body that polls its context first can so tell its reader why
/// it ends. The end follows the last word, or stands in its place.
///
/// A reader that has stopped reading does not hold the shutdown up either: when it has taken nothing for
/// [`Limits::answer`](super::Limits::answer), its connection is closed, or on HTTP/2 its stream reset.
///
/// The limits on a request hold as for any other response. A stream that is to last longer than
/// [`Limits::request`](super::Limits::request) needs a server with a longer one.
///
/// ```
/// use bequest_http::server::UntilShutdown;
///
/// let mut response = http::Response::new("data: an event\n\n".to_owned());
/// response.extensions_mut().insert(UntilShutdown);
/// # #[cfg(feature = "axum")]
/// // With axum, beside the stream itself.
/// async fn events() -> impl axum::response::IntoResponse {
///     (axum::Extension(UntilShutdown), "data: an event\n\n")
/// }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UntilShutdown;

pin_project! {
    /// The body of a response on its way to the connection. Its end is the end of the request's context, and so is its drop.
    #[derive(Debug)]
    pub struct ResponseBody<B> {
        #[pin]
        inner: Inner<B>,
        watch: Watch,
    }
}

pin_project! {
    #[project = InnerProj]
    #[derive(Debug)]
    enum Inner<B> {
        /// What the service answered.
        Service { #[pin] body: B },
        /// What the server answered in its place.
        Server { text: Option<Bytes> },
    }
}

/// What the end of a response hangs on. Its drop finishes the exchange (invariant 2).
struct Watch {
    exchange: Arc<Exchange>,
    /// Whether all was handed over (invariant 1).
    complete: bool,
    /// Whether nothing of it is to be sent (invariant 3).
    is_withheld: bool,
    /// Whether it has failed, or been ended, before that, and not its client. Its context has ended with that.
    has_failed: bool,
    /// Whether it has taken more than one frame, so that the stream may have to wait for the client to take one.
    is_open_ended: bool,
    /// How many bytes the head announced, if it did.
    announced: Option<u64>,
    /// How many bytes were handed over.
    sent: u64,
    /// What the shutdown of the server means to this body.
    shutdown: AtShutdown,
    /// Waits for the context's end and the time after it. Made when the body first has nothing ready.
    overseer: Option<Box<Overseer>>,
}

/// What the shutdown of the server means to a body.
enum AtShutdown {
    /// Nothing: it has an end of its own.
    GoesOn,
    /// Its end, when that comes.
    Ends(Pin<Box<DoneOwned>>),
    /// It has come: the body may say one thing more.
    LastWord,
    /// All is said.
    Over,
}

/// Hides the exchange from the `Debug` of a request.
struct Held(Arc<Exchange>);

impl<R> RequestBody<R> {
    pub(super) fn new(incoming: R, exchange: Option<Arc<Exchange>>) -> RequestBody<R> {
        RequestBody {
            incoming,
            exchange: exchange.map(Held),
            pace: Pace::default(),
        }
    }
}

/// Ends the context for this reason, and makes an error of that.
fn end_of(exchange: &Exchange, reason: Reason) -> BoxError {
    exchange.tell(reason);
    let end = exchange.context().err();
    end.map_or_else(|| reason.to_string().into(), Into::into)
}

impl<R: Body + 'static> RequestBody<R> {
    /// Whether what the engine hands out as the end is none: to a reset that says that there is no error it makes an end of
    /// the body, and a handler would keep half of what it was sent. Known of the engine's own body only: what somebody has made
    /// of it need not say when it has ended.
    fn is_broken_off(&self, exchange: &Exchange) -> bool {
        let is_engines = TypeId::of::<R>() == TypeId::of::<hyper::body::Incoming>();
        is_engines && exchange.version() == Version::HTTP_2 && !self.incoming.is_end_stream()
    }
}

impl<R> Body for RequestBody<R>
where
    R: Body<Data = Bytes, Error: Into<BoxError>> + Unpin + 'static,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        let polled = Pin::new(&mut this.incoming).poll_frame(cx);
        let Some(Held(exchange)) = &this.exchange else {
            return polled.map_err(Into::into);
        };
        let frame = match polled {
            Poll::Ready(frame) => frame,
            Poll::Pending => {
                ready!(this.pace.poll_idle(cx, exchange));
                return Poll::Ready(Some(Err(end_of(exchange, Reason::Limit("body idle")))));
            }
        };
        if frame.is_none() && this.is_broken_off(exchange) {
            return Poll::Ready(Some(Err(end_of(exchange, Reason::StreamReset))));
        }
        let bytes = frame.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref());
        if let Some(bytes) = bytes {
            if !this.pace.came(bytes.len(), exchange.server()) {
                return Poll::Ready(Some(Err(end_of(exchange, Reason::Limit("body rate")))));
            }
        }
        Poll::Ready(frame.map(|frame| {
            frame.map_err(|error| {
                let error = error.into();
                if let Some(reason) = departure(&*error, exchange) {
                    exchange.tell(reason);
                }
                // What the engine makes of an end is the end's to say: from the engine's word for a reset, tonic would take
                // a request that broke off for one that is complete.
                exchange.context().err().map_or(error, Into::into)
            })
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

impl<B> ResponseBody<B> {
    /// The exchange that ends with it.
    pub(super) fn exchange(&self) -> &Exchange {
        &self.watch.exchange
    }
}

impl<B: Body> ResponseBody<B> {
    /// The body the service answered with, under this head.
    pub(super) fn of_service(
        body: B,
        exchange: Arc<Exchange>,
        head: &http::response::Parts,
    ) -> ResponseBody<B> {
        let (status, headers) = (head.status, &head.headers);
        let bodiless = exchange.method() == Method::HEAD
            || status.is_informational()
            || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
            || (exchange.method() == Method::CONNECT && status.is_success());
        let complete = bodiless || body.is_end_stream();
        let announced = content_length(headers).or(body.size_hint().exact());
        let mut watch = Watch::new(exchange, status, complete, announced);
        watch.withhold_if(bodiless);
        if head.extensions.get::<UntilShutdown>().is_some() {
            let draining = watch.exchange.server().draining.clone();
            watch.shutdown = AtShutdown::Ends(Box::pin(draining.done_owned()));
            watch.exchange.end_with_shutdown();
        }
        ResponseBody {
            inner: Inner::Service { body },
            watch,
        }
    }

    /// No body, in an exchange that is over.
    pub(super) fn nothing(exchange: &Arc<Exchange>) -> ResponseBody<B> {
        ResponseBody {
            inner: Inner::Server { text: None },
            watch: Watch {
                exchange: exchange.clone(),
                complete: true,
                is_withheld: false,
                has_failed: false,
                is_open_ended: false,
                announced: None,
                sent: 0,
                shutdown: AtShutdown::GoesOn,
                overseer: None,
            },
        }
    }

    /// A line of text that the server answers with, or nothing but a head.
    pub(super) fn of_server(
        text: Option<Bytes>,
        exchange: Arc<Exchange>,
        status: StatusCode,
    ) -> ResponseBody<B> {
        let complete = exchange.method() == Method::HEAD || text.is_none();
        let announced = text.as_ref().map(|text| text.len() as u64);
        let mut watch = Watch::new(exchange, status, complete, announced);
        watch.withhold_if(complete);
        ResponseBody {
            inner: Inner::Server { text },
            watch,
        }
    }
}

impl<B> Body for ResponseBody<B>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.project();
        this.watch.exchange.hands_out(false);
        let body = match this.inner.project() {
            InnerProj::Service { body } => body,
            InnerProj::Server { text } => {
                let frame = text.take().map(Frame::data);
                this.watch.saw(frame.as_ref(), true);
                return Poll::Ready(frame.map(Ok));
            }
        };
        let mut body = body;
        this.watch.poll_shutdown(cx);
        if let AtShutdown::Over = this.watch.shutdown {
            return Poll::Ready(None);
        }
        match panic::catch(|| body.as_mut().poll_frame(cx)) {
            Ok(Poll::Pending) if this.watch.has_last_word() => {
                this.watch.saw(None, true);
                Poll::Ready(None)
            }
            Ok(Poll::Pending) => {
                let end = ready!(this.watch.poll_end(cx));
                if !this.watch.exchange.is_grpc() || end.reason().is_departure() {
                    this.watch.has_failed = true;
                    return Poll::Ready(Some(Err(end.into())));
                }
                // A call of gRPC ends in good order whatever it says.
                let trailers = Frame::trailers(GrpcStatus::of(&end).trailers());
                this.watch.saw(Some(&trailers), true);
                Poll::Ready(Some(Ok(trailers)))
            }
            Ok(Poll::Ready(None)) => {
                this.watch.complete = true;
                Poll::Ready(None)
            }
            Ok(Poll::Ready(Some(Ok(frame)))) => {
                let frame = frame.map_data(|mut data| data.copy_to_bytes(data.remaining()));
                let last = this.watch.has_last_word() || body.is_end_stream();
                this.watch.saw(Some(&frame), last);
                Poll::Ready(Some(Ok(frame)))
            }
            Ok(Poll::Ready(Some(Err(error)))) => {
                let error = Arc::<dyn std::error::Error + Send + Sync>::from(error.into());
                this.watch.has_failed = true;
                this.watch.exchange.fail(Box::new(Shared(error.clone())));
                Poll::Ready(Some(Err(Box::new(Shared(error)))))
            }
            Err(panic) => {
                this.watch.has_failed = true;
                this.watch.exchange.tell(Reason::Panicked);
                this.watch.exchange.report_panic(&panic);
                Poll::Ready(Some(Err(Box::new(panic))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        if self.watch.is_withheld || matches!(self.watch.shutdown, AtShutdown::Over) {
            return true;
        }
        match &self.inner {
            Inner::Service { body } => body.is_end_stream(),
            Inner::Server { text } => text.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.inner {
            Inner::Service { body } => body.size_hint(),
            Inner::Server { text } => SizeHint::with_exact(text.as_ref().map_or(0, |text| text.len() as u64)),
        }
    }
}

impl Watch {
    fn new(exchange: Arc<Exchange>, status: StatusCode, complete: bool, announced: Option<u64>) -> Watch {
        exchange.answered(status);
        Watch {
            exchange,
            complete,
            is_withheld: false,
            has_failed: false,
            is_open_ended: false,
            announced,
            sent: 0,
            shutdown: AtShutdown::GoesOn,
            overseer: None,
        }
    }

    /// Sends nothing of the body if there is to be none and the engine does not see to it (invariant 3).
    fn withhold_if(&mut self, is_bodiless: bool) {
        self.is_withheld = is_bodiless && self.exchange.version() == Version::HTTP_2;
    }

    /// Notes a frame that is handed to the connection; `last` if the body says that nothing follows.
    fn saw(&mut self, frame: Option<&Frame<Bytes>>, last: bool) {
        let Some(frame) = frame else {
            self.complete = true;
            return;
        };
        self.exchange.hands_out(true);
        if let Some(data) = frame.data_ref() {
            self.sent += data.len() as u64;
            self.exchange.sent(data.len() as u64);
        }
        let announced_is_out = self.announced.is_some_and(|announced| self.sent >= announced);
        // Trailers come last, and hyper does not ask for more after them.
        self.complete |= last || announced_is_out || frame.is_trailers();
        if !self.complete && !self.is_open_ended {
            self.is_open_ended = true;
            self.exchange.conn().arm();
        }
    }

    /// Takes note of the server's shutdown, if the body ends with that: the context ends before the body is polled again.
    fn poll_shutdown(&mut self, cx: &mut TaskContext<'_>) {
        if let AtShutdown::Ends(shutdown) = &mut self.shutdown {
            if shutdown.as_mut().poll(cx).is_ready() {
                self.shutdown = AtShutdown::LastWord;
                self.exchange.conn().set_ends_with_shutdown(true);
                self.exchange.tell(Reason::Shutdown);
            }
        }
    }

    /// Whether what the body says now is its last word. Nothing follows it.
    fn has_last_word(&mut self) -> bool {
        let last = matches!(self.shutdown, AtShutdown::LastWord);
        if last {
            self.shutdown = AtShutdown::Over;
        }
        last
    }

    /// Ready once the context has ended and the body has had its time to come to an end by itself.
    fn poll_end(&mut self, cx: &mut TaskContext<'_>) -> Poll<Canceled> {
        let exchange = &self.exchange;
        let overseer = self
            .overseer
            .get_or_insert_with(|| Box::new(Overseer::of(exchange)));
        overseer.poll(exchange, cx).map(|verdict| verdict.end)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if let AtShutdown::Ends(_) = self.shutdown {
            self.exchange.conn().set_ends_with_shutdown(false);
        }
        match self.complete {
            true => self.exchange.finish_answered(),
            false => {
                let end = self.exchange.context().err().filter(|_| self.has_failed);
                let reason = end.map_or_else(|| self.exchange.departure(), |end| end.reason());
                self.exchange.finish(reason);
            }
        }
    }
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch")
            .field("complete", &self.complete)
            .field("sent", &self.sent)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("..")
    }
}

/// What an error of a request's body says about the client, if it says that it left.
fn departure(error: &(dyn std::error::Error + 'static), exchange: &Exchange) -> Option<Reason> {
    let chain = || std::iter::successors(Some(error), |error| error.source());
    let mut of_stream = chain().filter_map(|error| error.downcast_ref::<h2::Error>());
    if of_stream.any(|error| error.is_reset() && error.is_remote()) {
        return Some(Reason::StreamReset);
    }
    if exchange.conn().is_elsewhere() {
        // Nobody here has seen the socket, and the engine says as much as it knows.
        let mut of_engine = chain().filter_map(|error| error.downcast_ref::<hyper::Error>());
        return of_engine
            .any(hyper::Error::is_incomplete_message)
            .then_some(Reason::ClientGone);
    }
    // A malformed body is an answer for the handler to give; a body cut short is a client that left.
    exchange.conn().peer().state().reason()
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// One error for two: the connection, and the cause of the context.
#[derive(Debug)]
struct Shared(Arc<dyn std::error::Error + Send + Sync>);

impl std::fmt::Display for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for Shared {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&*self.0)
    }
}
