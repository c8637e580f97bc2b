//! The live contexts as an event stream (WHATWG HTML, section 9.2).
//!
//! ```text
//! retry: 1000
//! id: 7                 the number of the picture; one that is left out was passed over
//! event: contexts       the whole state, as `/debug/contexts.json` has it
//! data: {"live":[…],"live_in_all":3,"ended":[…],…}
//!
//! id: 8
//! event: change         rows that are new or other than before, ids that are gone, ends that are new
//! data: {"live":[…],"gone":[12],"live_in_all":3,"ended":[…],…}
//!
//! event: end            the last, after the last changes: why
//! data: {"reason":"shutting down","why":"…"}
//! ```
//!
//! Each connection begins with the whole state, so a `Last-Event-ID` has nothing to add.
//!
//! # Invariants
//!
//! 1. Nothing is looked at, made or kept for a follower that has not taken what it was sent: an event is made when the
//!    connection asks for it, of what there is then.
//! 2. The stream has a scope of its own, which ends with the request's and with the body. Its end is the last event.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll, ready};
use std::time::Duration;

use bequest::{CancelScope, Canceled, Context, DoneOwned};
use bytes::Bytes;
use http_body::{Body, Frame};
use serde_json::json;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval};

use super::picture::{Event, FRESH, Pictures, Told};

/// The body of an event stream.
pub(super) struct Events {
    pictures: Arc<Pictures>,
    told: Told,
    tick: Interval,
    /// When something was sent last.
    sent: Instant,
    end: Pin<Box<DoneOwned>>,
    is_over: bool,
    /// Ended by the drop, which is how a follower that has left is seen in the list.
    _scope: CancelScope,
    _place: OwnedSemaphorePermit,
}

/// Between two looks.
const TICK: Duration = Duration::from_millis(250);

/// After so much silence something is said, so that what stands between does not take the connection for dead.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
const COMMENT: &[u8] = b": nothing has changed\n\n";

/// How long a browser waits before it comes again.
const RETRY: &str = "retry: 1000\n";

impl Events {
    /// Follows from this place, until `ctx` ends.
    pub(super) fn new(ctx: &Context, pictures: Arc<Pictures>, place: OwnedSemaphorePermit) -> Events {
        let scope = ctx.with_cancel().named("event stream");
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Events {
            pictures,
            told: Told::default(),
            tick,
            sent: Instant::now(),
            end: Box::pin(scope.context().done_owned()),
            is_over: false,
            _scope: scope,
            _place: place,
        }
    }

    /// What there is to be sent at the end: the last changes, and why.
    fn farewell(&mut self, end: &Canceled) -> Bytes {
        let change = self.told.next(&self.pictures.newest(Duration::ZERO));
        let data = json!({ "reason": end.reason().to_string(), "why": end.to_string() });
        format!(
            "{}event: end\ndata: {data}\n\n",
            change.map_or_else(String::new, written)
        )
        .into()
    }

    /// What there is to be sent now.
    fn due(&mut self) -> Option<Bytes> {
        if let Some(event) = self.told.next(&self.pictures.newest(FRESH)) {
            return Some(written(event).into());
        }
        (self.sent.elapsed() >= KEEP_ALIVE).then(|| Bytes::from_static(COMMENT))
    }
}

impl Body for Events {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = &mut *self;
        if this.is_over {
            return Poll::Ready(None);
        }
        if let Poll::Ready(end) = this.end.as_mut().poll(cx) {
            this.is_over = true;
            return Poll::Ready(Some(Ok(Frame::data(this.farewell(&end)))));
        }
        loop {
            ready!(this.tick.poll_tick(cx));
            if let Some(text) = this.due() {
                this.sent = Instant::now();
                return Poll::Ready(Some(Ok(Frame::data(text))));
            }
        }
    }
}

/// JSON has no line ends of its own, so the data is one line.
fn written((number, kind, data): Event) -> String {
    let retry = if kind == "contexts" { RETRY } else { "" };
    format!("{retry}id: {number}\nevent: {kind}\ndata: {data}\n\n")
}

#[cfg(test)]
mod tests;
