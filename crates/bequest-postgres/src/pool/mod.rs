//! Who has which connection, who waits for one, and what becomes of one that is given back.
//!
//! What lives here: the places of the pool, the queue for them, making connections, and handing them on. `lease` has what a
//! user holds; `settle` what happens to a connection that was given up half-way.
//!
//! # Invariants
//!
//! 1. A place is held by exactly one of: a connection being made, an idle one, a leased one, one that is settled. It is
//!    freed by the end of that connection, by whatever way (`Place` is a guard).
//! 2. Who waits is served first in, first out: nobody is given an idle connection while somebody waits.
//! 3. While somebody waits and a place is free, a connection is being made.
//! 4. Making a connection is nobody's own: if the one who asked for it leaves, it is given to the next, or kept.
//! 5. Nothing foreign runs under the lock: nobody is woken, no connection dropped.

mod lease;
mod place;
mod settle;
mod wait;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bequest::Context;
use tokio::runtime::Handle;
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;
use tokio::time::Instant;

pub(crate) use lease::{Ended, Lease, Sent, Wanted};
use place::Place;
use wait::Waiting;

use crate::cancel::{Cancels, NotCanceled};
use crate::connection::{Connection, Target};
use crate::error::{Error, Step};
use crate::options::Options;
use crate::statistics::Statistics;

/// A pool of connections to one server.
#[derive(Debug)]
pub(crate) struct Pool {
    pub(crate) options: Options,
    pub(crate) runtime: Handle,
    pub(crate) cancels: Arc<Cancels>,
    state: Mutex<State>,
    /// Told when a place has been freed in a closed pool.
    emptied: Notify,
}

/// Guarded by `Pool::state`.
#[derive(Debug, Default)]
struct State {
    closed: bool,
    /// The one used last is at the end, and used next: so that the others can grow old.
    #[expect(
        clippy::vec_box,
        reason = "it moves in and out at every call, and a pointer moves quicker"
    )]
    idle: Vec<Box<Connection>>,
    /// In the order in which they came; numbers grow.
    waiting: VecDeque<(u64, oneshot::Sender<Result<Lease, Error>>)>,
    /// The number of the latest who waited.
    number: u64,
    /// `idle`, `in_use`, `waiting` and what the requests count are filled in when asked for.
    numbers: Statistics,
}

impl Pool {
    pub(crate) fn new(options: Options) -> Arc<Pool> {
        Arc::new(Pool {
            cancels: Arc::new(Cancels::new(options.cancels)),
            options,
            runtime: Handle::current(),
            state: Mutex::default(),
            emptied: Notify::new(),
        })
    }

    /// A connection for whoever holds `ctx`, as soon as it is their turn.
    pub(crate) async fn acquire(self: &Arc<Self>, ctx: &Context) -> Result<Lease, Error> {
        ctx.check()
            .map_err(|end| Error::canceled_at(Step::Waiting, end))?;
        loop {
            let mut lease = match self.take()? {
                Ok(lease) => lease,
                Err(waiting) => waiting.wait(ctx).await?,
            };
            if lease.is_sound(ctx).await? {
                return Ok(lease);
            }
        }
    }

    /// Refuses who comes and who waits, and waits until those who have a connection have given it back.
    pub(crate) async fn close(&self, ctx: &Context) -> Result<(), Error> {
        let (idle, waiting) = {
            let mut state = self.lock();
            state.closed = true;
            state.numbers.connections -= state.idle.len();
            (
                std::mem::take(&mut state.idle),
                std::mem::take(&mut state.waiting),
            )
        };
        idle.into_iter().for_each(|connection| connection.retire());
        for (_, waiting) in waiting {
            // Whoever has left need not be told.
            let _ = waiting.send(Err(Error::closed()));
        }
        loop {
            let emptied = self.emptied.notified();
            if self.lock().numbers.connections == 0 {
                return Ok(());
            }
            ctx.run(emptied)
                .await
                .map_err(|end| Error::canceled_at(Step::Closing, end))?;
        }
    }

    pub(crate) fn statistics(&self) -> Statistics {
        let (cancels, most_cancels, cancels_sent) = self.cancels.numbers();
        let state = self.lock();
        let numbers = state.numbers;
        Statistics {
            idle: state.idle.len(),
            in_use: numbers.connections - state.idle.len() - numbers.settling - numbers.connecting,
            waiting: state.waiting.len(),
            cancels,
            most_cancels,
            cancels_sent,
            ..numbers
        }
    }

    /// An idle connection, or a place in the queue.
    fn take(self: &Arc<Self>) -> Result<Result<Lease, Waiting>, Error> {
        let mut useless = Vec::new();
        let now = Instant::now();
        let mut state = self.lock();
        if state.closed {
            return Err(Error::closed());
        }
        while state.waiting.is_empty() {
            let Some(connection) = state.idle.pop() else { break };
            if is_useful(&connection, now) {
                drop(state);
                let idle = now - connection.last_used;
                let place = Place::of(Arc::clone(self), connection);
                return Ok(Ok(Lease::new(place).idle_for(idle)));
            }
            useless.push(connection);
        }
        let (sender, receiver) = oneshot::channel();
        state.number += 1;
        let number = state.number;
        state.waiting.push_back((number, sender));
        drop(state);
        for connection in useless {
            drop(Place::of(Arc::clone(self), connection));
        }
        let connecting = self.grow();
        Ok(Err(Waiting::new(Arc::clone(self), number, receiver, connecting)))
    }

    /// Makes as many connections as there are waiting who are not yet cared for, if there is room. Whether one is made.
    fn grow(self: &Arc<Self>) -> bool {
        let mut made = 0;
        {
            let mut state = self.lock();
            let numbers = state.numbers;
            if !state.closed {
                let missing = state.waiting.len().saturating_sub(numbers.connecting);
                made = missing.min(self.options.connections - numbers.connections);
                state.numbers.connections += made;
                state.numbers.connecting += made;
            }
        }
        for _ in 0..made {
            self.runtime.spawn(place::make(Place::empty(Arc::clone(self))));
        }
        made > 0
    }

    /// Gives a clean connection to whoever waits the longest, or keeps it.
    fn put(self: &Arc<Self>, mut place: Place) {
        loop {
            let Some(connection) = place.take_connection() else {
                return;
            };
            let mut state = self.lock();
            if state.closed || !is_useful(&connection, connection.last_used) {
                drop(state);
                return drop(Place::of(Arc::clone(self), connection));
            }
            let Some((_, waiting)) = state.waiting.pop_front() else {
                return state.idle.push(connection);
            };
            drop(state);
            match waiting.send(Ok(Lease::new(Place::of(Arc::clone(self), connection)))) {
                Ok(()) => return,
                Err(Ok(lease)) => place = lease.into_place(),
                Err(Err(_)) => return,
            }
        }
    }

    /// Cancels what runs on `target`, in the background.
    fn request_cancel(&self, target: Target) -> JoinHandle<Result<Duration, NotCanceled>> {
        let cancels = Arc::clone(&self.cancels);
        self.runtime.spawn(cancels.request(self.options.clone(), target))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_useful(connection: &Connection, now: Instant) -> bool {
    !connection.is_closed() && !connection.is_old(now)
}
