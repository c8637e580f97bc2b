//! The suite for stores, applied to a store in memory: the sound one passes, and each fault is found by the clause
//! that is about it.

use std::error;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bequest::{Canceled, Context};
use bequest_test::conformance::{self, Hosted, LongTransactions, Pooled, Store, Streaming, Transactional};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

bequest_test::conformance! { Memory<SOUND>: base, pool, transactions, long_transactions, rows, server }

/// What is wrong with a store.
type Fault = u8;

const SOUND: Fault = 0;
/// The work of a dropped call runs on, in a task.
const RUNS_ON: Fault = 1;
/// A connection is given back by hand, which a dropped call does not.
const LOSES_CONNECTIONS: Fault = 2;
/// The wait for a connection does not end with the context.
const WAITS_DEAF: Fault = 3;
/// A call that ended with its context says something else.
const HIDES_THE_END: Fault = 4;
/// A row is written although the transaction is refused.
const WRITES_THE_REFUSED: Fault = 5;
/// A transaction that is dropped is not rolled back.
const KEEPS_HALF: Fault = 6;
/// Rows that were cut off pass for all of them.
const CUTS_SILENTLY: Fault = 7;
/// A call waits for a frozen server for ever.
const FREEZES_ALONG: Fault = 8;
/// A connection that was broken once stays so.
const STAYS_BROKEN: Fault = 9;

/// A table behind a pool of one connection.
struct Memory<const FAULT: Fault> {
    pool: Arc<Semaphore>,
    running: Arc<AtomicUsize>,
    waiting: Arc<AtomicUsize>,
    rows: Mutex<Vec<u64>>,
    is_frozen: AtomicBool,
    is_dead: AtomicBool,
    server: Notify,
}

#[derive(Debug)]
enum Error {
    Ended(Canceled),
    Broken,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Ended(end) => write!(f, "{end}"),
            Error::Broken => f.write_str("the connection broke"),
        }
    }
}

impl error::Error for Error {}

/// One more, until it is dropped.
struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn on(counter: &Arc<AtomicUsize>) -> Counted {
        counter.fetch_add(1, Ordering::SeqCst);
        Counted(Arc::clone(counter))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A row that is taken back unless it is kept.
struct Uncommitted<'a, const FAULT: Fault> {
    store: &'a Memory<FAULT>,
    key: u64,
    is_kept: bool,
}

impl<const FAULT: Fault> Drop for Uncommitted<'_, FAULT> {
    fn drop(&mut self) {
        if !self.is_kept && FAULT != KEEPS_HALF {
            self.store.rows.lock().unwrap().retain(|row| *row != self.key);
        }
    }
}

impl<const FAULT: Fault> Memory<FAULT> {
    async fn connection(&self, ctx: &Context) -> Result<OwnedSemaphorePermit, Error> {
        ctx.check().map_err(Error::Ended)?;
        let _waiting = Counted::on(&self.waiting);
        let free = Arc::clone(&self.pool).acquire_owned();
        match FAULT {
            WAITS_DEAF => Ok(free.await.unwrap()),
            _ => Ok(ctx.run(free).await.map_err(Error::Ended)?.unwrap()),
        }
    }

    /// Waits for the end of the context or of the server.
    async fn work(&self, ctx: &Context) -> Result<(), Error> {
        let _running = Counted::on(&self.running);
        match ctx.run(self.death()).await {
            Ok(()) => Err(Error::Broken),
            Err(_) if FAULT == HIDES_THE_END => Err(Error::Broken),
            Err(end) => Err(Error::Ended(end)),
        }
    }

    async fn death(&self) {
        self.until(|| self.is_dead.load(Ordering::SeqCst)).await;
    }

    async fn until(&self, condition: impl Fn() -> bool) {
        loop {
            let mut changed = std::pin::pin!(self.server.notified());
            changed.as_mut().enable();
            if condition() {
                return;
            }
            changed.await;
        }
    }

    fn turn(&self, switch: &AtomicBool, on: bool) {
        switch.store(on, Ordering::SeqCst);
        self.server.notify_waiters();
    }

    fn begin(&self, key: u64) -> Uncommitted<'_, FAULT> {
        self.rows.lock().unwrap().push(key);
        Uncommitted {
            store: self,
            key,
            is_kept: false,
        }
    }
}

impl<const FAULT: Fault> Store for Memory<FAULT> {
    type Error = Error;

    const PATIENCE: Duration = match FAULT {
        SOUND => Duration::from_secs(20),
        _ => Duration::from_millis(300), // it is expected to hang
    };

    async fn open() -> Option<Self> {
        Some(Memory {
            pool: Arc::new(Semaphore::new(1)),
            running: Arc::default(),
            waiting: Arc::default(),
            rows: Mutex::default(),
            is_frozen: AtomicBool::new(false),
            is_dead: AtomicBool::new(false),
            server: Notify::new(),
        })
    }

    async fn quick(&self, ctx: &Context) -> Result<(), Error> {
        let _connection = self.connection(ctx).await?;
        let answer = async {
            tokio::task::yield_now().await;
            self.until(|| !self.is_frozen.load(Ordering::SeqCst)).await;
        };
        match FAULT {
            FREEZES_ALONG => answer.await,
            _ => ctx.run(answer).await.map_err(Error::Ended)?,
        }
        match self.is_dead.load(Ordering::SeqCst) {
            true => Err(Error::Broken),
            false => Ok(()),
        }
    }

    async fn slow(&self, ctx: &Context) -> Result<(), Error> {
        let connection = self.connection(ctx).await?;
        match FAULT {
            RUNS_ON => {
                let (running, server) = (Counted::on(&self.running), ctx.without_cancel());
                tokio::spawn(async move {
                    server.done().await;
                    drop((connection, running));
                });
                Err(Error::Ended(ctx.done().await))
            }
            LOSES_CONNECTIONS => {
                connection.forget();
                let answer = self.work(ctx).await;
                self.pool.add_permits(1);
                answer
            }
            _ => self.work(ctx).await,
        }
    }

    async fn running(&self) -> usize {
        self.running.load(Ordering::SeqCst)
    }

    fn end(error: &Error) -> Option<&Canceled> {
        match error {
            Error::Ended(end) => Some(end),
            Error::Broken => None,
        }
    }

    async fn whole(&self) -> Result<(), String> {
        match self.pool.available_permits() {
            1 => Ok(()),
            other => Err(format!("{other} connections are free")),
        }
    }
}

impl<const FAULT: Fault> Pooled for Memory<FAULT> {
    fn waiting(&self) -> usize {
        self.waiting.load(Ordering::SeqCst)
    }
}

impl<const FAULT: Fault> Transactional for Memory<FAULT> {
    async fn write(
        &self,
        ctx: &Context,
        key: u64,
        before_commit: impl FnOnce() + Send + 'static,
    ) -> Result<(), Error> {
        let _connection = self.connection(ctx).await?;
        let mut row = self.begin(key);
        ctx.run(tokio::task::yield_now()).await.map_err(Error::Ended)?;
        before_commit();
        row.is_kept = FAULT == WRITES_THE_REFUSED;
        ctx.check().map_err(Error::Ended)?;
        row.is_kept = true;
        Ok(())
    }

    async fn count(&self, key: u64) -> usize {
        self.rows
            .lock()
            .unwrap()
            .iter()
            .filter(|row| **row == key)
            .count()
    }

    fn is_in_doubt(_error: &Error) -> bool {
        false
    }
}

impl<const FAULT: Fault> LongTransactions for Memory<FAULT> {
    async fn write_slowly(&self, ctx: &Context, key: u64) -> Result<(), Error> {
        let _connection = self.connection(ctx).await?;
        let _row = self.begin(key);
        self.work(ctx).await
    }
}

impl<const FAULT: Fault> Streaming for Memory<FAULT> {
    async fn read(&self, ctx: &Context, mut on_row: impl FnMut(u64) + Send + 'static) -> Result<(), Error> {
        let _connection = self.connection(ctx).await?;
        for row in 1.. {
            on_row(row);
            match ctx.run(tokio::task::yield_now()).await {
                Ok(()) => {}
                Err(_) if FAULT == CUTS_SILENTLY => break,
                Err(end) => return Err(Error::Ended(end)),
            }
        }
        Ok(())
    }
}

impl<const FAULT: Fault> Hosted for Memory<FAULT> {
    fn freeze(&self) {
        self.turn(&self.is_frozen, true);
    }

    fn thaw(&self) {
        self.turn(&self.is_frozen, false);
    }

    fn kill(&self) {
        self.turn(&self.is_dead, true);
    }

    fn restart(&self) {
        self.turn(&self.is_dead, FAULT == STAYS_BROKEN);
    }
}

/// The store with this fault.
async fn with<const FAULT: Fault>() -> Memory<FAULT> {
    Memory::open().await.unwrap()
}

#[tokio::test]
#[should_panic(expected = "never: 0 slow calls run")]
async fn control_work_that_runs_on_after_a_drop_is_found() {
    conformance::running_and_dropped(&with::<RUNS_ON>().await).await;
}

#[tokio::test]
#[should_panic(expected = "never: 0 slow calls run")]
async fn control_work_that_runs_on_after_a_cancel_is_found() {
    conformance::running_and_cancelled(&with::<RUNS_ON>().await).await;
}

#[tokio::test]
#[should_panic(expected = "0 connections are free")]
async fn control_a_lost_connection_is_found() {
    conformance::running_and_dropped(&with::<LOSES_CONNECTIONS>().await).await;
}

#[tokio::test]
#[should_panic(expected = "0 connections are free")]
async fn control_a_lost_connection_is_found_by_its_place() {
    conformance::ended_at_each_await_of_a_slow_call(&with::<LOSES_CONNECTIONS>().await).await;
}

#[tokio::test]
#[should_panic(expected = "it hangs: a call beside a slow one")]
async fn control_a_deaf_wait_for_a_connection_is_found() {
    conformance::waiting_and_cancelled(&with::<WAITS_DEAF>().await).await;
}

#[tokio::test]
#[should_panic(expected = "something else than its context: the connection broke")]
async fn control_a_hidden_end_is_found() {
    conformance::running_at_the_deadline(&with::<HIDES_THE_END>().await).await;
}

#[tokio::test]
#[should_panic(expected = "it was refused")]
async fn control_a_refused_row_that_is_written_is_found_at_the_commit() {
    conformance::transaction_ended_at_the_commit(&with::<WRITES_THE_REFUSED>().await).await;
}

#[tokio::test]
#[should_panic(expected = "cancel at place 1")]
async fn control_half_a_transaction_is_found_by_its_place() {
    let store = with::<KEEPS_HALF>().await;
    conformance::transaction_ended_at_each_await(&store).await;
}

#[tokio::test]
#[should_panic(expected = "half of a transaction was written")]
async fn control_a_transaction_without_a_rollback_is_found() {
    conformance::in_a_transaction_and_dropped(&with::<KEEPS_HALF>().await).await;
}

#[tokio::test]
#[should_panic(expected = "succeeded, although it cannot have")]
async fn control_a_cut_result_is_found() {
    conformance::reading_and_cancelled(&with::<CUTS_SILENTLY>().await).await;
}

#[tokio::test]
#[should_panic(expected = "it hangs: a call to a frozen server")]
async fn control_a_call_that_freezes_along_is_found() {
    conformance::frozen(&with::<FREEZES_ALONG>().await).await;
}

#[tokio::test]
#[should_panic(expected = "never: the store recovers: the connection broke")]
async fn control_a_store_that_stays_broken_is_found() {
    conformance::killed_and_restarted(&with::<STAYS_BROKEN>().await).await;
}
