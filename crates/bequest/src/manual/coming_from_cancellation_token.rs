//! For code that has tokio-util's `CancellationToken`: what each call becomes, and how to move one file at a time.
//!
//! A token says *stop*. A context also says until when, why, who, and what travels along. Where a token is all that is
//! needed it may stay: the two are linked both ways, by the feature `tokio-util`, without a task in between.
//!
//! # What each call becomes
//!
//! | token | context | and |
//! |---|---|---|
//! | `CancellationToken::new()` | `Context::background().with_cancel()` | |
//! | `token.child_token()` | `ctx.with_cancel()` | |
//! | `token.clone()`, to wait on it | `scope.context()` | a clone of a token may cancel; a clone of a context may only look |
//! | `token.clone()`, to cancel with | `scope.canceller()` | the right to cancel is a type of its own |
//! | `token.cancel()` | `cancel()`, `cancel_for(reason)`, `cancel_with(cause)` | |
//! | `token.is_cancelled()` | `is_done()`, or `check()?` | a deadline counts as well |
//! | `token.cancelled().await` | `done().await` | answers why |
//! | `token.cancelled_owned()` | `done_owned()` | |
//! | `token.run_until_cancelled(work).await` | `run(work).await` | `Result` in place of `Option`; the error says why |
//! | `token.run_until_cancelled_owned(work)` | `run_owned(work)` | |
//! | `token.drop_guard()` | the scope itself | see below |
//! | `tokio::time::timeout(d, …)` within it | `with_timeout(d)`, or `timeout(d, work)` | seen by everything below |
//!
//! # What differs
//!
//! **Dropping.** A token that is dropped does nothing, and its `DropGuard` has to be asked for. A scope *is* the guard;
//! whoever wants a handle that does nothing when dropped takes [`scope.context()`](crate::CancelScope::context), and
//! whoever does not want to own gives it up with [`into_context`](crate::CancelScope::into_context).
//!
//! ```
//! use bequest::{Context, Reason};
//!
//! let worker = {
//!     let scope = Context::background().with_cancel().named("import");
//!     scope.context()
//! };
//! assert_eq!(worker.err().unwrap().reason(), Reason::ScopeEnded);
//! ```
//!
//! **Ties.** `run` and `run_until_cancelled` agree: work is polled first, so work that has finished is not thrown
//! away. They differ before the first poll: `run` does not begin work whose context has ended.
//!
//! ```
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
//! use bequest::Context;
//!
//! let scope = Context::background().with_cancel();
//! scope.cancel();
//! assert!(scope.run(async { unreachable!("not begun") }).await.is_err());
//! # });
//! ```
//!
//! **Executors.** Waiting needs no runtime: `done()` works on any executor, and [`wait`](crate::Context::wait) blocks a
//! plain thread.
//!
//! **Telling.** Both read as cancelled everywhere below when `cancel()` returns. A context then also runs callbacks,
//! [`after_func`](crate::Context::after_func), for which a token needs a task that waits.
//!
//! # File by file
//!
//! **Old code inside new:** a library that takes a token is given one that ends with the context. The link lives as long
//! as its value; dropping it leaves the token as it is.
//!
//! ```
//! # #[cfg(feature = "tokio-util")] {
//! use bequest::{Context, Reason};
//! use tokio_util::sync::CancellationToken;
//!
//! fn old(token: &CancellationToken) -> bool {
//!     token.is_cancelled()
//! }
//!
//! let request = Context::background().with_cancel();
//! let token = request.token();
//! assert!(!old(&token));
//! request.cancel_for(Reason::ClientGone);
//! assert!(old(&token));
//! # }
//! ```
//!
//! **New code inside old:** the token of the caller becomes a scope. A token has no reason, so the end says
//! `Explicit`, with a cause that names the token.
//!
//! ```
//! # #[cfg(feature = "tokio-util")] {
//! use bequest::{Canceled, Context, Reason};
//! use tokio_util::sync::CancellationToken;
//!
//! fn new(ctx: &Context) -> Result<u32, Canceled> {
//!     ctx.check().map(|()| 42)
//! }
//!
//! let shutdown = CancellationToken::new();
//! let scope = Context::background().with_token(&shutdown);
//! assert_eq!(new(&scope).unwrap(), 42);
//! shutdown.cancel();
//! let end = new(&scope).unwrap_err();
//! assert_eq!(end.reason(), Reason::Explicit);
//! assert_eq!(end.cause().unwrap().to_string(), "CancellationToken cancelled");
//! # }
//! ```
//!
//! In both directions the other side reads as cancelled when the `cancel()` that caused it returns: code that relied on
//! that with tokens alone may go on relying on it half-way through the move.
//!
//! # In which order
//!
//! 1. At the top, where the token was made: make a scope, and hand `&scope.token()` to what has not been moved.
//! 2. Function by function, from the top down, `token: CancellationToken` becomes `ctx: &Context`.
//! 3. Replace `tokio::time::timeout` by scopes, so that what is below knows how much time is left.
//! 4. Give the ends their reasons, `cancel_for(Reason::Shutdown)`; then see what the error log says.
//! 5. When the last token is gone, switch the feature `tokio-util` off.
