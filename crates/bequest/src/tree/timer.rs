//! Deadlines that are armed, in order of time, on a clock of the user's own, which says when it is time.
//!
//! The system's clock has a [`wheel`](super::wheel) instead. Here exactness counts and speed does not: such clocks are
//! for tests.
//!
//! # Invariants
//!
//! 1. An entry is weak: an armed deadline keeps nothing alive.
//! 2. The queue's lock is innermost: nothing else is locked, woken, called or dropped while it is held.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;

use super::tell::guarded;
use crate::clock::{Alarm, Clock};

/// Something that has a deadline: a node, or a limit on a single await.
pub(crate) trait Expire: Send + Sync {
    /// The deadline has come. Called outside every lock.
    fn expire(self: Arc<Self>);
}

/// The place of an armed deadline; unique in its queue.
pub(crate) type TimerKey = (Instant, u64);

/// The armed deadlines of one clock.
pub(crate) struct Timers {
    clock: Box<dyn Clock>,
    queue: Mutex<Queue>,
}

struct Queue {
    armed: BTreeMap<TimerKey, Weak<dyn Expire>>,
    last: u64,
    /// The instant for which an alarm is set.
    alarm: Option<Instant>,
}

/// How many due entries are taken out under one hold of the lock.
const BATCH: usize = 128;

impl Timers {
    pub(crate) fn on(clock: impl Clock) -> Arc<Timers> {
        let queue = Queue {
            armed: BTreeMap::new(),
            last: 0,
            alarm: None,
        };
        Arc::new(Timers {
            clock: Box::new(clock),
            queue: Mutex::new(queue),
        })
    }

    pub(crate) fn clock(&self) -> &dyn Clock {
        &*self.clock
    }

    /// How many deadlines are armed.
    pub(crate) fn armed(&self) -> usize {
        self.lock().armed.len()
    }

    /// Arms a deadline. Outside every lock.
    pub(crate) fn insert(self: &Arc<Self>, at: Instant, entry: Weak<dyn Expire>) -> TimerKey {
        let mut queue = self.lock();
        queue.last += 1;
        let key = (at, queue.last);
        queue.armed.insert(key, entry);
        let is_earliest = queue
            .armed
            .first_key_value()
            .is_some_and(|(first, _)| *first == key);
        if is_earliest {
            self.announce(queue, at);
        }
        key
    }

    /// Disarms a deadline. If it was taken out already, nothing happens.
    pub(crate) fn remove(&self, key: TimerKey) {
        let entry = self.lock().armed.remove(&key);
        // Outside the lock: the entry may be the last that keeps the memory of a dead node.
        drop(entry);
    }

    /// Ends all that is due and asks for the next alarm. Outside every lock.
    pub(crate) fn ring(self: &Arc<Self>) {
        // The alarm that was set is the one that rings.
        self.lock().alarm = None;
        while self.expire_batch() {}
    }

    /// Takes out and ends up to [`BATCH`] due entries; whether there may be more.
    ///
    /// The next alarm is asked for before they are ended: whoever is told may move the clock on.
    fn expire_batch(self: &Arc<Self>) -> bool {
        let now = self.clock().now();
        let mut queue = self.lock();
        let mut due = Vec::new();
        while due.len() < BATCH {
            match queue.armed.first_entry() {
                Some(first) if first.key().0 <= now => due.push(first.remove()),
                _ => break,
            }
        }
        let next = queue.armed.first_key_value().map(|(key, _)| key.0);
        match next {
            Some(at) => self.announce(queue, at),
            None => drop(queue),
        }
        let more = due.len() == BATCH;
        for entry in due {
            if let Some(entry) = entry.upgrade() {
                // It may be the last handle to a cause: a panic in that destructor must not end the thread.
                guarded(|| entry.expire());
            }
        }
        more
    }

    /// Makes known that `at` is now the earliest; lets go of the lock before anybody is told.
    fn announce(self: &Arc<Self>, mut queue: MutexGuard<'_, Queue>, at: Instant) {
        if queue.alarm.is_some_and(|set| set <= at) {
            return;
        }
        queue.alarm = Some(at);
        drop(queue);
        self.clock.wake_at(at, Alarm::new(Arc::downgrade(self)));
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Timers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Timers")
            .field("clock", &self.clock())
            .finish_non_exhaustive()
    }
}
