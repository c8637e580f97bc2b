//! A place of the pool, with the connection that holds it.

use std::sync::Arc;

use tokio::time::Instant;

use super::Pool;
use crate::connection::Connection;
use crate::error::Error;

/// A place that is held. Dropping it closes the connection and frees the place, and somebody who waits has a new
/// connection made.
#[derive(Debug)]
pub(crate) struct Place {
    pool: Arc<Pool>,
    connection: Option<Box<Connection>>,
    phase: Phase,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Its connection is being made.
    Making,
    /// Somebody has its connection, or is about to.
    Held,
    /// Its connection is being made clean.
    Settling,
    /// This is no place any more: its connection was taken, and the place with it.
    Empty,
}

/// Makes a connection for `place` and gives it to whoever waits; or, if that fails, tells one of them.
pub(super) async fn make(mut place: Place) {
    let pool = Arc::clone(&place.pool);
    match Connection::open(&pool.options).await {
        Ok(connection) => {
            {
                let mut state = pool.lock();
                state.numbers.connecting -= 1;
                state.numbers.opened += 1;
            }
            place.phase = Phase::Held;
            place.connection = Some(Box::new(connection));
            pool.put(place);
        }
        Err(error) => place.fail(error),
    }
}

impl Place {
    /// A place whose connection is yet to be made; it has been counted as such.
    pub(super) fn empty(pool: Arc<Pool>) -> Place {
        Place {
            pool,
            connection: None,
            phase: Phase::Making,
        }
    }

    /// The place of `connection`.
    pub(super) fn of(pool: Arc<Pool>, connection: Box<Connection>) -> Place {
        Place {
            pool,
            connection: Some(connection),
            phase: Phase::Held,
        }
    }

    pub(super) fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }

    /// The connection; `None` only before it is made and after it was taken.
    pub(super) fn connection(&mut self) -> Option<&mut Connection> {
        self.connection.as_deref_mut()
    }

    /// The connection together with its place.
    pub(super) fn take_connection(mut self) -> Option<Box<Connection>> {
        if self.phase == Phase::Settling {
            self.pool.lock().numbers.settling -= 1;
        }
        let mut connection = self.connection.take()?;
        self.phase = Phase::Empty;
        connection.last_used = Instant::now();
        Some(connection)
    }

    /// Counts it as being made clean.
    pub(super) fn settling(mut self) -> Place {
        self.pool.lock().numbers.settling += 1;
        self.phase = Phase::Settling;
        self
    }

    /// Tells whoever waits the longest that no connection can be made.
    fn fail(mut self, error: Error) {
        let first = {
            let mut state = self.pool.lock();
            state.numbers.connecting -= 1;
            state.waiting.pop_front()
        };
        self.phase = Phase::Held;
        if let Some((_, waiting)) = first {
            // If they have left, the next one will hear it from the next attempt.
            let _ = waiting.send(Err(error));
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.phase == Phase::Empty {
            return;
        }
        let connection = self.connection.take();
        let expired = connection.as_ref().is_some_and(|connection| {
            !connection.is_closed() && self.phase == Phase::Held && connection.is_old(Instant::now())
        });
        let orphans = {
            let mut state = self.pool.lock();
            state.numbers.connections -= 1;
            state.numbers.expired += u64::from(expired);
            state.numbers.discarded += u64::from(connection.is_some() && !expired);
            match self.phase {
                Phase::Settling => state.numbers.settling -= 1,
                Phase::Making => state.numbers.connecting -= 1,
                Phase::Held | Phase::Empty => {}
            }
            if self.phase == Phase::Making {
                // Dropped before its end: the runtime is going down, and nobody will ever make another.
                state.closed = true;
                std::mem::take(&mut state.waiting)
            } else {
                Default::default()
            }
        };
        match connection {
            Some(connection) if expired => connection.retire(),
            closed => drop(closed),
        }
        for (_, waiting) in orphans {
            let _ = waiting.send(Err(Error::closed()));
        }
        self.pool.emptied.notify_waiters();
        self.pool.grow();
    }
}
