//! Reading what a statement returns as it comes: rows, or the pieces of a `COPY`.
//!
//! What lives here is the same for both: whose end ends the reading, and what becomes of the connection and of the
//! transaction. The driver takes
//! nothing more from the socket while nobody reads, so a server that is quicker than its reader waits for it.
//!
//! # Invariants
//!
//! 1. The connection comes out once, when the answer is over: by its end, or by an error in it. In all other cases it has
//!    gone to be settled.
//! 2. After the end, or an error, there is nothing more.

use std::fmt;
use std::pin::Pin;

use futures_util::{Stream, StreamExt};

use crate::error::{Error, Step};
use crate::held::{Held, Owners};
use crate::pool::{Lease, Wanted};
use crate::transaction::Transaction;

/// A stream of the driver's, on a connection.
pub(crate) struct Reader<'tx, S> {
    held: Held<Pin<Box<S>>>,
    last: LastWord,
    over: bool,
    /// To which the connection goes back.
    transaction: Option<&'tx mut Transaction>,
}

/// What the driver's stream leaves unread at its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LastWord {
    /// Nothing: it ends with the answer.
    Read,
    /// The end of the answer, which comes right behind.
    Behind,
}

impl<'tx, T, S> Reader<'tx, S>
where
    S: Stream<Item = Result<T, tokio_postgres::Error>> + Send + 'static,
{
    pub(crate) fn new(
        wanted: Wanted<'_>,
        stream: S,
        lease: Lease,
        last: LastWord,
        transaction: Option<&'tx mut Transaction>,
    ) -> Reader<'tx, S> {
        Reader {
            held: Held::new(wanted.into(), Box::pin(stream), lease),
            last,
            over: false,
            transaction,
        }
    }

    /// The next item, `None` after the last one.
    ///
    /// Nothing is lost by dropping the future.
    pub(crate) async fn next(&mut self) -> Result<Option<T>, Error> {
        let (answer, lease) = self.read().await;
        match &mut self.transaction {
            None => answer,
            Some(transaction) => {
                let call = self.held.owners().call.clone();
                transaction.read(&call, lease, answer).await
            }
        }
    }

    /// The next item; and the connection, if the answer is over.
    async fn read(&mut self) -> (Result<Option<T>, Error>, Option<Lease>) {
        if self.over {
            return (Ok(None), None);
        }
        let owners = self.held.owners();
        let Some(mut borrowed) = self.held.borrow() else {
            return (Err(gone(owners)), None);
        };
        let item = match owners.wanted().run(borrowed.get().it.next()).await {
            Ok(item) => item,
            Err(end) => {
                drop(borrowed.keep());
                return (Err(ended(owners, end)), None);
            }
        };
        match item {
            Some(Ok(item)) => (Ok(Some(item)), None),
            None => {
                self.over = true;
                let mut lease = borrowed.keep().lease;
                match self.last {
                    LastWord::Read => lease.finished(),
                    LastWord::Behind => lease.ending(),
                }
                (Ok(None), Some(lease))
            }
            Some(Err(error)) => {
                let mut lease = borrowed.keep().lease;
                let failed = lease.failed(owners.wanted(), error);
                self.over = !owners.wanted().is_over();
                (Err(failed.at(Step::Reading)), Some(lease))
            }
        }
    }
}

/// The context's end, while the statement's answer was not over.
pub(crate) fn ended(owners: &Owners, end: bequest::Canceled) -> Error {
    let error = Error::canceled_at(Step::Reading, end);
    match owners.transaction {
        Some(_) => error, // which is rolled back
        None => error.unheard(),
    }
}

/// Why nothing is held any more.
fn gone(owners: &Owners) -> Error {
    owners
        .wanted()
        .err()
        .map_or_else(Error::closed, |end| ended(owners, end))
}

impl<S> fmt::Debug for Reader<'_, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader")
            .field("held", &self.held)
            .field("over", &self.over)
            .field("transaction", &self.transaction)
            .finish()
    }
}
