//! For authors of drivers, clients and protocols that are to obey contexts: seven rules, and a small one that keeps them.
//!
//! # The rules
//!
//! 1. **The context comes first.** `ctx: &Context` is the first parameter of every call that may wait. It is not stored:
//!    a connection outlives the request for which it works.
//! 2. **Check before.** With a context that has ended nothing is begun: no dial, no place in a queue, no byte sent. Waiting
//!    for a place is part of the budget.
//! 3. **Tell, grace, drop.** When the context ends, tell the other side (a cancel request, a reset, an interrupt), give it
//!    a bounded time under [`cleanup`](crate::Context::cleanup), then give the connection up. Each bound is a setting;
//!    none is infinite.
//! 4. **Success wins.** If the work had ended well before the cancel reached it, the answer is the work's. A write that
//!    was committed must not be reported as cancelled: the caller would do it again.
//! 5. **The error keeps kind and reason.** Carry the [`Canceled`](crate::Canceled) and offer it by a predicate,
//!    `fn canceled(&self) -> Option<&Canceled>`. Do not turn it into text, nor into "interrupted" or "connection closed",
//!    which is only how the end made itself felt. The errors of these crates have `is_canceled` and `is_from(&scope)` beside it,
//!    and `is_in_doubt` where nobody can know whether it was done.
//! 6. **Never hand on dirty.** A connection goes back to its pool only at a point where its state is known: no reply
//!    unread, no transaction open, no cancel under way that could hit the next user. In doubt it is closed. The same
//!    if *our* future is dropped, where no code of ours runs but destructors: so let the connection be owned by the call,
//!    and put back by a line that only a clean path reaches.
//! 7. **The step has a name.** The error says how far it came (waiting, sending, reading), and the scope has a name, so that
//!    the list of live contexts reads like a trace.
//!
//! And on the documentation page of each call: what the *server* does when we cancel, under `# Cancel safety`.
//!
//! # A small one that keeps them
//!
//! A device that answers one question at a time, over a connection of which there is a pool of one. A question can be called
//! off with `!`; the device then says `stopped`, or the answer, if that was faster.
//!
//! ```
//! use bequest::{Canceled, Context};
//! use std::time::Duration;
//! use tokio::sync::{Mutex, mpsc};
//!
//! pub struct Device {
//!     /// `None`: the connection was given up. The lock is the queue: first come, first served.
//!     line: Mutex<Option<Line>>,
//! }
//!
//! pub struct Line {
//!     out: mpsc::Sender<&'static str>,
//!     back: mpsc::Receiver<&'static str>,
//! }
//!
//! #[derive(Debug)]
//! pub enum Error {
//!     Ended { step: &'static str, end: Canceled },
//!     Broken,
//! }
//!
//! impl Error {
//!     pub fn canceled(&self) -> Option<&Canceled> {
//!         match self {
//!             Error::Ended { end, .. } => Some(end),
//!             Error::Broken => None,
//!         }
//!     }
//! }
//!
//! /// How long the device may take to stop.
//! const GRACE: Duration = Duration::from_secs(1);
//!
//! impl Device {
//!     /// # Cancel safety
//!     /// The question is called off and its reply read. If the device does not stop within a second, or if the
//!     /// future is dropped, the line is closed.
//!     pub async fn ask(&self, ctx: &Context, question: &'static str) -> Result<&'static str, Error> {
//!         let scope = ctx.with_cancel().named("device");
//!         let waited = scope.run(self.line.lock()).await;
//!         let mut place = waited.map_err(|end| Error::Ended { step: "waiting", end })?;
//!         let mut line = place.take().ok_or(Error::Broken)?;
//!         let reply = line.exchange(&scope, question).await?;
//!         *place = Some(line); // clean: reached only if the reply was read, whichever it was
//!         reply.map_err(|end| Error::Ended { step: "reading", end })
//!     }
//! }
//!
//! impl Line {
//!     /// Outer error: the line can not be used again. Inner: it can, though the context has ended.
//!     async fn exchange(
//!         &mut self,
//!         ctx: &Context,
//!         question: &'static str,
//!     ) -> Result<Result<&'static str, Canceled>, Error> {
//!         self.out.send(question).await.map_err(|_| Error::Broken)?;
//!         let end = match ctx.run(self.back.recv()).await {
//!             Ok(reply) => return reply.map(Ok).ok_or(Error::Broken),
//!             Err(end) => end,
//!         };
//!         let grace = ctx.cleanup(GRACE).named("device grace");
//!         let stopped = grace.run(async {
//!             self.out.send("!").await.ok()?;
//!             self.back.recv().await
//!         });
//!         match stopped.await {
//!             Ok(Some("stopped")) => Ok(Err(end)),
//!             Ok(Some(reply)) => Ok(Ok(reply)), // success wins
//!             Ok(None) => Err(Error::Broken),
//!             Err(_) => Err(Error::Ended { step: "stopping", end }),
//!         }
//!     }
//! }
//!
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
//! use bequest::Reason;
//!
//! let (out, mut questions) = mpsc::channel(1);
//! let (answers, back) = mpsc::channel(1);
//! let device = Device { line: Mutex::new(Some(Line { out, back })) };
//! let request = Context::background().with_cancel();
//!
//! // The other side: it is slow, until it is told; the second question it answers just then.
//! let other_side = async {
//!     assert_eq!(questions.recv().await, Some("slow"));
//!     request.cancel_for(Reason::ClientGone);
//!     assert_eq!(questions.recv().await, Some("!"));
//!     answers.send("stopped").await.unwrap();
//! };
//! let (answer, ()) = tokio::join!(device.ask(&request, "slow"), other_side);
//! assert_eq!(answer.unwrap_err().canceled().unwrap().reason(), Reason::ClientGone);
//! assert!(questions.is_empty(), "nothing is left on the line");
//!
//! let late = Context::background().with_cancel();
//! let other_side = async {
//!     assert_eq!(questions.recv().await, Some("quick"));
//!     late.cancel();
//!     assert_eq!(questions.recv().await, Some("!"));
//!     answers.send("done").await.unwrap();
//! };
//! let (answer, ()) = tokio::join!(device.ask(&late, "quick"), other_side);
//! assert_eq!(answer.unwrap(), "done", "the next user had a clean line, and success won");
//!
//! let refused = device.ask(&late, "never sent").await.unwrap_err();
//! assert!(matches!(refused, Error::Ended { step: "waiting", .. }));
//! assert!(questions.is_empty(), "with a context that has ended nothing is begun");
//! # });
//! ```
//!
//! It leaves one race to look for in one's own protocol: a device that answers just before the `!` arrives has then to
//! treat a `!` without a question as nothing, or a *late cancel* hits the next question. Where the protocol does not
//! promise that, the line is closed after every cancel.
//!
//! # Tests that an integration should pass
//!
//! - Cancel at every await, on a clock that stands still: after each, the next caller gets a right answer.
//! - Drop at every await: likewise.
//! - The naive way beside it, which must fail: without that a test of reliability says little.
//! - A thousand cancelled calls, and then: no place of the pool lost, no context, timer or callback left
//!   (`bequest_test::Leak`).
//! - The error of each has kind, reason and step, whichever plane and whichever moment.
