//! Bringing a connection that was given up half-way back to a known state, or throwing it away.
//!
//! # The order of things
//!
//! 1. What is in flight is cancelled, by a request that is read to its end.
//! 2. A question is sent behind it, on the connection itself. Its answer proves that what was in flight has ended. If it
//!    does not come, the cancel was too early (it overtook the statement), and another is sent.
//! 3. Only then, when no cancel can arrive any more, an open transaction is rolled back: a cancel that hit the
//!    `ROLLBACK` would leave it open.
//! 4. The server says that no transaction is open, or the connection is closed.
//!
//! A `COPY` that comes in has been failed by the end of its data, and is cancelled only if that does not end it. When it
//! has ended, one more question finds out whether the driver still counts the answers right.
//!
//! All of it within one limit, and with the place in the pool held.

use std::pin::pin;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use super::lease::{Flight, Sent, is_in_step};
use super::place::Place;
use crate::cancel::NotCanceled;
use crate::connection::{Connection, Status};
use crate::pool::Pool;

/// How long the first cancel has for its effect, on top of the time that it was on its way, before the next is sent. It doubles
/// with each.
const FIRST_PAUSE: Duration = Duration::from_millis(4);
/// How long a `COPY` has to fail by itself.
const COPY_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// The connection is not to be used again.
struct Spoilt;

/// Settles the connection of `place`, given up at `since`, and gives it back. Dropping the place closes the connection.
pub(super) async fn settle(mut place: Place, flight: Flight, since: Instant) {
    let pool = place.pool().clone();
    let Some(connection) = place.connection() else {
        return;
    };
    let clean = timeout(pool.options.settle_limit, clean(&pool, connection, flight)).await;
    if let Ok(Ok(())) = clean {
        {
            let mut state = pool.lock();
            state.numbers.settled += 1;
            state.numbers.last_settled = Some(since.elapsed());
        }
        pool.put(place);
    }
}

async fn clean(pool: &Pool, connection: &Connection, flight: Flight) -> Result<(), Spoilt> {
    if flight.spoilt {
        if flight.sent.is_some() {
            cancel(pool, connection, flight.cancel).await?;
        }
        return Err(Spoilt);
    }
    let uncounted = flight.uncounted;
    let canceled = end(pool, connection, flight).await?;
    if uncounted && !is_in_step(&connection.client).await.map_err(|_| Spoilt)? {
        return Err(Spoilt);
    }
    if canceled && pool.options.discard_after_cancel {
        return Err(Spoilt);
    }
    if connection.status() != Status::Idle {
        let rolled_back = connection.client.batch_execute("ROLLBACK").await;
        rolled_back.map_err(|_| Spoilt)?;
    }
    match connection.status() {
        Status::Idle => Ok(()),
        Status::Transaction | Status::Failed | Status::Unknown => Err(Spoilt),
    }
}

/// Waits for the end of what is in flight, cancelling it until it has ended. Whether it has been cancelled.
async fn end(pool: &Pool, connection: &Connection, flight: Flight) -> Result<bool, Spoilt> {
    let (stoppable, copies) = (flight.is_stoppable(), flight.sent == Some(Sent::CopyIn));
    let mut ended = pin!(async {
        if let Some(preparing) = flight.preparing {
            // Whatever came of it, it sends nothing more.
            let _ = preparing.await;
        }
        connection.client.check_connection().await
    });
    let mut canceled = stoppable || flight.cancel.is_some();
    let mut pause = COPY_PAUSE;
    if canceled {
        pause = FIRST_PAUSE + cancel(pool, connection, flight.cancel).await?;
    }
    if !stoppable && !copies {
        return ended.await.map(|()| canceled).map_err(|_| Spoilt);
    }
    loop {
        if let Ok(answer) = timeout(pause, ended.as_mut()).await {
            return answer.map(|()| canceled).map_err(|_| Spoilt);
        }
        cancel(pool, connection, None).await?;
        canceled = true;
        pause = LONGEST_PAUSE.min(pause * 2);
    }
}

/// Cancels, unless it was `begun` already, and waits until no effect of it can come any more: how long it was on its way.
async fn cancel(
    pool: &Pool,
    connection: &Connection,
    begun: Option<JoinHandle<Result<Duration, NotCanceled>>>,
) -> Result<Duration, Spoilt> {
    let request = begun.unwrap_or_else(|| pool.request_cancel(connection.target.clone()));
    let requested = request.await.map_err(|_| Spoilt)?;
    requested.map_err(|_| Spoilt)
}
