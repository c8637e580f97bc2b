//! A call, ended at each place where it waits: dropped, cancelled, out of time.
//!
//! A cancel that comes *sometime* finds few of the bugs it could find. Here the call is run once undisturbed, and the
//! places where it waits are numbered. Then it is run anew, with fresh state, once for each number and each way to
//! end it, and after each run the test's invariant is checked, and ours.
//!
//! ```
//! use bequest::{Canceled, Context};
//! use bequest_test::cancel_at::{self, point};
//! use std::cell::Cell;
//! use std::time::Duration;
//!
//! /// Moves money, all of it at one instant: between its two waits nothing is half done.
//! async fn transfer(ctx: &Context, (from, to): &(Cell<i64>, Cell<i64>)) -> Result<(), Canceled> {
//!     ctx.sleep(Duration::from_millis(5)).await?; // asks whether it may
//!     from.set(from.get() - 30);
//!     to.set(to.get() + 30);
//!     ctx.run(point(ctx, async { /* tells about it */ })).await
//! }
//!
//! let report = cancel_at::every(
//!     async || (Cell::new(100), Cell::new(0)),
//!     async |accounts, ctx| transfer(ctx, accounts).await,
//! )
//! .check(async |(from, to), _outcome| assert_eq!(from.get() + to.get(), 100))
//! .run();
//! assert_eq!(report.places().len(), 2);
//! ```
//!
//! # What is numbered
//!
//! Each poll of the call's own future that returns *pending* is a place, numbered from 1; place 0 is before the first
//! poll. At a place the call holds whatever it holds, and its caller may leave it there for ever. All places are
//! numbered, those that wait on the context and those that do not; [`Place::hears`] tells them apart.
//!
//! Not numbered, and so not tried by itself:
//!
//! - An await that happens to be ready: it is no place. [`point`] makes it one.
//! - The inside of a poll. A cancel from another thread may come between any two lines; here it comes between polls.
//! - Tasks, threads and servers on which the call waits. They go on while the call is pending; only the call itself
//!   is polled by hand. What they do when it ends is for the test's check to find out.
//!
//! Under real I/O two runs of one call may wait at different places: two bytes may come at once, or one after the
//! other. So a run may end before it reaches its number. It is then tried again, and if that does not help, counted
//! in [`Report::missed`]; nothing is claimed about it.
//!
//! # How a call is ended
//!
//! See [`How`]. The context that the call is given has a deadline an hour ahead, on a clock that only a test sees: by
//! [`run`](CancelAt::run), one that stands still and moves to the next thing that is due when the call waits; by
//! [`drive`](CancelAt::drive), one that goes along with the system's.
//!
//! # What is checked
//!
//! 1. What the test says, in [`check`](Every::check).
//! 2. A call that was told comes to its end: it is woken, and it is not woken for ever.
//! 3. No context, timer or callback is left of what the call derived from its context, while the state still lives.
//! 4. Nothing panics.
//!
//! A call is polled only when it was woken. Polled without cause, it would find what nobody has told it, and a lost
//! wake-up would pass.

mod attempt;
mod executor;
mod injection;
mod outcome;
mod place;
mod suite;
mod time;

pub use self::injection::{How, Injection, NotAnInjection};
pub use self::outcome::{Failure, Outcome, Report};
pub use self::place::{Inside, Place, Point, point};
pub use self::suite::{CancelAt, Every, every};
