//! A clock that stands still until a test moves it.

#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use bequest::clock::{Alarm, Clock};

/// Handles share one time.
#[derive(Clone)]
pub(crate) struct Manual(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    /// How often a context asked to be woken.
    asked: AtomicUsize,
}

struct State {
    now: Instant,
    wall: SystemTime,
    alarms: Vec<(Instant, Alarm)>,
}

impl Manual {
    pub(crate) fn new() -> Manual {
        let state = State {
            now: Instant::now(),
            wall: SystemTime::now(),
            alarms: Vec::new(),
        };
        Manual(Arc::new(Shared {
            state: Mutex::new(state),
            asked: AtomicUsize::new(0),
        }))
    }

    /// Moves the time on, and rings each alarm on the way at its own instant.
    pub(crate) fn advance(&self, span: Duration) {
        let target = self.now() + span;
        while let Some((at, alarm)) = self.take_due(target) {
            {
                let mut state = self.0.state.lock().unwrap();
                state.now = state.now.max(at);
            }
            alarm.ring();
        }
        self.move_to(target);
    }

    /// Moves the time on without a ring: as if the timer's thread were late.
    pub(crate) fn advance_in_silence(&self, span: Duration) {
        self.move_to(self.now() + span);
    }

    /// Steps the wall clock alone.
    pub(crate) fn step_wall(&self, span: Duration) {
        self.0.state.lock().unwrap().wall += span;
    }

    /// How many alarms were ever asked for.
    pub(crate) fn asked(&self) -> usize {
        self.0.asked.load(Ordering::SeqCst)
    }

    fn take_due(&self, target: Instant) -> Option<(Instant, Alarm)> {
        let alarms = &mut self.0.state.lock().unwrap().alarms;
        let place = (0..alarms.len()).min_by_key(|&place| alarms[place].0)?;
        (alarms[place].0 <= target).then(|| alarms.swap_remove(place))
    }

    fn move_to(&self, target: Instant) {
        let mut state = self.0.state.lock().unwrap();
        let step = target.saturating_duration_since(state.now);
        state.wall += step;
        state.now = state.now.max(target);
    }
}

impl Clock for Manual {
    fn now(&self) -> Instant {
        self.0.state.lock().unwrap().now
    }

    fn wall(&self) -> SystemTime {
        self.0.state.lock().unwrap().wall
    }

    fn wake_at(&self, at: Instant, alarm: Alarm) {
        self.0.asked.fetch_add(1, Ordering::SeqCst);
        self.0.state.lock().unwrap().alarms.push((at, alarm));
    }
}

impl fmt::Debug for Manual {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Manual").finish_non_exhaustive()
    }
}
