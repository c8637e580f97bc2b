//! The handle and its calls.

use std::fmt;
use std::sync::Arc;

use bequest::Context;
use tokio_postgres::Row;
use tokio_postgres::types::{ToSql, Type};

use crate::call;
use crate::connection;
use crate::copy::{self, CopyIn, CopyOut};
use crate::error::Error;
use crate::listen::Listener;
use crate::options::Options;
use crate::pool::{Pool, Wanted};
use crate::rows::Rows;
use crate::statistics::Statistics;
use crate::transaction::Transaction;

/// A PostgreSQL database whose queries stop when their context does.
///
/// A handle to a pool of connections: clone it freely, use it from any task. Every call takes the context first, has one
/// connection to itself, and is served in the order in which it came; the time spent waiting is part of the context's
/// budget. It belongs to the tokio runtime on which it was opened.
///
/// # Cancel safety
///
/// The same for every call. When the context ends: a call that waits for a connection leaves, and nothing of it was sent;
/// a call that runs is cancelled on the server. It is answered when the server has said what became of it, or after
/// [`Options::patience`], whatever comes first. If the statement was quicker than the cancel, its answer is the
/// statement's.
///
/// If the future is dropped, the same happens in the background.
///
/// Statements run in autocommit: one that was cancelled has changed nothing, unless its error says that it is in doubt
/// ([`Error::is_in_doubt`]).
///
/// # Example
///
/// ```
/// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let Some(server) = bequest_test::servers::Postgres::start_or_leave_out() else { return Ok(()) };
/// use bequest::Context;
/// use bequest_postgres::Database;
///
/// let ctx = Context::background();
/// let db = Database::open(&ctx, &server.url()).await?;
/// db.batch_execute(&ctx, "CREATE TABLE account (owner text PRIMARY KEY, cents int NOT NULL)").await?;
/// db.execute(&ctx, "INSERT INTO account VALUES ($1, $2)", &[&"ana", &70]).await?;
///
/// let row = db.query_one(&ctx, "SELECT cents FROM account WHERE owner = $1", &[&"ana"]).await?;
/// assert_eq!(row.get::<_, i32>(0), 70);
/// assert!(db.query_opt(&ctx, "SELECT cents FROM account WHERE owner = $1", &[&"ben"]).await?.is_none());
///
/// let twice = db.execute(&ctx, "INSERT INTO account VALUES ($1, 0)", &[&"ana"]).await.unwrap_err();
/// assert!(twice.is_constraint());
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Database {
    pool: Arc<Pool>,
}

/// Opening and closing.
impl Database {
    /// Makes the first connection to the database at `url`, and a pool around it.
    ///
    /// [`Options`] has settings.
    ///
    /// # Errors
    ///
    /// As [`Options::from_url`] and [`Options::open`].
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    ///
    /// ```
    /// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use bequest::Context;
    /// use bequest_postgres::{Database, Step};
    ///
    /// let nobody_there = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    /// let url = format!("postgres://ana@{nobody_there}/shop");
    /// let error = Database::open(&Context::background(), &url).await.unwrap_err();
    /// assert!(error.is_unreachable());
    /// assert_eq!(error.step(), Step::Connecting);
    /// # Ok(()) }
    /// ```
    pub async fn open(ctx: &Context, url: &str) -> Result<Database, Error> {
        Options::from_url(url)?.open(ctx).await
    }

    /// Refuses new calls and those that wait ([`Error::is_closed`]), and waits until all connections are given back and
    /// closed.
    ///
    /// Closing a closed database is well.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the database stays closed to new calls, and nothing is cut short.
    ///
    /// # Errors
    ///
    /// If `ctx` ended first: calls that run go on until their own contexts end.
    pub async fn close(&self, ctx: &Context) -> Result<(), Error> {
        self.pool.close(ctx).await
    }

    pub(crate) async fn start(ctx: &Context, options: Options) -> Result<Database, Error> {
        let options = options.ready()?;
        connection::check(&options)?;
        let pool = Pool::new(options);
        // Given back at once: the first caller has it.
        drop(pool.acquire(ctx).await?);
        Ok(Database { pool })
    }
}

/// Calls.
impl Database {
    /// Runs a query and collects its rows.
    ///
    /// The statement is prepared when a connection meets it for the first time, and kept.
    ///
    /// # Cancel safety
    ///
    /// See [`Database`].
    ///
    /// # Errors
    ///
    /// The context's end; what the server or the driver refused; the pool being closed.
    pub async fn query(
        &self,
        ctx: &Context,
        sql: &str,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, Error> {
        let mut lease = self.pool.acquire(ctx).await?;
        call::query(&mut lease, alone(ctx), sql, params).await
    }

    /// Runs a query and returns its only row.
    ///
    /// # Cancel safety
    ///
    /// See [`Database`].
    ///
    /// # Errors
    ///
    /// As [`query`](Database::query); [`Error::is_no_rows`]; [`Error::is_too_many_rows`].
    pub async fn query_one(
        &self,
        ctx: &Context,
        sql: &str,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<Row, Error> {
        let mut lease = self.pool.acquire(ctx).await?;
        call::query_one(&mut lease, alone(ctx), sql, params).await
    }

    /// As [`query_one`](Database::query_one), with `None` if there is no row.
    ///
    /// # Cancel safety
    ///
    /// See [`Database`].
    ///
    /// # Errors
    ///
    /// As [`query`](Database::query); [`Error::is_too_many_rows`].
    pub async fn query_opt(
        &self,
        ctx: &Context,
        sql: &str,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<Option<Row>, Error> {
        let mut lease = self.pool.acquire(ctx).await?;
        call::query_opt(&mut lease, alone(ctx), sql, params).await
    }

    /// Begins a query whose rows are read one by one, under the same context.
    ///
    /// # Cancel safety
    ///
    /// See [`Database`], and [`Rows`].
    ///
    /// # Errors
    ///
    /// As [`query`](Database::query).
    pub async fn query_stream(
        &self,
        ctx: &Context,
        sql: &str,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<Rows<'static>, Error> {
        let mut lease = self.pool.acquire(ctx).await?;
        let rows = call::query_stream(&mut lease, alone(ctx), sql, params).await?;
        Ok(Rows::new(alone(ctx), rows, lease, None))
    }

    /// Runs a statement and returns how many rows it changed.
    ///
    /// # Cancel safety
    ///
    /// See [`Database`].
    ///
    /// # Errors
    ///
    /// As [`query`](Database::query).
    pub async fn execute(
        &self,
        ctx: &Context,
        sql: &str,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<u64, Error> {
        let mut lease = self.pool.acquire(ctx).await?;
        call::execute(&mut lease, alone(ctx), sql, params).await
    }

    /// Runs a script: statements without parameters, separated by semicolons, in one transaction unless the script says
    /// otherwise. A transaction that it leaves open is rolled back.
    ///
    /// # Cancel safety
    ///
    /// See [`Database`].
    ///
    /// # Errors
    ///
    /// As [`query`](Database::query).
    pub async fn batch_execute(&self, ctx: &Context, script: &str) -> Result<(), Error> {
        let mut lease = self.pool.acquire(ctx).await?;
        call::batch_execute(&mut lease, alone(ctx), script).await
    }

    /// Has a statement prepared, so that it is checked, and returns the types of its parameters.
    ///
    /// Calls need not be prepared: each connection prepares what it meets, and keeps it
    /// ([`Options::statements`]).
    ///
    /// # Cancel safety
    ///
    /// See [`Database`].
    ///
    /// # Errors
    ///
    /// As [`query`](Database::query).
    pub async fn prepare(&self, ctx: &Context, sql: &str) -> Result<Vec<Type>, Error> {
        let mut lease = self.pool.acquire(ctx).await?;
        let statement = call::prepare(&mut lease, alone(ctx), sql).await?;
        Ok(statement.params().to_vec())
    }

    /// Begins a `COPY … FROM STDIN`, under the same context.
    ///
    /// # Cancel safety
    ///
    /// See [`Database`], and [`CopyIn`].
    ///
    /// # Errors
    ///
    /// As [`query`](Database::query).
    pub async fn copy_in(&self, ctx: &Context, sql: &str) -> Result<CopyIn<'static>, Error> {
        let mut lease = self.pool.acquire(ctx).await?;
        let sink = copy::begin_in(&mut lease, alone(ctx), sql).await?;
        Ok(CopyIn::new(alone(ctx), sink, lease, None))
    }

    /// Begins a `COPY … TO STDOUT`, under the same context.
    ///
    /// # Cancel safety
    ///
    /// See [`Database`], and [`CopyOut`].
    ///
    /// # Errors
    ///
    /// As [`query`](Database::query).
    pub async fn copy_out(&self, ctx: &Context, sql: &str) -> Result<CopyOut<'static>, Error> {
        let mut lease = self.pool.acquire(ctx).await?;
        let stream = copy::begin_out(&mut lease, alone(ctx), sql).await?;
        Ok(CopyOut::new(alone(ctx), stream, lease, None))
    }

    /// Listens to `channels`, on a connection of its own. `ctx` is for the beginning only.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the connection is closed.
    ///
    /// # Errors
    ///
    /// If the server can not be reached or says no; if `ctx` ends before.
    pub async fn listen(&self, ctx: &Context, channels: &[&str]) -> Result<Listener, Error> {
        Listener::open(ctx, &self.pool.options, channels).await
    }

    /// Begins a transaction, which lives until it is committed, rolled back, dropped, or `ctx` ends.
    ///
    /// # Cancel safety
    ///
    /// See [`Database`]. Nothing is left open.
    ///
    /// # Errors
    ///
    /// As [`query`](Database::query).
    pub async fn transaction(&self, ctx: &Context) -> Result<Transaction, Error> {
        let lease = self.pool.acquire(ctx).await?;
        Transaction::begin(ctx, lease).await
    }

    /// What the pool is doing now and has done since it was opened.
    pub fn statistics(&self) -> Statistics {
        self.pool.statistics()
    }
}

/// Outside of any transaction.
fn alone(ctx: &Context) -> Wanted<'_> {
    Wanted {
        call: ctx,
        transaction: None,
    }
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Database")
            .field("statistics", &self.statistics())
            .finish_non_exhaustive()
    }
}
