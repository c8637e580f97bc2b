//! The calls, on a connection that is already there: the same for a pool, a transaction and a savepoint.
//!
//! What a call waits for is pinned where it is made, so that half a kilobyte of future is not moved from hand to hand at
//! every query.

use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::TryStreamExt;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Row, RowStream, Statement};

use crate::error::{Error, Step};
use crate::pool::{Ended, Lease, Sent, Wanted};

/// The parameters of a statement, as the driver takes them.
pub(crate) type Params<'a> = &'a [&'a (dyn ToSql + Sync)];

/// Prepares `sql`, or finds it prepared.
pub(crate) async fn prepare(lease: &mut Lease, wanted: Wanted<'_>, sql: &str) -> Result<Statement, Error> {
    lease
        .statement(wanted, sql)
        .await
        .map_err(|ended| ended.at(Step::Running))
}

/// Runs a query and collects its rows.
pub(crate) async fn query(
    lease: &mut Lease,
    wanted: Wanted<'_>,
    sql: &str,
    params: Params<'_>,
) -> Result<Vec<Row>, Error> {
    loop {
        let statement = prepare(lease, wanted, sql).await?;
        let client = lease.client();
        let reading = AtomicBool::new(false);
        let work = pin!(async {
            let mut rows = pin!(client.query_raw(&statement, params.iter().copied()).await?);
            let mut collected = Vec::new();
            while let Some(row) = rows.try_next().await? {
                reading.store(true, Ordering::Relaxed);
                collected.push(row);
            }
            Ok(collected)
        });
        match lease.drive(wanted, Sent::Stoppable, work).await {
            Err(ended) if is_stale(lease, wanted, sql, &ended) => {}
            answer => return answer.map_err(|ended| ended.of(wanted, step(&reading))),
        }
    }
}

/// Runs a query and returns its only row, or `None`.
pub(crate) async fn query_opt(
    lease: &mut Lease,
    wanted: Wanted<'_>,
    sql: &str,
    params: Params<'_>,
) -> Result<Option<Row>, Error> {
    loop {
        let statement = prepare(lease, wanted, sql).await?;
        let client = lease.client();
        let reading = AtomicBool::new(false);
        let work = pin!(async {
            let mut rows = pin!(client.query_raw(&statement, params.iter().copied()).await?);
            let first = rows.try_next().await?;
            reading.store(first.is_some(), Ordering::Relaxed);
            // The end of the rows is read too, unless there is another row: then the rest is not wanted.
            let more = first.is_some() && rows.try_next().await?.is_some();
            Ok((first, more))
        });
        match lease.send(wanted, Sent::Stoppable, work).await {
            Ok((_, true)) => return Err(Error::too_many_rows()),
            Ok((row, false)) => {
                lease.finished();
                return Ok(row);
            }
            Err(ended) if is_stale(lease, wanted, sql, &ended) => {}
            Err(ended) => return Err(ended.of(wanted, step(&reading))),
        }
    }
}

/// As [`query_opt`], but there must be a row.
pub(crate) async fn query_one(
    lease: &mut Lease,
    wanted: Wanted<'_>,
    sql: &str,
    params: Params<'_>,
) -> Result<Row, Error> {
    query_opt(lease, wanted, sql, params)
        .await?
        .ok_or_else(Error::no_rows)
}

/// Runs a statement and returns how many rows it changed.
pub(crate) async fn execute(
    lease: &mut Lease,
    wanted: Wanted<'_>,
    sql: &str,
    params: Params<'_>,
) -> Result<u64, Error> {
    loop {
        let statement = prepare(lease, wanted, sql).await?;
        let client = lease.client();
        let work = pin!(client.execute_raw(&statement, params.iter().copied()));
        match lease.drive(wanted, Sent::Stoppable, work).await {
            Err(ended) if is_stale(lease, wanted, sql, &ended) => {}
            answer => return answer.map_err(|ended| ended.of(wanted, Step::Running)),
        }
    }
}

/// Runs a script of statements without parameters.
pub(crate) async fn batch_execute(lease: &mut Lease, wanted: Wanted<'_>, script: &str) -> Result<(), Error> {
    let client = lease.client();
    let work = pin!(client.batch_execute(script));
    let answer = lease.drive(wanted, Sent::Stoppable, work).await;
    answer.map_err(|ended| ended.of(wanted, Step::Running))
}

/// Begins a query whose rows are read one by one; the statement stays in flight.
pub(crate) async fn query_stream(
    lease: &mut Lease,
    wanted: Wanted<'_>,
    sql: &str,
    params: Params<'_>,
) -> Result<RowStream, Error> {
    loop {
        let statement = prepare(lease, wanted, sql).await?;
        let client = lease.client();
        let work = pin!(client.query_raw(&statement, params.iter().copied()));
        match lease.send(wanted, Sent::Stoppable, work).await {
            Ok(rows) => return Ok(rows),
            Err(ended) if is_stale(lease, wanted, sql, &ended) => {}
            Err(ended) => return Err(ended.of(wanted, Step::Running)),
        }
    }
}

fn step(reading: &AtomicBool) -> Step {
    if reading.load(Ordering::Relaxed) {
        Step::Reading
    } else {
        Step::Running
    }
}

/// Whether the statement was not run because what it was prepared for has changed. Then it is forgotten, and, outside of
/// a transaction (which has failed by it), may be prepared anew.
///
/// It happens once for a statement: the next one is new.
fn is_stale(lease: &mut Lease, wanted: Wanted<'_>, sql: &str, ended: &Ended) -> bool {
    let Ended::Postgres(error) = ended else {
        return false;
    };
    let Some(answer) = error.as_db_error() else {
        return false;
    };
    let changed = *answer.code() == SqlState::FEATURE_NOT_SUPPORTED
        && answer.routine() == Some("RevalidateCachedQuery");
    let gone = *answer.code() == SqlState::INVALID_SQL_STATEMENT_NAME;
    if changed || gone {
        lease.forget_statement(sql);
    }
    (changed || gone) && wanted.transaction.is_none()
}
