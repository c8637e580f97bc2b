//! Contexts that are dead on arrival, and two things called `Context`: the two traps of the first day.
//!
//! # The rule
//!
//! A [`CancelScope`](crate::CancelScope) owns; when it is dropped, everything derived from it ends. An expression that
//! makes a scope and does not keep it in a variable makes a *temporary*, and a temporary lives until the end of its
//! statement.
//!
//! # Dead on arrival
//!
//! ```
//! use bequest::{Context, Reason};
//! use std::time::Duration;
//!
//! let ctx = Context::background();
//! let limited: Context = ctx.with_timeout(Duration::from_secs(5)).clone();
//! let end = limited.err().unwrap();
//! assert_eq!(end.reason(), Reason::ScopeEnded);
//! assert_eq!(end.origin().file(), file!(), "the line of the call that made the scope");
//! ```
//!
//! A scope is not `Clone`, so `.clone()` goes through `Deref` and clones the *context*; then the statement ends, and the
//! scope with it. The compiler can not object: both steps are right by themselves. The error does, with the line:
//! `context canceled: scope ended (made at src/report.rs:41)`. Whenever an end says *scope ended* and the line
//! is one that was meant to last, it is this.
//!
//! The same trap in other clothes:
//!
//! ```
//! use bequest::Context;
//!
//! fn scoped(ctx: &Context) -> Context {
//!     let scope = ctx.with_cancel();
//!     scope.context() // the scope is dropped when the function returns
//! }
//!
//! let ctx = Context::background();
//! assert!(scoped(&ctx).is_done());
//!
//! let _ = ctx.with_cancel(); // `_` keeps nothing; `_scope` would
//! let in_a_block = { ctx.with_cancel().context() };
//! assert!(in_a_block.is_done());
//! ```
//!
//! # All the forms
//!
//! | form | the scope ends | so the context is |
//! |---|---|---|
//! | `let scope = ctx.with_timeout(d);` | at the end of the block | alive as long as it is meant to be |
//! | `fetch(&ctx.with_timeout(d)).await` | after the await, with the statement | alive for the whole call |
//! | `fetch(&ctx.with_timeout(d).with_value(&K, v)).await` | likewise | alive: `with_value` on a scope keeps the owner |
//! | `let c = ctx.with_timeout(d).clone();` | with the statement | **dead** |
//! | `let c = ctx.with_timeout(d).context();` | with the statement | **dead** |
//! | `let c = ctx.with_timeout(d).into_context();` | never by itself | alive until its deadline or its parent's end |
//! | `let future = fetch(&ctx.with_timeout(d));` | with the statement | does not compile once the future is used: it borrows what is gone |
//! | `spawn(work(ctx.with_cancel().context()))` | with the statement | **dead**, mostly before the task begins |
//! | `spawn(async move { work(&scope).await })` | with the task | alive: the task owns its scope |
//!
//! A temporary in the argument of an awaited call is fine, since a temporary lives until the end of the statement, and the
//! await is part of it:
//!
//! ```
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
//! use bequest::{Canceled, Context};
//! use std::time::Duration;
//!
//! async fn fetch(ctx: &Context) -> Result<u32, Canceled> {
//!     ctx.run(async {
//!         tokio::task::yield_now().await;
//!         42
//!     })
//!     .await
//! }
//!
//! let ctx = Context::background();
//! assert_eq!(fetch(&ctx.with_timeout(Duration::from_secs(5))).await.unwrap(), 42);
//! # });
//! ```
//!
//! Where that statement is over before the await, the compiler does object:
//!
//! ```compile_fail,E0716
//! # use bequest::{Canceled, Context};
//! # use std::time::Duration;
//! # async fn fetch(ctx: &Context) -> Result<(), Canceled> { ctx.check() }
//! # async fn too_late(ctx: &Context) -> Result<(), Canceled> {
//! let future = fetch(&ctx.with_timeout(Duration::from_secs(5))); // temporary value dropped while borrowed
//! future.await
//! # }
//! ```
//!
//! # What to return
//!
//! A function that makes a limit for its caller returns the scope, and the caller owns it:
//!
//! ```
//! use bequest::{CancelScope, Context};
//! use std::time::Duration;
//!
//! fn for_one_query(ctx: &Context) -> CancelScope {
//!     ctx.with_timeout(Duration::from_secs(1)).named("query")
//! }
//!
//! let query = for_one_query(&Context::background());
//! assert!(!query.is_done());
//! ```
//!
//! Where the caller can not own a scope (a closure of a builder that has to answer a `Context`, a field of somebody else's
//! struct), [`into_context`](crate::CancelScope::into_context) gives the ownership up. The deadline stays; what is lost is
//! the end that comes with the scope.
//!
//! A task that is spawned takes its scope along:
//!
//! ```
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
//! use bequest::Context;
//!
//! let ctx = Context::background();
//! let scope = ctx.with_cancel().named("import");
//! let task = tokio::spawn(async move { scope.run(async { 42 }).await });
//! assert_eq!(task.await.unwrap().unwrap(), 42);
//! # });
//! ```
//!
//! # `use anyhow::Context as _`
//!
//! The crate anyhow has an extension trait of the same name, and so have its relatives. Two imports of one name collide;
//! and the trait's name is hardly ever written anyway. Import it without one: its methods come in, and `Context` is the
//! one that travels.
//!
//! ```
//! # mod anyhow {
//! #     pub trait Context<T> {
//! #         fn context(self, what: &'static str) -> Result<T, String>;
//! #     }
//! #     impl<T, E: std::fmt::Display> Context<T> for Result<T, E> {
//! #         fn context(self, what: &'static str) -> Result<T, String> {
//! #             self.map_err(|error| format!("{what}: {error}"))
//! #         }
//! #     }
//! # }
//! use anyhow::Context as _;
//! use bequest::Context;
//!
//! fn load(ctx: &Context) -> Result<u32, String> {
//!     ctx.check().context("loading the settings")?;
//!     Ok(42)
//! }
//!
//! let scope = Context::background().with_cancel();
//! assert_eq!(load(&scope).unwrap(), 42);
//! scope.cancel();
//! assert!(load(&scope).unwrap_err().starts_with("loading the settings: context canceled"));
//! ```
//!
//! With `std::task::Context`, in code that polls by hand, the other way round: `use std::task::Context as TaskContext`.
