//! How many requests have begun and ended: counted by each connection, added up when somebody asks.
//!
//! A number that all connections write is a line of memory that the processors take from each other at each request. Here a
//! request is begun with a store and ended with one exchange, on memory of its connection.
//!
//! # Invariants
//!
//! 1. The counts of a connection are in one place at a time: in the list of those that are open, or in the sum over those that
//!    are gone. Both are under one lock, so no sum misses one or has one twice.
//! 2. What was in flight on a connection that is gone has ended too, whether anybody was left to say so or not: a hook that
//!    panics takes a request along that was counted as begun.
//! 3. A request is counted as ended last of all (`Release`), and ends are read before beginnings (`Acquire`): whoever sees that
//!    none is in flight sees all that was written for those that were.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The counts of all connections of a server.
#[derive(Default)]
pub(super) struct Counts(Mutex<All>);

/// The counts of one connection, in the list until this is dropped.
pub(super) struct Counted {
    own: Arc<Own>,
    all: Arc<Counts>,
}

/// Of one or many connections, at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sum {
    pub(super) begun: u64,
    pub(super) served: u64,
    /// Ended in another way than served.
    pub(super) unserved: u64,
}

#[derive(Default)]
struct All {
    gone: Sum,
    /// By where they are in memory.
    open: HashMap<usize, Arc<Own>>,
}

#[derive(Debug, Default)]
struct Own {
    begun: AtomicU64,
    served: AtomicU64,
    unserved: AtomicU64,
}

impl Counts {
    /// Counts for one more connection.
    pub(super) fn of_connection(self: &Arc<Counts>) -> Counted {
        let own = Arc::new(Own::default());
        self.lock().open.insert(place(&own), own.clone());
        let all = self.clone();
        Counted { own, all }
    }

    /// Over all connections, those that are gone as well.
    pub(super) fn sum(&self) -> Sum {
        let all = self.lock();
        let open = all.open.values().map(|own| own.now());
        open.fold(all.gone, Sum::plus)
    }

    fn lock(&self) -> MutexGuard<'_, All> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counted {
    /// A request has begun. `by_one`: only one thread at a time says so.
    pub(super) fn begin(&self, by_one: bool) {
        let begun = &self.own.begun;
        if by_one {
            begun.store(begun.load(Relaxed) + 1, Relaxed);
        } else {
            begun.fetch_add(1, Relaxed);
        }
    }

    /// A request has ended; `served` says that its response was sent to its end.
    pub(super) fn end(&self, served: bool) {
        let ended = if served {
            &self.own.served
        } else {
            &self.own.unserved
        };
        // With the loads in `now`.
        ended.fetch_add(1, Release);
    }

    /// How many were served.
    pub(super) fn served(&self) -> u64 {
        self.own.served.load(Relaxed)
    }

    /// How many are in flight.
    pub(super) fn in_flight(&self) -> usize {
        self.own.now().in_flight()
    }
}

impl Sum {
    pub(super) fn in_flight(self) -> usize {
        let ended = self.served + self.unserved;
        usize::try_from(self.begun.saturating_sub(ended)).unwrap_or(usize::MAX)
    }

    /// The same once all is over (invariant 2).
    fn over(self) -> Sum {
        let unserved = self.begun.saturating_sub(self.served);
        Sum { unserved, ..self }
    }

    fn plus(self, other: Sum) -> Sum {
        Sum {
            begun: self.begun + other.begun,
            served: self.served + other.served,
            unserved: self.unserved + other.unserved,
        }
    }
}

impl Own {
    fn now(&self) -> Sum {
        // The ends first, so that what ends meanwhile counts as in flight still. With the exchange in `end`.
        let (served, unserved) = (self.served.load(Acquire), self.unserved.load(Acquire));
        Sum {
            begun: self.begun.load(Relaxed),
            served,
            unserved,
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut all = self.all.lock();
        let own = all.open.remove(&place(&self.own));
        all.gone = all.gone.plus(self.own.now().over());
        drop(all);
        drop(own);
    }
}

impl std::fmt::Debug for Counted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.own.now().fmt(f)
    }
}

fn place(own: &Arc<Own>) -> usize {
    Arc::as_ptr(own).addr()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_that_is_gone_keeps_its_counts_and_nothing_in_flight() {
        let counts = Arc::new(Counts::default());
        let (first, second) = (counts.of_connection(), counts.of_connection());
        for _ in 0..3 {
            first.begin(true);
            second.begin(false);
        }
        first.end(true);
        second.end(false);
        let sum = Sum {
            begun: 6,
            served: 1,
            unserved: 1,
        };
        assert_eq!((counts.sum(), first.in_flight(), sum.in_flight()), (sum, 2, 4));
        drop(first);
        let sum = Sum { unserved: 3, ..sum };
        assert_eq!(
            (counts.sum(), sum.in_flight()),
            (sum, 2),
            "two of the first can not be in flight"
        );
        drop(second);
        let sum = Sum { unserved: 5, ..sum };
        assert_eq!((counts.sum(), sum.in_flight()), (sum, 0));
        assert!(counts.lock().open.is_empty());
    }

    #[test]
    fn no_sum_misses_a_request_or_has_one_twice_while_connections_come_and_go() {
        const ROUNDS: u64 = 2_000;
        let counts = Arc::new(Counts::default());
        std::thread::scope(|scope| {
            let working = scope.spawn(|| {
                for _ in 0..ROUNDS {
                    let counted = counts.of_connection();
                    counted.begin(true);
                    counted.end(true);
                }
            });
            let mut last = 0;
            while !working.is_finished() {
                let sum = counts.sum();
                assert!(sum.served >= last && sum.in_flight() <= 1, "{sum:?} after {last}");
                last = sum.served;
            }
        });
        assert_eq!((counts.sum().served, counts.sum().in_flight()), (ROUNDS, 0));
    }
}
