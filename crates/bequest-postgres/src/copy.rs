//! COPY, in both directions, in pieces.

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;

use bytes::Bytes;
use futures_util::SinkExt;
use tokio_postgres::{CopyInSink, CopyOutStream};

use crate::error::{Error, Step, is_lost};
use crate::held::{Held, Owners};
use crate::pool::{Ended, Lease, Sent, Wanted};
use crate::reader::{LastWord, Reader};
use crate::transaction::Transaction;

/// A `COPY … FROM STDIN`: from [`Database::copy_in`](crate::Database::copy_in) and [`Transaction::copy_in`].
///
/// All of it or nothing: what is not finished is failed, by dropping it as well as by the context's end, and that also if
/// nobody is sending. In a transaction, that rolls the whole transaction back.
///
/// Pieces are not gathered: who sends quicker than the server takes waits for it.
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
#[must_use = "dropped, nothing of it is kept"]
pub struct CopyIn<'tx> {
    held: Held<Sink>,
    transaction: Option<&'tx mut Transaction>,
}

type Sink = Pin<Box<CopyInSink<Bytes>>>;

/// A `COPY … TO STDOUT`: from [`Database::copy_out`](crate::Database::copy_out) and [`Transaction::copy_out`].
///
/// It holds a connection until the end is read, it is dropped, or its context ends, whatever comes first; in the last case
/// even if nobody is reading. In a transaction, dropping it before its end rolls the whole transaction back. See [`CopyIn`]
/// for an example.
#[derive(Debug)]
#[must_use = "dropped, the rest of the copy is given up"]
pub struct CopyOut<'tx>(Reader<'tx, CopyOutStream>);

/// Begins a copy that comes in; it stays in flight.
pub(crate) async fn begin_in(lease: &mut Lease, wanted: Wanted<'_>, sql: &str) -> Result<Sink, Error> {
    let running = |ended: Ended| ended.at(Step::Running);
    let statement = lease.statement(wanted, sql).await.map_err(running)?;
    let client = lease.client();
    lease.copying();
    let begun = lease.send(wanted, Sent::CopyIn, client.copy_in(&statement)).await;
    let sink = Box::pin(begun.map_err(running)?);
    lease.copies();
    Ok(sink)
}

/// Begins a copy that goes out; it stays in flight.
pub(crate) async fn begin_out(
    lease: &mut Lease,
    wanted: Wanted<'_>,
    sql: &str,
) -> Result<CopyOutStream, Error> {
    let running = |ended: Ended| ended.at(Step::Running);
    let statement = lease.statement(wanted, sql).await.map_err(running)?;
    let client = lease.client();
    let begun = lease
        .send(wanted, Sent::Stoppable, client.copy_out(&statement))
        .await;
    begun.map_err(running)
}

impl<'tx> CopyIn<'tx> {
    pub(crate) fn new(
        wanted: Wanted<'_>,
        sink: Sink,
        lease: Lease,
        transaction: Option<&'tx mut Transaction>,
    ) -> CopyIn<'tx> {
        CopyIn {
            held: Held::new(wanted.into(), sink, lease),
            transaction,
        }
    }

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
        let sent = send(&self.held, piece.into()).await;
        match &mut self.transaction {
            Some(transaction) => transaction.note(sent),
            None => sent,
        }
    }

    /// Ends the copy, waits until it is kept, and returns how many rows came in.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, all of it is kept, or nothing; the caller does not learn which. In a transaction, nothing
    /// is.
    ///
    /// # Errors
    ///
    /// If the context has ended, or the server refused the data; nothing is kept then. [`Error::is_in_doubt`] if its answer
    /// did not come.
    pub async fn finish(self) -> Result<u64, Error> {
        let CopyIn { held, transaction } = self;
        let owners = held.owners();
        let Some(mut on) = held.take() else {
            return noted(transaction, Err(gone(owners)));
        };
        let wanted = owners.wanted();
        let finishing = finish(on.it.as_mut());
        let rows = on.lease.drive(wanted, Sent::CopyIn, finishing).await;
        let rows = rows.map_err(|ended| ended.of(wanted, Step::Reading));
        match transaction {
            Some(transaction) => transaction.read(&owners.call, Some(on.lease), rows).await,
            None => rows,
        }
    }
}

async fn send(held: &Held<Sink>, piece: Bytes) -> Result<(), Error> {
    let owners = held.owners();
    let Some(mut borrowed) = held.borrow() else {
        return Err(gone(owners));
    };
    let wanted = owners.wanted();
    match wanted.run(borrowed.get().it.feed(piece)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(borrowed.keep().lease.failed(wanted, error).at(Step::Reading)),
        Err(end) => {
            drop(borrowed.keep());
            Err(Error::canceled_at(Step::Reading, end))
        }
    }
}

/// Finishes the copy, and reads the answer to its very end.
///
/// The driver is content when the server has counted the rows. Outside of a transaction the commit comes after that, and
/// what it finds (a deferred constraint, a conflict) would be said to nobody.
async fn finish(mut sink: Pin<&mut CopyInSink<Bytes>>) -> Result<u64, tokio_postgres::Error> {
    let rows = sink.as_mut().finish().await?;
    match poll_fn(|task| sink.as_mut().poll_finish(task)).await {
        Err(error) if error.as_db_error().is_some() || is_lost(&error) => Err(error),
        // The bare end of the answer, which the driver does not expect here.
        Err(_) | Ok(_) => Ok(rows),
    }
}

impl<'tx> CopyOut<'tx> {
    pub(crate) fn new(
        wanted: Wanted<'_>,
        stream: CopyOutStream,
        lease: Lease,
        transaction: Option<&'tx mut Transaction>,
    ) -> CopyOut<'tx> {
        CopyOut(Reader::new(wanted, stream, lease, LastWord::Behind, transaction))
    }

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
        self.0.next().await
    }
}

impl fmt::Debug for CopyIn<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CopyIn")
            .field("held", &self.held)
            .field("transaction", &self.transaction)
            .finish()
    }
}

/// Why nothing is held any more. A copy that was not finished has left nothing.
fn gone(owners: &Owners) -> Error {
    let end = owners.wanted().err();
    end.map_or_else(Error::closed, |end| Error::canceled_at(Step::Reading, end))
}

fn noted<T>(transaction: Option<&mut Transaction>, answer: Result<T, Error>) -> Result<T, Error> {
    match transaction {
        Some(transaction) => transaction.note(answer),
        None => answer,
    }
}
