//! For those who know Go's `context`: what is the same, what has another shape, and what to unlearn.
//!
//! The repository has a longer page, `docs/from-go.md`, with Go's snippets one by one. This chapter is about habits.
//!
//! # What is the same
//!
//! The context is the first parameter and is not stored in structs. A child never has more time than its parent.
//! Cancelling ends all that is derived, and neither siblings nor parents. The first event wins for ever. When
//! `cancel()` returns, everything below reads as done. Values are for what belongs to the request, not for optional
//! parameters.
//!
//! # What has another shape
//!
//! ## Two return values are one
//!
//! `ctx, cancel := context.WithCancel(ctx)` and `defer cancel()` become a single scope. It *is* a context, by `Deref`,
//! and its destructor is the deferred call.
//!
//! ```
//! use bequest::{Canceled, Context, Reason};
//! use std::time::Duration;
//!
//! fn query(ctx: &Context) -> Result<u32, Canceled> {
//!     ctx.check().map(|()| 42)
//! }
//!
//! fn answer(ctx: &Context) -> Result<u32, Canceled> {
//!     let step = ctx.with_timeout(Duration::from_secs(1));
//!     query(&step)
//! } // the scope ends here, and with it whatever the query may have left running
//!
//! let request = Context::background().with_cancel();
//! assert_eq!(answer(&request).unwrap(), 42);
//! request.cancel_for(Reason::ClientGone);
//! assert_eq!(answer(&request).unwrap_err().reason(), Reason::ClientGone);
//! ```
//!
//! Where Go hands `cancel` to somebody else, hand out a [`Canceller`](crate::Canceller): the right without the
//! ownership.
//!
//! ## Two errors are one, with a kind
//!
//! ```
//! use bequest::{Context, Kind, Reason};
//! use std::time::Duration;
//!
//! let late = Context::background().with_timeout(Duration::ZERO).named("lookup");
//! let end = late.err().unwrap();
//! assert_eq!(end, Kind::DeadlineExceeded);     // errors.Is(err, context.DeadlineExceeded)
//! assert_eq!(end.reason(), Reason::Deadline);  // Go has no word for it
//! assert_eq!(end.scope().0, Some("lookup"));   // nor for whose it was
//! assert!(end.cause().is_none());              // context.Cause(ctx), without falling back
//! ```
//!
//! ## `select` is `run`
//!
//! `select` with `ctx.Done()` on one side is [`ctx.run(work).await`](crate::Context::run). It does not draw lots:
//!
//! ```
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
//! use bequest::Context;
//!
//! let scope = Context::background().with_cancel();
//! let ends_the_scope_and_is_ready = async {
//!     scope.cancel();
//!     7
//! };
//! assert_eq!(scope.run(ends_the_scope_and_is_ready).await.unwrap(), 7, "finished work wins a tie");
//! assert!(scope.run(async { 7 }).await.is_err(), "and what had not begun does not begin");
//! # });
//! ```
//!
//! `select` with `time.After` is [`ctx.sleep(d).await`](crate::Context::sleep), or
//! [`wait_timeout`](crate::Context::wait_timeout) on a thread.
//!
//! # What to unlearn
//!
//! **"I have to tell it, or it runs on."** A goroutine, yes. A future that is dropped is polled no more, and what it owns
//! is dropped where it stands. So there are two planes, told and dropped; [`cancel_safety`](super::cancel_safety) is
//! about both. A *task* is like a goroutine again: it runs on, unless it is in a `Group`, which takes it along.
//!
//! **"A lost cancel leaks until the parent ends."** A parent knows its children weakly. A scope that is dropped ends
//! and unregisters itself, under a parent that lives for ever too.
//!
//! **"Callbacks have a goroutine of their own."** They run on the thread that cancels, before `cancel()` returns. That is
//! why whoever cancels knows that everybody has been told; and why a callback is to be short, and must not take a lock
//! that the canceller holds.
//!
//! ```
//! use bequest::Context;
//! use std::sync::mpsc;
//! use std::thread;
//!
//! let scope = Context::background().with_cancel();
//! let (tell, told) = mpsc::channel();
//! let _guard = scope.after_func(move |_end| tell.send(thread::current().id()).unwrap());
//! scope.cancel();
//! assert_eq!(told.try_recv().unwrap(), thread::current().id());
//! ```
//!
//! **"The request's context ends when my handler returns."** In `bequest-http` it ends with the response body, since the
//! body may be streamed after that; the reason is then `ResponseEnded`.
//!
//! **"Any context may be my parent."** There is one type. What can end from elsewhere (a library with a stop function of
//! its own, a device) is given a [`Canceller`](crate::Canceller) and calls it; that takes no goroutine to watch.
//!
//! # What you may have missed
//!
//! - [`Context::any`](crate::Context::any) merges contexts and keeps deadline, kind and reason.
//! - [`cleanup`](crate::Context::cleanup) is `WithoutCancel` with a limit that can not be left out.
//! - [`with_clock`](crate::Context::with_clock) puts the time into a test's hands; see [`deadlines`](super::deadlines).
//! - [`inspect`](crate::inspect) lists what is running, and who ended what.
