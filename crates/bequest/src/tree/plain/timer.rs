//! Deadlines that are armed, in order of time, for one clock.
//!
//! # Invariants
//!
//! 1. An entry is weak: an armed deadline keeps nothing alive.
//! 2. The queue's lock is innermost: nothing else is locked, woken, called or dropped while it is held.
//! 3. The thread of the system's clock is started by the first insertion and lives as long as the process. It sleeps
//!    until the earliest entry and is woken before that only by an earlier one.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::thread;
use std::time::Instant;

use super::super::tell::guarded;
use crate::clock::{Alarm, Clock, SystemClock};

/// Something that has a deadline: a node, or a limit on a single await.
pub(crate) trait Expire: Send + Sync {
    /// The deadline has come. Called outside every lock.
    fn expire(self: Arc<Self>);
}

/// The place of an armed deadline; unique in its queue.
pub(crate) type TimerKey = (Instant, u64);

/// The armed deadlines of one clock.
pub(crate) struct Timers {
    /// `None` stands for the system's clock, which has a thread instead of alarms.
    clock: Option<Box<dyn Clock>>,
    queue: Mutex<Queue>,
    /// Rung when the earliest entry has changed. Waited on by the thread of the system's clock alone.
    earlier: Condvar,
}

struct Queue {
    armed: BTreeMap<TimerKey, Weak<dyn Expire>>,
    last: u64,
    /// The instant for which an alarm is set. Not used with the system's clock.
    alarm: Option<Instant>,
    thread_started: bool,
}

/// How many due entries are taken out under one hold of the lock.
const BATCH: usize = 128;

impl Timers {
    /// The queue of the system's clock, shared by all contexts that have no clock of their own.
    pub(crate) fn system() -> &'static Arc<Timers> {
        static SYSTEM: OnceLock<Arc<Timers>> = OnceLock::new();
        SYSTEM.get_or_init(|| Arc::new(Timers::with(None)))
    }

    pub(crate) fn on(clock: impl Clock) -> Arc<Timers> {
        Arc::new(Timers::with(Some(Box::new(clock))))
    }

    fn with(clock: Option<Box<dyn Clock>>) -> Timers {
        let queue = Queue {
            armed: BTreeMap::new(),
            last: 0,
            alarm: None,
            thread_started: false,
        };
        Timers {
            clock,
            queue: Mutex::new(queue),
            earlier: Condvar::new(),
        }
    }

    pub(crate) fn clock(&self) -> &dyn Clock {
        self.clock.as_deref().unwrap_or(&SystemClock)
    }

    /// Whether this is the system's clock, whose timers have a thread.
    pub(crate) fn is_system(&self) -> bool {
        self.clock.is_none()
    }

    /// How many deadlines are armed.
    pub(crate) fn armed(&self) -> usize {
        self.lock().armed.len()
    }

    /// Arms a deadline. Outside every lock.
    ///
    /// # Panics
    ///
    /// If the system refuses the thread that deadlines need.
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
            Some(at) if self.clock.is_some() => self.announce(queue, at),
            _ => drop(queue),
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
        let Some(clock) = &self.clock else {
            let start = !std::mem::replace(&mut queue.thread_started, true);
            drop(queue);
            if start {
                self.start_thread();
            }
            self.earlier.notify_one();
            return;
        };
        if queue.alarm.is_some_and(|set| set <= at) {
            return;
        }
        queue.alarm = Some(at);
        drop(queue);
        clock.wake_at(at, Alarm::new(Arc::downgrade(self)));
    }

    fn start_thread(self: &Arc<Self>) {
        let timers = Arc::clone(self);
        let thread = thread::Builder::new()
            .name("bequest-timer".into())
            .spawn(move || timers.run());
        if let Err(refusal) = thread {
            // The next insertion shall try again.
            self.lock().thread_started = false;
            panic!("the system refused a thread for deadlines: {refusal}");
        }
    }

    /// The thread of the system's clock.
    fn run(self: Arc<Self>) {
        loop {
            while self.expire_batch() {}
            let queue = self.lock();
            let next = queue.armed.first_key_value().map(|(key, _)| key.0);
            match next {
                None => drop(self.earlier.wait(queue)),
                Some(at) => match at.checked_duration_since(Instant::now()) {
                    Some(left) if !left.is_zero() => drop(self.earlier.wait_timeout(queue, left)),
                    _ => {}
                },
            }
        }
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
