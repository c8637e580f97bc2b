//! One flight per key: whoever asks for what is being asked for already, waits for that answer.
//!
//! A flight belongs to nobody in particular. It runs in a task and under a context of its own; those who wait for it do
//! so under theirs. One of them leaving disturbs nobody; when the last has left, the flight is cancelled, if it may be.
//!
//! # Invariants
//!
//! 1. A flight is in the table as long as it may be joined: it is taken out before it answers, so nobody is answered by
//!    a flight that had answered before they asked.
//! 2. A flight that is cancelled for want of waiters is taken out in the same step, so nobody joins it.
//! 3. Contexts are cancelled and answers are sent outside the table's lock.

use std::collections::HashMap;
use std::future::Future;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bequest::{Canceled, Canceller, Context};
use tokio::sync::watch;

/// The flights of one kind.
#[derive(Debug)]
pub(crate) struct Flights<K: Eq + Hash, T> {
    table: Arc<Mutex<Table<K, T>>>,
}

/// What the table's lock guards.
#[derive(Debug)]
struct Table<K, T> {
    flying: HashMap<K, Flight<T>>,
    last: u64,
}

#[derive(Debug)]
struct Flight<T> {
    number: u64,
    waiters: usize,
    /// `None`: it goes on though nobody waits.
    canceller: Option<Canceller>,
    answer: watch::Receiver<Option<T>>,
}

/// A place on a flight. Dropping it is leaving.
#[derive(Debug)]
pub(crate) struct Waiter<K: Eq + Hash, T> {
    table: Arc<Mutex<Table<K, T>>>,
    key: K,
    number: u64,
    answer: watch::Receiver<Option<T>>,
}

/// An instant among the flights: those with a higher number were set off after it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mark(u64);

/// Lands a flight, also when its task is dropped or panics.
struct Landing<K: Eq + Hash, T> {
    table: Arc<Mutex<Table<K, T>>>,
    key: K,
    number: u64,
    answer: watch::Sender<Option<T>>,
}

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum NoAnswer {
    /// The waiter's own context ended.
    Ended(Canceled),
    /// The flight's task panicked, or went down with its runtime.
    Crashed,
}

/// Nobody waits for it any more: the cause of a flight's end.
#[derive(Debug)]
pub(crate) struct Abandoned;

impl Mark {
    /// Before the first flight.
    pub(crate) const BEGINNING: Mark = Mark(0);
}

impl<K, T> Flights<K, T>
where
    K: Clone + Eq + Hash + Send + 'static,
    T: Clone + Send + Sync + 'static,
{
    pub(crate) fn new() -> Flights<K, T> {
        Flights {
            table: Arc::new(Mutex::new(Table {
                flying: HashMap::new(),
                last: 0,
            })),
        }
    }

    /// This instant.
    pub(crate) fn mark(&self) -> Mark {
        Mark(lock(&self.table).last)
    }

    /// Joins the flight for `key`, if it was set off after `since`: whoever has to know what holds now is not answered with
    /// what was asked before. If there is none, `start` makes its work and what cancels it, and `spawn` sets it off. A
    /// flight without a canceller goes on, and may be joined, though all who waited have left.
    pub(crate) fn join<W>(
        &self,
        key: K,
        since: Mark,
        start: impl FnOnce() -> (Option<Canceller>, W),
        spawn: impl FnOnce(std::pin::Pin<Box<dyn Future<Output = ()> + Send>>),
    ) -> Waiter<K, T>
    where
        W: Future<Output = T> + Send + 'static,
    {
        let mut table = lock(&self.table);
        if let Some(flight) = table
            .flying
            .get_mut(&key)
            .filter(|flight| flight.number > since.0)
        {
            flight.waiters += 1;
            return self.waiter(key, flight.number, flight.answer.clone());
        }
        let (canceller, work) = start();
        let (send, answer) = watch::channel(None);
        table.last += 1;
        let number = table.last;
        let flight = Flight {
            number,
            waiters: 1,
            canceller,
            answer: answer.clone(),
        };
        // Those on an older one are answered by it.
        let older = table.flying.insert(key.clone(), flight);
        drop(table);
        drop(older);
        let landing = Landing {
            table: Arc::clone(&self.table),
            key: key.clone(),
            number,
            answer: send,
        };
        let waiter = self.waiter(key, number, answer);
        spawn(Box::pin(async move {
            let answer = work.await;
            landing.land(answer);
        }));
        waiter
    }

    /// Lets nobody join the present flight for `key` any more. Those on it are answered by it.
    pub(crate) fn forget(&self, key: &K) {
        let flight = lock(&self.table).flying.remove(key);
        drop(flight);
    }

    /// How many flights may be joined.
    pub(crate) fn len(&self) -> usize {
        lock(&self.table).flying.len()
    }

    fn waiter(&self, key: K, number: u64, answer: watch::Receiver<Option<T>>) -> Waiter<K, T> {
        Waiter {
            table: Arc::clone(&self.table),
            key,
            number,
            answer,
        }
    }
}

impl<K: Eq + Hash, T: Clone> Waiter<K, T> {
    /// Waits for the flight's answer under `ctx`.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future is leaving the flight.
    pub(crate) async fn wait(mut self, ctx: &Context) -> Result<T, NoAnswer> {
        let landed = ctx.run(self.answer.wait_for(Option::is_some)).await;
        match landed.map_err(NoAnswer::Ended)? {
            Ok(answer) => answer.clone().ok_or(NoAnswer::Crashed),
            Err(_) => Err(NoAnswer::Crashed),
        }
    }
}

impl<K: Eq + Hash, T> Drop for Waiter<K, T> {
    fn drop(&mut self) {
        let mut table = lock(&self.table);
        let Some(flight) = table
            .flying
            .get_mut(&self.key)
            .filter(|flight| flight.number == self.number)
        else {
            return;
        };
        flight.waiters -= 1;
        if flight.waiters > 0 || flight.canceller.is_none() {
            return;
        }
        let flight = table.flying.remove(&self.key);
        drop(table);
        if let Some(canceller) = flight.and_then(|flight| flight.canceller) {
            canceller.cancel_with(Abandoned);
        }
    }
}

impl<K: Eq + Hash, T> Landing<K, T> {
    fn land(self, answer: T) {
        self.take_out();
        self.answer.send_replace(Some(answer));
    }

    fn take_out(&self) {
        let mut table = lock(&self.table);
        let is_mine = table
            .flying
            .get(&self.key)
            .is_some_and(|flight| flight.number == self.number);
        let flight = if is_mine {
            table.flying.remove(&self.key)
        } else {
            None
        };
        drop(table);
        drop(flight);
    }
}

impl<K: Eq + Hash, T> Drop for Landing<K, T> {
    fn drop(&mut self) {
        self.take_out();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What runs under it is map work and the making of a context: it is whole even after a panic.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl std::fmt::Display for Abandoned {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("nobody waits for it any more")
    }
}

impl std::error::Error for Abandoned {}
