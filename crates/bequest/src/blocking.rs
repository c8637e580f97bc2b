//! Work that blocks a thread, answered early: its caller is free when the context ends, and what runs on is on a list.
//!
//! A thread cannot be stopped from outside. So the work is handed a context to look at, its caller gets the context's error
//! at once, and whoever shuts down asks [`wait`] what the process is still busy with: a runtime that is dropped waits for
//! such threads without a word.
//!
//! # Invariants
//!
//! 1. Work that has not begun when its context ends never begins.
//! 2. What runs is on the list, from before its first line to after its last, however it ends.
//! 3. The list's lock is innermost; nothing foreign runs under it.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::panic::Location;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context as TaskContext, Poll};
use std::time::Instant;

use tokio::sync::Notify;
use tokio::task::{JoinError, JoinHandle};

use crate::group::message;
use crate::{CancelScope, Canceled, Context, DoneOwned};

/// Runs `work` on the runtime's threads for blocking work, and answers when it has finished or `ctx` has ended, whichever
/// comes first.
///
/// `work` is handed a context below `ctx`, which also ends when the returned future is dropped: look at it in every loop
/// (`ctx.check()?`), and wait with it ([`Context::wait_timeout`]). Work that does not look runs on to its end, and nobody
/// gets its result.
///
/// # Errors
///
/// The end of `ctx`, with word on whether the work [still runs](BlockingError::still_running); or that the work panicked,
/// or that the runtime was shut down before it began.
///
/// # Cancel safety
///
/// Dropping the future tells the work, as the end of `ctx` does; work that has not begun never does. A result that nobody
/// has fetched is dropped.
///
/// # Panics
///
/// If called outside a tokio runtime.
///
/// ```
/// use bequest::{Context, spawn_blocking};
///
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let request = Context::background().with_cancel();
/// let sum = spawn_blocking(&request, |ctx| {
///     let mut sum = 0_u64;
///     for number in 0..1000 {
///         ctx.check()?;
///         sum += number;
///     }
///     Ok::<_, bequest::Canceled>(sum)
/// });
/// assert_eq!(sum.await.unwrap().unwrap(), 499_500);
///
/// request.cancel();
/// let error = spawn_blocking(&request, |_| unreachable!("never begins")).await.unwrap_err();
/// assert!(error.canceled().is_some() && !error.still_running());
/// # });
/// ```
#[track_caller]
pub fn spawn_blocking<T: Send + 'static>(
    ctx: &Context,
    work: impl FnOnce(&Context) -> T + Send + 'static,
) -> SpawnBlocking<T> {
    let scope = ctx.with_cancel();
    let (below, begun_at) = (scope.context(), Location::caller());
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let handle = tokio::task::spawn_blocking(move || {
        let _listed = Listed::enter(number, &below, begun_at)?;
        Some(work(&below))
    });
    SpawnBlocking {
        end: scope.context().done_owned(),
        handle,
        number,
        _scope: scope,
    }
}

/// The future of [`spawn_blocking`].
#[must_use = "dropping it tells the work to stop"]
pub struct SpawnBlocking<T> {
    end: DoneOwned,
    handle: JoinHandle<Option<T>>,
    number: u64,
    /// Ends the work's context when this goes.
    _scope: CancelScope,
}

impl<T> SpawnBlocking<T> {
    /// Whether the answer is there, so that awaiting it does not wait.
    pub fn is_finished(&self) -> bool {
        self.handle.is_finished()
    }
}

impl<T> Future for SpawnBlocking<T> {
    type Output = Result<T, BlockingError>;

    fn poll(mut self: Pin<&mut Self>, task: &mut TaskContext<'_>) -> Poll<Self::Output> {
        // Finished work wins.
        let joined = match Pin::new(&mut self.handle).poll(task) {
            Poll::Ready(Ok(Some(output))) => return Poll::Ready(Ok(output)),
            Poll::Ready(Ok(None)) => None,
            Poll::Ready(Err(error)) => Some(BlockingError::of(error)),
            Poll::Pending => match Pin::new(&mut self.end).poll(task) {
                Poll::Ready(end) => {
                    let still_running = list().contains_key(&self.number);
                    return Poll::Ready(Err(BlockingError(Why::Ended { end, still_running })));
                }
                Poll::Pending => return Poll::Pending,
            },
        };
        if let Some(error) = joined {
            return Poll::Ready(Err(error));
        }
        // It did not begin, so its context has ended.
        Pin::new(&mut self.end).poll(task).map(|end| {
            Err(BlockingError(Why::Ended {
                end,
                still_running: false,
            }))
        })
    }
}

impl<T> fmt::Debug for SpawnBlocking<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SpawnBlocking")
            .field("end", &self.end)
            .finish_non_exhaustive()
    }
}

/// Why there is no result of blocking work.
#[derive(Debug)]
pub struct BlockingError(Why);

#[derive(Debug)]
enum Why {
    Ended { end: Canceled, still_running: bool },
    Panicked(String),
    NoRuntime,
}

impl BlockingError {
    fn of(error: JoinError) -> BlockingError {
        BlockingError(match error.try_into_panic() {
            Ok(panic) => Why::Panicked(message(&*panic)),
            Err(_) => Why::NoRuntime,
        })
    }

    /// The end of the context, if that is why.
    pub fn canceled(&self) -> Option<&Canceled> {
        match &self.0 {
            Why::Ended { end, .. } => Some(end),
            Why::Panicked(_) | Why::NoRuntime => None,
        }
    }

    /// Whether the work ran on when this was answered.
    pub fn still_running(&self) -> bool {
        matches!(
            self.0,
            Why::Ended {
                still_running: true,
                ..
            }
        )
    }

    /// What the work panicked with, if it did.
    pub fn panic(&self) -> Option<&str> {
        match &self.0 {
            Why::Panicked(message) => Some(message),
            Why::Ended { .. } | Why::NoRuntime => None,
        }
    }
}

impl fmt::Display for BlockingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Why::Ended {
                end,
                still_running: true,
            } => write!(f, "{end}; the work still runs"),
            Why::Ended { end, .. } => fmt::Display::fmt(end, f),
            Why::Panicked(message) => write!(f, "the blocking work panicked: {message}"),
            Why::NoRuntime => f.write_str("the runtime was shut down before the blocking work began"),
        }
    }
}

impl Error for BlockingError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match &self.0 {
            Why::Ended { end, .. } => Some(end),
            Why::Panicked(_) | Why::NoRuntime => None,
        }
    }
}

/// Work of [`spawn_blocking`] that runs.
#[derive(Clone, Debug)]
pub struct Running {
    context: Context,
    begun_at: &'static Location<'static>,
    since: Instant,
}

impl Running {
    /// The line that called [`spawn_blocking`].
    pub fn begun_at(&self) -> &'static Location<'static> {
        self.begun_at
    }

    /// When it began to run, on the clock of its context.
    pub fn since(&self) -> Instant {
        self.since
    }

    /// The end that it has been told and does not heed; `None` while it is wanted.
    pub fn told(&self) -> Option<Canceled> {
        self.context.err()
    }
}

impl fmt::Display for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "blocking work begun at {}", self.begun_at)?;
        match self.told() {
            Some(end) => write!(f, ", told to stop: {end}"),
            None => Ok(()),
        }
    }
}

/// What runs now, in the order in which it was spawned.
pub fn running() -> Vec<Running> {
    list().values().cloned().collect()
}

/// Waits until no work of [`spawn_blocking`] runs, or `ctx` has ended; answers with what still does.
///
/// For a shutdown: tell the work, wait within a limit, and say what is left before the runtime is dropped.
///
/// # Cancel safety
///
/// Dropping the future withdraws the wait.
///
/// ```
/// use bequest::{Context, blocking, spawn_blocking};
/// use std::time::Duration;
///
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let work = spawn_blocking(&Context::background(), |_| 7);
/// let limit = Context::background().with_timeout(Duration::from_secs(60));
/// for left in blocking::wait(&limit).await {
///     eprintln!("still running: {left}");
/// }
/// assert!(!limit.is_done(), "nothing was left");
/// assert_eq!(work.await.unwrap(), 7);
/// # });
/// ```
pub async fn wait(ctx: &Context) -> Vec<Running> {
    loop {
        // Before the look, so that what goes between the two is seen.
        let gone = GONE.notified();
        let left = running();
        if left.is_empty() || ctx.run(gone).await.is_err() {
            return left;
        }
    }
}

static NEXT: AtomicU64 = AtomicU64::new(0);
static LIST: Mutex<BTreeMap<u64, Running>> = Mutex::new(BTreeMap::new());
static GONE: Notify = Notify::const_new();

fn list() -> MutexGuard<'static, BTreeMap<u64, Running>> {
    LIST.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An entry of the list, for as long as this lives.
struct Listed(u64);

impl Listed {
    /// `None` if the context has ended.
    fn enter(number: u64, context: &Context, begun_at: &'static Location<'static>) -> Option<Listed> {
        let entry = Running {
            context: context.clone(),
            begun_at,
            since: context.now(),
        };
        // Listed before the look: whoever sees the end and does not find the work here knows that it will not begin.
        list().insert(number, entry);
        let listed = Listed(number);
        if context.is_done() { None } else { Some(listed) }
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        let entry = list().remove(&self.0);
        // Outside the lock: the last handle to a context drops values, which are foreign.
        drop(entry);
        GONE.notify_waiters();
    }
}
