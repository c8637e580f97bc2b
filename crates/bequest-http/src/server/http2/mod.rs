//! HTTP/2: the streams of one connection, on the frames of the `h2` crate.
//!
//! `h2` keeps the protocol: frames, header compression, windows, the states of streams, its floods. Here lives what a server
//! makes of it: a request is handed to the service, its answer to the client, and either is told when the other has had
//! enough. hyper has such a layer as well. This one stands in its place since the contexts are at home in it: it sees the
//! reset of a stream before the handler begins, polls a handler where its request was read, and knows on which frame a client
//! sits.
//!
//! Most handlers answer in their first poll. That poll is made in the task of the connection, right where the request was
//! read, so a stream that is answered then has no task of its own. A stream that waits becomes a task, so that the
//! processors can share the streams of one connection; so do all for a while once first polls have been seen to wait or to take
//! long.
//!
//! # Invariants
//!
//! 1. What first polls take of one poll of the connection is bounded, see [`FirstPolls`]. A look whether a stream was reset
//!    already begins nothing, and is made all the same.
//! 2. Nothing is lost by a first poll: a stream that waits is polled again by its task, which is the one that is woken.
//! 3. No handler begins for a stream that its client has reset before.
//! 4. A stream that is dropped before its answer is complete is reset, and its handler told before.
//! 5. What panics in a stream is the end of that stream only.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context as TaskContext, Poll, Waker, ready};

use bytes::Bytes;
use h2::RecvStream;
use h2::server::{Handshake, SendResponse};
use http::{Method, Request};

use super::connection::Connection;
use super::drive::Engine;
use super::incoming::Incoming;
use super::service::{App, Exchanging};
use super::wire::Wire;

mod first_polls;
mod head;
mod outgoing;
mod pipe;
mod stream;
mod task;
mod tunnel;

use first_polls::FirstPolls;
use stream::Stream;

/// The windows of requests' bodies: of one, and of all of a connection together.
const WINDOW: u32 = 1024 * 1024;

/// The largest frame that a client may send.
const FRAME: u32 = 16 * 1024;

/// The largest header of a request, as HTTP/2 counts it (RFC 9113, 6.5.2).
const HEADER: u32 = 16 * 1024;

/// How much of one answer may wait in `h2` for the client to take it, beside the frame in hand.
const SEND_BUFFER: usize = 400 * 1024;

/// How many streams may be reset that `h2` holds and has not handed out: more than there can be, as it holds no more than the
/// client may have at once and what one read opens and resets. How many there may be altogether is judged by
/// [`Resets`](super::resets::Resets).
const HELD_RESETS: usize = 1024;

/// Serves one connection of HTTP/2. Ready when the client has said goodbye or the connection has failed.
pub(super) struct Http2<S: App> {
    conn: Arc<Connection>,
    service: S,
    stage: Stage,
    first_polls: FirstPolls,
    /// Whether the clock was looked at in the present poll.
    is_dated: bool,
    /// The memory of the stream that was answered in its first poll last, for the next one.
    spare: Placed<Stream<S::Body>>,
}

enum Stage {
    /// `closes`: as soon as it is over.
    Greeting {
        handshake: Handshake<Wire, Bytes>,
        closes: bool,
    },
    Serving(h2::server::Connection<Wire, Bytes>),
}

/// A stream in memory of its own, or that memory.
type Placed<T> = Pin<Box<Option<T>>>;

impl<S: App> Http2<S> {
    pub(super) fn new(conn: Arc<Connection>, service: S, wire: Wire) -> Http2<S> {
        let streams = conn.server().limits.streams;
        let mut builder = h2::server::Builder::new();
        builder
            .initial_window_size(WINDOW)
            .initial_connection_window_size(WINDOW)
            .max_frame_size(FRAME)
            .max_header_list_size(HEADER)
            .max_send_buffer_size(SEND_BUFFER)
            .max_concurrent_streams(streams)
            .max_pending_accept_reset_streams(HELD_RESETS.saturating_add(streams as usize));
        Http2 {
            conn,
            service,
            stage: Stage::Greeting {
                handshake: builder.handshake(wire),
                closes: false,
            },
            first_polls: FirstPolls::default(),
            is_dated: false,
            spare: Box::pin(None),
        }
    }

    /// Begins a stream: polls it, and makes it a task if that is not enough.
    fn begin(&mut self, request: Request<RecvStream>, mut respond: SendResponse<Bytes>) {
        let conn = &self.conn;
        if conn.is_full() {
            conn.server().tally.refused_streams.fetch_add(1, Relaxed);
            // The client is told that nothing was begun, and so may ask again.
            return respond.send_reset(h2::Reason::REFUSED_STREAM);
        }
        let (mut head, body) = request.into_parts();
        let mut tunnel = None;
        let body = match head.method {
            Method::CONNECT => {
                if head::content_length(&head.headers).is_some_and(|length| length != 0) {
                    // What follows a `CONNECT` is the tunnel's.
                    return respond.send_reset(h2::Reason::PROTOCOL_ERROR);
                }
                let (offer, upgrade) = tunnel::offer(body);
                tunnel = Some(offer);
                head.extensions.insert(upgrade);
                Incoming::nothing()
            }
            _ => Incoming::of_stream(body, || head::content_length(&head.headers)),
        };
        if !std::mem::replace(&mut self.is_dated, true) {
            head::look_at_clock();
        }
        let exchanging = Exchanging::begin(conn, self.service.clone(), body.under(head));
        self.spare.set(Some(Stream::new(exchanging, respond, tunnel)));

        let (is_worth_one, looks) = (self.first_polls.begin(), conn.resets());
        // Whoever it is that would be woken (invariant 2): its task polls it again.
        let mut cx = TaskContext::from_waker(Waker::noop());
        if is_worth_one {
            if stream::poll_placed(&mut self.spare, conn, &mut cx).is_ready() {
                return self.first_polls.ended(|| conn.spent_in_poll());
            }
            self.first_polls.waited();
        } else if looks {
            // Invariant 1.
            let stream = self.spare.as_mut().as_pin_mut().expect("placed above");
            if stream.is_reset(&mut cx) {
                // Its exchange is finished by this.
                return self.spare.set(None);
            }
        }
        let stream = std::mem::replace(&mut self.spare, Box::pin(None));
        task::spawn(conn, stream);
    }
}

impl<S: App> Engine for Http2<S> {
    type Error = h2::Error;

    fn close(mut self: Pin<&mut Self>) {
        match &mut self.stage {
            Stage::Greeting { closes, .. } => *closes = true,
            Stage::Serving(h2) => h2.graceful_shutdown(),
        }
    }
}

impl<S: App> Future for Http2<S> {
    type Output = Result<(), h2::Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        this.is_dated = false;
        loop {
            match &mut this.stage {
                Stage::Greeting { handshake, closes } => {
                    let mut h2 = ready!(Pin::new(handshake).poll(cx))?;
                    if *closes {
                        h2.graceful_shutdown();
                    }
                    this.stage = Stage::Serving(h2);
                }
                Stage::Serving(h2) => match ready!(h2.poll_accept(cx)) {
                    Some(Ok((request, respond))) => this.begin(request, respond),
                    Some(Err(error)) => return Poll::Ready(Err(error)),
                    None => return Poll::Ready(Ok(())),
                },
            }
        }
    }
}

// Nothing of it is pinned: the service is cloned, and what is polled is in boxes.
impl<S: App> Unpin for Http2<S> {}
