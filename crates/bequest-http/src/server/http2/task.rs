//! A stream that has a task of its own, as it waits for its handler or for its client.
//!
//! A client may keep its connection busy and leave the window of one stream closed. Nothing is polled then but the stream,
//! which waits for room for the frame in its hand; so the task of the stream is who gives up.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll, ready};

use bequest::Reason;
use http_body::Body;

use super::super::BoxError;
use super::super::connection::Connection;
use super::super::exchange::Exchange;
use super::super::silence;
use super::super::statistics::TaskGuard;
use super::stream::{self, Stream};
use super::{Placed, head};

/// A stream that has a task of its own.
struct Task<B: Body + Send + 'static> {
    stream: Placed<Stream<B>>,
    stall: Stall,
    conn: Arc<Connection>,
    // Given back after everything else.
    _guard: TaskGuard,
}

/// The frame on which the stream sits, and how long it still may. No time runs while it sits on none.
#[derive(Default)]
struct Stall(Option<(u64, Wait)>);

type Wait = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Makes a task of a stream that is not over.
pub(super) fn spawn<B>(conn: &Arc<Connection>, stream: Placed<Stream<B>>)
where
    B: Body<Error: Into<BoxError>> + Send + 'static,
{
    let server = conn.server();
    let task = Task {
        stream,
        stall: Stall::default(),
        conn: conn.clone(),
        _guard: server.tally.task(),
    };
    // Not joined: the guard is what shutdown waits for. An end by the last step of the shutdown drops the stream, which says
    // so itself.
    drop(server.runtime.spawn(server.dropping.clone().run_owned(task)));
}

impl<B> Future for Task<B>
where
    B: Body<Error: Into<BoxError>> + Send + 'static,
{
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<()> {
        let this = &mut *self;
        head::look_at_clock();
        let mut polled = stream::poll_placed(&mut this.stream, &this.conn, cx);
        if let Some(stream) = this.stream.as_ref().as_pin_ref() {
            // The drop of the stream resets it.
            polled = this.stall.poll(stream.get_ref().answering(), cx);
        }
        if polled.is_ready() || this.stall.0.is_some() {
            this.conn.answers().came();
        }
        polled
    }
}

impl Stall {
    /// Ready when the client has not taken a frame of what this exchange is answered with within the limit; the exchange is
    /// told of it before.
    fn poll(&mut self, answering: Option<&Exchange>, cx: &mut TaskContext<'_>) -> Poll<()> {
        let Some((exchange, frame)) = answering.and_then(|exchange| Some((exchange, exchange.untaken()?)))
        else {
            self.0 = None;
            return Poll::Pending;
        };
        if self.0.as_ref().is_none_or(|(sat_on, _)| *sat_on != frame) {
            self.0 = Some((frame, Box::pin(patience(exchange))));
        }
        if let Some((_, wait)) = &mut self.0 {
            ready!(wait.as_mut().poll(cx));
        }
        exchange.tell(match exchange.is_shut_down() {
            true => Reason::Shutdown,
            false if silence::finds_lost(exchange.conn()) => Reason::Unreachable,
            false => Reason::Limit("write stall"),
        });
        Poll::Ready(())
    }
}

/// How long the client may leave a frame of this exchange untaken: not for long, if the shutdown has ended the response.
fn patience(exchange: &Exchange) -> impl Future<Output = ()> + Send + use<> {
    let (conn, ends_with_shutdown) = (exchange.conn().clone(), exchange.ends_with_shutdown());
    async move {
        let server = conn.server();
        let stalled = server.pause(server.limits.write_stall);
        if !ends_with_shutdown {
            return stalled.await;
        }
        let shut_down = async {
            server.draining.done().await;
            server.pause(server.limits.answer).await;
        };
        tokio::select! {
            () = stalled => {}
            () = shut_down => {}
        }
    }
}
