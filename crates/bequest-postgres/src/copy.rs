//! COPY, in both directions, in pieces.

use std::fmt;
use std::pin::Pin;

use bequest::Context;
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use tokio_postgres::{CopyInSink, CopyOutStream};

use crate::error::{Error, Step};
use crate::held::Held;
use crate::pool::{Lease, Sent, Wanted};

/// A `COPY … FROM STDIN`: from [`Database::copy_in`](crate::Database::copy_in).
///
/// All of it or nothing: what is not finished is failed, by dropping it as well as by the context's end, and that also if
/// nobody is sending.
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
/// db.batch_execute(&ctx, "CREATE TABLE visit (name text, cents int)").await?;
///
/// let mut copy = db.copy_in(&ctx, "COPY visit FROM STDIN").await?;
/// copy.send("ana\t70\n").await?;
/// copy.send("ben\t30\n").await?;
/// assert_eq!(copy.finish().await?, 2);
///
/// let mut copy = db.copy_out(&ctx, "COPY (SELECT * FROM visit ORDER BY cents) TO STDOUT").await?;
/// let mut text = Vec::new();
/// while let Some(piece) = copy.next().await? {
///     text.extend_from_slice(&piece);
/// }
/// assert_eq!(text, b"ben\t30\nana\t70\n");
/// # Ok(()) }
/// ```
pub struct CopyIn(Held<Pin<Box<CopyInSink<Bytes>>>>);

/// A `COPY … TO STDOUT`: from [`Database::copy_out`](crate::Database::copy_out).
///
/// It holds a connection until the end is read, it is dropped, or its context ends, whatever comes first; in the last case
/// even if nobody is reading. See [`CopyIn`] for an example.
pub struct CopyOut {
    held: Held<Pin<Box<CopyOutStream>>>,
    /// The end was read, or an error.
    over: bool,
}

pub(crate) async fn copy_in(ctx: &Context, mut lease: Lease, sql: &str) -> Result<CopyIn, Error> {
    let wanted = alone(ctx);
    let running = |ended: crate::pool::Ended| ended.at(Step::Running);
    let statement = lease.statement(wanted, sql).await.map_err(running)?;
    let client = lease.client();
    // Until the server has begun to copy, an error makes it answer once more than the driver expects.
    lease.spoil(true);
    let begun = lease.send(wanted, Sent::CopyIn, client.copy_in(&statement)).await;
    let sink = Box::pin(begun.map_err(running)?);
    lease.spoil(false);
    Ok(CopyIn(Held::new(ctx, sink, lease)))
}

pub(crate) async fn copy_out(ctx: &Context, mut lease: Lease, sql: &str) -> Result<CopyOut, Error> {
    let wanted = alone(ctx);
    let running = |ended: crate::pool::Ended| ended.at(Step::Running);
    let statement = lease.statement(wanted, sql).await.map_err(running)?;
    let client = lease.client();
    let begun = lease
        .send(wanted, Sent::Stoppable, client.copy_out(&statement))
        .await;
    let stream = Box::pin(begun.map_err(running)?);
    Ok(CopyOut {
        held: Held::new(ctx, stream, lease),
        over: false,
    })
}

impl CopyIn {
    /// Sends a piece; pieces need not end where lines do.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the piece was not sent, and may be sent again.
    ///
    /// # Errors
    ///
    /// If the context has ended, or the connection was lost. Nothing is kept then. What the server finds wrong with the
    /// data is said by [`finish`](CopyIn::finish).
    pub async fn send(&mut self, piece: impl Into<Bytes>) -> Result<(), Error> {
        let ctx = self.0.context();
        let Some(mut borrowed) = self.0.borrow() else {
            return Err(over(ctx));
        };
        match ctx.run(borrowed.get().it.feed(piece.into())).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(borrowed.keep().lease.failed(alone(ctx), error).at(Step::Reading)),
            Err(end) => {
                drop(borrowed.keep());
                Err(Error::canceled_at(Step::Reading, end))
            }
        }
    }

    /// Ends the copy, and returns how many rows came in.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, all of it is kept, or nothing; the caller does not learn which.
    ///
    /// # Errors
    ///
    /// If the context has ended, or the server refused the data; nothing is kept then.
    pub async fn finish(self) -> Result<u64, Error> {
        let ctx = self.0.context();
        let mut on = self.0.take().ok_or_else(|| over(ctx))?;
        let finishing = on.it.as_mut().finish();
        let rows = on.lease.drive(alone(ctx), Sent::CopyIn, finishing).await;
        rows.map_err(|ended| ended.at(Step::Reading))
    }
}

impl CopyOut {
    /// The next piece, or `None` after the last one.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, nothing is lost.
    ///
    /// # Errors
    ///
    /// If the context has ended before the end was read; if the server found an error. After the latter there is no more.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        if self.over {
            return Ok(None);
        }
        let ctx = self.held.context();
        let Some(mut borrowed) = self.held.borrow() else {
            return Err(over(ctx));
        };
        match ctx.run(borrowed.get().it.next()).await {
            Ok(Some(Ok(piece))) => Ok(Some(piece)),
            Ok(None) => {
                self.over = true;
                // The last word of the answer comes right behind.
                borrowed.keep().lease.ending();
                Ok(None)
            }
            Ok(Some(Err(error))) => {
                let failed = borrowed.keep().lease.failed(alone(ctx), error);
                self.over = ctx.err().is_none();
                Err(failed.at(Step::Reading))
            }
            Err(end) => {
                drop(borrowed.keep());
                Err(Error::canceled_at(Step::Reading, end))
            }
        }
    }
}

impl fmt::Debug for CopyIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("CopyIn").field(&self.0).finish()
    }
}

impl fmt::Debug for CopyOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CopyOut")
            .field("held", &self.held)
            .field("over", &self.over)
            .finish()
    }
}

/// Outside of any transaction.
fn alone(ctx: &Context) -> Wanted<'_> {
    Wanted {
        call: ctx,
        transaction: None,
    }
}

/// Why nothing is held any more.
fn over(ctx: &Context) -> Error {
    ctx.err()
        .map_or_else(Error::closed, |end| Error::canceled_at(Step::Reading, end))
}
