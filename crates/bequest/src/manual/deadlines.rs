//! Time limits that nest: how the earliest wins, what it costs, how to share a budget out, and how to test all that.
//!
//! # The earliest wins
//!
//! A scope's deadline is its own or its parent's, whichever is earlier. Nobody can give more time than there is, so a
//! limit may be written where it belongs, without looking upwards.
//!
//! ```
//! use bequest::Context;
//! use std::time::{Duration, Instant};
//!
//! let now = Instant::now();
//! let request = Context::background().with_deadline(now + Duration::from_secs(5)).named("request");
//! let query = request.with_deadline(now + Duration::from_secs(60)).named("query");
//! assert_eq!(query.deadline(), request.deadline());
//! ```
//!
//! Which of the two it was is in the error: the scope and the line of the one that passed. A retry or a fallback may
//! answer a limit of one's own; an outer one means that nobody waits any more.
//!
//! ```
//! use bequest::Context;
//! use std::time::Duration;
//!
//! let request = Context::background().with_timeout(Duration::from_secs(5));
//! let cache = request.with_timeout(Duration::ZERO).named("cache").caused_by("cache: 20 ms");
//! let end = cache.err().unwrap();
//! assert!(end.is_from(&cache) && !end.is_from(&request));
//! assert!(!request.is_done(), "there is time left for the database");
//! ```
//!
//! For a limit on a single await, of which nothing below needs to know, [`timeout`](crate::Context::timeout) makes no
//! scope. To let what is called plan with it, make a scope.
//!
//! # What a deadline costs
//!
//! Nothing, until somebody looks. Making a scope with a deadline arms no timer. The *first look* at it (by `is_done`,
//! `check`, `err`, a wait, a callback, or a child that depends on it) reads the clock once: a deadline that has passed
//! is over at that look; otherwise the timer is armed, and every later look is one load. Only a deadline that is earlier
//! than the parent's is ever armed.
//!
//! The timers of the system's clock share one thread, started by the first of them. They are never early. If the thread is
//! late, the news is late; [`remaining`](crate::Context::remaining) reads the clock and is exact at any time.
//!
//! The first event wins by the clock and not by the order of looking: a deadline that had passed before somebody
//! cancelled is what the error says, though nobody had looked.
//!
//! ```
//! use bequest::{Context, Kind};
//! use std::time::Duration;
//!
//! let scope = Context::background().with_timeout(Duration::ZERO);
//! scope.cancel_with("too late");
//! assert_eq!(scope.err().unwrap(), Kind::DeadlineExceeded);
//! assert!(scope.err().unwrap().cause().is_none());
//! ```
//!
//! # Edges
//!
//! - Zero, or a point that has passed: done at the first look, with `DeadlineExceeded`.
//! - `Duration::MAX`, and whatever an `Instant` can not hold: no deadline of its own. No arithmetic overflows.
//! - A [`SystemTime`](std::time::SystemTime) is converted once, when the scope is made; later steps of the wall clock are
//!   not followed.
//! - A cancelled context's deadline still lies ahead: `remaining` is about time alone.
//!
//! # Budgets
//!
//! [`remaining`](crate::Context::remaining) is what can still be spent. Ask it before work that is not worth starting late,
//! and give each step a share, with a cause that names it. The minimum with what is left is taken care of.
//!
//! ```
//! use bequest::{CancelScope, Context};
//! use std::time::Duration;
//!
//! /// Half of what is left, so that a second try has as much again.
//! fn half(ctx: &Context) -> CancelScope {
//!     let share = ctx.remaining().map_or(Duration::MAX, |left| left / 2);
//!     ctx.with_timeout(share).named("first try").caused_by("half of the budget")
//! }
//!
//! fn is_worth_it(ctx: &Context) -> bool {
//!     ctx.remaining().is_none_or(|left| left >= Duration::from_millis(20))
//! }
//!
//! let request = Context::background().with_timeout(Duration::from_secs(4));
//! let first = half(&request);
//! assert!(first.remaining().unwrap() <= Duration::from_secs(2));
//! assert!(is_worth_it(&first));
//! assert!(!is_worth_it(&request.with_timeout(Duration::from_millis(19))));
//! ```
//!
//! A budget from outside, a header or a query, can only shorten: make a scope of it, and the server's own limit stays
//! above. Absent or malformed is not infinite.
//!
//! Between processes, time travels as *remaining*, never as a point: two clocks do not agree. The chapter
//! `manual::travelling` of `bequest-http` has the headers, the margins and the lists of what may cross.
//!
//! # Virtual time
//!
//! The clock is the root's. A test makes the root with one that it moves itself, and code under test does not change:
//!
//! ```
//! use bequest::clock::{Alarm, Clock};
//! use bequest::{Context, Kind};
//! use std::sync::{Arc, Mutex};
//! use std::time::{Duration, Instant};
//!
//! #[derive(Clone, Debug)]
//! struct Moved(Arc<Mutex<(Instant, Option<Alarm>)>>);
//!
//! impl Clock for Moved {
//!     fn now(&self) -> Instant {
//!         self.0.lock().unwrap().0
//!     }
//!     fn wake_at(&self, _at: Instant, alarm: Alarm) {
//!         self.0.lock().unwrap().1 = Some(alarm);
//!     }
//! }
//!
//! impl Moved {
//!     fn advance(&self, span: Duration) {
//!         let alarm = {
//!             let mut state = self.0.lock().unwrap();
//!             state.0 += span;
//!             state.1.take()
//!         };
//!         if let Some(alarm) = alarm {
//!             alarm.ring(); // outside the lock: it wakes and calls back
//!         }
//!     }
//! }
//!
//! let clock = Moved(Arc::new(Mutex::new((Instant::now(), None))));
//! let request = Context::with_clock(clock.clone()).with_timeout(Duration::from_secs(3600));
//! assert!(!request.is_done());
//! clock.advance(Duration::from_secs(3600));
//! assert_eq!(request.err().unwrap(), Kind::DeadlineExceeded);
//! assert_eq!(request.err().unwrap().at(), request.deadline(), "noticed at that very instant");
//! ```
//!
//! There is no need to write one: the crate `bequest-test` has `Clock`, which also runs futures on it and fails on a
//! deadlock, and `clock::tokio()` (feature `tokio`) follows the paused time of tokio's tests.
