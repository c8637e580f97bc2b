//! *What a request hands down*: one handle, [`Context`], that carries a request's deadline, its cancellation with the
//! reason for it, and its typed values.
//!
//! ```
//! use bequest::{Context, Key, Kind, Reason};
//! use std::time::Duration;
//!
//! static USER: Key<&'static str> = Key::new("user");
//!
//! let request = Context::background().with_timeout(Duration::from_secs(5)).with_value(&USER, "ann").named("request");
//! let query = request.with_timeout(Duration::from_secs(1));
//! assert_eq!(query.value(&USER), Some(&"ann"));
//! assert!(query.remaining().unwrap() <= Duration::from_secs(1));
//!
//! request.cancel_for(Reason::ClientGone);
//! let end = query.err().unwrap();
//! assert_eq!(end, Kind::Canceled);
//! assert_eq!(end.reason(), Reason::ClientGone);
//! assert!(end.to_string().starts_with("context canceled: client disconnected (request "));
//! ```
//!
//! # The types
//!
//! | type | what it is |
//! |---|---|
//! | [`Context`] | the observer: read it, wait on it, derive from it; cheap to clone |
//! | [`CancelScope`] | the owner of what [`with_cancel`](Context::with_cancel) and its kin make; dropping it cancels |
//! | [`Canceller`] | the right to cancel, without ownership |
//! | [`Canceled`] | the error: [`Kind`], [`Reason`], cause, origin, scope |
//! | [`Label`] | name and reason of scopes that are made by the million |
//! | [`Key`] | the name under which a value of one type travels |
//! | [`AfterFunc`] | a callback for the end |
//! | `Group` | tasks that end together (feature `tokio`) |
//! | `spawn_blocking` | blocking work whose caller is answered when the context ends (feature `tokio`) |
//! | [`io`] | readers and writers that end with their context |
//! | `process` | child processes that do, with all their group (feature `tokio`, Unix) |
//!
//! # What may be relied on
//!
//! 1. When `cancel()` returns, every context derived from the scope reads as done, even one derived at that instant;
//!    the first event wins for ever.
//! 2. An end says how, why, by whom and from which line, and the kind survives any cause.
//! 3. A dropped scope or handle unregisters itself. Nothing leaks under an immortal parent.
//! 4. Wakers, callbacks and destructors run outside every lock. Cancel and drop are loops, for any depth and width.
//! 5. Whatever reads quickly agrees with whatever waits: after `is_done()` is true, `done()` is ready.
//! 6. What is not used is not paid for: no timer until somebody looks or waits, no thread until a timer, no list of
//!    contexts until it is switched on.
//!
//! # Cancel safety
//!
//! A future is *cancel safe* if dropping it before it is ready, and making it anew, loses nothing. Each asynchronous
//! function in these crates says under this heading what dropping it does. A cancelled context is the gentler way:
//! the work is told, may tidy up under [`Context::cleanup`], and returns an error that says why.
//!
//! # Features
//!
//! None is on by default, and then the crate is the standard library alone. `tokio` adds task groups, blocking work, child
//! processes, signals and a clock that follows tokio's time. `tokio-util` adds the conversions to and from `CancellationToken`.
//!
//! # What it is not
//!
//! No ambient context: nothing is found in a thread-local; `ctx: &Context` is a parameter. No executor, no protocol,
//! no driver and no logger: those are the crates around it.

#![cfg_attr(docsrs, feature(doc_cfg))]
#![doc(test(attr(deny(warnings))))]

mod after_func;
mod canceled;
mod context;
mod deadline;
mod done;
mod key;
mod label;
mod reason;
mod scope;
mod sync;
mod tree;
mod values;

#[cfg(feature = "tokio")]
pub mod blocking;
#[cfg(feature = "tokio")]
mod group;
#[cfg(feature = "tokio-util")]
mod token;

pub mod clock;
pub mod inspect;
pub mod io;
pub mod manual;
#[cfg(all(feature = "tokio", unix))]
pub mod process;
#[cfg(feature = "tokio")]
pub mod signal;

pub use crate::after_func::AfterFunc;
#[cfg(feature = "tokio")]
pub use crate::blocking::spawn_blocking;
pub use crate::canceled::{Canceled, Kind, ScopeId};
pub use crate::context::Context;
pub use crate::deadline::Deadline;
pub use crate::done::{Done, DoneOwned, Run, RunOwned, Sleep, Timeout};
#[cfg(feature = "tokio")]
pub use crate::group::{Group, GroupError};
pub use crate::key::{Codec, Key};
pub use crate::label::Label;
pub use crate::reason::{Reason, Signal};
pub use crate::scope::{CancelScope, Canceller};
#[cfg(feature = "tokio-util")]
pub use crate::token::{LinkedScope, LinkedToken};

/// What must not compile, and its twin that must.
#[cfg(doctest)]
#[doc = include_str!("../tests/compile_fail.md")]
mod compile_fail {}
