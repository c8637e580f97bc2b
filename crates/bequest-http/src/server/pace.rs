//! How fast a request's body comes, as far as a handler waits for it.
//!
//! Only waiting counts: a handler that takes its time between two pieces is not the client's fault.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use super::exchange::Exchange;
use super::shared::Shared;

/// The pace of one body.
#[derive(Default)]
pub(super) struct Pace {
    /// The present wait: since when, and until when it may last.
    waiting: Option<(Duration, Wait)>,
    /// Waited since the rate was last looked at.
    waited: Duration,
    /// Bytes that came since then.
    bytes: u64,
}

type Wait = Pin<Box<dyn Future<Output = ()> + Send + Sync>>;

impl Pace {
    /// Ready when nothing has come for too long. To be called whenever there is nothing to hand out.
    pub(super) fn poll_idle(&mut self, cx: &mut TaskContext<'_>, exchange: &Arc<Exchange>) -> Poll<()> {
        let (_, wait) = self.waiting.get_or_insert_with(|| {
            let server = exchange.server();
            let (clock, limit) = (server.clock.clone(), server.limits.body_idle);
            let wait: Wait = Box::pin(async move {
                // The clock's context never ends, so the only outcome is that the time has passed.
                let _ = clock.sleep(limit).await;
            });
            (server.stopwatch.now(), wait)
        });
        wait.as_mut().poll(cx)
    }

    /// Takes note of what came. `false` if that is too little for the time that was waited for it.
    pub(super) fn came(&mut self, bytes: usize, server: &Shared) -> bool {
        self.bytes += bytes as u64;
        let Some((since, _)) = self.waiting.take() else {
            return true;
        };
        self.waited += server.stopwatch.now().saturating_sub(since);
        if self.waited < server.limits.body_idle {
            return true;
        }
        let wanted = u128::from(server.limits.body_rate) * self.waited.as_millis() / 1000;
        let enough = u128::from(self.bytes) >= wanted;
        (self.waited, self.bytes) = (Duration::ZERO, 0);
        enough
    }
}

impl fmt::Debug for Pace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pace")
            .field("waited", &self.waited)
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}
