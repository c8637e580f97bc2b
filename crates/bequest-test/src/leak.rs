//! What is left over: contexts that somebody still holds, timers that are still armed, callbacks that still stand.
//!
//! A watch has a root and a clock of its own. Whatever is derived from the root, in whatever way, goes by that clock
//! and by no other, and nothing else in the process does. So a watch sees its own subtree alone: tests run in parallel
//! as they like.
//!
//! # Invariants
//!
//! 1. The clock is dropped with the last context that goes by it. So [`Leak::assert_none`] cannot be deceived, even if
//!    the list of contexts was switched off in between; the list is what gives the leftovers their names.
//! 2. Only the kit's own clock is asked for alarms and time; a watch changes nothing about when things happen.

use std::fmt;
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use bequest::clock::{Alarm, Clock};
use bequest::inspect::{self, Live};
use bequest::{Context, ScopeId};

/// An assertion that no context, timer or callback is left of what was derived from it.
///
/// It switches the process's list of live contexts on ([`bequest::inspect::enable`]) and leaves it on.
///
/// # Example: nothing is left
///
/// ```
/// use bequest_test::Leak;
/// use std::time::Duration;
///
/// let leak = Leak::watch();
/// {
///     let request = leak.context().with_timeout(Duration::from_secs(5));
///     let step = request.with_cancel();
///     let _guard = step.after_func(|_| {});
///     assert!(request.check().is_ok());
///     assert!(!leak.left().is_none());
/// }
/// leak.assert_none();
/// ```
///
/// # Example: a callback that nobody takes back
///
/// ```should_panic
/// let leak = bequest_test::Leak::watch();
/// let scope = leak.context().with_cancel();
/// scope.after_func(|_| {}).detach();
/// let _kept = scope.into_context();
/// leak.assert_none(); // panics: 1 context (examples/leak.rs:3, held 2 times, 1 waits on it)
/// ```
#[must_use = "a watch does nothing until it is asked"]
#[derive(Debug)]
pub struct Leak {
    root: Context,
    /// The root's id; `None` if the list was switched off at that instant.
    id: Option<ScopeId>,
    /// Dead when the root's clock is.
    clock: Weak<()>,
}

/// How long an assertion waits for others to let go: a list of contexts that is taken elsewhere in the process holds
/// each of them for a moment, and what another thread drops is dropped when that thread gets to it.
const PATIENCE: Duration = Duration::from_secs(1);

impl Leak {
    /// Begins a watch on the system's time.
    #[track_caller]
    pub fn watch() -> Leak {
        Leak::watch_on(SystemClock)
    }

    /// Begins a watch whose contexts go by `clock`.
    ///
    /// ```
    /// # use bequest_test::{Clock, Leak};
    /// # use std::time::Duration;
    /// let clock = Clock::new();
    /// let leak = Leak::watch_on(clock.clone());
    /// let request = leak.context().with_timeout(Duration::from_secs(5));
    /// clock.advance(Duration::from_secs(5));
    /// assert!(request.is_done());
    /// drop(request);
    /// leak.assert_none();
    /// ```
    #[track_caller]
    pub fn watch_on(clock: impl Clock) -> Leak {
        inspect::enable();
        let alive = Arc::new(());
        let token = Arc::downgrade(&alive);
        let root = Context::with_clock(Watched { clock, _alive: alive });
        let id = inspect::on_clock_of(&root).live.first().map(|row| row.id);
        Leak {
            root,
            id,
            clock: token,
        }
    }

    /// The root from which everything that is watched is to be derived. It never ends.
    ///
    /// It is lent: a clone that is still there at the end counts as left.
    pub fn context(&self) -> &Context {
        &self.root
    }

    /// What there is at this instant, to look at or to wait for.
    ///
    /// ```
    /// # use bequest_test::Leak;
    /// # use std::time::Duration;
    /// let leak = Leak::watch();
    /// let scope = leak.context().with_timeout(Duration::from_secs(5)).named("request");
    /// assert!(!scope.is_done(), "the look arms the deadline");
    /// let left = leak.left();
    /// assert_eq!(left.contexts.len(), 1);
    /// assert_eq!(left.contexts[0].name, Some("request"));
    /// assert_eq!(left.timers, 1);
    /// assert!(left.to_string().contains("request"));
    /// drop(scope);
    /// assert!(leak.left().is_none());
    /// ```
    pub fn left(&self) -> Left {
        let seen = inspect::on_clock_of(&self.root);
        let (roots, contexts): (Vec<Live>, Vec<Live>) =
            seen.live.into_iter().partition(|row| Some(row.id) == self.id);
        let root = roots.first();
        let by_children = contexts
            .iter()
            .flat_map(|row| &row.parents)
            .filter(|parent| Some(**parent) == self.id)
            .count();
        Left {
            // One handle is the watch's own.
            handles: root.map_or(0, |root| root.holders.saturating_sub(1 + by_children)),
            waiting: root.map_or(0, |root| root.waiting),
            timers: seen.armed_deadlines,
            contexts,
        }
    }

    /// Fails the test if anything is left.
    ///
    /// What other threads are about to drop is waited for, a second at most. Under an executor that needs this thread
    /// for that, wait for [`left`](Leak::left) to be none first.
    ///
    /// # Panics
    ///
    /// If a context, a timer or a callback is left, with the list of them: name, the line that made it, who holds it.
    #[track_caller]
    pub fn assert_none(self) {
        self.assert_none_within(PATIENCE);
    }

    /// As [`assert_none`](Leak::assert_none), with a limit of its own on the waiting.
    ///
    /// ```
    /// # use bequest_test::Leak;
    /// # use std::{thread, time::Duration};
    /// let leak = Leak::watch();
    /// let scope = leak.context().with_cancel();
    /// let worker = thread::spawn(move || scope.wait_timeout(Duration::from_millis(1)));
    /// leak.assert_none_within(Duration::from_secs(20));
    /// assert!(worker.join().unwrap().is_none());
    /// ```
    ///
    /// # Panics
    ///
    /// As [`assert_none`](Leak::assert_none).
    #[track_caller]
    pub fn assert_none_within(self, limit: Duration) {
        if !holds_within(limit, || self.left().is_none()) {
            panic!("left over: {}", self.left());
        }
        let Leak { root, clock, .. } = self;
        drop(root);
        // Invariant 1.
        assert!(
            holds_within(limit, || clock.strong_count() == 0),
            "left over: a context that is not in the list, which was switched off when it was made"
        );
    }
}

/// What a watch has found.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Left {
    /// Contexts that are still held, whether they have ended or not; the watch's own not included.
    pub contexts: Vec<Live>,
    /// Clones of the watch's own context.
    pub handles: usize,
    /// Futures and callbacks that wait on the watch's own context.
    pub waiting: usize,
    /// Deadlines that are still armed.
    pub timers: usize,
}

impl Left {
    /// Whether nothing is left.
    ///
    /// ```
    /// assert!(bequest_test::Leak::watch().left().is_none());
    /// ```
    pub fn is_none(&self) -> bool {
        self.contexts.is_empty() && self.handles == 0 && self.waiting == 0 && self.timers == 0
    }
}

impl fmt::Display for Left {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} contexts, {} armed timers, {} clones of the watch's own context, {} waiting on that",
            self.contexts.len(),
            self.timers,
            self.handles,
            self.waiting
        )?;
        for row in &self.contexts {
            let state = if row.end.is_some() { "ended" } else { "live" };
            write!(f, "\n  {} {}", row.name.unwrap_or("context"), row.id)?;
            write!(
                f,
                ", made at {}, {state}, held {} times",
                row.made_at, row.holders
            )?;
            write!(f, ", {} wait on it", row.waiting)?;
        }
        Ok(())
    }
}

/// Whether `condition` comes to hold within `limit`.
fn holds_within(limit: Duration, condition: impl Fn() -> bool) -> bool {
    let start = Instant::now();
    while !condition() {
        if start.elapsed() >= limit {
            return false;
        }
        thread::sleep(Duration::from_millis(1));
    }
    true
}

/// A clock that says, by being dropped, that no context goes by it.
struct Watched<C> {
    clock: C,
    _alive: Arc<()>,
}

impl<C: Clock> Clock for Watched<C> {
    fn now(&self) -> Instant {
        self.clock.now()
    }

    fn wall(&self) -> SystemTime {
        self.clock.wall()
    }

    fn wake_at(&self, at: Instant, alarm: Alarm) {
        self.clock.wake_at(at, alarm);
    }
}

impl<C: fmt::Debug> fmt::Debug for Watched<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.clock.fmt(f)
    }
}

/// The system's time for a root of its own: alarms are rung by deadlines of the background.
#[derive(Debug)]
struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Instant {
        Instant::now()
    }

    fn wake_at(&self, at: Instant, alarm: Alarm) {
        let bell = Context::background().with_deadline(at).into_context();
        // Unless it has come already: then it would be rung here and now, before returning.
        match bell.is_done() {
            true => drop(thread::spawn(move || alarm.ring())),
            false => bell.after_func(move |_| alarm.ring()).detach(),
        }
    }
}
