//! What the server counts: how much is alive now, and what became of what is not.
//!
//! # Invariants
//!
//! 1. Each unit of work that is alive (a connection, an HTTP/2 stream, a handler that lingers) holds one [`TaskGuard`];
//!    shutdown is over when none is left.
//! 2. A gauge is lowered by the drop of the guard that raised it, on every path, a panic included.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};

use tokio::sync::Notify;

use super::counts::Counts;

/// A handle on the counters of one server. It stays valid after the server has ended.
///
/// ```
/// use bequest_http::Server;
///
/// let server = Server::builder();
/// let statistics = server.statistics();
/// assert_eq!(statistics.snapshot().connections, 0);
/// ```
#[derive(Clone)]
pub struct Statistics(pub(super) Arc<Tally>);

/// The counters at one moment. Each number is exact; taken together they may be a few instructions apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Snapshot {
    /// Connections open now.
    pub connections: usize,
    /// Requests being served now: from the end of the header to the end of the response body.
    pub requests: usize,
    /// Handlers running on in their grace now, told that nobody waits any more.
    pub in_grace: usize,
    /// Handlers running on detached now, not told.
    pub detached: usize,
    /// Bytes read ahead of the handlers and not asked for yet, over all connections.
    pub read_ahead: usize,
    /// Requests whose response was sent to its end.
    pub served: u64,
    /// Requests that ended because their client left or reset the stream.
    pub client_gone: u64,
    /// Requests whose deadline passed, answered or not.
    pub timed_out: u64,
    /// Requests whose context was ended by the shutdown of the server.
    pub shut_down: u64,
    /// Handlers that were not begun, as their client had left already.
    pub not_begun: u64,
    /// Handlers dropped before they had finished: their grace was over, or there was no room to linger.
    pub dropped: u64,
    /// Of those, handlers dropped at once because too many were lingering already.
    pub refused_grace: u64,
    /// Streams of HTTP/2 that were refused, as their connection had as many handlers as it may have.
    pub refused_streams: u64,
    /// Connections of HTTP/2 that were closed, as their client had reset too many streams.
    pub closed_for_resets: u64,
    /// Handlers and bodies that panicked.
    pub panicked: u64,
    /// Connections that came no further than their TLS handshake.
    pub handshakes_failed: u64,
}

/// The counters themselves.
#[derive(Default)]
pub(super) struct Tally {
    pub(super) connections: Gauge,
    /// Requests whose header was complete, and those whose exchange is over; what became of those that were not served is
    /// counted below.
    pub(super) requests: Arc<Counts>,
    pub(super) in_grace: Gauge,
    pub(super) detached: Gauge,
    pub(super) lingering: Gauge,
    /// Bytes read ahead by all connections.
    pub(super) ahead: Gauge,
    pub(super) client_gone: AtomicU64,
    pub(super) timed_out: AtomicU64,
    pub(super) shut_down: AtomicU64,
    pub(super) not_begun: AtomicU64,
    pub(super) dropped: AtomicU64,
    pub(super) refused_grace: AtomicU64,
    pub(super) refused_streams: AtomicU64,
    pub(super) closed_for_resets: AtomicU64,
    pub(super) panicked: AtomicU64,
    pub(super) handshakes_failed: AtomicU64,
    /// Invariant 1. Raised and lowered with `SeqCst`, as its zero decides whether somebody must be woken.
    tasks: AtomicUsize,
    /// Told each time `tasks` falls to zero.
    idle: Notify,
}

/// A number of things alive.
#[derive(Clone, Default)]
pub(super) struct Gauge(Arc<AtomicUsize>);

/// One thing alive; its drop lowers the gauge.
pub(super) struct Raised(Arc<AtomicUsize>);

/// A number of units of one gauge that grows and shrinks below a bound; its drop gives all of them back.
#[derive(Debug)]
pub(super) struct Held {
    gauge: Arc<AtomicUsize>,
    bound: usize,
    units: usize,
}

/// One unit of work alive (invariant 1).
pub(super) struct TaskGuard(Arc<Tally>);

impl Statistics {
    /// The counters now.
    pub fn snapshot(&self) -> Snapshot {
        let tally = &*self.0;
        // First: what is seen to have ended is counted below.
        let requests = tally.requests.sum();
        Snapshot {
            connections: tally.connections.get(),
            requests: requests.in_flight(),
            in_grace: tally.in_grace.get(),
            detached: tally.detached.get(),
            read_ahead: tally.ahead.get(),
            served: requests.served,
            client_gone: tally.client_gone.load(Relaxed),
            timed_out: tally.timed_out.load(Relaxed),
            shut_down: tally.shut_down.load(Relaxed),
            not_begun: tally.not_begun.load(Relaxed),
            dropped: tally.dropped.load(Relaxed),
            refused_grace: tally.refused_grace.load(Relaxed),
            refused_streams: tally.refused_streams.load(Relaxed),
            closed_for_resets: tally.closed_for_resets.load(Relaxed),
            panicked: tally.panicked.load(Relaxed),
            handshakes_failed: tally.handshakes_failed.load(Relaxed),
        }
    }
}

impl fmt::Debug for Statistics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Statistics").field(&self.snapshot()).finish()
    }
}

impl Tally {
    /// Counts one unit of work as alive until the guard is dropped.
    pub(super) fn task(self: &Arc<Tally>) -> TaskGuard {
        self.tasks.fetch_add(1, SeqCst);
        TaskGuard(self.clone())
    }

    /// How many units of work are alive.
    pub(super) fn tasks(&self) -> usize {
        self.tasks.load(SeqCst)
    }

    /// Waits until no unit of work is alive.
    pub(super) async fn idle(&self) {
        loop {
            let told = self.idle.notified();
            tokio::pin!(told);
            // Registered before the look, so that a fall to zero between the two is not missed.
            told.as_mut().enable();
            if self.tasks() == 0 {
                return;
            }
            told.await;
        }
    }
}

impl Drop for TaskGuard {
    fn drop(&mut self) {
        if self.0.tasks.fetch_sub(1, SeqCst) == 1 {
            self.0.idle.notify_waiters();
        }
    }
}

impl Gauge {
    pub(super) fn get(&self) -> usize {
        self.0.load(Relaxed)
    }

    /// One more, whatever the number.
    pub(super) fn raise(&self) -> Raised {
        self.0.fetch_add(1, Relaxed);
        Raised(self.0.clone())
    }

    /// One more, unless there are `cap` already.
    pub(super) fn raise_below(&self, cap: usize) -> Option<Raised> {
        let admit = |now: usize| (now < cap).then_some(now + 1);
        self.0.fetch_update(Relaxed, Relaxed, admit).ok()?;
        Some(Raised(self.0.clone()))
    }
}

impl Gauge {
    /// A claim of no units yet, on a gauge that is not to exceed `bound`.
    pub(super) fn hold_below(&self, bound: usize) -> Held {
        Held {
            gauge: self.0.clone(),
            bound,
            units: 0,
        }
    }
}

impl Held {
    /// Claims units until it has this many; `false` if there is no room, and then nothing has changed.
    pub(super) fn grow_to(&mut self, units: usize) -> bool {
        let more = units.saturating_sub(self.units);
        let admit = |now: usize| {
            let then = now.saturating_add(more);
            (more == 0 || then <= self.bound).then_some(then)
        };
        let admitted = self.gauge.fetch_update(Relaxed, Relaxed, admit).is_ok();
        if admitted {
            self.units += more;
        }
        admitted
    }

    /// Gives units back until it has no more than this.
    pub(super) fn shrink_to(&mut self, units: usize) {
        let fewer = self.units.saturating_sub(units);
        self.gauge.fetch_sub(fewer, Relaxed);
        self.units -= fewer;
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.shrink_to(0);
    }
}

impl Drop for Raised {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gauge_stops_at_its_cap_and_falls_with_its_guards() {
        let gauge = Gauge::default();
        let first = gauge.raise_below(2).expect("room for one");
        let second = gauge.raise_below(2).expect("room for two");
        assert!(gauge.raise_below(2).is_none());
        drop(first);
        assert!(gauge.raise_below(2).is_some());
        drop(second);
        assert_eq!(gauge.get(), 0);
    }

    #[test]
    fn what_is_held_stays_below_the_bound_and_is_given_back() {
        let gauge = Gauge::default();
        let (mut first, mut second) = (gauge.hold_below(10), gauge.hold_below(10));
        assert!(first.grow_to(8));
        assert!(!second.grow_to(3));
        assert!(second.grow_to(2));
        first.shrink_to(5);
        assert!(second.grow_to(5));
        assert_eq!(gauge.get(), 10);
        drop((first, second));
        assert_eq!(gauge.get(), 0);
    }

    #[tokio::test]
    async fn idle_waits_for_the_last_task_and_not_longer() {
        let tally = Arc::new(Tally::default());
        tally.idle().await;
        let (first, second) = (tally.task(), tally.task());
        let waiter = tokio::spawn({
            let tally = tally.clone();
            async move { tally.idle().await }
        });
        drop(first);
        tokio::task::yield_now().await;
        assert!(!waiter.is_finished());
        drop(second);
        waiter.await.expect("the waiter ends");
    }
}
