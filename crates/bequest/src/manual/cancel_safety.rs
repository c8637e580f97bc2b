//! What it means to stop, and what is lost by it: the term that all pages use, defined once.
//!
//! # Two planes
//!
//! Work is stopped in one of two ways.
//!
//! **Told.** Its context ends. The work sees it, at its next [`check`](crate::Context::check) or because an await of
//! `run` or `done` answers; it decides what to do, tidies up, and returns an error that says why. Nothing happens to it
//! that it does not do itself.
//!
//! **Dropped.** Its future is dropped at the await where it stands. Destructors run, and nothing else does: no `await`,
//! no answer, no log line. A `select!` drops the branches that lost, `run` drops the work whose context ended, an aborted
//! task is dropped.
//!
//! The order is *told, then grace, then dropped*: a server tells a handler that its client has gone, gives it time, and
//! only then drops it. The first plane is where one says what happens to half-done things, so that little is left to the
//! second.
//!
//! # The definition
//!
//! A future is **cancel safe** if dropping it before it is ready, and making it anew, loses nothing: neither data nor a
//! place in a queue nor the news that was on its way. It says nothing about work in general: a future that writes a file
//! in three steps may be dropped between two of them, and no signature shows it. So each asynchronous function has a
//! heading `# Cancel safety` that says what dropping it does.
//!
//! # By method
//!
//! | method | dropped before it is ready | safe |
//! |---|---|---|
//! | [`done`](crate::Context::done), [`done_owned`](crate::Context::done_owned) | withdraws the wait; the end stays readable | yes |
//! | [`sleep`](crate::Context::sleep) | withdraws the wait; a new call begins anew, so a loop around it may wait longer | yes |
//! | [`run`](crate::Context::run), [`run_owned`](crate::Context::run_owned) | drops the work | as safe as the work |
//! | [`timeout`](crate::Context::timeout) | drops the work | as safe as the work |
//! | `spawn_blocking` | tells the work, which runs on until it looks | no: its result is lost |
//! | `Group::wait` | ends the group's context and aborts its tasks | no: results are lost |
//! | [`wait`](crate::Context::wait), [`wait_timeout`](crate::Context::wait_timeout) | they block; there is nothing to drop | |
//!
//! All but the work itself, in whatever form, stay ready once they are: polling `done` again answers the same end.
//!
//! # Losing something, and not
//!
//! A reader that takes two halves of a message from a queue is not cancel safe, though every await in it is: dropped
//! between the halves, it takes the first one with it.
//!
//! ```
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
//! use bequest::Context;
//! use tokio::sync::mpsc::{self, Receiver};
//!
//! async fn message(halves: &mut Receiver<&'static str>) -> Option<String> {
//!     let first = halves.recv().await?;
//!     let second = halves.recv().await?;
//!     Some(format!("{first}{second}"))
//! }
//!
//! let (send, mut halves) = mpsc::channel(3);
//! let patience = Context::background().with_cancel();
//! send.send("he").await.unwrap();
//! let give_up = async {
//!     tokio::task::yield_now().await;
//!     patience.cancel();
//! };
//! let (read, ()) = tokio::join!(patience.run(message(&mut halves)), give_up);
//! assert!(read.is_err());
//!
//! send.send("llo").await.unwrap();
//! drop(send);
//! assert_eq!(message(&mut halves).await, None, "the first half went with the future that was dropped");
//! # });
//! ```
//!
//! Three ways out. The first is to keep what was taken outside the future that may be dropped:
//!
//! ```
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
//! use bequest::Context;
//! use tokio::sync::mpsc::{self, Receiver};
//!
//! async fn message(halves: &mut Receiver<&'static str>, taken: &mut String) -> Option<String> {
//!     if taken.is_empty() {
//!         taken.push_str(halves.recv().await?);
//!     }
//!     let second = halves.recv().await?;
//!     Some(std::mem::take(taken) + second)
//! }
//!
//! let (send, mut halves) = mpsc::channel(3);
//! let (mut taken, patience) = (String::new(), Context::background().with_cancel());
//! send.send("he").await.unwrap();
//! let give_up = async {
//!     tokio::task::yield_now().await;
//!     patience.cancel();
//! };
//! let (read, ()) = tokio::join!(patience.run(message(&mut halves, &mut taken)), give_up);
//! assert!(read.is_err());
//!
//! send.send("llo").await.unwrap();
//! assert_eq!(message(&mut halves, &mut taken).await.unwrap(), "hello");
//! # });
//! ```
//!
//! The second is to pin the future once and `run(&mut future)` it, so that what is dropped is a reference. The third, and
//! for services mostly the best, is to leave the plane: hand the context *into* the function, and let it decide between
//! two messages and never within one.
//!
//! # Tidying up
//!
//! When the context of the work has ended, every await on it answers at once. So tidying up has a scope of its own:
//! [`cleanup`](crate::Context::cleanup) keeps the values, ignores the end, and has a limit that can not be left out.
//!
//! ```
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
//! use bequest::{Canceled, Context, Reason};
//! use std::time::Duration;
//!
//! async fn transfer(ctx: &Context, log: &mut Vec<&'static str>) -> Result<(), Canceled> {
//!     log.push("begin");
//!     let work = ctx.run(std::future::pending::<()>()).await;
//!     if work.is_err() {
//!         let tidy = ctx.cleanup(Duration::from_secs(1));
//!         tidy.run(async { log.push("rollback") }).await?;
//!     }
//!     work
//! }
//!
//! let (mut log, request) = (Vec::new(), Context::background().with_cancel());
//! let leave = async {
//!     tokio::task::yield_now().await;
//!     request.cancel_for(Reason::ClientGone);
//! };
//! let (answer, ()) = tokio::join!(transfer(&request, &mut log), leave);
//! assert_eq!(answer.unwrap_err().reason(), Reason::ClientGone);
//! assert_eq!(log, ["begin", "rollback"]);
//! # });
//! ```
//!
//! What must also hold when the future is dropped goes into a destructor, which can not wait: there one marks a connection
//! as dirty, or hands it to a task that has a limit. See [`writing_an_integration`](super::writing_an_integration).
//!
//! # Threads
//!
//! A blocked thread can be neither dropped nor interrupted. It can be told: [`check`](crate::Context::check) costs one
//! load and belongs into every loop; a call that blocks is ended through what it waits for (a socket is shut down, a
//! condition variable notified) by an [`after_func`](crate::Context::after_func).
