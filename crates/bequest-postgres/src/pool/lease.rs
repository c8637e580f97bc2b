//! What a user of a connection holds.
//!
//! # Invariants
//!
//! 1. Before anything is sent, [`Flight`] says so; it is taken back when the answer's end has been read. So a lease that
//!    is dropped at any instant, even by the drop of the user's future, knows what may still be running.
//! 2. After its context has ended, a call sends nothing more on the connection.
//! 3. A lease with anything in flight, or with an open transaction, goes to be settled, never to another user.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bequest::{Canceled, Context};
use futures_util::future::join;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, SimpleQueryMessage, Statement};

use super::Pool;
use super::place::Place;
use super::settle::settle;
use crate::cancel::NotCanceled;
use crate::connection::{Connection, Status};
use crate::error::{Error, Step, is_lost};

/// How long an idle connection may take to say that it is there.
const CHECK_LIMIT: Duration = Duration::from_secs(1);

/// A connection for one user, given back by dropping it.
#[derive(Debug)]
pub(crate) struct Lease {
    /// `None` only once it has been discarded or is being dropped.
    place: Option<Place>,
    /// How long nobody had it before.
    idle: Duration,
    flight: Flight,
}

/// What may still be under way on a connection.
#[derive(Debug, Default)]
pub(super) struct Flight {
    /// A statement was sent, and the end of its answer has not been read.
    pub(super) sent: Option<Sent>,
    /// The end of an answer comes right behind: that of an error, as a rule.
    pub(super) failed: bool,
    /// The driver has lost count of the answers: the connection is not to be used again.
    pub(super) spoilt: bool,
    /// The driver may have lost count of the answers: it is to be found out before the connection is used again.
    pub(super) uncounted: bool,
    /// A statement is being prepared. It belongs to a task of its own, since it may send more than once.
    pub(super) preparing: Option<JoinHandle<Result<Statement, tokio_postgres::Error>>>,
    /// A cancel was requested.
    pub(super) cancel: Option<JoinHandle<Result<Duration, NotCanceled>>>,
}

/// Whether the context's end, or the user's leaving, ends what was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sent {
    /// It is cancelled.
    Stoppable,
    /// A `COPY` that comes in. It is failed by the end of its data, and cancelled if that does not end it.
    ///
    /// The driver sends two ends of a request for it, and expects one answer, since the server takes no notice of the
    /// first while it copies. If it does not copy any more when it comes to it, there are two answers.
    CopyIn,
    /// It ends by itself, well or not: the words that begin and end a transaction.
    Unstoppable,
}

/// Whose end ends a statement: its own context's, and its transaction's.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted<'a> {
    pub(crate) call: &'a Context,
    pub(crate) transaction: Option<&'a Context>,
}

/// Why there is no answer.
pub(crate) enum Ended {
    /// The context had ended before anything was sent.
    Before(Canceled),
    /// The context ended afterwards; nothing was done.
    During(Canceled),
    /// The server, or the driver, said no.
    Postgres(tokio_postgres::Error),
    /// As one of the two above, but the end of the answer was not heard: it may have been done.
    Unheard(Unheard),
    /// The runtime ends, and its tasks with it.
    Closed,
}

/// Why the end of an answer was not heard.
pub(crate) enum Unheard {
    Canceled(Canceled),
    Lost(tokio_postgres::Error),
}

impl Lease {
    pub(super) fn new(place: Place) -> Lease {
        Lease {
            place: Some(place),
            idle: Duration::ZERO,
            flight: Flight::default(),
        }
    }

    pub(super) fn idle_for(mut self, idle: Duration) -> Lease {
        self.idle = idle;
        self
    }

    pub(super) fn into_place(mut self) -> Place {
        self.flight = Flight::default();
        self.place
            .take()
            .expect("a lease that was not used has its place")
    }

    /// Whether a connection that was idle for long is still there. If not, it is discarded.
    pub(super) async fn is_sound(&mut self, ctx: &Context) -> Result<bool, Error> {
        if self.idle < self.pool().options.idle_check {
            return Ok(true);
        }
        let client = self.client();
        self.flight.failed = true;
        let answer = ctx
            .run(timeout(CHECK_LIMIT, client.check_connection()))
            .await
            .map_err(|end| Error::canceled_at(Step::Waiting, end))?;
        let sound = matches!(answer, Ok(Ok(())));
        self.flight.failed = false;
        if !sound {
            self.place = None;
        }
        Ok(sound)
    }

    pub(crate) fn client(&mut self) -> Arc<Client> {
        Arc::clone(&self.connection().client)
    }

    pub(crate) fn status(&mut self) -> Status {
        self.connection().status()
    }

    /// The prepared statement for `sql`, made if this connection has not got it.
    pub(crate) async fn statement(&mut self, wanted: Wanted<'_>, sql: &str) -> Result<Statement, Ended> {
        wanted.check().map_err(Ended::Before)?;
        if let Some(statement) = self.connection().statements.get(sql) {
            return Ok(statement);
        }
        let (client, text) = (self.client(), sql.to_owned());
        let task = self
            .pool()
            .runtime
            .spawn(async move { client.prepare(&text).await });
        let preparing = self.flight.preparing.insert(task);
        let answer = wanted.run(preparing).await;
        let prepared = answer.map_err(|end| {
            self.cancel();
            Ended::During(end)
        })?;
        self.flight.preparing = None;
        match prepared {
            Ok(Ok(statement)) => {
                self.connection().statements.keep(sql, statement.clone());
                Ok(statement)
            }
            Ok(Err(error)) => Err(self.failed(wanted, error)),
            Err(_) => Err(Ended::Closed),
        }
    }

    pub(crate) fn forget_statement(&mut self, sql: &str) {
        self.connection().statements.forget(sql);
    }

    /// Runs `work`, which sends one request when it is first polled, to the end of its answer.
    ///
    /// When the context ends, what was sent is cancelled, and the server's word is waited for, for a moment: a work that
    /// succeeds then has succeeded.
    pub(crate) async fn drive<T>(
        &mut self,
        wanted: Wanted<'_>,
        sent: Sent,
        work: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T, Ended> {
        let answer = self.send(wanted, sent, work).await;
        if answer.is_ok() {
            self.finished();
        }
        answer
    }

    /// As [`drive`](Lease::drive), but more of the answer is still to be read: the statement stays in flight.
    pub(crate) async fn send<T>(
        &mut self,
        wanted: Wanted<'_>,
        sent: Sent,
        work: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T, Ended> {
        // Told with a statement that begins; and a transaction's at its beginning, since what is told within it would be
        // rolled back with it.
        let begins = wanted.transaction.is_none() && self.flight.is_over();
        let limit = if begins {
            self.connection().limit(wanted.call)
        } else {
            None
        };
        let begun = AtomicBool::new(false);
        let mut work = pin!(async {
            begun.store(true, Ordering::Relaxed);
            match limit {
                None => (None, work.await),
                Some((limit, told)) => {
                    let (told, answer) = join(told, work).await;
                    (Some((limit, told)), answer)
                }
            }
        });
        let before = self.flight.sent.replace(sent);
        let (end, answer) = match wanted.run(work.as_mut()).await {
            Ok(answer) => (wanted.err(), answer),
            Err(end) if !begun.load(Ordering::Relaxed) => {
                self.flight.sent = before;
                return Err(Ended::Before(end));
            }
            Err(end) => {
                if sent != Sent::Unstoppable {
                    self.cancel();
                }
                let patience = self.pool().options.patience;
                match timeout(patience, work).await {
                    Ok(answer) => (Some(end), answer),
                    Err(_) => return Err(Ended::Unheard(Unheard::Canceled(end))),
                }
            }
        };
        let (limited, answer) = answer;
        if let Some((limit, told)) = limited {
            self.connection().statement_timeout = told.then_some(limit);
        }
        answer.map_err(|error| {
            self.fail();
            match end {
                Some(end) if is_lost(&error) => Ended::Unheard(Unheard::Canceled(end)),
                None if is_lost(&error) => Ended::Unheard(Unheard::Lost(error)),
                Some(end) if is_end(&error) => Ended::During(end),
                _ => Ended::Postgres(error),
            }
        })
    }

    /// The end of the answer has been read.
    pub(crate) fn finished(&mut self) {
        self.flight.sent = None;
        self.flight.uncounted = false;
    }

    /// The answer has been read but for its last word, which comes right behind.
    pub(crate) fn ending(&mut self) {
        self.fail();
    }

    /// A `COPY` that comes in is about to begin. If it does not, the driver will have lost count.
    pub(crate) fn copying(&mut self) {
        self.flight.spoilt = true;
        self.flight.uncounted = true;
    }

    /// The `COPY` has begun. If it fails from here on, the driver may have lost count.
    pub(crate) fn copies(&mut self) {
        self.flight.spoilt = false;
    }

    /// The answer was an error: its end comes right behind.
    pub(crate) fn failed(&mut self, wanted: Wanted<'_>, error: tokio_postgres::Error) -> Ended {
        self.fail();
        match wanted.err() {
            Some(end) if is_end(&error) => Ended::During(end),
            _ => Ended::Postgres(error),
        }
    }

    /// Waits for the end of an answer that was an error, so that the status is the one after it.
    pub(crate) async fn catch_up(&mut self, wanted: Wanted<'_>) -> Result<(), Ended> {
        if self.flight.failed {
            let client = self.client();
            let uncounted = self.flight.uncounted;
            self.drive(wanted, Sent::Unstoppable, async {
                client.check_connection().await?;
                if uncounted {
                    is_in_step(&client).await
                } else {
                    Ok(true)
                }
            })
            .await
            .and_then(|in_step| if in_step { Ok(()) } else { Err(Ended::Closed) })?;
            self.flight.failed = false;
        }
        Ok(())
    }

    fn fail(&mut self) {
        self.flight.sent = None;
        self.flight.failed = true;
    }

    /// Cancels what is in flight, once, in the background.
    fn cancel(&mut self) {
        if self.flight.cancel.is_none() {
            let target = self.connection().target.clone();
            self.flight.cancel = Some(self.pool().request_cancel(target));
        }
    }

    fn pool(&self) -> &Arc<Pool> {
        self.place.as_ref().expect(HELD).pool()
    }

    fn connection(&mut self) -> &mut Connection {
        self.place.as_mut().and_then(Place::connection).expect(HELD)
    }
}

const HELD: &str = "a lease that is in use holds a connection";

impl Drop for Lease {
    fn drop(&mut self) {
        let Some(mut place) = self.place.take() else {
            return;
        };
        let flight = std::mem::take(&mut self.flight);
        let Some(connection) = place.connection() else {
            return;
        };
        connection.used = true;
        if connection.is_closed() {
            drop(place);
        } else if flight.is_over() && connection.status() == Status::Idle {
            let pool = Arc::clone(place.pool());
            pool.put(place);
        } else {
            let pool = Arc::clone(place.pool());
            pool.runtime
                .spawn(settle(place.settling(), flight, Instant::now()));
        }
    }
}

impl Flight {
    /// Whether it is ended by cancelling, and nothing else.
    pub(super) fn is_stoppable(&self) -> bool {
        self.sent == Some(Sent::Stoppable) || self.preparing.is_some()
    }

    fn is_over(&self) -> bool {
        self.sent.is_none()
            && !self.failed
            && !self.spoilt
            && !self.uncounted
            && self.preparing.is_none()
            && self.cancel.is_none()
    }
}

impl Wanted<'_> {
    pub(crate) fn check(&self) -> Result<(), Canceled> {
        self.err().map_or(Ok(()), Err)
    }

    pub(crate) fn err(&self) -> Option<Canceled> {
        self.call.err().or_else(|| self.transaction?.err())
    }

    pub(crate) fn is_over(&self) -> bool {
        self.call.is_done() || self.transaction.is_some_and(Context::is_done)
    }

    pub(crate) async fn run<F: Future>(&self, work: F) -> Result<F::Output, Canceled> {
        match self.transaction {
            None => self.call.run(work).await,
            Some(transaction) => self
                .call
                .run(transaction.run(work))
                .await
                .and_then(|answer| answer),
        }
    }
}

impl Ended {
    /// Of a statement that can have no effect by itself: one in a transaction, one that prepares.
    pub(crate) fn at(self, step: Step) -> Error {
        match self {
            Ended::Before(end) | Ended::During(end) | Ended::Unheard(Unheard::Canceled(end)) => {
                Error::canceled_at(step, end)
            }
            Ended::Postgres(error) | Ended::Unheard(Unheard::Lost(error)) => Error::postgres_at(step, error),
            Ended::Closed => Error::closed(),
        }
    }

    /// Of a statement that has its effect when it ends, unless `wanted` has it in a transaction.
    pub(crate) fn of(self, wanted: Wanted<'_>, step: Step) -> Error {
        let doubtful = wanted.transaction.is_none() && matches!(self, Ended::Unheard(_));
        let error = self.at(step);
        if doubtful { error.unheard() } else { error }
    }
}

/// Whether the next answer is the one to the next question, and not one that was left over.
///
/// In a transaction that has failed every question is refused, which is an answer too: what is left over is the bare end of
/// one.
pub(super) async fn is_in_step(client: &Client) -> Result<bool, tokio_postgres::Error> {
    match client.simple_query("SELECT 'in step'").await {
        Ok(answer) => Ok(answer.iter().any(|message| match message {
            SimpleQueryMessage::Row(row) => row.get(0) == Some("in step"),
            _ => false,
        })),
        Err(error) if error.code() == Some(&SqlState::IN_FAILED_SQL_TRANSACTION) => Ok(true),
        Err(error) => Err(error),
    }
}

/// Whether `error` is what the end of a context looks like to the driver.
fn is_end(error: &tokio_postgres::Error) -> bool {
    error.code() == Some(&SqlState::QUERY_CANCELED) || is_lost(error)
}
