//! The streams of an HTTP/2 connection, each a task of its own, so that the processors can share them.
//!
//! A client may keep its connection busy and leave the window of one stream closed. Then hyper waits for ever with a frame
//! in its hand, and does not come back to the body, so the body can not give up. The task of the stream does.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::{Arc, Weak};
use std::task::{Context as TaskContext, Poll, ready};

use bequest::Reason;

use super::connection::Connection;
use super::exchange::Exchange;

/// Starts the streams of one connection.
#[derive(Clone)]
pub(super) struct Streams(Arc<Connection>);

/// Looks after the writes of one stream.
struct Stall {
    exchange: Option<Weak<Exchange>>,
    /// The frame on which the stream sits, and how long it still may. No time runs while it sits on none.
    sitting: Option<(u64, Wait)>,
}

type Wait = Pin<Box<dyn Future<Output = ()> + Send>>;

impl Streams {
    pub(super) fn new(conn: Arc<Connection>) -> Streams {
        Streams(conn)
    }
}

impl<F> hyper::rt::Executor<F> for Streams
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, stream: F) {
        let conn = self.0.clone();
        let task = conn.server().tally.task();
        // Streams are started one by one, each right after its exchange has begun.
        let mut stall = Stall {
            exchange: conn.take_started(),
            sitting: None,
        };
        // Not joined: the task guard is what shutdown waits for.
        drop(self.0.server().runtime.spawn(async move {
            let mut stream = pin!(stream);
            let served = poll_fn(|cx| match stream.as_mut().poll(cx) {
                Poll::Ready(()) => Poll::Ready(()),
                // The drop of the stream resets it.
                Poll::Pending => stall.poll(cx),
            });
            // An end by the last step of the shutdown drops the stream, which says so itself.
            let _ = conn.server().dropping.run(served).await;
            drop(task);
        }));
    }
}

impl Stall {
    /// Ready when the client has not taken a frame within the limit; the exchange is told of it before.
    fn poll(&mut self, cx: &mut TaskContext<'_>) -> Poll<()> {
        let exchange = self.exchange.as_ref().and_then(Weak::upgrade);
        let Some((exchange, frame)) =
            exchange.and_then(|exchange| Some((exchange.clone(), exchange.untaken()?)))
        else {
            self.sitting = None;
            return Poll::Pending;
        };
        if self.sitting.as_ref().is_none_or(|(sat_on, _)| *sat_on != frame) {
            let conn = exchange.conn().clone();
            let wait = async move { conn.server().pause(conn.server().limits.write_stall).await };
            self.sitting = Some((frame, Box::pin(wait)));
        }
        if let Some((_, wait)) = &mut self.sitting {
            ready!(wait.as_mut().poll(cx));
        }
        exchange.tell(Reason::Limit("write stall"));
        Poll::Ready(())
    }
}
