//! The test kit: time that tests move, futures polled by hand, contexts that a test owns, and witnesses for what was
//! left over or written.
//!
//! Nothing here sleeps and hopes. A test moves the [`Clock`], and each deadline on the way is seen at its exact
//! instant:
//!
//! ```
//! use bequest::Kind;
//! use bequest_test::{Clock, task};
//! use std::time::Duration;
//!
//! let clock = Clock::new();
//! let request = clock.context().with_timeout(Duration::from_secs(5));
//!
//! let mut waiting = task(request.done());
//! waiting.assert_pending();
//! clock.advance(Duration::from_secs(5));
//! assert_eq!(waiting.wakes(), 1);
//! assert_eq!(waiting.assert_ready(), Kind::DeadlineExceeded);
//! ```
//!
//! # What is in it
//!
//! | item | what a test asks it |
//! |---|---|
//! | [`Clock`] | what happens at which instant |
//! | [`Bubble`] | tasks on one clock, whose time passes only when all of them wait; a deadlock fails the test |
//! | [`task`], [`WakeCounter`] | was it woken, how often, and who still holds the waker |
//! | [`Leak`] | is a context, a timer or a callback left |
//! | [`cancel_at`] | a call ended at each place where it waits: dropped, cancelled, out of time |
//! | [`test_context`] | a context that ends with the test, and tidying up after it |
//! | [`Recorder`], [`ResponseWriter`] | was the response touched, even by an empty write |
//! | `conformance` (feature) | does an integration of a store keep what it promises |
//! | `http` (feature) | a request in memory, and what became of it, frame by frame |
//! | `servers` (feature) | a real server of one's own: what if it hangs, dies, comes back |
//! | `proxy` (feature) | a network that delays, slices, cuts, resets and swallows |
//!
//! # What it is not
//!
//! No runtime: futures that need one (tokio's sockets and timers) are tested on it, with
//! `bequest::clock::tokio()` for paused time. No mocks: a spy is a small type with a counter, as in the examples.

#![cfg_attr(docsrs, feature(doc_cfg))]
#![doc(test(attr(deny(warnings))))]

mod bubble;
pub mod cancel_at;
mod clock;
mod leak;
mod poll;
mod response;
mod test_context;

#[cfg(feature = "conformance")]
pub mod conformance;
#[cfg(feature = "http")]
pub mod http;
#[cfg(feature = "proxy")]
pub mod proxy;
#[cfg(all(feature = "servers", unix))]
pub mod servers;

pub use crate::bubble::Bubble;
pub use crate::clock::Clock;
pub use crate::leak::{Leak, Left};
pub use crate::poll::{Task, WakeCounter, task};
pub use crate::response::{Headers, Recorder, ResponseWriter, Touch};
pub use crate::test_context::{TestContext, test_context, test_name};
