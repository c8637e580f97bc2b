//! Why a context ended, as a closed-enough list that programs may branch on.
//!
//! Texts for people belong into the *cause*, an error of any type. Here lives only what a caller may decide on: was
//! it my own limit, the client, or a shutdown?

use std::fmt;

/// What ended a context.
///
/// Every [`Canceled`](crate::Canceled) has one. It is set by whoever ends the context first and never changes
/// afterwards; a cause given beside it does not alter it.
///
/// # Example: deciding on the reason
///
/// ```
/// use bequest::{Context, Reason};
///
/// let scope = Context::background().with_cancel();
/// scope.cancel_for(Reason::ClientGone);
/// let end = scope.err().unwrap();
/// assert_eq!(end.reason(), Reason::ClientGone);
/// assert!(end.to_string().starts_with("context canceled: client disconnected"));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// The [`CancelScope`](crate::CancelScope) was dropped without a word.
    ScopeEnded,
    /// `cancel()` or `cancel_with()` was called.
    Explicit,
    /// A deadline passed.
    Deadline,
    /// The client closed its connection before the answer was complete.
    ClientGone,
    /// The client reset the stream (HTTP/2 `RST_STREAM`) and kept the connection.
    StreamReset,
    /// The peer stopped answering without closing anything.
    Unreachable,
    /// The response has been sent to its end; nothing done for it is wanted any more.
    ResponseEnded,
    /// A server limit passed; the text names it, for example `"header"` or `"request"`.
    Limit(&'static str),
    /// The process or the server is shutting down.
    Shutdown,
    /// Another member of the same `Group` (feature `tokio`) failed.
    Sibling,
    /// The process received a signal.
    Signal(Signal),
    /// The caller in another process cancelled.
    Remote,
    /// The work panicked.
    Panicked,
}

impl Reason {
    /// Whether time ran out: the reasons whose [`Kind`](crate::Kind) is `DeadlineExceeded`, whoever gives them.
    ///
    /// ```
    /// use bequest::{Context, Kind, Reason};
    ///
    /// let connection = Context::background().with_cancel();
    /// connection.cancel_for(Reason::Limit("idle"));
    /// assert_eq!(connection.err().unwrap(), Kind::DeadlineExceeded);
    /// assert!(Reason::Deadline.is_timeout() && !Reason::ClientGone.is_timeout());
    /// ```
    pub const fn is_timeout(self) -> bool {
        matches!(self, Reason::Deadline | Reason::Limit(_))
    }

    /// Whether nobody is there any more to take an answer: the client has left, has reset its stream, or cannot be reached.
    ///
    /// ```
    /// # use bequest::Reason;
    /// assert!(Reason::ClientGone.is_departure() && Reason::Unreachable.is_departure());
    /// assert!(!Reason::Deadline.is_departure(), "somebody still waits, and may be told so");
    /// ```
    pub const fn is_departure(self) -> bool {
        matches!(
            self,
            Reason::ClientGone | Reason::StreamReset | Reason::Unreachable
        )
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::ScopeEnded => f.write_str("scope ended"),
            Reason::Explicit => f.write_str("cancel called"),
            Reason::Deadline => f.write_str("deadline passed"),
            Reason::ClientGone => f.write_str("client disconnected"),
            Reason::StreamReset => f.write_str("stream reset by client"),
            Reason::Unreachable => f.write_str("peer unreachable"),
            Reason::ResponseEnded => f.write_str("response ended"),
            Reason::Limit(name) => write!(f, "{name} limit passed"),
            Reason::Shutdown => f.write_str("shutting down"),
            Reason::Sibling => f.write_str("a sibling failed"),
            Reason::Signal(signal) => write!(f, "{signal} received"),
            Reason::Remote => f.write_str("cancelled by the remote caller"),
            Reason::Panicked => f.write_str("panicked"),
        }
    }
}

/// A signal of the operating system, by its number.
///
/// ```
/// use bequest::Signal;
///
/// assert_eq!(Signal::TERMINATE.to_string(), "SIGTERM");
/// assert_eq!(Signal::from_raw(64).to_string(), "signal 64");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Signal(i32);

impl Signal {
    /// `SIGHUP` (1): the terminal went away, or by custom "read your settings again".
    pub const HANGUP: Signal = Signal(1);
    /// `SIGINT` (2): Ctrl-C.
    pub const INTERRUPT: Signal = Signal(2);
    /// `SIGQUIT` (3): Ctrl-\\.
    pub const QUIT: Signal = Signal(3);
    /// `SIGTERM` (15): the polite request to end.
    pub const TERMINATE: Signal = Signal(15);

    /// The signal with this number.
    pub const fn from_raw(number: i32) -> Signal {
        Signal(number)
    }

    /// The signal's number.
    pub const fn as_raw(self) -> i32 {
        self.0
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Signal::HANGUP => f.write_str("SIGHUP"),
            Signal::INTERRUPT => f.write_str("SIGINT"),
            Signal::QUIT => f.write_str("SIGQUIT"),
            Signal::TERMINATE => f.write_str("SIGTERM"),
            Signal(number) => write!(f, "signal {number}"),
        }
    }
}

impl fmt::Debug for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
