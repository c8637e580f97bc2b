//! Cancel requests: at most so many at once, each to its end.
//!
//! A query is cancelled by a message on *another* connection. The server answers nothing, and closes that connection
//! when it has signalled the query's process. So the request has taken effect, or never will, when the connection's end
//! has been read. Whoever does not wait for it cancels the next user's query by chance: `CancelToken::cancel_query` does
//! not.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

use crate::connection::Target;
use crate::options::Options;

/// How long one request may take, from dialling to the end.
const LIMIT: Duration = Duration::from_secs(2);

/// The requests of one pool.
#[derive(Debug)]
pub(crate) struct Cancels {
    slots: Semaphore,
    running: AtomicUsize,
    most: AtomicUsize,
    sent: AtomicU64,
}

/// A request that has no known effect: the connection must not be used again.
#[derive(Debug)]
pub(crate) struct NotCanceled;

impl Cancels {
    pub(crate) fn new(most: usize) -> Cancels {
        Cancels {
            slots: Semaphore::new(most),
            running: AtomicUsize::new(0),
            most: AtomicUsize::new(0),
            sent: AtomicU64::new(0),
        }
    }

    /// Cancels what runs on `target`, and returns when no effect of it can come any more: how long it was on its way, which
    /// tells how far the server is.
    pub(crate) async fn request(
        self: Arc<Self>,
        options: Options,
        target: Target,
    ) -> Result<Duration, NotCanceled> {
        let _slot = self.slots.acquire().await.map_err(|_| NotCanceled)?;
        let _running = Running::begin(&self);
        let began = Instant::now();
        match timeout(LIMIT, target.cancel(&options)).await {
            Ok(Ok(())) => Ok(began.elapsed()),
            Ok(Err(_)) | Err(_) => Err(NotCanceled),
        }
    }

    /// How many are on their way, how many there ever were at once, how many in all.
    pub(crate) fn numbers(&self) -> (usize, usize, u64) {
        (
            self.running.load(Ordering::Relaxed),
            self.most.load(Ordering::Relaxed),
            self.sent.load(Ordering::Relaxed),
        )
    }
}

/// Counts a request while it lives.
struct Running<'a>(&'a Cancels);

impl<'a> Running<'a> {
    fn begin(cancels: &'a Cancels) -> Running<'a> {
        let running = cancels.running.fetch_add(1, Ordering::Relaxed) + 1;
        cancels.most.fetch_max(running, Ordering::Relaxed);
        cancels.sent.fetch_add(1, Ordering::Relaxed);
        Running(cancels)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::Relaxed);
    }
}
