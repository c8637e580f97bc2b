//! One caller's way to a connection, which fails when the connection has ended.
//!
//! The driver's own handle does not quite: a request that enters its queue at the very instant at which the driver
//! leaves is answered by nobody, as long as a handle is alive. So each handle leaves its waker with the connection, and
//! looks for the end itself.
//!
//! # Invariants
//!
//! 1. The end is marked after the driver has been dropped, and with it every answer that will ever come: a request that is
//!    not ready at a look *after* the mark will never be. (Or we close the connection, and want none of its answers.)
//! 2. A waker is left before the mark is looked at, and the mark is set before the wakers are taken: one of the two
//!    sees the other.
//! 3. Wakers are woken and dropped outside the locks.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context as TaskContext, Poll, Waker};

use redis::aio::MultiplexedConnection;
use redis::{RedisError, RedisResult, Value};

use crate::connection::Connection;
use crate::shared::Request;

/// A handle for one request at a time.
#[derive(Debug)]
pub(crate) struct Handle {
    connection: Connection,
    driver: MultiplexedConnection,
    waker: Arc<Mutex<Option<Waker>>>,
}

/// Whether a connection has ended, and who wants to know.
#[derive(Debug, Default)]
pub(crate) struct End {
    is_marked: AtomicBool,
    /// Guarded by its lock; those of dropped handles are removed as others are made.
    wakers: Mutex<Vec<Weak<Mutex<Option<Waker>>>>>,
}

impl Handle {
    pub(crate) fn to(connection: Connection) -> Handle {
        let waker = Arc::default();
        connection.end().register(&waker);
        Handle {
            driver: connection.driver(),
            connection,
            waker,
        }
    }

    pub(crate) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Sends `request` and waits for its reply or for the end of the connection.
    pub(crate) async fn send(&mut self, request: &Request<'_>) -> RedisResult<Value> {
        let Handle {
            connection,
            driver,
            waker,
        } = self;
        let mut sending = pin!(request.send(driver));
        poll_fn(|task| {
            if let Poll::Ready(reply) = sending.as_mut().poll(task) {
                return Poll::Ready(reply);
            }
            listen(waker, task);
            if !connection.is_ended() {
                return Poll::Pending;
            }
            match sending.as_mut().poll(task) {
                Poll::Pending => Poll::Ready(Err(ended())),
                ready @ Poll::Ready(_) => ready,
            }
        })
        .await
    }
}

impl End {
    pub(crate) fn is_marked(&self) -> bool {
        // Acquire: pairs with the Release in `mark`; the answers that the driver dropped before are seen as dropped.
        self.is_marked.load(Ordering::Acquire)
    }

    /// Marks the end, and wakes all who wait.
    pub(crate) fn mark(&self) {
        self.is_marked.store(true, Ordering::Release);
        let wakers = std::mem::take(&mut *lock(&self.wakers));
        for place in wakers.iter().filter_map(Weak::upgrade) {
            // The lock of `place` orders this after a `listen` that came before, or the mark before a later one's look.
            let waker = lock(&place).take();
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }

    fn register(&self, waker: &Arc<Mutex<Option<Waker>>>) {
        let mut wakers = lock(&self.wakers);
        if wakers.len() == wakers.capacity() {
            wakers.retain(|waker| waker.strong_count() > 0);
        }
        wakers.push(Arc::downgrade(waker));
    }
}

fn listen(place: &Mutex<Option<Waker>>, task: &TaskContext<'_>) {
    let is_there = lock(place)
        .as_ref()
        .is_some_and(|waker| waker.will_wake(task.waker()));
    if !is_there {
        let mine = task.waker().clone();
        let old = lock(place).replace(mine);
        drop(old);
    }
}

fn ended() -> RedisError {
    std::io::Error::from(std::io::ErrorKind::BrokenPipe).into()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
