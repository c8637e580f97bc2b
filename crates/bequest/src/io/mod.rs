//! Readers and writers that end with their context, a blocked read too.
//!
//! Here live two wrappers and the way back from an [`std::io::Error`] to the [`Canceled`] in it. What is read is not looked
//! at, and nothing is buffered.
//!
//! | wrapper | around | how an operation that waits is ended |
//! |---|---|---|
//! | [`WithContext`] | tokio's `AsyncRead` and `AsyncWrite` (feature `tokio`) | its task is woken |
//! | [`BlockingSocket`] | `TcpStream`, `UnixStream` of the standard library | the socket is shut down, both ways |
//! | [`WithContext`] | any `Read` and `Write` | it is not: the context is asked before each operation |
//!
//! # What is left out
//!
//! A thread that is blocked on a pipe, a terminal, a file or an `accept` can not be woken by the standard library alone,
//! without closing a descriptor that another thread is using. Read those on tokio, or on a thread that may be left behind.
//!
//! # Invariants
//!
//! 1. Once the context has ended, no operation begins: nothing is read from, or written to, what is wrapped.
//! 2. An operation that has finished wins: what was read is handed out, though the context ended in the same moment.
//! 3. The error of an operation that the context ended is the context's, whatever the system made of it.

mod socket;
mod with_context;

pub use socket::{BlockingSocket, ShutDown};
pub use with_context::WithContext;

use std::error::Error;
use std::io;

use crate::Canceled;

/// The end of a context, if that is why an operation failed: in the error itself, or in one that it came from.
///
/// ```
/// use bequest::{Context, Kind};
/// use bequest::io::{WithContext, canceled};
/// use std::io::Read;
///
/// let ctx = Context::background().with_cancel();
/// let mut reader = WithContext::new(&ctx, &b"text"[..]);
/// ctx.cancel_with("not needed");
/// let error = reader.read(&mut [0; 4]).unwrap_err();
/// assert_eq!(canceled(&error).unwrap(), &Kind::Canceled);
/// assert_eq!(error.kind(), std::io::ErrorKind::Other, "of a deadline it is TimedOut");
///
/// assert!(canceled(&std::io::Error::other("disk on fire")).is_none());
/// ```
pub fn canceled(error: &io::Error) -> Option<&Canceled> {
    let mut next: Option<&(dyn Error + 'static)> = error.get_ref().map(|error| error as _);
    while let Some(error) = next {
        if let Some(end) = error.downcast_ref::<Canceled>() {
            return Some(end);
        }
        next = match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    None
}
