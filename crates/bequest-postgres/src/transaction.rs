//! Transactions: everything, or nothing.
//!
//! # Invariants
//!
//! 1. Before a statement is sent, the server has said that the transaction is open. So no statement of a transaction runs
//!    after its end, in autocommit.
//! 2. A statement that was given up, by whomever, ends the transaction: its connection goes to be settled, which rolls
//!    back.
//! 3. `COMMIT` is sent once, and never cancelled. What is not known of it is said.

use std::ops::{Deref, DerefMut};

use bequest::{Canceled, Context};
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use crate::call;
use crate::connection::Status;
use crate::copy::{self, CopyIn, CopyOut};
use crate::error::{Error, Step};
use crate::held::{Held, On};
use crate::pool::{Ended, Lease, Sent, Wanted};
use crate::rows::Rows;

/// A transaction: from [`Database::transaction`](crate::Database::transaction).
///
/// It lives until it is committed, rolled back, dropped, or its context ends; except by the first of these it is rolled
/// back, and the connection is clean before anybody else has it. When its context ends it is rolled back even if nobody
/// is calling.
///
/// Each statement has a context of its own besides, whose end ends the whole transaction too.
///
/// # Cancel safety
///
/// If the future of a statement is dropped, the statement is cancelled and the transaction rolled back: the calls that
/// follow say so.
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
/// db.batch_execute(&ctx, "CREATE TABLE visit (name text)").await?;
/// let visits = "SELECT count(*) FROM visit";
///
/// let mut tx = db.transaction(&ctx).await?;
/// tx.execute(&ctx, "INSERT INTO visit VALUES ('ana')", &[]).await?;
/// tx.commit(&ctx).await?;
///
/// let request = ctx.with_cancel();
/// let mut tx = db.transaction(&request).await?;
/// tx.execute(&request, "INSERT INTO visit VALUES ('ben')", &[]).await?;
/// request.cancel(); // the client leaves
/// let error = tx.execute(&ctx, "INSERT INTO visit VALUES ('eve')", &[]).await.unwrap_err();
/// assert!(error.is_canceled());
/// assert!(tx.commit(&ctx).await.unwrap_err().is_canceled());
///
/// assert_eq!(db.query_one(&ctx, visits, &[]).await?.get::<_, i64>(0), 1); // ana's
/// # Ok(()) }
/// ```
#[derive(Debug)]
#[must_use = "dropped, it is rolled back"]
pub struct Transaction {
    held: Held<()>,
    /// Why it is over although its context lives.
    over: Option<Over>,
    /// What dropped savepoints have left to be done before the next statement.
    pending: String,
    /// Savepoints ever made, for their names.
    savepoints: u32,
}

#[derive(Debug)]
enum Over {
    /// A statement's own context ended.
    Canceled(Canceled),
    /// For another reason.
    Lost(&'static str),
}

const DROPPED: &str = "a statement of the transaction was dropped half-way";
const ENDED: &str = "a statement ended the transaction by itself";
const FAILED: &str = "a statement of the transaction failed before";
const CONNECTION: &str = "the transaction's connection was lost";

impl Transaction {
    pub(crate) async fn begin(ctx: &Context, mut lease: Lease) -> Result<Transaction, Error> {
        let wanted = Wanted {
            call: ctx,
            transaction: None,
        };
        let client = lease.client();
        let begun = lease
            .drive(wanted, Sent::Unstoppable, client.batch_execute("BEGIN"))
            .await;
        begun.map_err(|ended| ended.at(Step::Running))?;
        Ok(Transaction {
            held: Held::new(wanted.into(), (), lease),
            over: None,
            pending: String::new(),
            savepoints: 0,
        })
    }

    /// As [`Database::query`](crate::Database::query), in the transaction.
    ///
    /// # Cancel safety
    ///
    /// See [`Transaction`].
    ///
    /// # Errors
    ///
    /// As there; [`Error::is_transaction_lost`] if the transaction is over.
    pub async fn query(
        &mut self,
        ctx: &Context,
        sql: &str,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, Error> {
        let (mut on, owner) = self.enter(ctx).await?;
        let answer = call::query(&mut on.lease, owner.with(ctx), sql, params).await;
        self.leave(ctx, on, answer).await
    }

    /// As [`Database::query_one`](crate::Database::query_one), in the transaction.
    ///
    /// # Cancel safety
    ///
    /// See [`Transaction`].
    ///
    /// # Errors
    ///
    /// As there; [`Error::is_transaction_lost`] if the transaction is over.
    pub async fn query_one(
        &mut self,
        ctx: &Context,
        sql: &str,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<Row, Error> {
        let row = self.query_opt(ctx, sql, params).await?;
        row.ok_or_else(Error::no_rows)
    }

    /// As [`Database::query_opt`](crate::Database::query_opt), in the transaction. More than one row are read to their end,
    /// and the transaction goes on.
    ///
    /// # Cancel safety
    ///
    /// See [`Transaction`].
    ///
    /// # Errors
    ///
    /// As there; [`Error::is_transaction_lost`] if the transaction is over.
    pub async fn query_opt(
        &mut self,
        ctx: &Context,
        sql: &str,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<Option<Row>, Error> {
        let mut rows = self.query(ctx, sql, params).await?;
        match rows.len() {
            0 | 1 => Ok(rows.pop()),
            _ => Err(Error::too_many_rows()),
        }
    }

    /// As [`Database::execute`](crate::Database::execute), in the transaction.
    ///
    /// # Cancel safety
    ///
    /// See [`Transaction`].
    ///
    /// # Errors
    ///
    /// As there; [`Error::is_transaction_lost`] if the transaction is over.
    pub async fn execute(
        &mut self,
        ctx: &Context,
        sql: &str,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<u64, Error> {
        let (mut on, owner) = self.enter(ctx).await?;
        let answer = call::execute(&mut on.lease, owner.with(ctx), sql, params).await;
        self.leave(ctx, on, answer).await
    }

    /// As [`Database::batch_execute`](crate::Database::batch_execute), in the transaction. A script that ends the
    /// transaction and goes on is the script's own doing.
    ///
    /// # Cancel safety
    ///
    /// See [`Transaction`].
    ///
    /// # Errors
    ///
    /// As there; [`Error::is_transaction_lost`] if the transaction is over, or the script has ended it.
    pub async fn batch_execute(&mut self, ctx: &Context, script: &str) -> Result<(), Error> {
        let (mut on, owner) = self.enter(ctx).await?;
        let answer = call::batch_execute(&mut on.lease, owner.with(ctx), script).await;
        self.leave(ctx, on, answer).await
    }

    /// As [`Database::query_stream`](crate::Database::query_stream), in the transaction, which goes on when the last row has
    /// been read.
    ///
    /// # Cancel safety
    ///
    /// See [`Transaction`], and [`Rows`].
    ///
    /// # Errors
    ///
    /// As there; [`Error::is_transaction_lost`] if the transaction is over.
    pub async fn query_stream(
        &mut self,
        ctx: &Context,
        sql: &str,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<Rows<'_>, Error> {
        let (mut on, owner) = self.enter(ctx).await?;
        match call::query_stream(&mut on.lease, owner.with(ctx), sql, params).await {
            Ok(rows) => Ok(Rows::new(owner.with(ctx), rows, on.lease, Some(self))),
            Err(error) => self.leave(ctx, on, Err(error)).await,
        }
    }

    /// As [`Database::copy_in`](crate::Database::copy_in), in the transaction, which goes on when the copy is finished. A
    /// copy that can not begin ends it.
    ///
    /// # Cancel safety
    ///
    /// See [`Transaction`], and [`CopyIn`].
    ///
    /// # Errors
    ///
    /// As there; [`Error::is_transaction_lost`] if the transaction is over.
    pub async fn copy_in(&mut self, ctx: &Context, sql: &str) -> Result<CopyIn<'_>, Error> {
        let (mut on, owner) = self.enter(ctx).await?;
        let begun = copy::begin_in(&mut on.lease, owner.with(ctx), sql).await;
        let sink = self.note(begun)?;
        Ok(CopyIn::new(owner.with(ctx), sink, on.lease, Some(self)))
    }

    /// As [`Database::copy_out`](crate::Database::copy_out), in the transaction, which goes on when the end has been read.
    ///
    /// # Cancel safety
    ///
    /// See [`Transaction`], and [`CopyOut`].
    ///
    /// # Errors
    ///
    /// As there; [`Error::is_transaction_lost`] if the transaction is over.
    pub async fn copy_out(&mut self, ctx: &Context, sql: &str) -> Result<CopyOut<'_>, Error> {
        let (mut on, owner) = self.enter(ctx).await?;
        match copy::begin_out(&mut on.lease, owner.with(ctx), sql).await {
            Ok(stream) => Ok(CopyOut::new(owner.with(ctx), stream, on.lease, Some(self))),
            Err(error) => self.leave(ctx, on, Err(error)).await,
        }
    }

    /// Marks a point to which the transaction can go back. Inside, it is used like the transaction itself.
    ///
    /// # Cancel safety
    ///
    /// See [`Transaction`].
    ///
    /// # Errors
    ///
    /// As [`execute`](Transaction::execute).
    pub async fn savepoint(&mut self, ctx: &Context) -> Result<Savepoint<'_>, Error> {
        self.savepoints += 1;
        let name = format!("bequest_{}", self.savepoints);
        self.batch_execute(ctx, &format!("SAVEPOINT {name}")).await?;
        Ok(Savepoint {
            transaction: self,
            name,
            open: true,
        })
    }

    /// Commits.
    ///
    /// Until `COMMIT` is sent, the end of either context makes it a rollback. Afterwards it is not disturbed: if it is
    /// answered within [`Options::patience`](crate::Options::patience) after the context's end, that answer counts.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the transaction is committed or rolled back; the caller does not learn which.
    ///
    /// # Errors
    ///
    /// The context's end; a constraint found at the commit; [`Error::is_transaction_lost`]. Nothing was committed then.
    /// [`Error::is_in_doubt`] if the answer did not come: it may have been.
    pub async fn commit(mut self, ctx: &Context) -> Result<(), Error> {
        let (mut on, owner) = self
            .enter(ctx)
            .await
            .map_err(|error| error.during(Step::Committing))?;
        if on.lease.status() == Status::Failed {
            // The server would answer a `COMMIT` well, and roll back.
            return Err(Error::transaction_lost(Step::Committing, FAILED));
        }
        let client = on.lease.client();
        let committing = client.batch_execute("COMMIT");
        let answer = on
            .lease
            .drive(owner.with(ctx), Sent::Unstoppable, committing)
            .await;
        answer.map_err(|ended| match ended {
            Ended::Unheard(_) => ended.at(Step::Committing).unheard(),
            heard => heard.at(Step::Committing),
        })
    }

    /// Rolls back, and waits until it is done. Dropping the transaction does the same in the background.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, it is rolled back in the background.
    ///
    /// # Errors
    ///
    /// If the context ends, or the connection is lost, before the server has said so. Nothing is committed in any case.
    pub async fn rollback(mut self, ctx: &Context) -> Result<(), Error> {
        let (mut on, owner) = self.enter(ctx).await?;
        let client = on.lease.client();
        let rolling_back = client.batch_execute("ROLLBACK");
        let answer = on
            .lease
            .drive(owner.with(ctx), Sent::Unstoppable, rolling_back)
            .await;
        answer.map_err(|ended| ended.at(Step::Running))
    }

    /// Notes what a stream or a copy of the transaction has come to, and takes the connection back when that is over.
    pub(crate) async fn read<T>(
        &mut self,
        ctx: &Context,
        lease: Option<Lease>,
        answer: Result<T, Error>,
    ) -> Result<T, Error> {
        match lease {
            None => self.note(answer),
            Some(lease) => self.leave(ctx, On { it: (), lease }, answer).await,
        }
    }

    /// Takes the connection for one call. Unless it is left in order, the transaction is over.
    async fn enter(&mut self, ctx: &Context) -> Result<(On<()>, Owner), Error> {
        let owner = Owner(self.held.owners().call.clone());
        let Some(mut on) = self.held.take() else {
            return Err(self.end(&owner));
        };
        if let Some(end) = ctx.err() {
            self.over = Some(Over::Canceled(end.clone()));
            return Err(Error::canceled_at(Step::Running, end));
        }
        self.over = Some(Over::Lost(DROPPED));
        if !self.pending.is_empty() {
            let pending = std::mem::take(&mut self.pending);
            let answer = call::batch_execute(&mut on.lease, owner.with(ctx), &pending).await;
            self.note(answer)?;
        }
        Ok((on, owner))
    }

    /// Gives the connection back after a call, if the transaction is still open.
    async fn leave<T>(
        &mut self,
        ctx: &Context,
        mut on: On<()>,
        answer: Result<T, Error>,
    ) -> Result<T, Error> {
        let answer = self.note(answer);
        if answer.as_ref().is_err_and(|error| error.is_canceled()) {
            return answer;
        }
        let owner = Owner(self.held.owners().call.clone());
        if let Err(ended) = on.lease.catch_up(owner.with(ctx)).await {
            // The call's own error says more than that its end was not heard.
            let lost = self.note(Err(ended.at(Step::Running)));
            return answer.and(lost);
        }
        match on.lease.status() {
            Status::Transaction | Status::Failed => {
                self.over = None;
                self.held.put(on);
                answer
            }
            Status::Idle | Status::Unknown => {
                self.over = Some(Over::Lost(ENDED));
                answer
            }
        }
    }

    /// Notes why a call had no answer, in case that it is the transaction's end.
    pub(crate) fn note<T>(&mut self, answer: Result<T, Error>) -> Result<T, Error> {
        if let Err(error) = &answer {
            self.over = Some(match error.canceled() {
                Some(end) => Over::Canceled(end.clone()),
                None if error.is_unreachable() => Over::Lost(CONNECTION),
                None => Over::Lost(FAILED),
            });
        }
        answer
    }

    /// Why it is over.
    fn end(&self, owner: &Owner) -> Error {
        match (&self.over, &owner.0.err()) {
            (Some(Over::Canceled(end)), _) | (None, Some(end)) => {
                Error::canceled_at(Step::Running, end.clone())
            }
            (Some(Over::Lost(why)), _) => Error::transaction_lost(Step::Running, why),
            (None, None) => Error::transaction_lost(Step::Running, CONNECTION),
        }
    }
}

/// The context of a transaction.
struct Owner(Context);

impl Owner {
    fn with<'a>(&'a self, ctx: &'a Context) -> Wanted<'a> {
        Wanted {
            call: ctx,
            transaction: Some(&self.0),
        }
    }
}

/// A point to which a transaction can go back: from [`Transaction::savepoint`]. It is used like the transaction itself.
///
/// Dropping it goes back to it, before the next statement. A cancel does not stop at it: it ends the whole transaction.
///
/// # Example
///
/// ```
/// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let Some(server) = bequest_test::servers::Postgres::start_or_leave_out() else { return Ok(()) };
/// # use bequest::Context;
/// # use bequest_postgres::Database;
/// # let ctx = Context::background();
/// # let db = Database::open(&ctx, &server.url()).await?;
/// db.batch_execute(&ctx, "CREATE TABLE account (owner text UNIQUE)").await?;
/// let mut tx = db.transaction(&ctx).await?;
/// for owner in ["ana", "ana", "ben"] {
///     let mut point = tx.savepoint(&ctx).await?;
///     match point.execute(&ctx, "INSERT INTO account VALUES ($1)", &[&owner]).await {
///         Ok(_) => point.release(&ctx).await?,
///         Err(error) if error.is_constraint() => point.rollback(&ctx).await?,
///         Err(error) => return Err(error.into()),
///     }
/// }
/// tx.commit(&ctx).await?;
/// assert_eq!(db.query(&ctx, "SELECT owner FROM account", &[]).await?.len(), 2);
/// # Ok(()) }
/// ```
#[derive(Debug)]
#[must_use = "dropped, it is rolled back"]
pub struct Savepoint<'a> {
    transaction: &'a mut Transaction,
    name: String,
    open: bool,
}

impl Savepoint<'_> {
    /// Keeps what was done since, as a part of the transaction.
    ///
    /// # Cancel safety
    ///
    /// See [`Transaction`].
    ///
    /// # Errors
    ///
    /// As [`Transaction::execute`].
    pub async fn release(mut self, ctx: &Context) -> Result<(), Error> {
        self.open = false;
        let sql = format!("RELEASE {}", self.name);
        self.transaction.batch_execute(ctx, &sql).await
    }

    /// Undoes what was done since, also after an error.
    ///
    /// # Cancel safety
    ///
    /// See [`Transaction`].
    ///
    /// # Errors
    ///
    /// As [`Transaction::execute`].
    pub async fn rollback(mut self, ctx: &Context) -> Result<(), Error> {
        self.open = false;
        let sql = self.undo();
        self.transaction.batch_execute(ctx, &sql).await
    }

    fn undo(&self) -> String {
        format!("ROLLBACK TO {0}; RELEASE {0};", self.name)
    }
}

impl Drop for Savepoint<'_> {
    fn drop(&mut self) {
        if self.open {
            let undo = self.undo();
            self.transaction.pending.push_str(&undo);
        }
    }
}

impl Deref for Savepoint<'_> {
    type Target = Transaction;

    fn deref(&self) -> &Transaction {
        self.transaction
    }
}

impl DerefMut for Savepoint<'_> {
    fn deref_mut(&mut self) -> &mut Transaction {
        self.transaction
    }
}
