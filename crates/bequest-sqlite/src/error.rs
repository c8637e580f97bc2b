//! The one error of this crate: which step failed, and why.
//!
//! Callers decide by predicates, never by text or by SQLite's result codes: a statement that was stopped because its
//! context ended says so with the context's own error, and never as "interrupted" or "not authorized".

use std::error;
use std::fmt;
use std::path::{Path, PathBuf};

use bequest::{CancelScope, Canceled};
use rusqlite::ErrorCode;

/// Why a call on a [`Database`](crate::Database) has no answer.
///
/// # Example: whose end was it
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use bequest::{Context, Reason};
/// use bequest_sqlite::{Database, Step};
///
/// let ctx = Context::background();
/// let db = Database::temporary(&ctx).await?;
/// let request = ctx.with_cancel();
/// request.cancel_for(Reason::ClientGone);
///
/// let error = db.query_one(&request, "SELECT 1", (), |row| row.get::<_, i64>(0)).await.unwrap_err();
/// assert!(error.is_canceled());
/// assert_eq!(error.canceled().unwrap().reason(), Reason::ClientGone);
/// assert_eq!(error.step(), Step::Waiting); // nothing was begun
/// # Ok(()) }
/// ```
///
/// # Example: what SQLite refused
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # use bequest::Context;
/// # use bequest_sqlite::{Database, Step};
/// # let ctx = Context::background();
/// # let db = Database::temporary(&ctx).await?;
/// db.execute_batch(&ctx, "CREATE TABLE user (name TEXT UNIQUE); INSERT INTO user VALUES ('ana')").await?;
/// let error = db.execute(&ctx, "INSERT INTO user VALUES ('ana')", ()).await.unwrap_err();
/// assert!(error.is_constraint() && !error.is_canceled());
/// assert_eq!(error.step(), Step::Running);
/// assert_eq!(error.to_string(), "sqlite, running: UNIQUE constraint failed: user.name");
/// # Ok(()) }
/// ```
pub struct Error(Box<Failure>);

/// How far a call had come when it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Step {
    /// Opening the database file.
    Opening,
    /// Waiting for a thread or, to write, for the file's write lock. Nothing of the work has begun.
    Waiting,
    /// Running the work.
    Running,
    /// Committing. Nothing was committed; only after an I/O error of the file system nobody can know.
    Committing,
    /// Closing the database.
    Closing,
}

struct Failure {
    step: Step,
    cause: Cause,
}

enum Cause {
    /// The context ended.
    Canceled(Canceled),
    /// SQLite, or its driver, said no.
    Sqlite(rusqlite::Error),
    /// The same, about a file.
    File(PathBuf, rusqlite::Error),
    /// A thread or a folder could not be had.
    System(&'static str, std::io::Error),
    /// The database was closed.
    Closed,
    /// The work panicked with this message.
    Panicked(String),
    /// The transaction was over before the work was.
    TransactionLost,
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
    /// use bequest_sqlite::Database;
    /// use std::time::Duration;
    ///
    /// let request = Context::background().with_cancel();
    /// let db = Database::temporary(&request).await?;
    /// let step = request.with_timeout(Duration::ZERO);
    /// let error = db.query(&step, "SELECT 1", (), |row| row.get::<_, i64>(0)).await.unwrap_err();
    /// assert!(error.is_from(&step) && !error.is_from(&request));
    /// # Ok(()) }
    /// ```
    pub fn is_from(&self, scope: &CancelScope) -> bool {
        self.canceled().is_some_and(|end| end.is_from(scope))
    }

    /// Whether another connection held a lock, and did so for longer than
    /// [`Options::busy_limit`](crate::Options::busy_limit), or in a way that waiting can not resolve.
    pub fn is_busy(&self) -> bool {
        matches!(
            self.code(),
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked)
        )
    }

    /// Whether a constraint of the schema was violated.
    pub fn is_constraint(&self) -> bool {
        self.code() == Some(ErrorCode::ConstraintViolation)
    }

    /// Whether a row was asked for and there was none.
    pub fn is_no_rows(&self) -> bool {
        matches!(self.sqlite(), Some(rusqlite::Error::QueryReturnedNoRows))
    }

    /// Whether the database has been closed.
    pub fn is_closed(&self) -> bool {
        matches!(self.0.cause, Cause::Closed)
    }

    /// Whether the work panicked. What it had written was rolled back, and its thread lives on.
    pub fn is_panicked(&self) -> bool {
        matches!(self.0.cause, Cause::Panicked(_))
    }

    /// Whether the transaction was over before the work was: the work ran `COMMIT` or `ROLLBACK` itself, or went on
    /// after an error at which SQLite rolls back by itself. Nothing was committed.
    pub fn is_transaction_lost(&self) -> bool {
        matches!(self.0.cause, Cause::TransactionLost)
    }

    /// How far the call had come.
    pub fn step(&self) -> Step {
        self.0.step
    }

    /// The driver's error, if it is the driver's or SQLite's.
    pub fn sqlite(&self) -> Option<&rusqlite::Error> {
        match &self.0.cause {
            Cause::Sqlite(error) | Cause::File(_, error) => Some(error),
            _ => None,
        }
    }

    pub(crate) fn into_sqlite(self) -> Result<rusqlite::Error, Error> {
        match self.0.cause {
            Cause::Sqlite(error) => Ok(error),
            _ => Err(self),
        }
    }

    pub(crate) fn canceled_at(step: Step, end: Canceled) -> Error {
        Error::new(step, Cause::Canceled(end))
    }

    pub(crate) fn sqlite_at(step: Step, error: rusqlite::Error) -> Error {
        Error::new(step, Cause::Sqlite(error))
    }

    pub(crate) fn opening(path: &Path, error: rusqlite::Error) -> Error {
        Error::new(Step::Opening, Cause::File(path.to_owned(), error))
    }

    pub(crate) fn system(what: &'static str, error: std::io::Error) -> Error {
        Error::new(Step::Opening, Cause::System(what, error))
    }

    pub(crate) fn closed() -> Error {
        Error::new(Step::Waiting, Cause::Closed)
    }

    pub(crate) fn panicked(step: Step, message: String) -> Error {
        Error::new(step, Cause::Panicked(message))
    }

    pub(crate) fn transaction_lost() -> Error {
        Error::new(Step::Running, Cause::TransactionLost)
    }

    /// The same failure, told of another step.
    pub(crate) fn during(mut self, step: Step) -> Error {
        self.0.step = step;
        self
    }

    fn new(step: Step, cause: Cause) -> Error {
        Error(Box::new(Failure { step, cause }))
    }

    fn code(&self) -> Option<ErrorCode> {
        self.sqlite()?.sqlite_error_code()
    }
}

impl fmt::Display for Error {
    /// One line that stands for itself: the step, and what happened there.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sqlite, {}: ", self.0.step)?;
        match &self.0.cause {
            Cause::Canceled(end) => write!(f, "{end}"),
            Cause::Sqlite(error) => write!(f, "{error}"),
            // SQLite names the file in some of its messages and leaves it out of most.
            Cause::File(path, error) => match error.to_string() {
                text if text.contains(&*path.to_string_lossy()) => f.write_str(&text),
                text => write!(f, "{}: {text}", path.display()),
            },
            Cause::System(what, error) => write!(f, "{what}: {error}"),
            Cause::Closed => f.write_str("the database is closed"),
            Cause::Panicked(message) => write!(f, "the work panicked: {message}"),
            Cause::TransactionLost => {
                f.write_str("the transaction was over before the work was; nothing was committed")
            }
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("Error");
        out.field("step", &self.0.step);
        match &self.0.cause {
            Cause::Canceled(end) => out.field("canceled", end),
            Cause::Sqlite(error) => out.field("sqlite", error),
            Cause::File(path, error) => out.field("path", path).field("sqlite", error),
            Cause::System(what, error) => out.field("what", what).field("system", error),
            Cause::Closed => out.field("closed", &true),
            Cause::Panicked(message) => out.field("panicked", message),
            Cause::TransactionLost => out.field("transaction_lost", &true),
        };
        out.finish()
    }
}

impl error::Error for Error {
    /// The context's error, the driver's, or the system's.
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match &self.0.cause {
            Cause::Canceled(end) => Some(end),
            Cause::Sqlite(error) | Cause::File(_, error) => Some(error),
            Cause::System(_, error) => Some(error),
            Cause::Closed | Cause::Panicked(_) | Cause::TransactionLost => None,
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Step::Opening => "opening",
            Step::Waiting => "waiting",
            Step::Running => "running",
            Step::Committing => "committing",
            Step::Closing => "closing",
        })
    }
}
