//! What the client of a connection is doing, in times of the server's stopwatch.
//!
//! Written on every read, write, request and answer, and read by a slow tick, so nothing here takes a lock.
//!
//! # Invariants
//!
//! 1. Whoever sees that nothing is in flight, and no tunnel open, sees since when: the time is written before the last of them is
//!    counted as ended, and read after the counts.
//! 2. Everything else is a time of its own, and may be a moment old when it is read.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};
use std::time::Duration;

use super::counts::Counted;

#[derive(Debug)]
pub(super) struct Activity {
    /// Requests whose answer is not complete are in flight (invariant 1).
    requests: Counted,
    /// Tunnels of HTTP/2 that are open (invariant 1).
    tunnels: AtomicUsize,
    /// Since when the client owes the rest of a header.
    pub(super) header_since: Stamp,
    /// Since when nothing has been in flight; by the cheap clock, so up to a tick of the system too early.
    idle_since: Stamp,
    /// When the client was seen to leave.
    pub(super) departed: Stamp,
    /// Since when it takes nothing of what is written to it.
    pub(super) stalled_since: Stamp,
}

/// A time, or none.
#[derive(Debug, Default)]
pub(super) struct Stamp(AtomicU64);

/// What the connection waits for while nothing is in flight.
pub(super) enum Waiting {
    /// Something is in flight, or a tunnel is open.
    Not,
    /// The rest of a header, since then.
    Header(Duration),
    /// The next request, since then.
    Idle(Duration),
}

impl Activity {
    /// Of a connection that is idle since `now`.
    pub(super) fn idle(now: Duration, requests: Counted) -> Activity {
        let activity = Activity {
            requests,
            tunnels: AtomicUsize::new(0),
            header_since: Stamp::default(),
            idle_since: Stamp::default(),
            departed: Stamp::default(),
            stalled_since: Stamp::default(),
        };
        activity.idle_since.set(now);
        activity
    }

    /// When a request ended last.
    pub(super) fn idle_since(&self) -> Option<Duration> {
        self.idle_since.get()
    }

    pub(super) fn is_busy(&self) -> bool {
        self.in_flight() > 0
    }

    /// Whether a tunnel is open.
    pub(super) fn has_tunnels(&self) -> bool {
        self.tunnels.load(Acquire) > 0
    }

    pub(super) fn in_flight(&self) -> usize {
        self.requests.in_flight()
    }

    /// How many requests were served.
    pub(super) fn served(&self) -> u64 {
        self.requests.served()
    }

    /// `by_one`: only one thread at a time says so.
    pub(super) fn request_began(&self, by_one: bool) {
        self.requests.begin(by_one);
    }

    /// `one_by_one`: requests do not overlap, so the tail of its body may have looked like a next header.
    pub(super) fn request_ended(&self, now: Duration, served: bool, one_by_one: bool) {
        if one_by_one {
            self.header_since.clear();
        }
        self.idle_since.set(now);
        self.requests.end(served);
    }

    /// To be said before the request that has asked for it is over.
    pub(super) fn tunnel_began(&self) {
        self.tunnels.fetch_add(1, Relaxed);
    }

    pub(super) fn tunnel_ended(&self, now: Duration) {
        self.idle_since.set(now);
        self.tunnels.fetch_sub(1, Release);
    }

    /// Begins the idle time anew.
    pub(super) fn restart_idle(&self, now: Duration) {
        self.idle_since.set(now);
    }

    pub(super) fn waiting(&self) -> Waiting {
        if self.is_busy() || self.has_tunnels() {
            return Waiting::Not;
        }
        match self.header_since.get() {
            Some(since) => Waiting::Header(since),
            None => Waiting::Idle(self.idle_since.get().unwrap_or_default()),
        }
    }
}

impl Stamp {
    pub(super) fn get(&self) -> Option<Duration> {
        self.0.load(Relaxed).checked_sub(1).map(Duration::from_nanos)
    }

    pub(super) fn set(&self, at: Duration) {
        // Nanoseconds of a stopwatch fill 64 bits after five centuries.
        let nanos = u64::try_from(at.as_nanos()).unwrap_or(u64::MAX - 1);
        self.0.store(nanos + 1, Relaxed);
    }

    /// Sets it if there is none.
    pub(super) fn begin(&self, at: impl FnOnce() -> Duration) {
        if self.0.load(Relaxed) == 0 {
            self.set(at());
        }
    }

    pub(super) fn clear(&self) {
        // A look is cheaper than a write, and mostly there is nothing to clear.
        if self.0.load(Relaxed) != 0 {
            self.0.store(0, Relaxed);
        }
    }

    pub(super) fn take(&self) -> Option<Duration> {
        let at = self.get();
        self.clear();
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_tells_the_beginning_of_time_from_none() {
        let stamp = Stamp::default();
        assert_eq!(stamp.get(), None);
        stamp.set(Duration::ZERO);
        stamp.begin(|| unreachable!("it has begun"));
        assert_eq!(stamp.take(), Some(Duration::ZERO));
        assert_eq!(stamp.get(), None);
        stamp.set(Duration::MAX);
        assert!(stamp.get().is_some(), "absurd times are no overflow");
    }
}
