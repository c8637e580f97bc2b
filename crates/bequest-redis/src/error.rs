//! The one error of this crate: which step failed, why, and whether the command may have run all the same.
//!
//! Callers decide by predicates, never by text or by Redis' error codes: a command that ended because its context did
//! says so with the context's own error, never as "UNBLOCKED" or as an I/O timeout.

use std::error;
use std::fmt;

use bequest::{CancelScope, Canceled};
use redis::{ErrorKind, RedisError, ServerErrorKind};

/// Why a call on a [`Client`](crate::Client) has no answer.
///
/// # Example: whose end was it
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use bequest::{Context, Reason};
/// use bequest_redis::{Client, Step};
///
/// let client = Client::open("redis://127.0.0.1/")?;
/// let request = Context::background().with_cancel();
/// request.cancel_for(Reason::ClientGone);
///
/// let error = client.get::<String>(&request, "name").await.unwrap_err();
/// assert!(error.is_canceled());
/// assert_eq!(error.canceled().unwrap().reason(), Reason::ClientGone);
/// assert_eq!(error.step(), Step::Waiting); // nothing was sent
/// assert!(!error.is_in_doubt());
/// # Ok(()) }
/// ```
///
/// # Example: what this crate refuses
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # use bequest::Context;
/// # use bequest_redis::{Client, redis};
/// # let client = Client::open("redis://127.0.0.1/")?;
/// # let ctx = Context::background();
/// let error = client.cmd::<()>(&ctx, redis::cmd("SELECT").arg(1)).await.unwrap_err();
/// assert!(error.is_refused());
/// assert_eq!(error.to_string(), "redis, waiting: it would change the connection that all calls share");
/// # Ok(()) }
/// ```
pub struct Error(Box<Failure>);

/// How far a call had come when it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Step {
    /// Waiting for one of the connections for blocking commands, or not begun at all. Nothing was sent.
    Waiting,
    /// Connecting. The command was not sent.
    Connecting,
    /// The command was handed to the connection.
    Running,
    /// Waiting for a published message.
    Receiving,
}

struct Failure {
    step: Step,
    cause: Cause,
    in_doubt: bool,
}

enum Cause {
    /// The context ended.
    Canceled(Canceled),
    /// The server, or the driver, said no.
    Redis(RedisError),
    /// The connection was lost, or none was to be had.
    Connection(RedisError),
    /// The reply is not of the type that was asked for.
    Unfit(RedisError),
    /// This crate does not send it; the text says why.
    Refused(&'static str),
    /// No one node of the cluster has all its keys.
    CrossSlot,
    /// The task that ran the command ended without an answer: the runtime shuts down.
    Abandoned,
}

impl Error {
    /// Whether the context of the call ended, by a cancel or by its deadline.
    pub fn is_canceled(&self) -> bool {
        self.canceled().is_some()
    }

    /// The end of the context, with its kind, reason and cause, if that is why.
    pub fn canceled(&self) -> Option<&Canceled> {
        match &self.0.cause {
            Cause::Canceled(end) => Some(end),
            _ => None,
        }
    }

    /// Whether the context of the call ended at `scope` itself: my own limit, which a retry or a fallback may answer, and
    /// not an end from further out.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use bequest::Context;
    /// use bequest_redis::Client;
    /// use std::time::Duration;
    ///
    /// let client = Client::open("redis://127.0.0.1:1/")?; // connects when it is used
    /// let request = Context::background().with_cancel();
    /// let step = request.with_timeout(Duration::ZERO);
    /// let error = client.set(&step, "name", "ana").await.unwrap_err();
    /// assert!(error.is_from(&step) && !error.is_from(&request));
    /// # Ok(()) }
    /// ```
    pub fn is_from(&self, scope: &CancelScope) -> bool {
        self.canceled().is_some_and(|end| end.is_from(scope))
    }

    /// Whether the connection was lost, or none could be had within
    /// [`Options::connect_limit`](crate::Options::connect_limit).
    pub fn is_connection(&self) -> bool {
        matches!(self.0.cause, Cause::Connection(_) | Cause::Abandoned)
    }

    /// Whether this crate does not send the command, because it would harm the other users of its connection or mean
    /// something else there.
    pub fn is_refused(&self) -> bool {
        matches!(self.0.cause, Cause::Refused(_) | Cause::CrossSlot)
    }

    /// Whether the keys of the command are on several nodes of a cluster, so that no one of them can run it. Keys with the
    /// same part in braces, `{user:1}.name` and `{user:1}.age`, are together.
    pub fn is_cross_slot(&self) -> bool {
        let is_said = |error: &RedisError| error.kind() == ErrorKind::Server(ServerErrorKind::CrossSlot);
        matches!(self.0.cause, Cause::CrossSlot) || self.redis().is_some_and(is_said)
    }

    /// Whether the command was answered, and its reply is not of the type that was asked for.
    pub fn is_conversion(&self) -> bool {
        matches!(self.0.cause, Cause::Unfit(_))
    }

    /// Whether nobody can know if the command took effect: it was handed to the connection, and no answer came.
    ///
    /// `false` is a promise: the command did not take effect, or the server said what became of it.
    pub fn is_in_doubt(&self) -> bool {
        self.0.in_doubt
    }

    /// How far the call had come.
    pub fn step(&self) -> Step {
        self.0.step
    }

    /// The driver's error, if it is the driver's or the server's.
    pub fn redis(&self) -> Option<&RedisError> {
        match &self.0.cause {
            Cause::Redis(error) | Cause::Connection(error) | Cause::Unfit(error) => Some(error),
            _ => None,
        }
    }

    pub(crate) fn canceled_at(step: Step, end: Canceled) -> Error {
        Error::new(step, Cause::Canceled(end), false)
    }

    pub(crate) fn canceled_in_doubt(end: Canceled) -> Error {
        Error::new(Step::Running, Cause::Canceled(end), true)
    }

    /// An error that was the answer to a command, or one of the connection, on which the command was.
    pub(crate) fn running(error: RedisError) -> Error {
        if is_of_connection(&error) {
            Error::new(Step::Running, Cause::Connection(error), true)
        } else {
            Error::new(Step::Running, Cause::Redis(error), false)
        }
    }

    pub(crate) fn connecting(error: RedisError) -> Error {
        let is_of_connection = is_of_connection(&error);
        let cause = if is_of_connection {
            Cause::Connection(error)
        } else {
            Cause::Redis(error)
        };
        Error::new(Step::Connecting, cause, false)
    }

    pub(crate) fn disconnected(error: RedisError) -> Error {
        Error::new(Step::Receiving, Cause::Connection(error), false)
    }

    pub(crate) fn unfit(error: RedisError) -> Error {
        Error::new(Step::Running, Cause::Unfit(error), false)
    }

    pub(crate) fn refused(why: &'static str) -> Error {
        Error::new(Step::Waiting, Cause::Refused(why), false)
    }

    pub(crate) fn cross_slot() -> Error {
        Error::new(Step::Waiting, Cause::CrossSlot, false)
    }

    /// The same, but another part of it may have run.
    pub(crate) fn doubted(mut self) -> Error {
        self.0.in_doubt = true;
        self
    }

    /// The same, of something that was only to prepare the command: that has not run.
    pub(crate) fn certain(mut self) -> Error {
        self.0.in_doubt = false;
        self
    }

    pub(crate) fn abandoned() -> Error {
        Error::new(Step::Running, Cause::Abandoned, true)
    }

    fn new(step: Step, cause: Cause, in_doubt: bool) -> Error {
        Error(Box::new(Failure {
            step,
            cause,
            in_doubt,
        }))
    }
}

/// Whether the connection failed, rather than the command: the socket broke, or what came is no RESP, such as the first
/// half of a reply before the end. After both the driver gives the connection up.
pub(crate) fn is_of_connection(error: &RedisError) -> bool {
    matches!(error.kind(), ErrorKind::Io | ErrorKind::Parse)
}

impl fmt::Display for Error {
    /// One line that stands for itself: the step, what happened there, and the doubt if there is one.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "redis, {}: ", self.0.step)?;
        match &self.0.cause {
            Cause::Canceled(end) => write!(f, "{end}"),
            Cause::Redis(error) => write!(f, "{error}"),
            Cause::Connection(error) => write!(f, "the connection failed: {error}"),
            Cause::Unfit(error) => write!(f, "the reply is not what was asked for: {error}"),
            Cause::Refused(why) => f.write_str(why),
            Cause::CrossSlot => f.write_str("its keys are in several slots of the cluster"),
            Cause::Abandoned => f.write_str("the runtime ended before the command did"),
        }?;
        if self.0.in_doubt {
            f.write_str(" (the command may have run)")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("Error");
        out.field("step", &self.0.step);
        match &self.0.cause {
            Cause::Canceled(end) => out.field("canceled", end),
            Cause::Redis(error) => out.field("redis", error),
            Cause::Connection(error) => out.field("connection", error),
            Cause::Unfit(error) => out.field("unfit", error),
            Cause::Refused(why) => out.field("refused", why),
            Cause::CrossSlot => out.field("is_cross_slot", &true),
            Cause::Abandoned => out.field("abandoned", &true),
        };
        out.field("in_doubt", &self.0.in_doubt).finish()
    }
}

impl error::Error for Error {
    /// The context's error, or the driver's.
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match &self.0.cause {
            Cause::Canceled(end) => Some(end),
            Cause::Redis(error) | Cause::Connection(error) | Cause::Unfit(error) => Some(error),
            Cause::Refused(_) | Cause::CrossSlot | Cause::Abandoned => None,
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Step::Waiting => "waiting",
            Step::Connecting => "connecting",
            Step::Running => "running",
            Step::Receiving => "receiving",
        })
    }
}
