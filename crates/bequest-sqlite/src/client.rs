//! The handle and its calls.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bequest::Context;
use rusqlite::{Connection, Params, Row, Transaction};

use crate::call::call;
use crate::error::Error;
use crate::options::{Options, Settings};
use crate::pool::Pool;
use crate::statistics::Statistics;

/// A SQLite database whose statements stop when their context does.
///
/// A handle: clone it freely, use it from any thread and any executor. One thread writes, several read, each with a
/// connection of its own. Every call takes the context first. Calls are served in the order in which they came; the
/// time spent waiting is part of the context's budget.
///
/// # Cancel safety
///
/// The same for every call. When the context ends, or when the future is dropped: a call that waits is taken out of
/// the queue, and nothing of it runs; a call that runs is stopped, and if it writes, rolled back. A call whose context
/// ended is answered when its work has stopped, not before: after the answer nothing of it runs any more. If the
/// work had ended well before the context did, the answer is the work's.
///
/// # Closing
///
/// When the last handle is dropped, the threads end by themselves. [`close`](Database::close) waits for that.
///
/// # Example
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use bequest::Context;
/// use bequest_sqlite::Database;
///
/// let ctx = Context::background();
/// let db = Database::temporary(&ctx).await?;
/// db.execute_batch(&ctx, "CREATE TABLE account (owner TEXT PRIMARY KEY, cents INTEGER NOT NULL)").await?;
///
/// db.write(&ctx, |tx| {
///     tx.execute("INSERT INTO account VALUES ('ana', 70)", ())?;
///     tx.execute("INSERT INTO account VALUES ('ben', 30)", ())
/// }).await?;
/// let sum: i64 = db.read(&ctx, |conn| {
///     conn.query_row("SELECT sum(cents) FROM account", (), |row| row.get(0))
/// }).await?;
/// assert_eq!(sum, 100);
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Database {
    pool: Arc<Pool>,
}

/// Opening and closing.
impl Database {
    /// Opens the database in the file at `path`, making the file if it is not there.
    ///
    /// [`Options`] has settings.
    ///
    /// # Errors
    ///
    /// As [`Options::open`].
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// use bequest::Context;
    /// use bequest_sqlite::{Database, Step};
    ///
    /// let error = Database::open(&Context::background(), "/nowhere/at all.sqlite").await.unwrap_err();
    /// assert_eq!(error.step(), Step::Opening);
    /// assert!(error.to_string().contains("/nowhere/at all.sqlite"));
    /// # }
    /// ```
    pub async fn open(ctx: &Context, path: impl Into<PathBuf>) -> Result<Database, Error> {
        Options::new(path).open(ctx).await
    }

    /// Opens a new database that is removed after its last handle; see [`Options::temporary`].
    ///
    /// # Errors
    ///
    /// As [`Options::temporary`] and [`Options::open`].
    pub async fn temporary(ctx: &Context) -> Result<Database, Error> {
        Options::temporary()?.open(ctx).await
    }

    /// The database's file.
    pub fn path(&self) -> &Path {
        self.pool.path()
    }

    /// Refuses new calls, lets those accepted end, empties the write-ahead log into the file, and ends the threads.
    ///
    /// If `ctx` ends first, calls that wait are refused ([`Error::is_closed`]), calls that run end with
    /// [`Reason::Shutdown`](bequest::Reason::Shutdown), and the threads end as soon as their work lets go.
    ///
    /// Closing a closed database is well.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the database stays closed to new calls, and nothing is cut short. Another `close`, or
    /// dropping the last handle, goes on from there.
    ///
    /// # Errors
    ///
    /// If `ctx` ended first, or if the log could not be emptied because another process reads it
    /// ([`Error::is_busy`]); it is then kept beside the file, and nothing is lost.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use bequest::Context;
    /// # use bequest_sqlite::Database;
    /// let ctx = Context::background();
    /// let db = Database::temporary(&ctx).await?;
    /// db.close(&ctx).await?;
    /// assert_eq!(db.statistics().writer.threads, 0);
    /// assert!(db.execute(&ctx, "SELECT 1", ()).await.unwrap_err().is_closed());
    /// # Ok(()) }
    /// ```
    pub async fn close(&self, ctx: &Context) -> Result<(), Error> {
        self.pool.close(ctx).await
    }

    pub(crate) async fn start(ctx: &Context, settings: Settings, readers: usize) -> Result<Database, Error> {
        Ok(Database {
            pool: Arc::new(Pool::start(ctx, settings, readers).await?),
        })
    }
}

/// Calls.
impl Database {
    /// Runs `work` on a reading thread.
    ///
    /// The connection is read-only and in autocommit: each statement sees the newest state. For several statements on one
    /// snapshot begin a transaction (`conn.unchecked_transaction()`); it is ended with the work.
    ///
    /// # Cancel safety
    ///
    /// See [`Database`]. A result of which a cancel cut anything off is an error, even if the work swallowed it.
    ///
    /// # Errors
    ///
    /// What the work returned; the context's end; a panic of the work; the database being closed.
    ///
    /// # Example: a query that would run for ever
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use bequest::{Context, Kind};
    /// use bequest_sqlite::{Database, Step};
    /// use std::time::Duration;
    ///
    /// const ENDLESS: &str = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n";
    ///
    /// let ctx = Context::background();
    /// let db = Database::temporary(&ctx).await?;
    /// let limited = ctx.with_timeout(Duration::from_millis(20));
    /// let error = db.read(&limited, |conn| conn.query_row(ENDLESS, (), |row| row.get::<_, i64>(0))).await.unwrap_err();
    /// assert_eq!(*error.canceled().unwrap(), Kind::DeadlineExceeded);
    /// assert_eq!(error.step(), Step::Running);
    /// assert_eq!(db.statistics().running(), 0); // it is not merely given up: it has stopped
    /// # Ok(()) }
    /// ```
    pub async fn read<T, F>(&self, ctx: &Context, work: F) -> Result<T, Error>
    where
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
        T: Send + 'static,
    {
        call(&self.pool.readers, ctx, "sqlite read", |engine, ctx| {
            engine.read(ctx, work)
        })
        .await
    }

    /// Runs `work` on the writing thread, in a transaction.
    ///
    /// The transaction begins with the write lock in hand (`BEGIN IMMEDIATE`), so it never fails half-way for want of it.
    /// It commits if the work returns `Ok` and the context still lives; in any other case it rolls back. The work can
    /// not commit by itself, and no statement of it ever runs in autocommit. Savepoints are free to use. `VACUUM` and a few
    /// pragmas do not work inside a transaction.
    ///
    /// # Cancel safety
    ///
    /// See [`Database`]. A cancel is a rollback, and the error says cancelled. If the commit was first, the answer is
    /// `Ok`. If the future was dropped, the caller does not learn which of the two it was.
    ///
    /// # Errors
    ///
    /// What the work returned; the context's end; a panic of the work; a constraint found at the commit; a lock held by
    /// another process for too long; a transaction that the work ended by itself ([`Error::is_transaction_lost`]); the
    /// database being closed. Nothing was written then.
    ///
    /// # Example: a cancel is a rollback
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use bequest::Context;
    /// # use bequest_sqlite::{Database, Step};
    /// let ctx = Context::background();
    /// let db = Database::temporary(&ctx).await?;
    /// db.execute_batch(&ctx, "CREATE TABLE t (x)").await?;
    ///
    /// let request = ctx.with_cancel();
    /// let client = request.canceller();
    /// let error = db.write(&request, move |tx| {
    ///     tx.execute("INSERT INTO t VALUES (1)", ())?;
    ///     client.cancel(); // the client leaves just now
    ///     Ok(())
    /// }).await.unwrap_err();
    /// assert!(error.is_canceled());
    /// assert_eq!(error.step(), Step::Committing);
    /// assert_eq!(db.query_one(&ctx, "SELECT count(*) FROM t", (), |row| row.get::<_, i64>(0)).await?, 0);
    /// # Ok(()) }
    /// ```
    pub async fn write<T, F>(&self, ctx: &Context, work: F) -> Result<T, Error>
    where
        F: FnOnce(&Transaction<'_>) -> rusqlite::Result<T> + Send + 'static,
        T: Send + 'static,
    {
        call(&self.pool.writer, ctx, "sqlite write", |engine, ctx| {
            engine.write(ctx, work)
        })
        .await
    }

    /// Runs a query on a reading thread and collects what `map` makes of its rows.
    ///
    /// # Cancel safety
    ///
    /// As [`read`](Database::read).
    ///
    /// # Errors
    ///
    /// As [`read`](Database::read).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use bequest::Context;
    /// # let ctx = Context::background();
    /// # let db = bequest_sqlite::Database::temporary(&ctx).await?;
    /// let letters = db.query(&ctx, "VALUES ('a'), (?1)", ["b"], |row| row.get::<_, String>(0)).await?;
    /// assert_eq!(letters, ["a", "b"]);
    /// # Ok(()) }
    /// ```
    pub async fn query<T, P, M>(&self, ctx: &Context, sql: &str, params: P, map: M) -> Result<Vec<T>, Error>
    where
        P: Params + Send + 'static,
        M: FnMut(&Row<'_>) -> rusqlite::Result<T> + Send + 'static,
        T: Send + 'static,
    {
        let sql = sql.to_owned();
        self.read(ctx, move |conn| {
            conn.prepare(&sql)?.query_map(params, map)?.collect()
        })
        .await
    }

    /// Runs a query on a reading thread and returns what `map` makes of its first row.
    ///
    /// # Cancel safety
    ///
    /// As [`read`](Database::read).
    ///
    /// # Errors
    ///
    /// As [`read`](Database::read); [`Error::is_no_rows`] if there is no row.
    pub async fn query_one<T, P, M>(&self, ctx: &Context, sql: &str, params: P, map: M) -> Result<T, Error>
    where
        P: Params + Send + 'static,
        M: FnOnce(&Row<'_>) -> rusqlite::Result<T> + Send + 'static,
        T: Send + 'static,
    {
        let sql = sql.to_owned();
        self.read(ctx, move |conn| conn.query_row(&sql, params, map))
            .await
    }

    /// As [`query_one`](Database::query_one), with `None` if there is no row.
    ///
    /// # Cancel safety
    ///
    /// As [`read`](Database::read).
    ///
    /// # Errors
    ///
    /// As [`read`](Database::read).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use bequest::Context;
    /// # let ctx = Context::background();
    /// # let db = bequest_sqlite::Database::temporary(&ctx).await?;
    /// let sql = "SELECT 'x' WHERE ?1";
    /// assert_eq!(db.query_opt(&ctx, sql, [true], |row| row.get::<_, String>(0)).await?.as_deref(), Some("x"));
    /// assert_eq!(db.query_opt(&ctx, sql, [false], |row| row.get::<_, String>(0)).await?, None);
    /// assert!(db.query_one(&ctx, sql, [false], |row| row.get::<_, String>(0)).await.unwrap_err().is_no_rows());
    /// # Ok(()) }
    /// ```
    pub async fn query_opt<T, P, M>(
        &self,
        ctx: &Context,
        sql: &str,
        params: P,
        map: M,
    ) -> Result<Option<T>, Error>
    where
        P: Params + Send + 'static,
        M: FnOnce(&Row<'_>) -> rusqlite::Result<T> + Send + 'static,
        T: Send + 'static,
    {
        match self.query_one(ctx, sql, params, map).await {
            Ok(value) => Ok(Some(value)),
            Err(error) if error.is_no_rows() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Runs one statement on the writing thread, in a transaction of its own, and returns how many rows it changed.
    ///
    /// # Cancel safety
    ///
    /// As [`write`](Database::write).
    ///
    /// # Errors
    ///
    /// As [`write`](Database::write).
    pub async fn execute<P>(&self, ctx: &Context, sql: &str, params: P) -> Result<usize, Error>
    where
        P: Params + Send + 'static,
    {
        let sql = sql.to_owned();
        self.write(ctx, move |tx| tx.execute(&sql, params)).await
    }

    /// Runs a script on the writing thread, in one transaction: whole, or not at all.
    ///
    /// The context is looked at before each statement and, as ever, within them.
    ///
    /// # Cancel safety
    ///
    /// As [`write`](Database::write).
    ///
    /// # Errors
    ///
    /// As [`write`](Database::write).
    pub async fn execute_batch(&self, ctx: &Context, script: &str) -> Result<(), Error> {
        let script = script.to_owned();
        self.write(ctx, move |tx| tx.execute_batch(&script)).await
    }

    /// What the threads are doing now and have done since the database was opened. Opening is the writer's first call.
    ///
    /// The numbers of one lane are taken at one instant.
    pub fn statistics(&self) -> Statistics {
        Statistics {
            readers: self.pool.readers.numbers(),
            writer: self.pool.writer.numbers(),
        }
    }
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Database")
            .field("path", &self.path())
            .field("statistics", &self.statistics())
            .finish_non_exhaustive()
    }
}
