//! A clock that tests move.
//!
//! What lives here: virtual time, the alarms that contexts set on it, and calls that a test schedules. What does not:
//! running futures on it, which is [`Bubble`]'s.
//!
//! # Invariants
//!
//! 1. Time never goes back. It stands still but for `advance` and its kin.
//! 2. Whatever is due on the way is done in order of time, and in order of asking at the same instant; while it is
//!    done, the clock shows the instant for which it was asked, or a later one if it advanced the clock itself.
//! 3. Nothing foreign runs under the clock's lock: alarms are rung and calls are made outside.
//! 4. What is asked for an instant that has passed is done by the advance in progress, and if there is none (another
//!    thread had advanced between the look and the asking), by a thread made for it. So no alarm is lost.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use bequest::Context;
use bequest::clock::Alarm;

use crate::Bubble;

/// A clock that stands still until a test moves it. A clone is another handle to the same clock.
///
/// Its wall clock begins at midnight UTC of 1 January 2000 and moves along.
///
/// # Example: each deadline at its exact instant
///
/// ```
/// use bequest_test::Clock;
/// use std::sync::mpsc;
/// use std::time::Duration;
///
/// let clock = Clock::new();
/// let ctx = clock.context();
/// let (tell, told) = mpsc::channel();
/// let scopes = [30, 10, 20].map(|ms| ctx.with_timeout(Duration::from_millis(ms)));
/// for scope in &scopes {
///     let (tell, clock) = (tell.clone(), clock.clone());
///     scope.after_func(move |_| tell.send(clock.elapsed().as_millis()).unwrap()).detach();
/// }
/// clock.advance(Duration::from_secs(1));
/// assert_eq!(told.try_iter().collect::<Vec<_>>(), [10, 20, 30]);
/// assert_eq!(clock.elapsed(), Duration::from_secs(1));
/// ```
#[derive(Clone)]
pub struct Clock(Arc<Shared>);

struct Shared {
    start: Instant,
    state: Mutex<State>,
}

/// What the clock's lock guards.
struct State {
    now: Instant,
    /// What the wall clock shows at `start`.
    wall: SystemTime,
    due: BTreeMap<(Instant, u64), Event>,
    /// The number of the last event, so that those of one instant keep their order.
    last: u64,
    /// How many calls of `advance_to` are in progress; they nest.
    advancing: usize,
}

enum Event {
    Ring(Alarm),
    Call(Box<dyn FnOnce() + Send>),
}

/// The seconds between 1970 and 2000.
const MILLENNIUM: Duration = Duration::from_secs(946_684_800);

impl Clock {
    /// A clock of its own, which stands still.
    pub fn new() -> Clock {
        let start = Instant::now();
        Clock(Arc::new(Shared {
            start,
            state: Mutex::new(State {
                now: start,
                wall: SystemTime::UNIX_EPOCH + MILLENNIUM,
                due: BTreeMap::new(),
                last: 0,
                advancing: 0,
            }),
        }))
    }

    /// A root whose deadlines go by this clock.
    ///
    /// ```
    /// # use bequest_test::Clock;
    /// # use std::time::Duration;
    /// let clock = Clock::new();
    /// let scope = clock.context().with_timeout(Duration::from_secs(1));
    /// clock.advance(Duration::from_millis(999));
    /// assert_eq!(scope.remaining(), Some(Duration::from_millis(1)));
    /// assert!(!scope.is_done());
    /// clock.advance(Duration::from_millis(1));
    /// assert!(scope.is_done());
    /// ```
    #[track_caller]
    pub fn context(&self) -> Context {
        Context::with_clock(self.clone())
    }

    /// The present instant.
    ///
    /// ```
    /// # use bequest_test::Clock;
    /// # use std::time::Duration;
    /// let clock = Clock::new();
    /// let before = clock.now();
    /// assert_eq!(clock.now(), before, "it stands still");
    /// clock.advance(Duration::from_secs(7));
    /// assert_eq!(clock.now() - before, Duration::from_secs(7));
    /// ```
    pub fn now(&self) -> Instant {
        self.0.lock().now
    }

    /// How far the clock has been moved since it was made.
    ///
    /// ```
    /// # use bequest_test::Clock;
    /// # use std::time::Duration;
    /// let clock = Clock::new();
    /// clock.advance(Duration::from_secs(2));
    /// clock.advance(Duration::from_secs(3));
    /// assert_eq!(clock.elapsed(), Duration::from_secs(5));
    /// ```
    pub fn elapsed(&self) -> Duration {
        self.now() - self.0.start
    }

    /// The present wall-clock time.
    ///
    /// ```
    /// # use bequest_test::Clock;
    /// # use std::time::Duration;
    /// let clock = Clock::new();
    /// let scope = clock.context().with_deadline(clock.wall() + Duration::from_secs(60));
    /// clock.advance(Duration::from_secs(59));
    /// assert_eq!(scope.remaining(), Some(Duration::from_secs(1)));
    /// ```
    pub fn wall(&self) -> SystemTime {
        let state = self.0.lock();
        state.wall + (state.now - self.0.start)
    }

    /// Sets the wall clock, forwards or back, as an administrator does: no instant moves.
    ///
    /// ```
    /// # use bequest_test::Clock;
    /// # use std::time::{Duration, SystemTime};
    /// let clock = Clock::new();
    /// clock.set_wall(SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000));
    /// clock.advance(Duration::from_secs(1));
    /// assert_eq!(clock.wall(), SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_001));
    /// assert_eq!(clock.elapsed(), Duration::from_secs(1));
    /// ```
    ///
    /// # Panics
    ///
    /// If `to` is so early that the time at which the clock was made cannot be told.
    pub fn set_wall(&self, to: SystemTime) {
        let mut state = self.0.lock();
        let elapsed = state.now - self.0.start;
        state.wall = to
            .checked_sub(elapsed)
            .expect("a wall-clock time that a `SystemTime` can hold");
    }

    /// Moves the clock by `span`, as [`advance_to`](Clock::advance_to) does.
    ///
    /// # Panics
    ///
    /// If an [`Instant`] cannot hold the sum, or a scheduled call panics.
    pub fn advance(&self, span: Duration) {
        let to = self
            .now()
            .checked_add(span)
            .expect("an instant that an `Instant` can hold");
        self.advance_to(to);
    }

    /// Moves the clock to `to`, by way of everything that is due until then, `to` included, in order of time.
    ///
    /// Contexts end, wakers and callbacks run, and scheduled calls are made, all on this thread, before it returns;
    /// each of them may use the clock, advance it, and ask it for more. A time that has passed moves nothing.
    ///
    /// ```
    /// # use bequest_test::Clock;
    /// # use std::time::Duration;
    /// let clock = Clock::new();
    /// let noon = clock.now() + Duration::from_secs(12 * 3600);
    /// let scope = clock.context().with_deadline(noon);
    /// clock.advance_to(noon);
    /// assert!(scope.is_done());
    /// clock.advance_to(noon - Duration::from_secs(1));
    /// assert_eq!(clock.now(), noon, "it never goes back");
    /// ```
    ///
    /// # Panics
    ///
    /// If a scheduled call panics. The clock then stands at the instant of that call.
    pub fn advance_to(&self, to: Instant) {
        let mut advance = Advance::begin(&self.0);
        while let Some(event) = advance.next(to) {
            event.happen();
        }
    }

    /// Moves the clock to the next instant for which anything is due, and does what is due then; false, without moving
    /// it, if nothing is.
    ///
    /// An instant may turn out to hold nothing: a context that was dropped leaves its alarm behind.
    ///
    /// ```
    /// # use bequest_test::Clock;
    /// # use std::time::Duration;
    /// let clock = Clock::new();
    /// assert!(!clock.advance_to_next());
    /// clock.schedule(Duration::from_secs(3), || {});
    /// assert!(clock.advance_to_next());
    /// assert_eq!(clock.elapsed(), Duration::from_secs(3));
    /// ```
    ///
    /// # Panics
    ///
    /// As [`advance_to`](Clock::advance_to).
    pub fn advance_to_next(&self) -> bool {
        let next = self.next_due();
        if let Some(at) = next {
            self.advance_to(at);
        }
        next.is_some()
    }

    /// The next instant for which anything is due.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.0.lock().due.first_key_value().map(|(&(at, _), _)| at)
    }

    /// Calls `f` once, when the clock reaches the instant `after` from now, on the thread that moves it.
    ///
    /// Even for zero the call waits for the next advance. Until then the clock holds `f` with all that it captured.
    ///
    /// ```
    /// # use bequest::Reason;
    /// # use bequest_test::Clock;
    /// # use std::time::Duration;
    /// let clock = Clock::new();
    /// let request = clock.context().with_cancel();
    /// let client = request.canceller();
    /// clock.schedule(Duration::from_millis(5), move || client.cancel_for(Reason::ClientGone));
    /// clock.advance(Duration::from_millis(4));
    /// assert!(!request.is_done());
    /// clock.advance(Duration::from_millis(1));
    /// assert_eq!(request.err().unwrap().reason(), Reason::ClientGone);
    /// ```
    ///
    /// # Panics
    ///
    /// If an [`Instant`] cannot hold the sum.
    pub fn schedule(&self, after: Duration, f: impl FnOnce() + Send + 'static) {
        let mut state = self.0.lock();
        let at = state
            .now
            .checked_add(after)
            .expect("an instant that an `Instant` can hold");
        state.insert(at, Event::Call(Box::new(f)));
    }

    /// Runs `work` to its end on this clock: whenever it waits, the clock moves on to the next thing that is due.
    ///
    /// As [`Bubble::run`], for one future.
    ///
    /// ```
    /// # use bequest_test::Clock;
    /// # use std::time::Duration;
    /// let clock = Clock::new();
    /// let ctx = clock.context();
    /// let seven = clock.run(async {
    ///     ctx.sleep(Duration::from_secs(3600)).await?;
    ///     Ok::<_, bequest::Canceled>(7)
    /// });
    /// assert_eq!(seven.unwrap(), 7);
    /// assert_eq!(clock.elapsed(), Duration::from_secs(3600));
    /// ```
    ///
    /// # Panics
    ///
    /// If `work` waits and nothing is due: it would wait for ever.
    #[track_caller]
    pub fn run<F: Future>(&self, work: F) -> F::Output {
        Bubble::on(self).run(work)
    }
}

impl bequest::clock::Clock for Clock {
    fn now(&self) -> Instant {
        Clock::now(self)
    }

    fn wall(&self) -> SystemTime {
        Clock::wall(self)
    }

    fn wake_at(&self, at: Instant, alarm: Alarm) {
        let mut state = self.0.lock();
        if at <= state.now && state.advancing == 0 {
            drop(state);
            // Invariant 4; not here and now, since it must not ring before returning.
            thread::spawn(move || alarm.ring());
            return;
        }
        state.insert(at, Event::Ring(alarm));
    }
}

impl Default for Clock {
    fn default() -> Clock {
        Clock::new()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let due = self.0.lock().due.len();
        f.debug_struct("Clock")
            .field("elapsed", &self.elapsed())
            .field("due", &due)
            .finish()
    }
}

/// One call of `advance_to`.
struct Advance<'a> {
    clock: &'a Shared,
    /// Whether it is still counted in `advancing`.
    counted: bool,
}

impl Advance<'_> {
    fn begin(clock: &Shared) -> Advance<'_> {
        clock.lock().advancing += 1;
        Advance { clock, counted: true }
    }

    /// Moves to the next event and takes it out. When there is none, moves to `to` and stops being counted under the
    /// same hold of the lock, so that an alarm for an instant that has passed is seen by this advance or by itself.
    fn next(&mut self, to: Instant) -> Option<Event> {
        let mut state = self.clock.lock();
        // A call made on the way may have moved the clock beyond `to`.
        let to = to.max(state.now);
        match state.due.first_entry() {
            Some(first) if first.key().0 <= to => {
                let ((at, _), event) = first.remove_entry();
                state.now = state.now.max(at);
                Some(event)
            }
            _ => {
                state.now = to;
                state.advancing -= 1;
                self.counted = false;
                None
            }
        }
    }
}

impl Drop for Advance<'_> {
    fn drop(&mut self) {
        if self.counted {
            self.clock.lock().advancing -= 1;
        }
    }
}

impl Event {
    fn happen(self) {
        match self {
            Event::Ring(alarm) => alarm.ring(),
            Event::Call(f) => f(),
        }
    }
}

impl State {
    fn insert(&mut self, at: Instant, event: Event) {
        self.last += 1;
        self.due.insert((at, self.last), event);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing foreign runs under the lock, so the state is whole even if somebody panicked.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
