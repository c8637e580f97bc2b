//! The error of an exchange: in which step, and whether the context or the exchange failed.

use std::fmt;
use std::io;
use std::time::Duration;

use bequest::{CancelScope, Canceled, Context};

use super::BoxError;
use crate::wire::TooLittleLeft;

/// Why an exchange failed, and in which step.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// use bequest::{Context, Kind, Reason};
/// use bequest_http::client::{Client, Step};
///
/// let client = Client::builder().build();
/// let caller = Context::background().with_cancel();
/// caller.cancel_for(Reason::ClientGone);
/// let request = http::Request::get("http://127.0.0.1:1/").body(String::new()).unwrap();
/// let error = client.send(&caller, request).await.unwrap_err();
/// assert_eq!(error.step(), Step::Waiting, "nothing was dialled");
/// let end = error.canceled().unwrap();
/// assert_eq!((end.kind(), end.reason()), (Kind::Canceled, Reason::ClientGone));
/// assert!(error.used_up_budget(&caller));
/// # });
/// ```
#[derive(Debug)]
pub struct Error(Box<Failure>);

/// How far an exchange has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Step {
    /// Waiting for its turn.
    Waiting,
    /// Waiting for a connection: a new one, with its TLS handshake if it has one, or one that becomes free.
    Dialling,
    /// Sending the request.
    Sending,
    /// Waiting for the head of the answer.
    Answering,
    /// Reading the body of the answer.
    Reading,
}

#[derive(Debug)]
struct Failure {
    step: Step,
    why: Why,
    /// What a request keeps of its time for the answer.
    margin: Duration,
}

#[derive(Debug)]
pub(super) enum Why {
    /// The context ended.
    Ended(Canceled),
    /// The margin takes all that is left.
    TooLittle(TooLittleLeft),
    /// The exchange failed by itself.
    Failed(BoxError),
}

impl Error {
    pub(super) fn new(step: Step, why: Why, margin: Duration) -> Error {
        Error(Box::new(Failure { step, why, margin }))
    }

    /// The step in which it failed.
    ///
    /// Up to [`Step::Dialling`] the peer has seen nothing of the request.
    pub fn step(&self) -> Step {
        self.0.step
    }

    /// The end of the context, if that is why: with its kind, its reason, its cause, and the scope it began at.
    ///
    /// A context that has not ended, but leaves [too little time](Error::is_too_little_time), has no end to tell of;
    /// [`is_timeout`](Error::is_timeout) is true of both.
    pub fn canceled(&self) -> Option<&Canceled> {
        match &self.0.why {
            Why::Ended(end) => Some(end),
            Why::TooLittle(_) | Why::Failed(_) => None,
        }
    }

    /// Whether the context of the exchange ended, by a cancel or by its deadline.
    pub fn is_canceled(&self) -> bool {
        self.canceled().is_some()
    }

    /// Whether the context of the exchange ended at `scope` itself: my own limit, which a fallback may answer, and not an end
    /// from further out.
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
    /// use bequest::Context;
    /// use bequest_http::client::Client;
    /// use std::time::Duration;
    ///
    /// let caller = Context::background().with_cancel();
    /// let step = caller.with_timeout(Duration::ZERO);
    /// let request = http::Request::get("http://127.0.0.1:1/").body(String::new()).unwrap();
    /// let error = Client::builder().build().send(&step, request).await.unwrap_err();
    /// assert!(error.is_from(&step) && !error.is_from(&caller));
    /// # });
    /// ```
    pub fn is_from(&self, scope: &CancelScope) -> bool {
        self.canceled().is_some_and(|end| end.is_from(scope))
    }

    /// Whether time ran out: a deadline passed, or too little was left to begin with.
    pub fn is_timeout(&self) -> bool {
        match &self.0.why {
            Why::Ended(end) => end.is_timeout(),
            Why::TooLittle(_) => true,
            Why::Failed(_) => false,
        }
    }

    /// Whether nothing was sent because the time left was less than the margin.
    pub fn is_too_little_time(&self) -> bool {
        matches!(self.0.why, Why::TooLittle(_))
    }

    /// Whether no connection could be made.
    pub fn is_connect(&self) -> bool {
        matches!(self.0.why, Why::Failed(_)) && self.0.step <= Step::Dialling
    }

    /// Whether the exchange failed because the peer has fallen silent or there is no way to it: it did not answer for
    /// [`Limits::unreachable`](super::Limits::unreachable) though it was asked, or the network says so. What has become of the
    /// request there is not known.
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
    /// use bequest::Context;
    /// use bequest_http::client::Client;
    ///
    /// let request = http::Request::get("http://127.0.0.1:1/").body(String::new()).unwrap();
    /// let error = Client::builder().build().send(&Context::background(), request).await.unwrap_err();
    /// assert!(!error.is_unreachable(), "its system is there, and says that nobody listens");
    /// # });
    /// ```
    pub fn is_unreachable(&self) -> bool {
        match &self.0.why {
            Why::Failed(error) => says_unreachable(&**error),
            Why::Ended(_) | Why::TooLittle(_) => false,
        }
    }

    /// Whether this used up all that `caller` had: nothing is left that a second try could use, and the caller's own answer
    /// is that its deadline has passed.
    ///
    /// `caller` is the context that a retry would be made for, outside any limit for one try.
    pub fn used_up_budget(&self, caller: &Context) -> bool {
        caller.is_done() || caller.remaining().is_some_and(|left| left <= self.0.margin)
    }
}

/// Whether this error, or one behind it, is that of a peer that does not answer.
fn says_unreachable(error: &(dyn std::error::Error + 'static)) -> bool {
    let chain = std::iter::successors(Some(error), |error| error.source());
    let mut said = chain.map(|error| {
        let engine = error.downcast_ref::<hyper::Error>();
        let system = error.downcast_ref::<io::Error>();
        engine.is_some_and(hyper::Error::is_timeout) || system.is_some_and(is_silence)
    });
    said.any(|said| said)
}

fn is_silence(error: &io::Error) -> bool {
    use io::ErrorKind::{HostUnreachable, NetworkUnreachable, TimedOut};
    matches!(error.kind(), TimedOut | HostUnreachable | NetworkUnreachable)
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Step::Waiting => "waiting for its turn",
            Step::Dialling => "waiting for a connection",
            Step::Sending => "sending the request",
            Step::Answering => "waiting for the answer",
            Step::Reading => "reading the body",
        })
    }
}

impl fmt::Display for Error {
    /// One line that stands for itself: the step, and what happened there.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0.why {
            Why::Ended(end) => write!(f, "{end}, while {}", self.0.step),
            Why::TooLittle(little) => write!(f, "not sent: {little}"),
            Why::Failed(error) => write!(
                f,
                "the exchange failed while {}: {}",
                self.0.step,
                innermost(&**error)
            ),
        }
    }
}

/// What the system or the peer said: what is around it says no more than "client error" and "connect error".
fn innermost<'a>(error: &'a (dyn std::error::Error + 'static)) -> &'a (dyn std::error::Error + 'static) {
    std::iter::successors(Some(error), |error| error.source())
        .last()
        .unwrap_or(error)
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.0.why {
            Why::Ended(end) => Some(end),
            Why::TooLittle(_) => None,
            Why::Failed(error) => Some(&**error),
        }
    }
}
