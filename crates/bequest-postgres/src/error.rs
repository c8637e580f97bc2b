//! The one error of this crate: which step failed, and why.
//!
//! Callers decide by predicates, never by text: a query that was stopped because its context ended says so with the
//! context's own error, and never as "canceling statement due to user request".

use std::error;
use std::fmt;
use std::io;

use bequest::{CancelScope, Canceled};
use tokio_postgres::error::SqlState;

/// Why a call on a [`Database`](crate::Database) has no answer.
///
/// # Example: whose end was it
///
/// ```
/// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let Some(server) = bequest_test::servers::Postgres::start_or_leave_out() else { return Ok(()) };
/// use bequest::{Context, Kind};
/// use bequest_postgres::{Database, Step};
/// use std::time::Duration;
///
/// let ctx = Context::background();
/// let db = Database::open(&ctx, &server.url()).await?;
///
/// let limited = ctx.with_timeout(Duration::from_millis(50));
/// let error = db.query(&limited, "SELECT pg_sleep(60)", &[]).await.unwrap_err();
/// assert_eq!(*error.canceled().unwrap(), Kind::DeadlineExceeded);
/// assert_eq!(error.step(), Step::Running);
///
/// let error = db.query(&ctx, "SELECT 1 / 0", &[]).await.unwrap_err();
/// assert!(!error.is_canceled());
/// assert_eq!(error.to_string(), "postgres, running: division by zero (22012)");
/// # Ok(()) }
/// ```
pub struct Error(Box<Failure>);

/// How far a call had come when it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Step {
    /// Waiting for a connection. Nothing was sent.
    Waiting,
    /// Connecting to the server. Nothing was sent.
    Connecting,
    /// Running a statement: nothing has come back yet.
    Running,
    /// Reading what the statement returns, or writing what it copies.
    Reading,
    /// Committing.
    Committing,
    /// Closing the pool.
    Closing,
}

struct Failure {
    step: Step,
    cause: Cause,
    /// It was sent, and the end of the answer was not heard.
    unheard: bool,
}

enum Cause {
    /// The context ended.
    Canceled(Canceled),
    /// The server, or the driver, said no.
    Postgres(tokio_postgres::Error),
    /// The server could not be reached at this address.
    Unreachable(String, io::Error),
    /// TLS could not be agreed on with this server.
    #[cfg(feature = "tls")]
    Tls(String, Box<dyn error::Error + Send + Sync>),
    /// The server answers too slowly.
    TooSlow(&'static str),
    /// Something in the settings can not be.
    Settings(String),
    /// The pool, or what is called, was closed.
    Closed,
    /// There was no row.
    NoRows,
    /// There was more than one row.
    TooManyRows,
    /// The transaction was over before the call was; nothing is committed.
    TransactionLost(&'static str),
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
    /// # let Some(server) = bequest_test::servers::Postgres::start_or_leave_out() else { return Ok(()) };
    /// use bequest::Context;
    /// use bequest_postgres::Database;
    /// use std::time::Duration;
    ///
    /// let request = Context::background().with_cancel();
    /// let db = Database::open(&request, &server.url()).await?;
    /// let step = request.with_timeout(Duration::from_millis(10));
    /// let error = db.query(&step, "SELECT pg_sleep(8)", &[]).await.unwrap_err();
    /// assert!(error.is_from(&step) && !error.is_from(&request));
    /// # Ok(()) }
    /// ```
    pub fn is_from(&self, scope: &CancelScope) -> bool {
        self.canceled().is_some_and(|end| end.is_from(scope))
    }

    /// Whether it may have been done all the same: a commit, or a statement outside of a transaction, was sent, and the
    /// end of its answer did not come, because the connection was lost or [`Options::patience`](crate::Options::patience)
    /// ran out.
    ///
    /// In all other errors nothing of the call is kept, but for what a script committed by itself.
    pub fn is_in_doubt(&self) -> bool {
        self.0.unheard
    }

    /// Whether the transaction was over before the call was: a statement of it failed before, ended it by itself, or
    /// was given up half-way. Nothing was committed by this call.
    pub fn is_transaction_lost(&self) -> bool {
        matches!(self.0.cause, Cause::TransactionLost(_))
    }

    /// Whether a constraint of the schema was violated.
    pub fn is_constraint(&self) -> bool {
        self.code().is_some_and(|code| code.code().starts_with("23"))
    }

    /// Whether the server gave the transaction up in favour of another one (a serialization failure or a deadlock), so
    /// that running it again may work.
    pub fn is_conflict(&self) -> bool {
        let code = self.code();
        code == Some(&SqlState::T_R_SERIALIZATION_FAILURE) || code == Some(&SqlState::T_R_DEADLOCK_DETECTED)
    }

    /// Whether a row was asked for and there was none.
    pub fn is_no_rows(&self) -> bool {
        matches!(self.0.cause, Cause::NoRows)
    }

    /// Whether one row was asked for and there were more.
    pub fn is_too_many_rows(&self) -> bool {
        matches!(self.0.cause, Cause::TooManyRows)
    }

    /// Whether the server could not be reached, or the connection to it was lost.
    pub fn is_unreachable(&self) -> bool {
        match &self.0.cause {
            Cause::Unreachable(..) | Cause::TooSlow(_) => true,
            Cause::Postgres(error) => is_lost(error),
            _ => false,
        }
    }

    /// Whether TLS could not be agreed on: the server does not speak it, or its certificate is not to be trusted.
    #[cfg(feature = "tls")]
    pub fn is_tls(&self) -> bool {
        matches!(self.0.cause, Cause::Tls(..))
    }

    /// Whether the pool, or the listener, has been closed.
    pub fn is_closed(&self) -> bool {
        matches!(self.0.cause, Cause::Closed)
    }

    /// How far the call had come.
    pub fn step(&self) -> Step {
        self.0.step
    }

    /// The server's code, if it is the server that said no.
    pub fn code(&self) -> Option<&SqlState> {
        self.postgres()?.code()
    }

    /// The driver's error, if it is the driver's or the server's.
    pub fn postgres(&self) -> Option<&tokio_postgres::Error> {
        match &self.0.cause {
            Cause::Postgres(error) => Some(error),
            _ => None,
        }
    }

    pub(crate) fn canceled_at(step: Step, end: Canceled) -> Error {
        Error::new(step, Cause::Canceled(end))
    }

    pub(crate) fn postgres_at(step: Step, error: tokio_postgres::Error) -> Error {
        Error::new(step, Cause::Postgres(error))
    }

    pub(crate) fn unreachable(address: String, error: io::Error) -> Error {
        Error::new(Step::Connecting, Cause::Unreachable(address, error))
    }

    #[cfg(feature = "tls")]
    pub(crate) fn tls(name: &str, error: impl Into<Box<dyn error::Error + Send + Sync>>) -> Error {
        Error::new(Step::Connecting, Cause::Tls(name.to_owned(), error.into()))
    }

    pub(crate) fn too_slow(step: Step, what: &'static str) -> Error {
        Error::new(step, Cause::TooSlow(what))
    }

    pub(crate) fn settings(what: impl Into<String>) -> Error {
        Error::new(Step::Connecting, Cause::Settings(what.into()))
    }

    pub(crate) fn closed() -> Error {
        Error::new(Step::Waiting, Cause::Closed)
    }

    pub(crate) fn no_rows() -> Error {
        Error::new(Step::Reading, Cause::NoRows)
    }

    pub(crate) fn too_many_rows() -> Error {
        Error::new(Step::Reading, Cause::TooManyRows)
    }

    pub(crate) fn transaction_lost(step: Step, why: &'static str) -> Error {
        Error::new(step, Cause::TransactionLost(why))
    }

    /// The same failure; what became of what was sent is not known.
    pub(crate) fn unheard(mut self) -> Error {
        self.0.unheard = true;
        self
    }

    /// The same failure, told of another step.
    pub(crate) fn during(mut self, step: Step) -> Error {
        self.0.step = step;
        self
    }

    fn new(step: Step, cause: Cause) -> Error {
        Error(Box::new(Failure {
            step,
            cause,
            unheard: false,
        }))
    }
}

/// Whether `error` is the connection's end, and not the server's answer to a statement.
pub(crate) fn is_lost(error: &tokio_postgres::Error) -> bool {
    match error.as_db_error() {
        // The server ends the connection by an answer, as at its shutdown.
        Some(answer) => answer.severity() == "FATAL" || answer.severity() == "PANIC",
        None => error.is_closed() || source(error).is_some_and(|source| source.is::<io::Error>()),
    }
}

fn source(error: &tokio_postgres::Error) -> Option<&(dyn error::Error + 'static)> {
    error::Error::source(error)
}

impl fmt::Display for Error {
    /// One line that stands for itself: the step, and what happened there.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "postgres, {}: ", self.0.step)?;
        if self.0.unheard {
            f.write_str("not answered, it may have been done: ")?;
        }
        match &self.0.cause {
            Cause::Canceled(end) => write!(f, "{end}"),
            Cause::Postgres(error) => said(error, f),
            Cause::Unreachable(address, error) => write!(f, "{address}: {error}"),
            #[cfg(feature = "tls")]
            Cause::Tls(name, error) => write!(f, "TLS with {name}: {error}"),
            Cause::TooSlow(what) => write!(f, "no answer in time: {what}"),
            Cause::Settings(what) => f.write_str(what),
            Cause::Closed => f.write_str("it is closed"),
            Cause::NoRows => f.write_str("no row"),
            Cause::TooManyRows => f.write_str("more than one row"),
            Cause::TransactionLost(why) => write!(f, "{why}; nothing was committed"),
        }
    }
}

/// What the server said, or why the driver could not hear it; the driver itself says no more than "db error".
fn said(error: &tokio_postgres::Error, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match (error.as_db_error(), source(error)) {
        (Some(answer), _) => write!(f, "{} ({})", answer.message(), answer.code().code()),
        (None, Some(source)) => write!(f, "{error}: {source}"),
        (None, None) => write!(f, "{error}"),
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("Error");
        out.field("step", &self.0.step)
            .field("in_doubt", &self.is_in_doubt());
        match &self.0.cause {
            Cause::Canceled(end) => out.field("canceled", end),
            Cause::Postgres(error) => out.field("postgres", error),
            Cause::Unreachable(address, error) => out.field("address", address).field("system", error),
            #[cfg(feature = "tls")]
            Cause::Tls(name, error) => out.field("name", name).field("tls", error),
            Cause::TooSlow(what) => out.field("too_slow", what),
            Cause::Settings(what) => out.field("settings", what),
            Cause::Closed => out.field("closed", &true),
            Cause::NoRows => out.field("no_rows", &true),
            Cause::TooManyRows => out.field("too_many_rows", &true),
            Cause::TransactionLost(why) => out.field("transaction_lost", why),
        };
        out.finish()
    }
}

impl error::Error for Error {
    /// The context's error, the driver's, or the system's.
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match &self.0.cause {
            Cause::Canceled(end) => Some(end),
            Cause::Postgres(error) => Some(error),
            Cause::Unreachable(_, error) => Some(error),
            #[cfg(feature = "tls")]
            Cause::Tls(_, error) => Some(&**error),
            Cause::TooSlow(_)
            | Cause::Settings(_)
            | Cause::Closed
            | Cause::NoRows
            | Cause::TooManyRows
            | Cause::TransactionLost(_) => None,
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Step::Waiting => "waiting for a connection",
            Step::Connecting => "connecting",
            Step::Running => "running",
            Step::Reading => "reading rows",
            Step::Committing => "committing",
            Step::Closing => "closing",
        })
    }
}
