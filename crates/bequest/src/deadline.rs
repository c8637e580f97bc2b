//! Points in time that a context may be given, and the arithmetic on them, which never overflows.
//!
//! Inside, one monotonic clock: an `Instant`. A wall-clock time is converted once, when the scope is made; later
//! steps of the wall clock are not followed (C24).

use std::time::{Duration, Instant, SystemTime};

use crate::clock::Clock;

/// A point in time for [`Context::with_deadline`](crate::Context::with_deadline): an [`Instant`], or a
/// [`SystemTime`] that is converted once.
///
/// ```
/// use bequest::Context;
/// use std::time::{Duration, Instant, SystemTime};
///
/// let ctx = Context::background();
/// let by_instant = ctx.with_deadline(Instant::now() + Duration::from_secs(5));
/// let by_wall_clock = ctx.with_deadline(SystemTime::now() + Duration::from_secs(5));
/// assert!(by_instant.remaining().unwrap() <= Duration::from_secs(5));
/// assert!(by_wall_clock.remaining().unwrap() <= Duration::from_secs(5));
/// assert!(ctx.with_deadline(SystemTime::UNIX_EPOCH).is_done());
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Deadline(At);

#[derive(Clone, Copy, Debug)]
enum At {
    Monotonic(Instant),
    Wall(SystemTime),
}

impl From<Instant> for Deadline {
    fn from(at: Instant) -> Deadline {
        Deadline(At::Monotonic(at))
    }
}

impl From<SystemTime> for Deadline {
    fn from(at: SystemTime) -> Deadline {
        Deadline(At::Wall(at))
    }
}

impl Deadline {
    /// This point on `clock`; `None` if it lies beyond what an `Instant` can hold, which is never.
    pub(crate) fn on(self, clock: &dyn Clock) -> Option<Instant> {
        match self.0 {
            At::Monotonic(at) => Some(at),
            At::Wall(at) => match at.duration_since(clock.wall()) {
                Ok(ahead) => after(clock.now(), ahead),
                Err(past) => Some(before(clock.now(), past.duration())),
            },
        }
    }
}

/// `now + span`, or `None` where that lies beyond what an `Instant` can hold.
pub(crate) fn after(now: Instant, span: Duration) -> Option<Instant> {
    now.checked_add(span)
}

/// `now - span`; where an `Instant` cannot hold it, `now`, which for a deadline is as much in the past.
fn before(now: Instant, span: Duration) -> Instant {
    now.checked_sub(span).unwrap_or(now)
}

/// The earlier of two deadlines, of which each may be absent.
#[cfg(bequest_plain)]
pub(crate) fn earlier(a: Option<Instant>, b: Option<Instant>) -> Option<Instant> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (one, other) => one.or(other),
    }
}
