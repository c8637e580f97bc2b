//! Who waits beside a handler, or beside the body of an answer: for the end of the context, and then for as long as there is
//! to react to that.
//!
//! Most waits end well, so the first wait has no memory of its own; the second, which may be for a place, is made when it
//! begins.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll, ready};
use std::time::Duration;

use bequest::{Canceled, DoneOwned};

use super::disconnect::Disconnect;
use super::exchange::Exchange;
use super::observe::WhyDropped;

/// Waits until the context of an exchange has ended and the time to react to that is over.
pub(super) enum Overseer {
    /// For the end.
    Waits(DoneOwned),
    /// For what comes of it.
    Knows(Pin<Box<dyn Future<Output = Verdict> + Send>>),
}

/// The time of an exchange is over: its context has ended, and so has the time to react to that.
pub(super) struct Verdict {
    /// How the context ended.
    pub(super) end: Canceled,
    /// How long ago that was.
    pub(super) waited: Duration,
    /// Why the handler is not waited for any longer.
    pub(super) why: WhyDropped,
}

impl Overseer {
    /// Of an exchange that has come to wait.
    pub(super) fn of(exchange: &Exchange) -> Overseer {
        Overseer::Waits(exchange.context().clone().done_owned())
    }

    /// `exchange` is the one that it is of.
    pub(super) fn poll(&mut self, exchange: &Arc<Exchange>, cx: &mut TaskContext<'_>) -> Poll<Verdict> {
        loop {
            match self {
                Overseer::Waits(done) => {
                    let end = ready!(Pin::new(done).poll(cx));
                    *self = Overseer::Knows(Box::pin(react(exchange.clone(), end)));
                }
                Overseer::Knows(reaction) => return reaction.as_mut().poll(cx),
            }
        }
    }
}

/// Waits until the time to react to this end is over.
///
/// A handler whose client has left waits in a place among those that linger, though its connection still polls it.
async fn react(exchange: Arc<Exchange>, end: Canceled) -> Verdict {
    let server = exchange.server();
    if !end.reason().is_departure() {
        let waited = server.limits.answer;
        server.pause(waited).await;
        let why = WhyDropped::GraceOver;
        return Verdict { end, waited, why };
    }
    let mode = exchange.disconnect();
    if mode == Disconnect::Drop {
        let (waited, why) = (Duration::ZERO, WhyDropped::NoGrace);
        return Verdict { end, waited, why };
    }
    let Some(place) = exchange.conn().linger(mode) else {
        let (waited, why) = (Duration::ZERO, WhyDropped::TooManyLinger);
        return Verdict { end, waited, why };
    };
    let waited = match mode {
        Disconnect::Drop => Duration::ZERO,
        Disconnect::Grace(grace) => {
            let waited = exchange.conn().departed_for().unwrap_or_default();
            server.pause(grace.saturating_sub(waited)).await;
            grace
        }
        Disconnect::Detach(limit) => {
            exchange.detached_end().await;
            limit
        }
    };
    drop(place);
    let why = WhyDropped::GraceOver;
    Verdict { end, waited, why }
}
