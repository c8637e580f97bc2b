//! The clock of a context: what time it is, and who says when a deadline has come.
//!
//! A root carries its clock and every context derived from it uses the same one. The system's clock needs nothing:
//! [`Context::background`](crate::Context::background) has it, with one timer thread for the whole process, started
//! when the first deadline is armed. Tests put their own clock at the root with
//! [`Context::with_clock`](crate::Context::with_clock): `bequest_test::Clock` is moved by hand, `clock::tokio()` follows
//! tokio's time, paused or not.
//!
//! # Invariants
//!
//! 1. A clock is never called under a lock of this crate.
//! 2. An [`Alarm`] holds nothing alive: a clock may keep it for ever.
//! 3. Ringing an alarm early, twice or never again is harmless to correctness; ringing late delays the news, not the
//!    truth, since a look at an unarmed deadline reads the clock itself.

use std::fmt;
use std::sync::Weak;
use std::time::{Instant, SystemTime};

use crate::tree::Timers;

/// A source of time for contexts.
///
/// # Example: a clock that stands still
///
/// ```
/// use bequest::{Context, clock::{Alarm, Clock}};
/// use std::time::{Duration, Instant};
///
/// #[derive(Debug)]
/// struct Frozen(Instant);
///
/// impl Clock for Frozen {
///     fn now(&self) -> Instant { self.0 }
///     fn wake_at(&self, _at: Instant, _alarm: Alarm) { /* the time never comes */ }
/// }
///
/// let ctx = Context::with_clock(Frozen(Instant::now()));
/// let scope = ctx.with_timeout(Duration::from_nanos(1));
/// assert!(!scope.is_done());
/// assert_eq!(scope.remaining(), Some(Duration::from_nanos(1)));
/// ```
pub trait Clock: fmt::Debug + Send + Sync + 'static {
    /// The present instant. It never goes back.
    fn now(&self) -> Instant;

    /// The present wall-clock time, used once for each deadline that is given as a [`SystemTime`].
    fn wall(&self) -> SystemTime {
        SystemTime::now()
    }

    /// Asks for `alarm` to be rung once [`now`](Clock::now) has reached `at`.
    ///
    /// It is called again with an earlier instant when a nearer deadline is armed; the later request may then be kept
    /// or forgotten. It must not ring before returning.
    fn wake_at(&self, at: Instant, alarm: Alarm);
}

/// What a [`Clock`] rings when the time has come.
#[derive(Clone)]
pub struct Alarm(Weak<Timers>);

impl Alarm {
    pub(crate) fn new(timers: Weak<Timers>) -> Alarm {
        Alarm(timers)
    }

    /// Ends every context whose deadline has passed on this clock: wakers and callbacks run on the calling thread,
    /// before the call returns.
    ///
    /// If the contexts are gone, or nothing is due, it does nothing.
    pub fn ring(&self) {
        if let Some(timers) = self.0.upgrade() {
            timers.ring();
        }
    }
}

impl fmt::Debug for Alarm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Alarm").finish_non_exhaustive()
    }
}

/// A clock that follows tokio's time, so that `tokio::time::pause` and `advance` move contexts too.
///
/// For tests under `#[tokio::test(start_paused = true)]`. Each alarm is a small task on the runtime in which the
/// context was made.
///
/// # Panics
///
/// If called outside a tokio runtime.
///
/// ```
/// use bequest::{Context, Kind, clock};
/// use std::time::Duration;
///
/// # tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(async {
/// let ctx = Context::with_clock(clock::tokio());
/// let scope = ctx.with_timeout(Duration::from_secs(3600));
/// assert_eq!(scope.done().await, Kind::DeadlineExceeded);
/// # });
/// ```
#[cfg(feature = "tokio")]
pub fn tokio() -> impl Clock {
    TokioClock(::tokio::runtime::Handle::current())
}

#[cfg(feature = "tokio")]
#[derive(Debug)]
struct TokioClock(::tokio::runtime::Handle);

#[cfg(feature = "tokio")]
impl Clock for TokioClock {
    fn now(&self) -> Instant {
        // Entered, so that a thread outside the runtime reads the paused time as well.
        let _entered = self.0.enter();
        ::tokio::time::Instant::now().into_std()
    }

    fn wake_at(&self, at: Instant, alarm: Alarm) {
        // The task ends by itself when the time has come, or with the runtime.
        drop(self.0.spawn(async move {
            ::tokio::time::sleep_until(at.into()).await;
            alarm.ring();
        }));
    }
}

/// The operating system's monotonic clock. Its timers have a thread of their own, so it is never asked for alarms.
#[derive(Debug)]
pub(crate) struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Instant {
        Instant::now()
    }

    fn wake_at(&self, _at: Instant, _alarm: Alarm) {
        unreachable!("the timers of the system clock wait on a thread of their own")
    }
}
