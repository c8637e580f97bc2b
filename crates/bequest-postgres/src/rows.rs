//! Rows, one by one.

use tokio_postgres::{Row, RowStream};

use crate::error::Error;
use crate::pool::{Lease, Wanted};
use crate::reader::{LastWord, Reader};
use crate::transaction::Transaction;

/// The rows of a query as they come: from [`Database::query_stream`](crate::Database::query_stream) and
/// [`Transaction::query_stream`].
///
/// It holds a connection until the last row is read, it is dropped, or its context ends, whatever comes first; in the
/// last case even if nobody is reading. The server is told to stop if there are rows left.
///
/// Rows are not gathered: while nobody reads, the server's process waits when the socket's buffers are full, a few
/// hundred kilobytes. Such a process does not look at a cancel until its rows are taken from it; they are, and thrown away.
///
/// In a transaction, dropping it before the last row gives a statement up half-way, which rolls the whole transaction
/// back. [`close`](Rows::close) does not.
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
/// let request = ctx.with_cancel();
/// let mut rows = db.query_stream(&request, "SELECT generate_series(1, 1000000000)", &[]).await?;
/// assert_eq!(rows.next().await?.map(|row| row.get::<_, i32>(0)), Some(1));
/// request.cancel(); // the others are not wanted
/// assert!(rows.next().await.unwrap_err().is_canceled());
/// # Ok(()) }
/// ```
#[derive(Debug)]
#[must_use = "dropped, the rest of the rows is given up"]
pub struct Rows<'tx>(Reader<'tx, RowStream>);

impl<'tx> Rows<'tx> {
    pub(crate) fn new(
        wanted: Wanted<'_>,
        rows: RowStream,
        lease: Lease,
        transaction: Option<&'tx mut Transaction>,
    ) -> Rows<'tx> {
        Rows(Reader::new(wanted, rows, lease, LastWord::Read, transaction))
    }

    /// The next row, or `None` after the last one.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, no row is lost.
    ///
    /// # Errors
    ///
    /// If the context has ended before the end was read; if the server found an error. After the latter there is no row.
    pub async fn next(&mut self) -> Result<Option<Row>, Error> {
        self.0.next().await
    }

    /// Reads the rows that are left and throws them away, so that the transaction can go on.
    ///
    /// Outside of a transaction, dropping the rows is better: the server is told to stop.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, so are the rows: the server is told to stop, and the transaction is rolled back.
    ///
    /// # Errors
    ///
    /// As [`next`](Rows::next).
    ///
    /// ```
    /// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let Some(server) = bequest_test::servers::Postgres::start_or_leave_out() else { return Ok(()) };
    /// # use bequest::Context;
    /// # use bequest_postgres::Database;
    /// # let ctx = Context::background();
    /// # let db = Database::open(&ctx, &server.url()).await?;
    /// let mut tx = db.transaction(&ctx).await?;
    /// let mut rows = tx.query_stream(&ctx, "SELECT generate_series(1, 1000)", &[]).await?;
    /// assert!(rows.next().await?.is_some());
    /// rows.close().await?; // the first was enough
    /// tx.execute(&ctx, "CREATE TABLE visit (name text)", &[]).await?;
    /// tx.commit(&ctx).await?;
    /// # Ok(()) }
    /// ```
    pub async fn close(mut self) -> Result<(), Error> {
        while self.next().await?.is_some() {}
        Ok(())
    }
}
