//! The manual: chapters of prose with examples that are tested. There is no code in here.
//!
//! The pages of the types say what each promises. These chapters say how they are meant to be used together, and what
//! surprises people who come from elsewhere.
//!
//! | chapter | read it |
//! |---|---|
//! | [`coming_from_go`] | if `ctx context.Context` is in your fingers |
//! | [`coming_from_cancellation_token`] | if your code has `CancellationToken`s, and is to be moved file by file |
//! | [`cancellation`] | to know who may end what, and how work hears of it |
//! | [`cancel_safety`] | before the first `select!`; it defines the term that all pages use |
//! | [`decisions`] | to know why sessions, logs, jobs and stores are done as they are, and what it cost others |
//! | [`deadlines`] | when time limits nest, are tested, or are to be shared out |
//! | [`values`] | before the first [`Key`](crate::Key), to decide against it if possible |
//! | [`temporaries`] | when a context is dead on arrival, or two things are called `Context` |
//! | [`writing_an_integration`] | when a driver, a client or a protocol is to obey contexts |
//!
//! How deadlines, traces and values travel between processes is a chapter of `bequest-http`: `manual::travelling`.
//!
//! # The three sentences to remember
//!
//! 1. A [`Context`](crate::Context) observes, a [`CancelScope`](crate::CancelScope) owns: pass `&scope` down, and its
//!    end is the end of all that was done for it.
//! 2. Told, then grace, then dropped: work hears of its end by its context, tidies up under
//!    [`cleanup`](crate::Context::cleanup), and returns an error that says why.
//! 3. My own limit is a failure, an outer scope's end is not:
//!    [`is_from`](crate::Canceled::is_from) tells them apart.

pub mod cancel_safety;
pub mod cancellation;
pub mod coming_from_cancellation_token;
pub mod coming_from_go;
pub mod deadlines;
pub mod decisions;
pub mod temporaries;
pub mod values;
pub mod writing_an_integration;
