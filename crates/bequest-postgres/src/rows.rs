//! Rows, one by one.

use std::pin::Pin;

use bequest::Context;
use futures_util::StreamExt;
use tokio_postgres::{Row, RowStream};

use crate::error::{Error, Step};
use crate::held::Held;
use crate::pool::{Lease, Wanted};

/// The rows of a query, read one by one: from [`Database::query_stream`](crate::Database::query_stream).
///
/// It holds a connection until the last row is read, it is dropped, or its context ends, whatever comes first; in the
/// last case even if nobody is reading. The server is told to stop if there are rows left.
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
pub struct Rows {
    held: Held<Pin<Box<RowStream>>>,
    /// The end was read, or an error.
    over: bool,
}

impl Rows {
    pub(crate) fn new(ctx: &Context, rows: Pin<Box<RowStream>>, lease: Lease) -> Rows {
        Rows {
            held: Held::new(ctx, rows, lease),
            over: false,
        }
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
        if self.over {
            return Ok(None);
        }
        let ctx = self.held.context();
        let ended = |end| Error::canceled_at(Step::Reading, end);
        let Some(mut borrowed) = self.held.borrow() else {
            return Err(ctx.err().map_or_else(Error::closed, ended));
        };
        let item = match ctx.run(borrowed.get().it.next()).await {
            Ok(item) => item,
            Err(end) => {
                drop(borrowed.keep());
                return Err(ended(end));
            }
        };
        let wanted = Wanted {
            call: ctx,
            transaction: None,
        };
        match item {
            Some(Ok(row)) => Ok(Some(row)),
            None => {
                self.over = true;
                borrowed.keep().lease.finished();
                Ok(None)
            }
            Some(Err(error)) => {
                let failed = borrowed.keep().lease.failed(wanted, error);
                self.over = ctx.err().is_none();
                Err(failed.at(Step::Reading))
            }
        }
    }
}
