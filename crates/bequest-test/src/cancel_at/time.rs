//! The clocks of a run: one that stands still, and one that goes along; both jump when a deadline is injected.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use bequest::clock::Alarm;
use bequest::{AfterFunc, CancelScope, Context};

use crate::{Clock, Leak};

/// The time of one run.
pub(super) enum Time {
    /// It passes only when the call waits.
    Standing(Clock),
    /// It passes by itself.
    Running(Running),
}

impl Time {
    pub(super) fn standing() -> Time {
        Time::Standing(Clock::new())
    }

    pub(super) fn running() -> Time {
        Time::Running(Running::default())
    }

    #[track_caller]
    pub(super) fn watch(&self) -> Leak {
        match self {
            Time::Standing(clock) => Leak::watch_on(clock.clone()),
            Time::Running(clock) => Leak::watch_on(clock.clone()),
        }
    }

    /// Moves on by `span`, at once.
    pub(super) fn jump(&self, span: Duration) {
        match self {
            Time::Standing(clock) => clock.advance(span),
            Time::Running(clock) => clock.jump(span),
        }
    }

    /// Moves a clock that stands on to what is due next, if that is before `limit`. Whether it has moved; `None` for
    /// a clock that moves by itself.
    pub(super) fn move_on(&self, limit: Option<Instant>) -> Option<bool> {
        let Time::Standing(clock) = self else { return None };
        let is_due = clock
            .next_due()
            .is_some_and(|due| limit.is_none_or(|limit| due < limit));
        Some(is_due && clock.advance_to_next())
    }
}

/// The system's clock, ahead of itself by what was jumped over.
#[derive(Clone, Debug, Default)]
pub(super) struct Running(Arc<Mutex<State>>);

/// What the clock's lock guards. Alarms are rung, and bells dropped, outside.
#[derive(Debug, Default)]
struct State {
    ahead: Duration,
    /// The clock has one root, so all alarms are the same.
    alarm: Option<Alarm>,
    bell: Option<Bell>,
}

/// Rings at an instant of the system's clock. Dropped, it does not.
#[derive(Debug)]
struct Bell {
    _guard: AfterFunc,
    _deadline: CancelScope,
}

impl Running {
    fn jump(&self, span: Duration) {
        let mut state = self.lock();
        state.ahead += span;
        let alarm = state.alarm.clone();
        drop(state);
        if let Some(alarm) = alarm {
            alarm.ring();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl bequest::clock::Clock for Running {
    fn now(&self) -> Instant {
        let ahead = self.lock().ahead;
        Instant::now() + ahead
    }

    fn wake_at(&self, at: Instant, alarm: Alarm) {
        let ahead = self.lock().ahead;
        let bell = Bell::at(at.checked_sub(ahead).unwrap_or(at), &alarm);
        let mut state = self.lock();
        // A jump that came in between has not seen the alarm.
        let is_late = state.ahead != ahead;
        let old = (state.alarm.replace(alarm.clone()), state.bell.replace(bell));
        drop(state);
        drop(old);
        if is_late {
            thread::spawn(move || alarm.ring());
        }
    }
}

impl Bell {
    fn at(at: Instant, alarm: &Alarm) -> Bell {
        let deadline = Context::background().with_deadline(at);
        let alarm = alarm.clone();
        // On a thread of its own: an instant that has passed calls here and now, and the alarm must not ring before
        // the clock has returned.
        let guard = deadline.after_func(move |_| drop(thread::spawn(move || alarm.ring())));
        Bell {
            _guard: guard,
            _deadline: deadline,
        }
    }
}
